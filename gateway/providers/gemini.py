"""The `gemini` dialect and provider: Google's Gemini models with an API key.

Chat, completions and embeddings are translated; Gemini's own calls are passed through, the model in the path replaced.
`gemini_codecs` serves Vertex AI too, which speaks the same dialect at other addresses.

Source: https://ai.google.dev/api
"""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.providers.canonical_reply import decode_reply, embeddings_reply
from gateway.providers.canonical_request import decode_member, read_embeddings
from gateway.providers.gemini_facts import ERROR_TYPES
from gateway.providers.gemini_reply import (
    CanonicalStream,
    NativeStream,
    chat_from_wire,
    completion_from_wire,
    native_from_wire,
)
from gateway.providers.gemini_request import Body, chat_body, completion_body
from gateway.providers.spec import Codec, Dialect, Endpoint, Fault, HeaderAuth, Provider, default_fault, require_model
from gateway.types.errors import ErrorType, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.route import Operation
from gateway.types.secret import Secret
from gateway.types.usage import Usage

_CALLS = (":generateContent", ":streamGenerateContent", ":countTokens")


class GeminiConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `gemini`. The base ends with `/models`."""

    gemini_api_key: Secret
    gemini_api_base: str = "https://generativelanguage.googleapis.com/v1beta/models"


# --- requests ---------------------------------------------------------------------------------------------------


def gemini_codecs(*, call_ids: bool) -> Mapping[Operation, Codec]:
    """Codecs for chat, completions and Gemini's own calls; `call_ids` as for `chat_body`."""

    def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
        return _generate(chat_body(request, endpoint.model, call_ids=call_ids), request, endpoint)

    def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
        return _generate(completion_body(request), request, endpoint)

    return MappingProxyType(
        {
            Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire, open_stream=CanonicalStream),
            Operation.COMPLETIONS: Codec(
                to_wire=completion_to_wire, from_wire=completion_from_wire, open_stream=CanonicalStream
            ),
            Operation.GENERATE_CONTENT: Codec(
                to_wire=_native_to_wire, from_wire=native_from_wire, open_stream=NativeStream
            ),
        }
    )


