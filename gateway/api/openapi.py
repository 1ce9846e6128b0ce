"""The OpenAPI document: every path that is served, and every configured route, with schemas and an example to try."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway import __version__
from gateway.api import native, native_schemas, schemas
from gateway.api.models import gemini_model
from gateway.api.openai import AZURE_CALLS, V1_SURFACES
from gateway.api.original import REQUEST_TYPES
from gateway.serve.routing import BoundRoute, RoutingTable
from gateway.types.route import Operation, Route, RouteType

_REF = "#/components/schemas/{name}"


class _Call(Struct, frozen=True):
    """What one kind of call takes and gives. `streams` says whether `"stream": true`, or the path, makes it a stream."""

    operation: Operation
    request: type[Struct]
    reply: type[Struct]
    error: type[Struct]
    example: dict[str, Any]
    streams: bool = False


_WORDS = "Why is the sky blue? Answer in one sentence."
_MESSAGES = [{"role": "user", "content": _WORDS}]
_CONTENTS = [{"role": "user", "parts": [{"text": _WORDS}]}]
_EMBEDDED = {"content": {"parts": [{"text": "The sky is blue."}]}}

_CHAT = _Call(
    Operation.CHAT,
    schemas.ChatRequest,
    schemas.ChatReply,
    schemas.MlflowError,
    {"messages": _MESSAGES, "max_tokens": 64},
    streams=True,
)
_COMPLETIONS = _Call(
    Operation.COMPLETIONS,
    schemas.CompletionsRequest,
    schemas.CompletionsReply,
    schemas.MlflowError,
    {"prompt": "The sky is blue because", "max_tokens": 32},
    streams=True,
)
_EMBEDDINGS = _Call(
    Operation.EMBEDDINGS,
    schemas.EmbeddingsRequest,
    schemas.EmbeddingsReply,
    schemas.MlflowError,
    {"input": "The sky is blue."},
)
_OPENAI = {call.operation.route_type: call for call in (_CHAT, _COMPLETIONS, _EMBEDDINGS)}
_ORIGINAL_REPLIES: Mapping[RouteType, tuple[type[Struct], dict[str, Any]]] = {
    RouteType.CHAT: (schemas.OriginalChatReply, {"temperature": 0.2} | _CHAT.example),
    RouteType.COMPLETIONS: (schemas.OriginalCompletionsReply, _COMPLETIONS.example),
    RouteType.EMBEDDINGS: (schemas.OriginalEmbeddingsReply, {"text": "The sky is blue."}),
}
_ORIGINAL = {
    route_type: _Call(_OPENAI[route_type].operation, REQUEST_TYPES[route_type], reply, schemas.MlflowError, example)
    for route_type, (reply, example) in _ORIGINAL_REPLIES.items()
}


def _native(operation: Operation, request: type[Struct], reply: type[Struct], example: dict[str, Any]) -> _Call:
    error: type[Struct] = native_schemas.GeminiError
    if operation is Operation.RESPONSES:
        error = schemas.OpenAIError
    elif operation in (Operation.MESSAGES, Operation.COUNT_TOKENS):
        error = native_schemas.AnthropicError
    streams = reply in (native_schemas.ResponsesReply, native_schemas.MessagesReply)
    return _Call(operation, request, reply, error, example, streams)


_GEMINI = {
    ":generateContent": _native(
        Operation.GENERATE_CONTENT,
        native_schemas.GenerateContentRequest,
        native_schemas.GenerateContentReply,
        {"contents": _CONTENTS},
    ),
    ":countTokens": _native(
        Operation.GENERATE_CONTENT,
        native_schemas.GeminiCountRequest,
        native_schemas.GeminiCountReply,
        {"contents": _CONTENTS},
    ),
    ":embedContent": _native(
        Operation.EMBED_CONTENT, native_schemas.EmbedContentRequest, native_schemas.EmbedContentReply, _EMBEDDED
    ),
    ":batchEmbedContents": _native(
        Operation.EMBED_CONTENT,
        native_schemas.BatchEmbedRequest,
        native_schemas.BatchEmbedReply,
        {"requests": [_EMBEDDED]},
    ),
}
_GEMINI[":streamGenerateContent"] = msgspec.structs.replace(_GEMINI[":generateContent"], streams=True)

CALLS: Mapping[str, _Call] = {
    **{
        surface.path: msgspec.structs.replace(call, error=schemas.OpenAIError)
        for surface, call in zip(V1_SURFACES, _OPENAI.values(), strict=True)
    },
    **{
        surface.path: msgspec.structs.replace(call, error=schemas.OpenAIError)
        for surface, call in zip(AZURE_CALLS.values(), _OPENAI.values(), strict=True)
    },
    native.RESPONSES.path: _native(
        Operation.RESPONSES, native_schemas.ResponsesRequest, native_schemas.ResponsesReply, {"input": _WORDS}
    ),
    native.COMPACT.path: _native(
        Operation.RESPONSES, native_schemas.ResponsesRequest, native_schemas.CompactReply, {"input": _MESSAGES}
    ),
    native.INPUT_TOKENS.path: _native(
        Operation.RESPONSES, native_schemas.ResponsesRequest, native_schemas.InputTokensReply, {"input": _WORDS}
    ),
    native.MESSAGES.path: _native(
        Operation.MESSAGES,
        native_schemas.MessagesRequest,
        native_schemas.MessagesReply,
        {"max_tokens": 64, "messages": _MESSAGES},
    ),
    native.COUNT_TOKENS.path: _native(
        Operation.COUNT_TOKENS,
        native_schemas.CountTokensRequest,
        native_schemas.CountTokensReply,
        {"messages": _MESSAGES},
    ),
    **{surface.path: _GEMINI[call] for calls in native.GEMINI_CALLS.values() for call, surface in calls.items()},
}
"""By the template of its path, each call whose route stands in the body (`model`) or for the path's parameter."""


