"""What a dialect and a provider are: tables of pure functions and plain values.

A dialect is a wire format. For each operation it has a `Codec`: how a request is written, how a whole reply is read,
and how a stream is translated. A provider is a row that joins a dialect with a base URL, a way to authenticate and a
configuration Struct. Adding a provider that speaks a known dialect is a row; adding a dialect is one file.

Functions of a codec raise `RequestError` when the request cannot be expressed in the dialect, and `UpstreamError` with
`UNREADABLE_REPLY` when the reply is not what the vendor documents.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from gateway.types.auth import Auth, AwsAuth, EntraAuth, GoogleAuth, HeaderAuth, OAuthClientAuth
from gateway.types.model_io import Fault, Framing, ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.route import Operation, RouteType
from gateway.types.usage import Usage

# What a provider's file needs is here; the ways to authenticate and to frame live in `types`, since `upstream` acts on
# them and must not know providers.
__all__ = [
    "NOTHING",
    "Auth",
    "AwsAuth",
    "Codec",
    "Dialect",
    "Endpoint",
    "EntraAuth",
    "Fault",
    "Framing",
    "FromWire",
    "GoogleAuth",
    "HeaderAuth",
    "OAuthClientAuth",
    "OpenStream",
    "Provider",
    "Quirks",
    "StreamTranslator",
    "ToWire",
    "default_fault",
]


NOTHING = (b"", b"[DONE]")
"""Events that say nothing in dialects other than OpenAI's, whose streams end with the second: Cohere sends it after its
own last event, OpenRouter and proxies after Claude's. Empty ones keep a connection alive."""


class Quirks(Struct, frozen=True, kw_only=True):
    """Differences between providers of one dialect, as data."""

    stream_options: bool = True
    """The provider knows `stream_options.include_usage`; others report usage unasked, or never."""
    send_model: bool = True
    """The model goes into the body (Azure has it in the path)."""
    drop: tuple[str, ...] = ()
    """Top-level request fields that the provider refuses."""
    rename: tuple[tuple[str, str], ...] = ()
    """Top-level request fields that the provider spells differently: (ours, theirs)."""
    temperature_scale: float = 1.0
    """Factor from the canonical range 0 to 2 to the provider's."""
    original_temperature_scale: float | None = None
    """The factor for requests in the original shape, where that release's differs; None: `temperature_scale`."""
    refuses_defaults: bool = False
    """The provider refuses some members by name, even with the value that changes nothing: those are left out."""
    developer_role: bool = True
    """The provider knows the role `developer`, which is `system` elsewhere."""
    own_temperature: bool = False
    """The model takes no temperature but its own: the one that the original surface fills in is left out."""
    message_members: tuple[str, ...] = ()
    """The members of a message that the provider knows, where it refuses any other; () where it does not care."""

    def scaled(self, temperature: float, request: ModelRequest) -> float:
        """A canonical temperature in the provider's range, for dialects that rebuild the request."""
        if request.original_shape and self.original_temperature_scale is not None:
            return temperature * self.original_temperature_scale
        return temperature * self.temperature_scale


class Endpoint(Struct, frozen=True, kw_only=True):
    """A provider account for one model: which dialect it speaks, where to send, with what fixed headers.

    `options` is the provider's own Struct of values that only its dialect reads (an API version, a deployment).
    """

    provider: str
    dialect: "Dialect"
    base_url: str
    """Without a trailing slash."""
    model: str
    auth: Auth = HeaderAuth()
    headers: tuple[tuple[str, str], ...] = ()
    quirks: Quirks = Quirks()
    options: Struct | None = None


class StreamTranslator(Protocol):
    """Turns the events of one upstream stream into bytes for the caller. One instance a stream, no I/O.

    Concatenating everything returned gives a canonical SSE stream without its final `data: [DONE]`, which the surface
    writes. `summary` is complete once `close` has returned.
    """

    summary: StreamSummary

    def feed(self, event: StreamEvent) -> bytes:
        """The complete SSE events to forward for `event`; empty when there is nothing to say."""
        ...

    def close(self) -> bytes:
        """The last events to forward, after the upstream's end."""
        ...


ToWire = Callable[[ModelRequest, Endpoint], WireRequest]
FromWire = Callable[[bytes, ModelRequest, Endpoint], ModelReply]
OpenStream = Callable[[ModelRequest, Endpoint], StreamTranslator]