def _generate(body: Body, request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    call = ":streamGenerateContent?alt=sse" if request.stream else ":generateContent"
    return WireRequest(url=model_url(endpoint, call), body=msgspec.json.encode(body))


def _native_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    call = request.path_suffix.partition("?")[0]
    if call not in _CALLS:
        raise RequestError(
            ErrorType.UNSUPPORTED_OPERATION,
            f"'{call.removeprefix(':')}' is not passed through; use one of: {', '.join(c[1:] for c in _CALLS)}.",
        )
    # Asked as server-sent events always; a caller who wants the other form, one growing array, gets it made of them.
    query = "?alt=sse" if request.stream else ""
    return WireRequest(url=model_url(endpoint, call + query), body=msgspec.json.encode(request.fields))


def model_url(endpoint: Endpoint, call: str) -> str:
    """`<base>/<model><call>`; a model may be configured with Google's own prefix `models/`."""
    return f"{endpoint.base_url}/{quote(endpoint.model.removeprefix('models/'), safe='/@:')}{call}"


# --- embeddings -------------------------------------------------------------------------------------------------


def _embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """One text goes to `embedContent`, several to `batchEmbedContents`, extras with each."""
    view, extras = read_embeddings(request)
    common: dict[str, Raw | int] = dict(extras)
    if view.dimensions is not None:
        common["outputDimensionality"] = view.dimensions
    contents = [{"content": {"parts": [{"text": text}]}} | common for text in view.texts]
    if len(contents) == 1:
        return WireRequest(url=model_url(endpoint, ":embedContent"), body=msgspec.json.encode(contents[0]))
    name = {"model": f"models/{endpoint.model.removeprefix('models/')}"}
    body = {"requests": [name | content for content in contents]}
    return WireRequest(url=model_url(endpoint, ":batchEmbedContents"), body=msgspec.json.encode(body))


def _native_embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`embedContent`, or `batchEmbedContents`, whose requests name the model each."""
    name = Raw(msgspec.json.encode(f"models/{endpoint.model.removeprefix('models/')}"))
    fields = request.fields
    if "requests" in fields:
        requests = decode_member(fields["requests"], list[dict[str, Raw]], "requests")
        fields = fields | {"requests": Raw(msgspec.json.encode([one | {"model": name} for one in requests]))}
    elif "model" in fields:
        fields = fields | {"model": name}
    return WireRequest(url=model_url(endpoint, request.path_suffix), body=msgspec.json.encode(fields))


class _Vector(Struct):
    values: list[float]


class _EmbeddingsUsage(Struct, rename="camel"):
    prompt_token_count: int | None = None


class _Embeddings(Struct, rename="camel"):
    embedding: _Vector | None = None
    embeddings: list[_Vector] | None = None
    usage_metadata: _EmbeddingsUsage | None = None


_EMBEDDINGS = msgspec.json.Decoder(_Embeddings)


def _embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """An embeddings list; only newer models report the tokens."""
    reply = decode_reply(_EMBEDDINGS, body)
    vectors = [vector.values for vector in _vectors(reply)]
    return embeddings_reply(request, vectors, model=endpoint.model, usage=_embeddings_usage(reply))


def _native_embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """What is measured of Gemini's own reply; the bytes stay."""
    reply = decode_reply(_EMBEDDINGS, body)
    _vectors(reply)
    return ModelReply(body=body, usage=_embeddings_usage(reply))


def _vectors(reply: _Embeddings) -> list[_Vector]:
    vectors = [reply.embedding] if reply.embedding is not None else reply.embeddings
    if vectors is None:
        raise UpstreamError(ErrorType.UNREADABLE_REPLY, "The provider's reply holds no embeddings.")
    return vectors


def _embeddings_usage(reply: _Embeddings) -> Usage | None:
    tokens = None if reply.usage_metadata is None else reply.usage_metadata.prompt_token_count
    return None if tokens is None else Usage(input_tokens=tokens, output_tokens=0)


# --- errors -----------------------------------------------------------------------------------------------------


class _Detail(Struct, rename="camel"):
    reason: str | None = None
    retry_delay: str | None = None


class _Error(Struct, frozen=True):
    status: str = ""
    details: tuple[Raw, ...] = ()


class _ErrorBody(Struct):
    error: _Error = _Error()


def fault(status: int, body: bytes) -> Fault:
    """The fault of a Google error body: `error.status` says the cause, `RetryInfo` when to come again."""
    found = default_fault(status, body)
    error = _error(body)
    details = [detail for raw in error.details if (detail := _detail(raw)) is not None]
    error_type = ERROR_TYPES.get(error.status)
    if any(detail.reason == "API_KEY_INVALID" for detail in details):
        # Google calls a wrong key an invalid argument.
        error_type = ErrorType.PROVIDER_AUTH
    delays = [delay for detail in details if (delay := _seconds(detail.retry_delay)) is not None]
    return msgspec.structs.replace(found, error_type=error_type, retry_after_s=max(delays, default=None))


def _error(body: bytes) -> _Error:
    # Asked to stream, Google wraps the body into a list.
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return msgspec.json.decode(body, type=list[_ErrorBody])[0].error
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
        return _Error()


def _detail(raw: Raw) -> _Detail | None:
    try:
        return msgspec.json.decode(raw, type=_Detail)
    except msgspec.MsgspecError:
        return None


def _seconds(duration: str | None) -> float | None:
    """A protobuf duration such as `21.5s`."""
    try:
        return float((duration or "").removesuffix("s"))
    except ValueError:
        return None


DIALECT = Dialect(
    name="gemini",
    codecs={
        **gemini_codecs(call_ids=True),
        Operation.EMBEDDINGS: Codec(to_wire=_embeddings_to_wire, from_wire=_embeddings_from_wire),
        Operation.EMBED_CONTENT: Codec(to_wire=_native_embeddings_to_wire, from_wire=_native_embeddings_from_wire),
    },
    fault=fault,
)


def _connect(config: GeminiConfig, model: str) -> Endpoint:
    return Endpoint(
        provider="gemini",
        dialect=DIALECT,
        base_url=config.gemini_api_base.rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=(("x-goog-api-key", config.gemini_api_key),)),
    )


GEMINI = Provider(
    name="gemini", title="Gemini", gen_ai_name="gcp.gemini", config=GeminiConfig, connect=_connect, check=require_model
)