def document(routes: RoutingTable) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the routes in force: a path that no route could serve is left out."""
    paths: dict[str, Any] = {}
    for bound in routes.values():
        route = bound.route
        shapes = _ORIGINAL if route.original_shape else _OPENAI
        paths[f"/gateway/{route.name}/invocations"] = _route_path(route, shapes[route.route_type], "gateway")
        paths[f"/endpoints/{route.name}/invocations"] = _route_path(route, _OPENAI[route.route_type], "endpoints")
    for path, call in CALLS.items():
        if names := [name for name, bound in routes.items() if _serves(bound, call.operation)]:
            paths[path] = _shared_path(path, call, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gaugeway API",
            "version": __version__,
            "description": "Every reply carries `x-gateway-trace-id`, which also names its trace, log line and exemplar.",
        },
        "paths": paths | _pages(routes),
        "components": {"schemas": _components()},
    }


def _serves(bound: BoundRoute, operation: Operation) -> bool:
    return bound.route.route_type is operation.route_type and any(
        operation in target.endpoint.dialect.codecs for target in bound.targets
    )


def _components() -> dict[str, Any]:
    types: dict[type[Struct], None] = {}
    for call in (*_OPENAI.values(), *_ORIGINAL.values(), *CALLS.values()):
        types |= dict.fromkeys((call.request, call.reply, call.error))
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    return components


def _reference(type_: type[Struct]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=type_.__name__)}


def _route_path(route: Route, call: _Call, tag: str) -> dict[str, Any]:
    target = f"{route.provider}, {route.model}" if route.model else route.provider
    return {
        "post": {
            "tags": [tag],
            "operationId": f"{tag}_{route.name}",
            "summary": f"{route.name} ({route.route_type.value}; {target})",
            "requestBody": _body(_reference(call.request), call.example),
            "responses": _responses(call),
        }
    }


def _shared_path(path: str, call: _Call, names: list[str]) -> dict[str, Any]:
    named = {"type": "string", "enum": names}
    operation: dict[str, Any] = {
        "tags": [_tag(path)],
        "operationId": path.strip("/").replace("/", "_").replace("{", "").replace("}", "").replace(":", "_"),
        "responses": _responses(call),
    }
    if "{" in path:
        name = path.partition("{")[2].partition("}")[0]
        operation["summary"] = "The path names the route"
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": named}]
        operation["requestBody"] = _body(_reference(call.request), call.example)
    else:
        operation["summary"] = "`model` is the route's name"
        model = {"type": "object", "properties": {"model": named}, "required": ["model"]}
        operation["requestBody"] = _body(
            {"allOf": [_reference(call.request), model]}, {"model": names[0]} | call.example
        )
    return {"post": operation}


def _tag(path: str) -> str:
    if path.startswith("/v1/messages"):
        return "anthropic"
    if path.startswith("/openai/"):
        return "azure"
    return "gemini" if ":" in path else "openai"


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _responses(call: _Call) -> dict[str, Any]:
    answer: dict[str, Any] = {"application/json": {"schema": _reference(call.reply)}}
    if call.streams:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": _reference(call.error)}}
    return {
        "200": {"description": "The model's answer", "content": answer},
        "4XX": {"description": "A mistake of the caller, or a refusal", "content": error},
        "5XX": {"description": "A failure of the provider or the gateway", "content": error},
    }


def _pages(routes: RoutingTable) -> dict[str, Any]:
    """What is looked at: listings, one route of each, and health."""
    pages = {
        "/v1/models": _page("List the routes as models", "openai"),
        "/v1beta/models": _page("List the routes that speak Gemini's API as its models", "gemini"),
        "/api/2.0/gateway/routes/": _page("List the routes", "listing"),
        "/api/2.0/endpoints/": _page("List the endpoints", "listing"),
        "/health": _page("Whether the gateway serves", "operations"),
    }
    # MLflow lists its traffic routes apart.
    traffic = [name for name, bound in routes.items() if bound.route.destinations]
    plain = [name for name in routes if name not in traffic]
    shown = {
        "/v1/models": ("openai", list(routes)),
        "/v1beta/models": ("gemini", [name for name, bound in routes.items() if gemini_model(bound) is not None]),
        "/api/2.0/gateway/routes": ("listing", plain),
        "/api/2.0/endpoints": ("listing", plain),
        "/api/3.0/gateway/endpoint": ("listing", plain),
        "/api/3.0/gateway/route": ("listing", traffic),
    }
    return pages | {f"{path}/{{name}}": _page("One route", tag, names) for path, (tag, names) in shown.items() if names}


def _page(summary: str, tag: str, names: list[str] | None = None) -> dict[str, Any]:
    shown = {"application/json": {"schema": {"type": "object"}}}
    page: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "responses": {"200": {"description": "OK", "content": shown}},
    }
    if names is not None:
        schema = {"type": "string", "enum": names}
        page["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": schema}]
        page["responses"]["404"] = {"description": "There is no such route"}
    return {"get": page}