class Codec(Struct, frozen=True, kw_only=True):
    """How one operation crosses the wire in one dialect. `open_stream` is None where the vendor has no stream."""

    to_wire: ToWire
    from_wire: FromWire
    open_stream: OpenStream | None = None
    header_usage: Callable[[Mapping[str, str]], Usage | None] | None = None
    """The token counts in a whole reply's headers, for vendors whose body may have none."""


_TOO_LONG = re.compile(
    r"prompt is too long|input is too long|too many input tokens|input token count .{0,40}exceeds"
    r"|(?:maximum|model's) context (?:length|window)|exceed\w* (?:the )?(?:model's )?(?:context|maximum number of tokens)",
    re.IGNORECASE,
)
"""How Anthropic, AWS, Google, Cohere and vLLM say that a conversation is longer than the model's context."""


def default_fault(status: int, body: bytes) -> Fault:
    """The fault of an error body in any of the usual JSON shapes: `error.message`, `error`, `message`, `detail`, `errors`.

    Covers what the MLflow gateway showed to callers, and FastAPI's lists of wrong members; other bodies give a text that
    names only the status, because an unknown body may hold anything.
    """
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        parsed = None
    # Some vendors (Gemini in streams) wrap the object into a list.
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return Fault(message=f"The provider answered with status {status}.")
    error = parsed.get("error")
    inner = error if isinstance(error, dict) else parsed
    texts = (inner.get("message"), error, parsed.get("message"), parsed.get("detail"), parsed.get("errors"))
    message = next((text for candidate in texts if (text := _text(candidate))), None)
    if message is None:
        return Fault(message=f"The provider answered with status {status}.")
    code, param = inner.get("code"), inner.get("param")
    if _TOO_LONG.search(message):
        code = "context_length_exceeded"
    return Fault(
        message=message, param=param if isinstance(param, str) else None, code=code if isinstance(code, str) else None
    )


def _text(value: object) -> str | None:
    """A text, the first of a list, or what a FastAPI server (Mistral's, vLLM's) says of the first member that is wrong."""
    if isinstance(value, dict):
        value = value.get("detail")
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict) and isinstance(first.get("message"), str):
        first = first["message"]
    if isinstance(first, str):
        return first
    if not isinstance(first, dict) or not isinstance(first.get("msg"), str):
        return None
    place = first.get("loc")
    where = ".".join(str(step) for step in place if step != "body") if isinstance(place, list) else ""
    return f"{where}: {first['msg']}" if where else str(first["msg"])


class Dialect(Struct, frozen=True, kw_only=True):
    """A wire format: its codecs by operation, its framing, and how it words errors.

    `fault(status, body)` reads an error body.
    """

    name: str
    codecs: Mapping[Operation, Codec]
    framing: Framing = Framing.SSE
    fault: Callable[[int, bytes], Fault] = default_fault


def require_model(config: object, model: str, route_type: RouteType) -> None:
    """The `check` of providers whose calls name a model."""
    if not model:
        raise ValueError("model.name is required for this provider")


class Provider(Struct, frozen=True, kw_only=True):
    """A vendor: what its configuration looks like and how an account of it becomes an endpoint.

    Args:
        name: as written in the configuration: lower case, underscores or hyphens as its vendor has them.
        gen_ai_name: the value of `gen_ai.provider.name` (the conventions' list, else our name).
        title: the vendor's name in texts for callers, as MLflow wrote it; empty: `name`.
        config: the Struct that `model.config` is decoded into, unknown fields refused.
        connect: (config, model) to an `Endpoint`; it picks the dialect, which for some vendors depends on the model.
        config_required: False where a config without any key is usable.
        check: (config, model, route type); raises ValueError for what the fields alone cannot refuse.
        aliases: other spellings accepted in the configuration.
        original_completions: the codec of completions for `routes:` (MLflow 2.5 to 2.8), where those releases asked the
            vendor otherwise than for `endpoints:`.
        from_environment: (config as written, environment) to the config with what the vendor's own variables add.
    """

    name: str
    gen_ai_name: str
    config: type[Struct]
    connect: Callable[[Any, str], Endpoint]
    title: str = ""
    config_required: bool = True
    aliases: tuple[str, ...] = ()
    original_completions: Codec | None = None
    check: Callable[[Any, str, RouteType], None] | None = None
    from_environment: Callable[[Mapping[str, Any], Mapping[str, str]], Mapping[str, Any]] | None = None
