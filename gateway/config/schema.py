"""What a configuration file may say. These Structs mirror the YAML; `gateway.config.load` makes Settings of them."""

import ipaddress
import math
import re
from enum import StrEnum
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from gateway.config.money import AdminFile, BudgetFile, KeyFile, LedgerFile, PriceFile
from gateway.types.route import ContentCapture, Destination, Timeouts
from gateway.types.secret import Secret


class HttpSpans(StrEnum):
    """Who makes the span of an attempt's HTTP exchange."""

    LIGHT = "light"
    INSTRUMENTED = "instrumented"
    OFF = "off"


class Semconv(StrEnum):
    """Which generation of the GenAI semantic conventions names spans and metrics."""

    V1_41 = "v1.41"
    LATEST = "latest"
    BOTH = "both"


class TelemetryFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`telemetry:`, what the gateway tells beyond the standard OTEL_* environment variables."""

    service_name: str = "gaugeway"
    http_spans: HttpSpans | bool = HttpSpans.LIGHT
    """YAML reads a bare `off` as false; see `http_span_maker`."""
    semconv: Semconv = Semconv.V1_41
    trust_inbound_trace: bool | tuple[str, ...] = False
    """Continue the trace of callers who send a traceparent: of all, or of those in these networks. Others' is linked."""
    log_requests: bool = True
    redact: tuple[str, ...] = ()
    """Regular expressions of what captured content must not keep, beside what looks like a credential."""
    content_hook: str | None = None
    """`package.module:function` that gets the content of routes that capture `to: hook`."""

    def __post_init__(self) -> None:
        for pattern in self.redact:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"redact has '{pattern}', which is no regular expression: {error}") from None
        if not isinstance(self.trust_inbound_trace, bool):
            for network in self.trust_inbound_trace:
                try:
                    ipaddress.ip_network(network)
                except ValueError as error:
                    raise ValueError(f"trust_inbound_trace has '{network}', which is no network: {error}") from None
        if self.http_spans is True:
            raise ValueError(f"http_spans is true; use one of {', '.join(HttpSpans)}")

    @property
    def http_span_maker(self) -> HttpSpans:
        """Who makes the HTTP spans."""
        return self.http_spans if isinstance(self.http_spans, HttpSpans) else HttpSpans.OFF


class OnCallerLeft(StrEnum):
    """What becomes of a stream whose caller leaves."""

    CANCEL = "cancel"
    DRAIN = "drain"


class ModelFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model:` of a route: one provider and one of its models.

    A stream whose caller leaves is broken off (`on_caller_left: cancel`) and charged by what came, or read on for at
    most `drain_s` seconds (`drain`) and charged exactly.
    """

    provider: str | None = None
    name: str | None = None
    config: dict[str, Any] | None = None
    timeouts: Timeouts | None = None
    propagate_trace: bool = False
    on_caller_left: OnCallerLeft = OnCallerLeft.CANCEL
    drain_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.drain_s < math.inf:
            raise ValueError(f"drain_s is {self.drain_s}; it must be above 0")


class TargetFile(ModelFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of a route's `targets:`: a model with its share of the traffic, and its place in the fallback order."""

    weight: float = 1.0
    tier: int = 0


class LimitFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A route's `limit:`, as in MLflow 2.10 and later: `calls` a `renewal_period`.

    `renewal_period` is second, minute, hour, day, month (30 days) or year (360 days), also with a number: "5 minutes".
    `key` says who shares the count: `route` for all callers together; `user`, or nothing, for each caller apart.
    """

    calls: int
    renewal_period: str
    key: str | None = None

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise ValueError(f"calls is {self.calls}; it must be at least 1")
        if self.key not in (None, "route", "user"):
            raise ValueError(f"key is '{self.key}'; it must be route or user")
        _ = self.period_s

    @property
    def period_s(self) -> int:
        """The length of the period. Raises ValueError."""
        match = _PERIOD.fullmatch(self.renewal_period)
        if match is None or match["number"] == "0":
            raise ValueError(
                f"renewal_period is '{self.renewal_period}'; it must be one of {', '.join(_PERIODS_S)}, "
                "also with a number before it"
            )
        return int(match["number"] or 1) * _PERIODS_S[match["unit"]]


# The lengths are those of the `limits` library, which the MLflow gateway counted with.
_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 2_592_000, "year": 31_104_000}
_PERIOD = re.compile(rf"((?P<number>\d{{1,6}}) )?(?P<unit>{'|'.join(_PERIODS_S)})s?")


class LimitsFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits:`, where calls are counted."""

    storage: Secret | None = None
    """`redis://host:6379/0` (or `valkey://`, `rediss://`) shares the counts between processes; best as $NAME, since it
    may hold a password. Without it each process counts on its own."""

    def __post_init__(self) -> None:
        if self.storage is not None and not _STORAGE.match(self.storage.reveal()):
            raise ValueError("storage must begin with redis://, rediss://, redis+unix://, valkey:// or valkeys://")


_STORAGE = re.compile(r"(redis|rediss|redis\+unix|valkey|valkeys)://.")


class RouteFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `routes:` or of `endpoints:`."""

    name: str
    route_type: str | UnsetType = UNSET
    endpoint_type: str | UnsetType = UNSET
    model: dict[str, Any] | UnsetType = UNSET
    targets: list[dict[str, Any]] | UnsetType = UNSET
    retries: int = 0
    timeouts: Timeouts | None = None
    limit: LimitFile | list[LimitFile] | None = None
    content: ContentCapture = ContentCapture()


class TrafficFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of `routes:` as MLflow 3 has them: its requests are shared out between endpoints of the file."""

    name: str
    task_type: str
    destinations: tuple[Destination, ...]
    routing_strategy: Literal["TRAFFIC_SPLIT"] = "TRAFFIC_SPLIT"


class ConfigFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    routes: list[dict[str, Any]] | UnsetType = UNSET
    endpoints: list[dict[str, Any]] | UnsetType = UNSET
    telemetry: TelemetryFile = TelemetryFile()
    limits: LimitsFile = LimitsFile()
    prices: tuple[PriceFile, ...] = ()
    prices_file: str | None = None
    """Newer public prices than the shipped ones, in genai-prices' JSON form, taken up whenever the file changes."""
    budgets: tuple[BudgetFile, ...] = ()
    keys: tuple[KeyFile, ...] = ()
    ledger: LedgerFile = LedgerFile()
    admin: AdminFile = AdminFile()
