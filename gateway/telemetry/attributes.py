"""The catalogue of span attributes: name, type, meaning, and where in the finished record the value stands.

Spans are made from these tables, whoever exports them; docs/instrumentation.md is generated from them. The GenAI
conventions exist in two generations: v1.41, the last one inside open-telemetry/semantic-conventions, and the newer one of
open-telemetry/semantic-conventions-genai. `telemetry.semconv` chooses.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct
from opentelemetry.util.types import AttributeValue

from gateway.config.schema import Semconv
from gateway.types.records import AttemptRecord, Content, HttpExchange, RequestRecord
from gateway.types.route import CaptureTo
from gateway.types.usage import Usage


class Told(NamedTuple):
    """What the spans of one request are told from; `attempt` and `http` are those of the span, where it has them."""

    request: RequestRecord
    attempt: AttemptRecord | None
    http: HttpExchange | None
    usage: Usage
    cost_nano_usd: int | None


_NO_USAGE = Usage()


def server_told(record: RequestRecord) -> Told:
    """What a request's SERVER span is told from."""
    return Told(record, None, None, _NO_USAGE, record.cost_nano_usd)


def attempt_told(record: RequestRecord, attempt: AttemptRecord) -> Told:
    """What the spans of an attempt and of its exchange are told from."""
    cost = attempt.cost
    return Told(record, attempt, attempt.http, attempt.usage or _NO_USAGE, cost.nano_usd if cost is not None else None)


class AttributeType(StrEnum):
    """An attribute's type in the OpenTelemetry data model."""

    STRING = "string"
    INT = "int"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    STRINGS = "string[]"


class Varies(StrEnum):
    """How much an attribute's value varies, which decides how its encoding is kept. Tables have RARELY first."""

    RARELY = "rarely"
    """A few combinations with its neighbours: configured names, enums, statuses. Encoded together, once."""
    ALWAYS = "always"
    """Nearly every request has another value: ids, durations, counts."""


class Attribute(Struct, frozen=True, kw_only=True):
    """One attribute of one span. None is never emitted: what is unknown is absent."""

    name: str
    type: AttributeType
    source: str
    """The value's place in `Told`, such as `attempt.provider`."""
    help: str
    convert: Callable[[Any], AttributeValue | None] | None = None
    varies: Varies = Varies.RARELY
    only: Semconv | None = None
    """The one generation of conventions that has this name; None for both."""

    def value(self, raw: Any) -> AttributeValue | None:
        """The value to emit for what stands at `source`."""
        return raw if self.convert is None or raw is None else self.convert(raw)


def _text(value: StrEnum) -> str:
    return value.value


def _known(value: Any) -> Any:
    """Empty means unknown here: no status was sent, no agent named."""
    return value or None


def _whole(value: float) -> int | None:
    return int(value) if value.is_integer() else None


def _usd(nano_usd: int) -> float:
    return nano_usd / 1e9


def _cost_basis(cost: Any) -> str:
    basis: str = cost.basis.value
    return basis


def _usage_source(usage: Usage) -> str:
    return usage.source.value


def _input_messages(content: Content) -> str | None:
    return content.input_messages if content.to is CaptureTo.SPAN else None


def _output_messages(content: Content) -> str | None:
    return content.output_messages if content.to is CaptureTo.SPAN else None


def _content_cut(content: Content) -> bool | None:
    return True if content.cut and content.to is CaptureTo.SPAN else None


def _list(value: tuple[str, ...]) -> tuple[str, ...] | None:
    return value or None


def _http_failure(http: HttpExchange) -> str | None:
    if http.error is not None:
        return http.error
    return str(http.status_code) if http.status_code is not None and http.status_code >= 400 else None


def _s(name: str, source: str, meaning: str, **more: Any) -> Attribute:
    return Attribute(name=name, type=AttributeType.STRING, source=source, help=meaning, **more)


def _i(name: str, source: str, meaning: str, **more: Any) -> Attribute:
    return Attribute(name=name, type=AttributeType.INT, source=source, help=meaning, **more)


def _d(name: str, source: str, meaning: str, **more: Any) -> Attribute:
    return Attribute(name=name, type=AttributeType.DOUBLE, source=source, help=meaning, **more)


def _b(name: str, source: str, meaning: str, **more: Any) -> Attribute:
    return Attribute(name=name, type=AttributeType.BOOLEAN, source=source, help=meaning, **more)


_EACH = {"varies": Varies.ALWAYS}

