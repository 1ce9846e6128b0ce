"""The frozen facts of a finished attempt and a finished request. Every signal is made from these, and only these."""

from enum import StrEnum

from msgspec import Struct

from gateway.types.errors import ErrorType, Outcome
from gateway.types.route import CaptureTo, Operation
from gateway.types.usage import Usage


class AttemptKind(StrEnum):
    """Why an attempt was made."""

    FIRST = "first"
    RETRY = "retry"
    FALLBACK = "fallback"


class Basis(StrEnum):
    """How sure a cost is; the settle table in docs/spend.md has a row for each."""

    NOT_SENT = "not_sent"
    PROVIDER_ERROR = "provider_error"
    PROVIDER_USAGE = "provider_usage"
    ESTIMATED = "estimated"
    DRAINED = "drained"
    PARTIAL = "partial"
    UNKNOWN = "unknown"
    ORPHAN = "orphan"


class CostPart(StrEnum):
    """What a provider charges beside plain tokens, and what may therefore be missing from a cost."""

    CACHE_WRITE_1H = "cache_write_1h"
    WEB_SEARCH = "web_search"
    FILE_SEARCH = "file_search"
    OTHER_TOOL = "other_tool"
    SERVICE_TIER = "service_tier"


class Cost(Struct, frozen=True, kw_only=True):
    """The price of one attempt. `nano_usd` is None when no price is known: that is flagged, and is never 0.

    `unpriced` names parts of the attempt whose own price nobody knows: the amount leaves tools out, and takes a cache
    write or a service tier at the standard price.

    `cache_saved_nano_usd` is how much more its input would have cost without the provider's cache, rounded down;
    `cache_surcharge_nano_usd` what writing to that cache cost above plain input, rounded up. Both are parts of the
    explanation, not of the amount.
    """

    nano_usd: int | None
    basis: Basis
    price_version: str = ""
    cache_saved_nano_usd: int = 0
    cache_surcharge_nano_usd: int = 0
    unpriced: tuple[CostPart, ...] = ()


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, and who pays. Never taken from a request's body or free headers."""

    team: str = "default"
    key_id: str | None = None
    address: str = ""


ANONYMOUS = Caller()


class HttpExchange(Struct, frozen=True, kw_only=True):
    """The HTTP exchange of one attempt, as the stable HTTP semantic conventions describe it.

    Times are nanoseconds since the epoch; `end_ns` is when the response headers came.
    """

    method: str
    url: str
    server_address: str
    server_port: int
    span_id: int
    start_ns: int
    end_ns: int
    status_code: int | None = None
    error: str | None = None


class RequestParameters(Struct, frozen=True, kw_only=True):
    """The sampling parameters of a request that the GenAI conventions name; absent ones are None."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    choice_count: int | None = None
    top_k: float | None = None
    output_type: str | None = None
    """`text` or `json`, where the caller asked for a format."""
    reasoning_level: str | None = None
    """One of the levels that vendors know, where the caller named one."""


NO_PARAMETERS = RequestParameters()


class Content(Struct, frozen=True, kw_only=True):
    """What was asked and answered, for routes that capture it: JSON texts in the GenAI conventions' form, redacted."""

    to: CaptureTo
    input_messages: str | None = None
    output_messages: str | None = None
    cut: bool = False
    """Whether something is missing, for its size."""


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """One upstream try inside a request. Durations are seconds; `start_ns`, `end_ns` nanoseconds since the epoch."""

    number: int
    kind: AttemptKind
    operation: Operation
    provider: str
    gen_ai_provider: str
    """The value of `gen_ai.provider.name`, the conventions' spelling of the provider."""
    request_model: str
    """The model that was sent upstream."""
    server_address: str
    server_port: int
    span_id: int
    start_ns: int
    end_ns: int
    duration_s: float
    outcome: Outcome
    stream: bool = False
    error_type: ErrorType | None = None
    status_code: int | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    parameters: RequestParameters = NO_PARAMETERS
    connect_s: float | None = None
    """How long connecting took; None over a connection that was open already."""
    first_byte_s: float | None = None
    """From the start of the attempt until the response headers."""
    first_chunk_s: float | None = None
    """From the start of the attempt until the first streamed chunk of what the model generates. Chunks before it only
    announce the reply; a stream without text (of tool calls, in some dialects) has its first chunk here."""
    last_chunk_s: float | None = None
    chunks: int = 0
    output_chars: int = 0
    http: HttpExchange | None = None
    content: Content | None = None

    @property
    def time_per_output_token_s(self) -> float | None:
        """(last chunk - first chunk) / (output tokens - 1); None where fewer than two tokens are known."""
        if self.first_chunk_s is None or self.last_chunk_s is None or self.usage is None:
            return None
        tokens = self.usage.output_tokens
        if tokens is None or tokens < 2:
            return None
        return (self.last_chunk_s - self.first_chunk_s) / (tokens - 1)


class Phases(Struct, frozen=True, kw_only=True):
    """Where a request's time went, in seconds.

    `admit_s`, `encode_s` and `settle_s` are the gateway's own work; `upstream_s` is waiting for providers;
    `backoff_s` is waiting before a retry, as long as the provider asked or the schedule says; `caller_s` is waiting for
    the caller to send the body and to take bytes. What remains of the duration is the gateway's too.
    """

    admit_s: float = 0.0
    encode_s: float = 0.0
    upstream_s: float = 0.0
    settle_s: float = 0.0
    caller_s: float = 0.0
    backoff_s: float = 0.0


class TraceContext(Struct, frozen=True, kw_only=True):
    """The ids of a request's SERVER span and how it joins its caller's trace. Ids are integers, as in the SDK."""

    trace_id: int
    span_id: int
    sampled: bool
    parent_span_id: int | None = None
    trace_state: str = ""
    link_trace_id: int | None = None
    link_span_id: int | None = None

    @property
    def trace_id_hex(self) -> str:
        """The trace id as 32 lower-case hexadecimal digits."""
        return f"{self.trace_id:032x}"


class RequestRecord(Struct, frozen=True, kw_only=True):
    """One caller request, from its first byte to its last. Refusals are records like any other."""

    request_id: str
    trace: TraceContext
    caller: Caller
    method: str
    path_template: str
    """The template of the path, such as `/gateway/{route}/invocations`: never what the caller sent."""
    scheme: str
    server_address: str
    server_port: int
    route: str
    """A configured name, or `_other`."""
    route_type: str
    outcome: Outcome
    status_code: int
    start_ns: int
    end_ns: int
    duration_s: float
    phases: Phases
    attempts: tuple[AttemptRecord, ...] = ()
    error_type: ErrorType | None = None
    stream: bool = False
    user_agent: str = ""
    client_address: str = ""

    @property
    def overhead_s(self) -> float:
        """What the gateway itself added: the duration without waiting for the upstream, a retry's time or the caller."""
        phases = self.phases
        return max(0.0, self.duration_s - phases.upstream_s - phases.caller_s - phases.backoff_s)

    @property
    def cost_nano_usd(self) -> int | None:
        """The sum of the attempts' costs, or None when no attempt has a known cost."""
        known = [a.cost.nano_usd for a in self.attempts if a.cost is not None and a.cost.nano_usd is not None]
        return sum(known) if known else None


OTHER = "_other"
"""The label value that stands for everything a caller sent that the configuration does not name."""
