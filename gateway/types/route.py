"""What the configuration names: routes, their targets, and what a caller may ask of them."""

import math
from enum import StrEnum

from msgspec import Struct


class RouteType(StrEnum):
    """What a configured route answers; the values are the ones of the MLflow AI Gateway."""

    CHAT = "llm/v1/chat"
    COMPLETIONS = "llm/v1/completions"
    EMBEDDINGS = "llm/v1/embeddings"


class Operation(StrEnum):
    """What one attempt asks of a provider.

    The first three have a canonical (OpenAI-like) form that dialects translate. The others are a vendor's own API,
    passed through to the same vendor.
    """

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    GENERATE_CONTENT = "generate_content"
    EMBED_CONTENT = "embed_content"

    @property
    def route_type(self) -> RouteType:
        """The type of route that may serve this operation."""
        return _ROUTE_TYPES[self]

    @property
    def gen_ai_name(self) -> str:
        """The value of `gen_ai.operation.name` in the GenAI semantic conventions."""
        return _GEN_AI_NAMES[self]


_ROUTE_TYPES = {
    Operation.CHAT: RouteType.CHAT,
    Operation.COMPLETIONS: RouteType.COMPLETIONS,
    Operation.EMBEDDINGS: RouteType.EMBEDDINGS,
    Operation.RESPONSES: RouteType.CHAT,
    Operation.MESSAGES: RouteType.CHAT,
    Operation.COUNT_TOKENS: RouteType.CHAT,
    Operation.GENERATE_CONTENT: RouteType.CHAT,
    Operation.EMBED_CONTENT: RouteType.EMBEDDINGS,
}

_GEN_AI_NAMES = {
    Operation.CHAT: "chat",
    Operation.COMPLETIONS: "text_completion",
    Operation.EMBEDDINGS: "embeddings",
    Operation.RESPONSES: "chat",
    Operation.MESSAGES: "chat",
    Operation.COUNT_TOKENS: "count_tokens",
    Operation.GENERATE_CONTENT: "generate_content",
    Operation.EMBED_CONTENT: "embeddings",
}

CANONICAL_OPERATION = {
    RouteType.CHAT: Operation.CHAT,
    RouteType.COMPLETIONS: Operation.COMPLETIONS,
    RouteType.EMBEDDINGS: Operation.EMBEDDINGS,
}
"""The operation that a route's own surfaces ask for."""


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one attempt, in seconds, each on its own clock."""

    connect_s: float = 5.0
    first_byte_s: float = 300.0
    between_chunks_s: float = 60.0
    total_s: float = 600.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            seconds = getattr(self, name)
            if not 0 < seconds < math.inf:
                raise ValueError(f"{name} is {seconds}; it must be above 0, and finite")


class Limit(Struct, frozen=True, kw_only=True):
    """A rate limit: `calls` a `period_s`. `period` and `key` are as the configuration has them."""

    calls: int
    period_s: int
    period: str
    key: str | None = None
    per_route: bool = False
    """One count for all callers of the route; otherwise each caller has its own."""

    @property
    def text(self) -> str:
        """The limit in words, such as `5 per 1 minute`."""
        number, _, unit = self.period.rpartition(" ")
        return f"{self.calls} per {number or 1} {unit.removesuffix('s')}"


class CaptureTo(StrEnum):
    """Where the prompts and replies of a route go."""

    NONE = "none"
    SPAN = "span"
    EVENT = "event"
    HOOK = "hook"


class ContentCapture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a route's prompts and replies are kept, and how much of them; texts over `max_bytes` in all are cut."""

    to: CaptureTo = CaptureTo.NONE
    max_bytes: int = 16_384

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes is {self.max_bytes}; it must be at least 1")


class Target(Struct, frozen=True, kw_only=True):
    """One (provider, model, weight) inside a route. `config` is the provider's own Struct, secrets resolved."""

    provider: str
    model: str
    config: Struct
    weight: float = 1.0
    tier: int = 0
    """Fallback order: all targets of tier 0 are tried before those of tier 1."""
    timeouts: Timeouts = Timeouts()
    propagate_trace: bool = False
    drain_s: float | None = None
    """How long a stream is read on after its caller has left; None breaks it off at once."""


class Destination(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that a traffic route sends `traffic_percentage` of its requests to."""

    name: str
    traffic_percentage: int

    def __post_init__(self) -> None:
        if not 0 <= self.traffic_percentage <= 100:
            raise ValueError("The route destination traffic percentage must between 0 and 100.")


class Route(Struct, frozen=True, kw_only=True):
    """A configured name that apps call."""

    name: str
    route_type: RouteType
    targets: tuple[Target, ...]
    original_shape: bool
    """True for `routes:` (MLflow 2.5 to 2.8 bodies on /gateway/...), False for `endpoints:` (OpenAI-like)."""
    limits: tuple[Limit, ...] = ()
    retries: int = 0
    """How many more attempts a request may make after the first, over all targets of a tier."""
    content: ContentCapture = ContentCapture()
    destinations: tuple[Destination, ...] = ()
    """The endpoints whose targets a traffic route (MLflow 3) has; empty for every other route."""

    @property
    def model(self) -> str:
        """The model of the first target: what the route's listing shows."""
        return self.targets[0].model

    @property
    def provider(self) -> str:
        """The provider of the first target: what the route's listing shows."""
        return self.targets[0].provider