SERVER: tuple[Attribute, ...] = (
    _s("http.request.method", "request.method", "The caller's method; `_OTHER` for one that HTTP does not name."),
    _s("http.route", "request.path_template", "The path's template, never the path itself; `_other` for a path that is none of the gateway's."),
    _s("url.scheme", "request.scheme", "`http` or `https`."),
    _s("url.path", "request.path_template", "The template again: raw paths would hold what callers send."),
    _s("server.address", "request.server_address", "The address that took the request."),
    _i("server.port", "request.server_port", "Its port."),
    _i("http.response.status_code", "request.status_code", "The status sent; 499 when the caller left.", convert=_known),
    _s("gateway.route", "request.route", "A configured route, or `_other`."),
    _s("gateway.route_type", "request.route_type", "Its type, such as `llm/v1/chat`.", convert=_known),
    _s("gateway.team", "request.caller.team", "Who pays."),
    _s("gateway.outcome", "request.outcome", "`ok`, or whose fault: caller, policy, provider, gateway.", convert=_text),
    _b("gateway.stream", "request.stream", "Whether the caller asked for a stream."),
    _s("error.type", "request.error_type", "Why the request failed: the closed list below.", convert=_text),
    _i("gateway.attempts", "request.attempts", "How many attempts were made.", convert=len, **_EACH),
    _s("client.address", "request.client_address", "The caller's address.", convert=_known, **_EACH),
    _s("user_agent.original", "request.user_agent", "The caller's user agent.", convert=_known, **_EACH),
    _s("gateway.request.id", "request.request_id", "The id in the reply's `x-gateway-request-id`.", **_EACH),
    _s("gateway.key.id", "request.caller.key_id", "The id of the gateway key; never the key.", **_EACH),
    _d("gateway.overhead_s", "request.overhead_s", "What the gateway itself added, in seconds.", **_EACH),
    _d("gateway.upstream_s", "request.phases.upstream_s", "Waiting for providers, in seconds.", **_EACH),
    _d("gateway.caller_s", "request.phases.caller_s", "Waiting for the caller, in seconds.", **_EACH),
    _d("gateway.backoff_s", "request.phases.backoff_s", "Waiting before retries, in seconds; absent without any.",
       convert=_known, **_EACH),
    _d("gateway.cost.usd", "cost_nano_usd", "Cost of all attempts in US dollars; absent if unknown.",
       convert=_usd, **_EACH),
    _i("gateway.cost.nano_usd", "cost_nano_usd", "The same as an integer, for sampling policies.", **_EACH),
)  # fmt: skip
"""The SERVER span `{method} {http.route}`: stable HTTP conventions, and the gateway's own facts."""

