"""The routes as vendors list their models, for SDKs that ask which there are.

Source: https://platform.openai.com/docs/api-reference/models, https://platform.claude.com/docs/en/api/models-list,
https://ai.google.dev/api/models
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.serve.routing import BoundRoute, RoutingTable
from gateway.types.route import Operation


def model_handlers(routes: Callable[[], RoutingTable], started: int) -> list[HTTPRouteHandler]:
    """The handlers.

    Args:
        routes: gives the table in force.
        started: the start in seconds since the epoch, which stands for each model's age.
    """

    @get(_spelled("/v1/models"), include_in_schema=False, sync_to_thread=False)
    def models() -> dict[str, Any]:
        names = list(routes())
        page = {"has_more": False, "first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        # Google's newest SDKs ask this path, too, and read `models`.
        return {
            "object": "list",
            "data": [_model(name, started) for name in names],
            **page,
            "models": _gemini_models(routes()),
        }

    @get(_spelled("/v1/models/{name:str}"), include_in_schema=False, sync_to_thread=False)
    def model(name: FromPath[str]) -> Response[dict[str, Any]]:
        if name not in routes():
            error = {
                "message": f"The model '{name}' does not exist. GET /v1/models lists the routes.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "unknown_route",
            }
            return Response({"error": error}, status_code=404)
        return Response(_model(name, started) | (gemini_model(routes()[name]) or {}))

    @get("/v1beta/models", include_in_schema=False, sync_to_thread=False)
    def gemini_models() -> dict[str, Any]:
        return {"models": _gemini_models(routes())}

    @get("/v1beta/models/{name:str}", include_in_schema=False, sync_to_thread=False)
    def one_gemini_model(name: FromPath[str]) -> dict[str, Any]:
        bound = routes().get(name)
        found = None if bound is None else gemini_model(bound)
        if found is None:
            raise NotFoundException(f"models/{name} is not a Gemini route.")
        return found

    return [models, model, gemini_models, one_gemini_model]


def _spelled(path: str) -> list[str]:
    """The path as SDKs ask for it: Azure's and Groq's behind `/openai`, and without the version that a base URL left out."""
    return [path, f"/openai{path}", path.removeprefix("/v1")]


def _model(name: str, started: int) -> dict[str, Any]:
    """A route as OpenAI lists a model, and with the members that Anthropic's SDKs read."""
    created = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    anthropic = {"type": "model", "display_name": name, "created_at": created}
    return {"id": name, "object": "model", "created": started, "owned_by": "gaugeway", **anthropic}


_GEMINI_METHODS = {
    Operation.GENERATE_CONTENT: ["generateContent", "countTokens"],
    Operation.EMBED_CONTENT: ["embedContent"],
}


def _gemini_models(table: RoutingTable) -> list[dict[str, Any]]:
    return [model for bound in table.values() if (model := gemini_model(bound)) is not None]


def gemini_model(bound: BoundRoute) -> dict[str, Any] | None:
    """A route as Google lists a model; None for one that does not speak Gemini's API."""
    methods = [
        method
        for operation, names in _GEMINI_METHODS.items()
        if operation.route_type is bound.route.route_type
        and any(operation in target.endpoint.dialect.codecs for target in bound.targets)
        for method in names
    ]
    if not methods:
        return None
    name = bound.route.name
    return {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": bound.route.model,
        "displayName": name,
        "supportedGenerationMethods": methods,
    }
