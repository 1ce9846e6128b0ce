"""OpenAI's own surface, `/v1/...`: requests go on as they came, `model` being the route's name."""

from collections.abc import Callable
from functools import partial

import msgspec

from gateway.api import errors
from gateway.api.fields import require_list, string_field, wants_stream, wants_usage
from gateway.api.surface import Fields, Surface
from gateway.serve.routing import BoundRoute
from gateway.types.errors import ErrorType, GatewayError, RequestError
from gateway.types.model_io import ModelReply, ModelRequest
from gateway.types.route import CANONICAL_OPERATION, Operation, RouteType

_REQUIRED = {RouteType.CHAT: "messages", RouteType.COMPLETIONS: "prompt", RouteType.EMBEDDINGS: "input"}
_KINDS = {RouteType.CHAT: "a chat", RouteType.COMPLETIONS: "a completions", RouteType.EMBEDDINGS: "an embeddings"}


def canonical_request(fields: Fields, route: BoundRoute) -> ModelRequest:
    """A request whose body is already canonical; raises RequestError for what no provider could serve."""
    route_type = route.route.route_type
    if route_type is RouteType.CHAT:
        require_list(fields, "messages")
    elif _REQUIRED[route_type] not in fields:
        name = _REQUIRED[route_type]
        raise RequestError(ErrorType.INVALID_REQUEST, f"'{name}' is required.", param=name)
    stream = wants_stream(fields)
    return ModelRequest(
        operation=CANONICAL_OPERATION[route_type],
        fields=fields,
        stream=stream,
        include_usage=stream and wants_usage(fields),
    )


def canonical_body(reply: ModelReply, route: BoundRoute) -> bytes:
    """The reply as it is."""
    return reply.body


def require_route_type(route: BoundRoute, operation: Operation) -> None:
    """Refuse, by a RequestError, a route of a type that cannot serve the operation."""
    if route.route.route_type is not operation.route_type:
        raise RequestError(
            ErrorType.WRONG_ROUTE_TYPE,
            f"Endpoint '{route.route.name}' is not {_KINDS[operation.route_type]} endpoint.",
            param="model",
        )


def _read_v1(operation: Operation, fields: Fields, route: BoundRoute) -> ModelRequest:
    require_route_type(route, operation)
    return canonical_request(fields, route)


def route_from_model(parameter: str | None, fields: Fields) -> str:
    """The route that the body's `model` names; raises RequestError."""
    return string_field(fields, "model")


def no_such_model(name: str) -> GatewayError:
    """The answer to a model that is no route."""
    return RequestError(
        ErrorType.UNKNOWN_ROUTE,
        f"Route {name} not found in the configuration. GET /v1/models lists the routes.",
        param="model",
    )


def v1(path: str, operation: Operation) -> Surface:
    """The surface of one `/v1/...` path; `model` names the route."""
    read: Callable[[Fields, BoundRoute], ModelRequest] = partial(_read_v1, operation)
    return Surface(
        path=path,
        route_name=route_from_model,
        read=read,
        whole=canonical_body,
        error_body=errors.openai_body,
        status=errors.status_of,
        unknown_route=no_such_model,
    )


def route_from_path(parameter: str | None, fields: Fields) -> str:
    """The route that the path names. Azure's SDK sends its name as `model`, too; the service behind it reads the path."""
    return parameter or ""


def _azure(operation: Operation, call: str) -> Surface:
    return msgspec.structs.replace(v1(f"/openai/deployments/{{name}}/{call}", operation), route_name=route_from_path)


AZURE_CALLS = {
    "chat/completions": _azure(Operation.CHAT, "chat/completions"),
    "completions": _azure(Operation.COMPLETIONS, "completions"),
    "embeddings": _azure(Operation.EMBEDDINGS, "embeddings"),
}
"""What Azure's SDKs call, by the end of the path: a route is a deployment there, whatever the API's version."""

V1_SURFACES = (
    v1("/v1/chat/completions", Operation.CHAT),
    v1("/v1/completions", Operation.COMPLETIONS),
    v1("/v1/embeddings", Operation.EMBEDDINGS),
)