ATTEMPT: tuple[Attribute, ...] = (
    _s("gen_ai.operation.name", "attempt.operation.gen_ai_name", "`chat`, `text_completion`, `embeddings`, ..."),
    _s("gen_ai.provider.name", "attempt.gen_ai_provider", "The provider in the conventions' spelling."),
    _s("gen_ai.request.model", "attempt.request_model", "The model sent to the provider."),
    _s("server.address", "attempt.server_address", "The provider's host."),
    _i("server.port", "attempt.server_port", "Its port."),
    _s("gateway.route", "request.route", "The route that the attempt serves."),
    _i("gateway.attempt.number", "attempt.number", "1 for the first attempt of a request."),
    _s("gateway.attempt.kind", "attempt.kind", "`first`, `retry` or `fallback`.", convert=_text),
    _s("gateway.provider", "attempt.provider", "The provider as configured."),
    _b("gen_ai.request.stream", "attempt.stream", "True for a stream; absent otherwise.", convert=_known),
    _i("gen_ai.request.max_tokens", "attempt.parameters.max_tokens", "As the caller asked."),
    _d("gen_ai.request.temperature", "attempt.parameters.temperature", "As the caller asked."),
    _d("gen_ai.request.top_p", "attempt.parameters.top_p", "As the caller asked."),
    _d("gen_ai.request.frequency_penalty", "attempt.parameters.frequency_penalty", "As the caller asked."),
    _d("gen_ai.request.presence_penalty", "attempt.parameters.presence_penalty", "As the caller asked."),
    _i("gen_ai.request.seed", "attempt.parameters.seed", "As the caller asked."),
    _i("gen_ai.request.choice.count", "attempt.parameters.choice_count", "As the caller asked, where it is not 1."),
    _d("gen_ai.request.top_k", "attempt.parameters.top_k", "As the caller asked.", only=Semconv.V1_41),
    _i("gen_ai.request.top_k", "attempt.parameters.top_k", "As the caller asked.", convert=_whole, only=Semconv.LATEST),
    _s("gen_ai.request.reasoning.level", "attempt.parameters.reasoning_level", "As the caller asked.",
       only=Semconv.LATEST),
    _s("gen_ai.output.type", "attempt.parameters.output_type", "`text` or `json`, where the caller asked for one."),
    _s("gen_ai.response.model", "attempt.response_model", "The model that answered."),
    Attribute(name="gen_ai.response.finish_reasons", type=AttributeType.STRINGS, source="attempt.finish_reasons",
              help="Why each choice ended.", convert=_list),
    _s("error.type", "attempt.error_type", "Why the attempt failed: the closed list below.", convert=_text),
    Attribute(name="gen_ai.request.stop_sequences", type=AttributeType.STRINGS, source="attempt.parameters.stop",
              help="As the caller asked; only where the route captures content.", convert=_list, varies=Varies.ALWAYS),
    _s("gateway.usage.source", "attempt.usage", "Who counted the tokens: `provider`, or `estimated` by the gateway.",
       convert=_usage_source, **_EACH),
    _s("gateway.cost.basis", "attempt.cost", "How sure the cost is.", convert=_cost_basis, **_EACH),
    _s("gen_ai.response.id", "attempt.response_id", "The provider's id of the reply.", **_EACH),
    _d("gateway.connect_s", "attempt.connect_s", "Seconds to connect (name, TCP, TLS); absent on an open connection.",
       **_EACH),
    _d("gen_ai.response.time_to_first_chunk", "attempt.first_chunk_s", "Seconds to a stream's first chunk of generated output.", **_EACH),
    _i("gen_ai.usage.input_tokens", "usage.input_tokens", "Input tokens, cached ones included.", **_EACH),
    _i("gen_ai.usage.output_tokens", "usage.output_tokens", "Output tokens, reasoning included.", **_EACH),
    _i("gen_ai.usage.cache_read.input_tokens", "usage.cache_read_tokens", "Of the input: read from a cache.", **_EACH),
    _i("gen_ai.usage.cache_creation.input_tokens", "usage.cache_write_tokens", "Of the input: written to a cache.",
       only=Semconv.V1_41, **_EACH),
    _i("gen_ai.usage.cache_write.input_tokens", "usage.cache_write_tokens", "Of the input: written to a cache.",
       only=Semconv.LATEST, **_EACH),
    _i("gen_ai.usage.reasoning.output_tokens", "usage.reasoning_tokens", "Of the output: reasoning.", **_EACH),
    _i("gen_ai.usage.audio.input_tokens", "usage.input_audio_tokens", "Of the input: audio.",
       only=Semconv.LATEST, **_EACH),
    _i("gen_ai.usage.audio.output_tokens", "usage.output_audio_tokens", "Of the output: audio.",
       only=Semconv.LATEST, **_EACH),
    _s("gen_ai.input.messages", "attempt.content", "What was asked, as JSON; only where the route captures `to: span`.",
       convert=_input_messages, **_EACH),
    _s("gen_ai.output.messages", "attempt.content", "What was answered, likewise.", convert=_output_messages, **_EACH),
    _b("gateway.content.cut", "attempt.content", "True where captured content was cut for its size.",
       convert=_content_cut, **_EACH),
    _d("gateway.cost.usd", "cost_nano_usd", "Cost in US dollars; absent where no price is known.",
       convert=_usd, **_EACH),
    _i("gateway.cost.nano_usd", "cost_nano_usd", "The same as an integer.", **_EACH),
)  # fmt: skip
"""The CLIENT span of one attempt, `{gen_ai.operation.name} {gen_ai.request.model}`: the GenAI conventions."""

HTTP: tuple[Attribute, ...] = (
    _s("http.request.method", "http.method", "The method of the exchange."),
    _s("url.full", "http.url", "The provider's URL, without credentials and without its query's secrets."),
    _s("server.address", "http.server_address", "The provider's host."),
    _i("server.port", "http.server_port", "Its port."),
    _s("network.peer.address", "http.server_address", "The host again, as the httpx instrumentation has it."),
    _i("network.peer.port", "http.server_port", "The port again."),
    _i("http.response.status_code", "http.status_code", "The provider's status; absent where none came."),
    _s("network.protocol.version", "http.status_code", "`1.1`; absent where no answer came.", convert=lambda _: "1.1"),
    _s("error.type", "http", "The status from 400 on, or why no answer came.", convert=_http_failure, **_EACH),
)
"""The CLIENT span of the HTTP exchange inside an attempt, `{method}`, until the reply's headers."""


def of_generation(table: tuple[Attribute, ...], semconv: Semconv) -> tuple[Attribute, ...]:
    """The attributes of a table that a choice of conventions has; where both have a name, v1.41's type is taken."""
    chosen = [a for a in table if a.only is None or semconv in (a.only, Semconv.BOTH)]
    return tuple({a.name: a for a in reversed(chosen)}.values())[::-1]
