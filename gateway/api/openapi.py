"""The OpenAPI document: every configured route with its real request and reply schemas and an example to try."""

from typing import Any

import msgspec
from msgspec import Struct

from gateway import __version__
from gateway.api import schemas
from gateway.api.original import OriginalChat, OriginalCompletions, OriginalEmbeddings
from gateway.serve.routing import RoutingTable
from gateway.types.route import Route, RouteType

_REF = "#/components/schemas/{name}"


class _Shape(Struct, frozen=True):
    request: type[Struct]
    reply: type[Struct]
    error: type[Struct]
    example: dict[str, Any]


_MESSAGES = [{"role": "user", "content": "Why is the sky blue? Answer in one sentence."}]
_OPENAI = {
    RouteType.CHAT: _Shape(
        schemas.ChatRequest, schemas.ChatReply, schemas.MlflowError, {"messages": _MESSAGES, "max_tokens": 64}
    ),
    RouteType.COMPLETIONS: _Shape(
        schemas.CompletionsRequest,
        schemas.CompletionsReply,
        schemas.MlflowError,
        {"prompt": "The sky is blue because", "max_tokens": 32},
    ),
    RouteType.EMBEDDINGS: _Shape(
        schemas.EmbeddingsRequest, schemas.EmbeddingsReply, schemas.MlflowError, {"input": "The sky is blue."}
    ),
}
_ORIGINAL = {
    RouteType.CHAT: _Shape(
        OriginalChat,
        schemas.OriginalChatReply,
        schemas.MlflowError,
        {"messages": _MESSAGES, "temperature": 0.2, "max_tokens": 64},
    ),
    RouteType.COMPLETIONS: _Shape(
        OriginalCompletions,
        schemas.OriginalCompletionsReply,
        schemas.MlflowError,
        {"prompt": "The sky is blue because", "max_tokens": 32},
    ),
    RouteType.EMBEDDINGS: _Shape(
        OriginalEmbeddings, schemas.OriginalEmbeddingsReply, schemas.MlflowError, {"text": "The sky is blue."}
    ),
}
_V1_PATHS = {
    RouteType.CHAT: "/v1/chat/completions",
    RouteType.COMPLETIONS: "/v1/completions",
    RouteType.EMBEDDINGS: "/v1/embeddings",
}


def document(routes: RoutingTable) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the routes in force."""
    paths: dict[str, Any] = {}
    used: set[RouteType] = set()
    for bound in routes.values():
        route = bound.route
        used.add(route.route_type)
        shapes = _ORIGINAL if route.original_shape else _OPENAI
        paths[f"/gateway/{route.name}/invocations"] = _operation(route, shapes[route.route_type], "gateway")
        paths[f"/endpoints/{route.name}/invocations"] = _operation(route, _OPENAI[route.route_type], "endpoints")
    for route_type in RouteType:
        if route_type in used:
            names = [bound.route.name for bound in routes.values() if bound.route.route_type is route_type]
            paths[_V1_PATHS[route_type]] = _v1_operation(route_type, names)
    paths["/v1/models"] = {"get": _get("List the routes as models", "openai")}
    paths["/api/2.0/gateway/routes/"] = {"get": _get("List the routes", "listing")}
    paths["/api/2.0/endpoints/"] = {"get": _get("List the endpoints", "listing")}
    paths["/health"] = {"get": _get("Whether the gateway serves", "operations")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gaugeway API",
            "version": __version__,
            "description": "Every reply carries `x-gateway-trace-id`, which also names its trace, log line and exemplar.",
        },
        "paths": paths,
        "components": {"schemas": _components()},
    }


def _components() -> dict[str, Any]:
    types: list[type[Struct]] = [schemas.OpenAIError]
    for shapes in (_OPENAI, _ORIGINAL):
        for shape in shapes.values():
            types += [shape.request, shape.reply, shape.error]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    return components


def _reference(type_: type[Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=type_.__name__)}}}


def _operation(route: Route, shape: _Shape, tag: str) -> dict[str, Any]:
    target = f"{route.provider}, {route.model}" if route.model else route.provider
    return {
        "post": {
            "tags": [tag],
            "operationId": f"{tag}_{route.name}",
            "summary": f"{route.name} ({route.route_type.value}; {target})",
            "requestBody": _body(shape.request, shape.example),
            "responses": _responses(shape.reply, shape.error),
        }
    }


def _v1_operation(route_type: RouteType, names: list[str]) -> dict[str, Any]:
    shape = _OPENAI[route_type]
    request = {
        "allOf": [
            {"$ref": _REF.format(name=shape.request.__name__)},
            {"type": "object", "properties": {"model": {"type": "string", "enum": names}}, "required": ["model"]},
        ]
    }
    return {
        "post": {
            "tags": ["openai"],
            "operationId": f"v1_{route_type.name.lower()}",
            "summary": f"{route_type.value} for OpenAI's clients; model is the route's name",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": request, "example": {"model": names[0]} | shape.example}},
            },
            "responses": _responses(shape.reply, schemas.OpenAIError),
        }
    }


def _body(type_: type[Struct], example: dict[str, Any]) -> dict[str, Any]:
    content = _reference(type_)
    content["application/json"]["example"] = example
    return {"required": True, "content": content}


def _responses(reply: type[Struct], error: type[Struct]) -> dict[str, Any]:
    return {
        "200": {"description": "The model's answer", "content": _reference(reply)},
        "4XX": {"description": "A mistake of the caller, or a refusal", "content": _reference(error)},
        "5XX": {"description": "A failure of the provider or the gateway", "content": _reference(error)},
    }


def _get(summary: str, tag: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": [tag],
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}},
    }
