"""The endpoint surface, `/endpoints/{name}/invocations`: OpenAI's shapes as MLflow 2.9 and later read and wrote them.

Requests are checked as pydantic checked them, and go on with its defaults; replies have every member that MLflow's had,
null where nobody said anything, since its clients read them without asking. What else a provider says stays.

Source: mlflow 3.17 `gateway/schemas`, `types/chat.py`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.api import errors
from gateway.api.openai import canonical_request
from gateway.api.schema_error import OneOf, SchemaError
from gateway.api.surface import Fields, Surface
from gateway.serve.routing import BoundRoute
from gateway.types.errors import ErrorType, GatewayError, RequestError
from gateway.types.model_io import ModelReply, ModelRequest
from gateway.types.route import RouteType

MODEL_NOT_PERMITTED = (
    "The parameter 'model' is not permitted to be passed. The route being queried already defines a model instance."
)
_NULL = Raw(b"null")
_ONE = Raw(b"1")

# --- requests ---------------------------------------------------------------------------------------------------

AtLeastOne = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopList = Annotated[list[str], Meta(min_length=1)]


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]


class _Common(Struct, kw_only=True):
    """What chat and completions share. One difference to MLflow: `stop` may be a string, as in OpenAI's own API."""

    n: AtLeastOne = 1
    stop: Annotated[str | StopList | None, Meta(extra={"one_of": OneOf((StopList,))})] = None
    max_tokens: AtLeastOne | None = None
    max_completion_tokens: AtLeastOne | None = None
    stream: bool | None = None
    response_format: _Format | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: AtLeastOne | None = None


class _Message(Struct):
    role: str


class _Chat(_Common, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    tools: list[Any] | None = None


class _Completions(_Common, kw_only=True):
    prompt: str


class _Embeddings(Struct):
    input: Annotated[
        str | list[str | int | list[int]],
        Meta(extra={"one_of": OneOf((str, list[str], list[int], list[list[int]]))}),
    ]


_SCHEMAS: dict[RouteType, type[Struct]] = {
    RouteType.CHAT: _Chat,
    RouteType.COMPLETIONS: _Completions,
    RouteType.EMBEDDINGS: _Embeddings,
}
# Not strict where there are numbers: pydantic took "0.5" for 0.5 and 5.0 for 5, so apps may send them.
_DECODERS: dict[RouteType, msgspec.json.Decoder[Any]] = {
    route_type: msgspec.json.Decoder(schema, strict=route_type is RouteType.EMBEDDINGS)
    for route_type, schema in _SCHEMAS.items()
}
_INTEGERS = frozenset({"n", "max_tokens", "max_completion_tokens", "top_k"})
_SCALARS = _INTEGERS | {"stream", "temperature", "top_p", "presence_penalty", "frequency_penalty"}


def endpoint_request(fields: Fields, route: BoundRoute) -> ModelRequest:
    """A canonical request that is checked as MLflow checked it, its nulls left out; raises SchemaError.

    `n` is always sent, as MLflow did: 1 where the caller said nothing.
    """
    route_type = route.route.route_type
    raw = msgspec.json.encode(fields)
    try:
        body = _DECODERS[route_type].decode(raw)
    except msgspec.ValidationError as error:
        raise SchemaError(error, raw, _SCHEMAS[route_type]) from None
    canonical = {name: value for name, value in fields.items() if value != _NULL}
    if isinstance(body, _Embeddings):
        if isinstance(body.input, list) and len({type(item) for item in body.input}) > 1:
            raise SchemaError(None, raw, _Embeddings)
    else:
        for name in _SCALARS & canonical.keys():
            text = bytes(canonical[name])
            if text.startswith(b'"') or (name in _INTEGERS and not text.isdigit()):
                canonical[name] = Raw(msgspec.json.encode(getattr(body, name)))
        canonical.setdefault("n", _ONE)
    return canonical_request(canonical, route)


def route_from_path(parameter: str | None, fields: Fields) -> str:
    """The route that the path names; its body may not name another."""
    if "model" in fields:
        raise RequestError(ErrorType.INVALID_REQUEST, MODEL_NOT_PERMITTED, param="model")
    return parameter or ""


def not_found(name: str) -> GatewayError:
    """What the MLflow gateway said of a path without a route."""
    return RequestError(ErrorType.UNKNOWN_ROUTE, "Not Found")


# --- replies ----------------------------------------------------------------------------------------------------

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_CHOICES = msgspec.json.Decoder(list[dict[str, Raw]])
_NO_USAGE = Raw(b'{"prompt_tokens":null,"completion_tokens":null,"total_tokens":null}')
_NO_EMBEDDINGS_USAGE = Raw(b'{"prompt_tokens":null,"total_tokens":null}')


def endpoint_body(reply: ModelReply, route: BoundRoute) -> bytes:
    """A canonical reply with all members of MLflow's shape; raises nothing: what is no such reply stays as it is."""
    route_type = route.route.route_type
    try:
        members = _MEMBERS.decode(reply.body)
        if members.get("usage", _NULL) == _NULL:
            members["usage"] = _NO_EMBEDDINGS_USAGE if route_type is RouteType.EMBEDDINGS else _NO_USAGE
        if route_type is not RouteType.EMBEDDINGS:
            members.setdefault("id", _NULL)
            complete = _complete_chat if route_type is RouteType.CHAT else _complete_text
            choices = _CHOICES.decode(members["choices"])
            for index, choice in enumerate(choices):
                choice.setdefault("index", Raw(str(index).encode()))
                choice.setdefault("finish_reason", _NULL)
                complete(choice)
            members["choices"] = Raw(msgspec.json.encode(choices))
            if route_type is RouteType.COMPLETIONS:
                members["object"] = _TEXT_COMPLETION
    except (msgspec.MsgspecError, KeyError):
        return reply.body
    return msgspec.json.encode(members)


_TEXT_COMPLETION = Raw(b'"text_completion"')


def _complete_chat(choice: dict[str, Raw]) -> None:
    message = _MEMBERS.decode(choice["message"])
    for name in ("content", "tool_calls", "refusal"):
        message.setdefault(name, _NULL)
    choice["message"] = Raw(msgspec.json.encode(message))


def _complete_text(choice: dict[str, Raw]) -> None:
    # Some providers answer completions with the messages of a chat.
    if "text" not in choice:
        choice["text"] = _MEMBERS.decode(choice.pop("message")).get("content", Raw(b'""'))


ENDPOINTS = Surface(
    path="/endpoints/{name}/invocations",
    route_name=route_from_path,
    read=endpoint_request,
    whole=endpoint_body,
    error_body=errors.mlflow_body,
    status=errors.endpoints_status_of,
    unknown_route=not_found,
)
ON_GATEWAY = msgspec.structs.replace(ENDPOINTS, path="/gateway/{route}/invocations")
"""The same for routes of `endpoints:` on the original path, which MLflow served alike from 2.9 on."""
