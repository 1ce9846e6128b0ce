"""What a configuration file may say about money: `prices:`, `budgets:`, `keys:`, `ledger:` and `admin:`.

Amounts are written in US dollars and read as exact decimals; everything behind this file counts integer nano-dollars.
Checks that need only one entry are here, in `__post_init__`, and begin with the field that they are about.
"""

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from gateway.types.secret import Secret

NANO_PER_USD = 1_000_000_000
MAX_NANO_USD = 10**15
"""The most that one attempt is charged or holds, a million dollars: sums of them stay within 64 bits."""


class Window(StrEnum):
    """How long a budget counts before it begins anew. `none` never does."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    NONE = "none"


class Enforcement(StrEnum):
    """Whether a budget refuses requests (hard) or only counts and alerts (soft)."""

    HARD = "hard"
    SOFT = "soft"


class WebhookFormat(StrEnum):
    """The body that an alert is sent as."""

    JSON = "json"
    SLACK = "slack"
    PAGERDUTY = "pagerduty"


class PriceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `prices:`: what a model costs here, in USD per million tokens. An explicit 0 is a price.

    Parts that are left out follow their whole: cached and audio input cost as input, reasoning and audio output as
    output. Calls of the vendor's own tools have no whole: left out, they are counted as unpriced.
    """

    model: str
    provider: str | None = None
    """A configured provider's name; None applies to every provider."""
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cache_read_usd_per_mtok: Decimal | None = None
    service_tier: str = ""
    """The vendor's word for a service tier that these prices are for (`priority`, `flex`, `fast`); "" for the standard one."""
    cache_write_usd_per_mtok: Decimal | None = None
    cache_write_1h_usd_per_mtok: Decimal | None = None
    """What is written to live an hour; left out, it costs as other cache writes, and is counted as unpriced."""
    reasoning_usd_per_mtok: Decimal | None = None
    input_audio_usd_per_mtok: Decimal | None = None
    output_audio_usd_per_mtok: Decimal | None = None
    request_usd: Decimal = Decimal(0)
    """A fixed fee of each attempt that the provider answered."""
    web_search_usd: Decimal | None = None
    """A web search of the vendor's own."""
    file_search_usd: Decimal | None = None
    """A search in files that the vendor keeps."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Decimal) and not (value.is_finite() and 0 <= value <= 1_000_000):
                raise ValueError(f"{name} must be between 0 and 1000000 USD")


class ScopeFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which attempts a budget counts: those that match every given part. None at all means global.

    The value `*` gives each value its own count: `{team: "*"}` is a budget of this size for every team.
    """

    team: str | None = None
    key: str | None = None
    route: str | None = None
    provider: str | None = None
    model: str | None = None


class WebhookFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a budget's alerts go. `secret` signs generic and Slack bodies with HMAC-SHA256.

    PagerDuty's `secret` is the integration's routing key, which goes into the body as its API asks.
    """

    url: str
    secret: Secret
    format: WebhookFormat = WebhookFormat.JSON

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError("url must begin with https:// or http://")
        if not self.secret.reveal().strip():
            raise ValueError("secret is empty; an alert is never sent unsigned")


class BudgetFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `budgets:`: a limit on spend in a scope and a window."""

    name: str
    amount_usd: Decimal
    scope: ScopeFile = ScopeFile()
    window: Window = Window.MONTH
    zone: str = "UTC"
    """An IANA time zone: windows begin at this zone's midnight, daylight saving included."""
    enforcement: Enforcement = Enforcement.HARD
    thresholds: tuple[Decimal, ...] = (Decimal("0.5"), Decimal("0.8"), Decimal(1))
    """Shares of the amount at which an alert is sent, each once a window."""
    webhooks: tuple[WebhookFile, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty")
        if not (self.amount_usd.is_finite() and 0 <= self.amount_usd <= 1_000_000_000):
            raise ValueError("amount_usd must be between 0 and 1000000000")
        if any(not (t.is_finite() and 0 < t <= 100) for t in self.thresholds):
            raise ValueError("thresholds must be above 0 and at most 100; 0.8 means 80 %")
        if len(set(self.thresholds)) != len(self.thresholds):
            raise ValueError("thresholds has the same share twice")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone '{self.zone}' is no IANA time zone such as Europe/Berlin") from None


class KeyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `keys:`: a gateway key that the file itself holds (`gateway keys create` stores others).

    `secret` is the whole key, `gwk_<id>_<secret>`, best as $NAME.
    """

    secret: Secret
    team: str = "default"
    routes: tuple[str, ...] = ()
    """Routes that the key may use; empty for all."""
    expires: str | None = None
    """An ISO 8601 instant with its offset, such as 2027-01-31T00:00:00+00:00."""
    calls_per_minute: int | None = None


class LedgerFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ledger:`, where spend is kept and how carefully.

    `path` is SQLite's file; `postgres` (a connection string, best as $NAME) replaces it where several nodes share one
    ledger. Without either, the ledger stands beside the configuration.
    """

    path: str | None = None
    postgres: Secret | None = None
    node: str = "gateway"
    """Names this node among those that share a PostgreSQL ledger."""
    default_output_tokens: int = 16_384
    """What a request under a hard budget may generate when it names no limit; sent upstream as its limit."""
    max_output_tokens: int = 131_072
    """The most that one choice of a request under a hard budget may generate, whatever it asks for."""
    default_tool_calls: int = 5
    """How often each of a vendor's own tools may run for a request under a hard budget that does not say; sent upstream."""
    max_pending: int = 100_000
    """Charges that may wait for their commit before new requests are refused."""

    def __post_init__(self) -> None:
        for name in ("default_output_tokens", "max_output_tokens", "default_tool_calls", "max_pending"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.path is not None and not Path(self.path).name:
            raise ValueError(f"path is '{self.path}', which names no file")


class AdminFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`admin:`, the administrators' listener. Without a token it refuses everything."""

    host: str = "127.0.0.1"
    port: int = 5001
    token: Secret | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65_536:
            raise ValueError(f"port is {self.port}; it must be at most 65535")


class Money(Struct, frozen=True, kw_only=True):
    """Everything that one configuration says about money."""

    prices: tuple[PriceFile, ...] = ()
    prices_file: Path | None = None
    budgets: tuple[BudgetFile, ...] = ()
    keys: tuple[KeyFile, ...] = ()
    ledger: LedgerFile = LedgerFile()
    admin: AdminFile = AdminFile()
