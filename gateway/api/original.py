"""The original surface, `/gateway/{route}/invocations` as MLflow 2.5 to 2.8 spoke it: a thin translation at the edge.

Requests have `candidate_count`, `text` and a temperature of 0 to 1; replies have `candidates` and `metadata`. A route
configured under `endpoints:` speaks the OpenAI-like shape on this path, as MLflow did from 2.9 on.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.api import errors
from gateway.api.endpoints import ON_GATEWAY, not_found, route_from_path
from gateway.api.fields import wants_stream
from gateway.api.schema_error import SchemaError
from gateway.api.surface import Fields, Surface
from gateway.serve.routing import BoundRoute
from gateway.types.errors import ErrorType, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest
from gateway.types.route import CANONICAL_OPERATION, RouteType

# --- requests ---------------------------------------------------------------------------------------------------

Temperature = Annotated[float, Meta(ge=0, le=1)]
CandidateCount = Annotated[int, Meta(ge=1, le=5)]
Stop = Annotated[list[str], Meta(min_length=1)]
MaxTokens = Annotated[int, Meta(ge=1)]


class OriginalMessage(Struct):
    """One chat message; other members are forwarded as they are."""

    role: str
    content: str


class _Common(Struct, kw_only=True):
    temperature: Temperature = 0.0
    candidate_count: CandidateCount = 1
    stop: Stop | None = None
    max_tokens: MaxTokens | None = None


class OriginalChat(_Common, kw_only=True):
    """The body of a chat request."""

    messages: Annotated[list[OriginalMessage], Meta(min_length=1)]


class OriginalCompletions(_Common, kw_only=True):
    """The body of a completions request."""

    prompt: str


class OriginalEmbeddings(Struct):
    """The body of an embeddings request."""

    text: str | list[str]


REQUEST_TYPES: dict[RouteType, type[OriginalChat | OriginalCompletions | OriginalEmbeddings]] = {
    RouteType.CHAT: OriginalChat,
    RouteType.COMPLETIONS: OriginalCompletions,
    RouteType.EMBEDDINGS: OriginalEmbeddings,
}
# Not strict: pydantic took "0.5" for 0.5 and 5.0 for 5, so apps may send them.
_DECODERS = {route_type: msgspec.json.Decoder(body, strict=False) for route_type, body in REQUEST_TYPES.items()}


def read_original(fields: Fields, route: BoundRoute) -> ModelRequest:
    """The canonical request of an original body; raises SchemaError and RequestError."""
    route_type = route.route.route_type
    raw = msgspec.json.encode(fields)
    try:
        body = _DECODERS[route_type].decode(raw)
    except msgspec.ValidationError as error:
        raise SchemaError(error, raw, REQUEST_TYPES[route_type]) from None
    if fields.get("stream") == _TRUE_TEXT or wants_stream(fields):
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "Setting the 'stream' parameter to 'true' is not supported on this path. "
            'Use /endpoints/{name}/invocations or /v1 with "stream": true.',
            param="stream",
        )
    canonical = {name: value for name, value in fields.items() if name not in ("stream", "stream_options")}
    if isinstance(body, OriginalEmbeddings):
        if "input" in canonical:
            raise RequestError(ErrorType.INVALID_REQUEST, "Invalid parameter input. Use text instead.", param="input")
        canonical["input"] = canonical.pop("text")
    else:
        if "n" in canonical:
            raise RequestError(
                ErrorType.INVALID_REQUEST, "Invalid parameter `n`. Use `candidate_count` instead.", param="n"
            )
        canonical.pop("candidate_count", None)
        canonical["n"] = Raw(str(body.candidate_count).encode())
        # 0 to 1 here is 0 to 2 in the canonical form; providers scale from there.
        canonical["temperature"] = Raw(msgspec.json.encode(body.temperature * 2))
        if body.max_tokens is not None:
            canonical["max_tokens"] = Raw(str(body.max_tokens).encode())
        for name in ("stop", "max_tokens"):
            if canonical.get(name) == _NULL:
                del canonical[name]
    return ModelRequest(operation=CANONICAL_OPERATION[route_type], fields=canonical, original_shape=True)


_NULL = Raw(b"null")
_TRUE_TEXT = Raw(b'"true"')


# --- replies ----------------------------------------------------------------------------------------------------


class _Message(Struct, omit_defaults=True):
    role: str = msgspec.field(default="assistant")
    content: Raw = Raw(b"null")
    tool_calls: Raw = Raw()
    refusal: Raw = Raw()


class _Choice(Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    seed: str | None = None


class _Completion(Struct):
    choices: list[_Choice] = []
    model: str | None = None


class _Embedding(Struct):
    embedding: Raw


class _Embeddings(Struct):
    data: list[_Embedding] = []
    model: str | None = None


_COMPLETION = msgspec.json.Decoder(_Completion)
_EMBEDDINGS = msgspec.json.Decoder(_Embeddings)


def original_body(reply: ModelReply, route: BoundRoute) -> bytes:
    """A canonical reply in the original shape: `candidates` (or `embeddings`) and `metadata`."""
    route_type = route.route.route_type
    try:
        if route_type is RouteType.EMBEDDINGS:
            vectors = _EMBEDDINGS.decode(reply.body)
            content: dict[str, Any] = {"embeddings": [item.embedding for item in vectors.data]}
        else:
            completion = _COMPLETION.decode(reply.body)
            candidate = _chat_candidate if route_type is RouteType.CHAT else _text_candidate
            content = {"candidates": [candidate(choice) for choice in completion.choices]}
    except msgspec.MsgspecError:
        raise UpstreamError(
            ErrorType.UNREADABLE_REPLY, "The provider's reply has not the members that the route's shape needs."
        ) from None
    return msgspec.json.encode(content | {"metadata": _metadata(reply, route)})


def _chat_candidate(choice: _Choice) -> dict[str, Any]:
    message = choice.message or _Message()
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls and message.tool_calls != _NULL:
        written["tool_calls"] = message.tool_calls
    return {"message": written, "metadata": {"finish_reason": choice.finish_reason}}


def _text_candidate(choice: _Choice) -> dict[str, Any]:
    metadata = {"finish_reason": choice.finish_reason, "seed": choice.seed}
    return {
        "text": choice.text or "",
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }


def _metadata(reply: ModelReply, route: BoundRoute) -> dict[str, Any]:
    usage = reply.usage
    return {
        "input_tokens": usage.input_tokens if usage is not None else None,
        "output_tokens": usage.output_tokens if usage is not None else None,
        "total_tokens": usage.total_tokens if usage is not None else None,
        "model": reply.response_model or route.route.model,
        "route_type": route.route.route_type.value,
    }


ORIGINAL = Surface(
    path="/gateway/{route}/invocations",
    route_name=route_from_path,
    read=read_original,
    whole=original_body,
    error_body=errors.mlflow_body,
    status=errors.mlflow_status_of,
    unknown_route=not_found,
    endpoint_shape=ON_GATEWAY,
)
