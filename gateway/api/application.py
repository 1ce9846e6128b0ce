"""The ASGI application of the callers' listener: hot paths go straight to their surface, pages to Litestar.

A request that a model answers is matched here by its path alone. Litestar's router costs each request 20 us, and its
raw ASGI handlers take no path parameters; it serves all that is looked at, and not waited for.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import HTTPScope, Receive, Send

from gateway.api import native
from gateway.api.endpoints import ENDPOINTS
from gateway.api.invoke import Invoker
from gateway.api.listing import listing_handlers
from gateway.api.models import model_handlers
from gateway.api.openai import AZURE_CALLS, V1_SURFACES
from gateway.api.ops import ops_handlers
from gateway.api.original import ORIGINAL
from gateway.api.surface import Surface
from gateway.serve.routing import RoutingTable
from gateway.types.errors import ErrorType, GatewayError, RequestError
from gateway.types.records import OTHER

_LOG = logging.getLogger(__name__)

FIXED: Mapping[str, Surface] = {surface.path: surface for surface in (*V1_SURFACES, *native.FIXED)}
"""Surfaces whose path names no route."""
_INVOCATIONS = re.compile(r"/(?P<family>gateway|endpoints)/(?P<route>[^/]+)/invocations/?")
_FAMILIES = {"gateway": ORIGINAL, "endpoints": ENDPOINTS}
_PAGES = ("/api/2.0/", "/api/3.0/", "/docs", "/favicon.ico", "/health", "/openapi.json", "/v1/models")
_MODEL_CALL = re.compile(r"(?P<prefix>/v1beta/models|/v1/models)/(?P<route>[^/:]+)(?P<call>:\w+)/?")
_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<route>[^/]+)/(?P<call>chat/completions|completions|embeddings)/?")
_SLASHES = re.compile("//+")
_WITHOUT_VERSION = frozenset(path.removeprefix("/v1") for path in FIXED)
_SHOWN_CHARS = 200


def find_surface(path: str) -> tuple[Surface, str | None] | None:
    """The surface of a path and the route that the path names; None for paths that are no surface's.

    SDKs put their paths behind a base URL that people write in many ways: with a slash at its end, without `/v1`, with
    one too many, or behind `/openai` (Azure, Groq). All of these are understood.
    """
    found = _find_surface(path)
    return found if found is not None else _find_surface(_usual(path))


def _usual(path: str) -> str:
    usual = _SLASHES.sub("/", path).removesuffix("/")
    if not usual.startswith("/openai/deployments/"):
        usual = usual.removeprefix("/openai")
    usual = usual.replace("/v1/v1/", "/v1/", 1)
    return f"/v1{usual}" if usual in _WITHOUT_VERSION else usual


def _find_surface(path: str) -> tuple[Surface, str | None] | None:
    surface = FIXED.get(path)
    if surface is not None:
        return surface, None
    if (match := _INVOCATIONS.fullmatch(path)) is not None:
        return _FAMILIES[match["family"]], match["route"]
    if (match := _MODEL_CALL.fullmatch(path)) is not None:
        call = native.GEMINI_CALLS[match["prefix"]].get(match["call"])
        return (call, match["route"]) if call is not None else None
    if (match := _DEPLOYMENT.fullmatch(path)) is not None:
        return AZURE_CALLS[match["call"]], match["route"]
    return None


class Application:
    """The ASGI application.

    Args:
        invoker: serves the surfaces; asked for with each request, since it is made when the application starts.
        pages: documentation, listings and health.
    """

    def __init__(self, invoker: Callable[[], Invoker], pages: Litestar) -> None:
        self._invoker = invoker
        self._pages = pages

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve one request. The server runs no lifespan: it enters the gateway's running state itself."""
        found = find_surface(scope["path"])
        if found is not None:
            surface, parameter = found
            await self._invoker().handle(surface.asked(scope["query_string"]), parameter, scope, receive, send)
        elif scope["method"] == "POST" and not scope["path"].startswith(_PAGES):
            # An application with a wrong base URL asks here, and no page's log would tell anybody of it.
            await self._invoker().handle(_nowhere(scope["path"]), scope["path"], scope, receive, send)
        else:
            await self._pages(scope, receive, send)


def pages(routes: Callable[[], RoutingTable], health_detail: Callable[[], str | None], started: int) -> Litestar:
    """What Litestar serves, from the arguments of `ops_handlers` and `model_handlers`."""
    return _Pages(
        route_handlers=[
            *listing_handlers(routes),
            *model_handlers(routes, started),
            *ops_handlers(routes, health_detail),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
        openapi_config=None,
        logging_config=None,
    )


class _Pages(Litestar):
    """Litestar with msgspec alone: it would load its plugins for every modelling library that is installed."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    path = request.url.path
    surface = _nowhere(path)
    if error.status_code not in (404, 405) or surface is NOWHERE:
        return Response({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    failure = surface.unknown_route(path)
    # A call of Gemini's that we have not looks like the page of a model whose name ends with it.
    if error.status_code == 405 and ":" not in path:
        failure = RequestError(ErrorType.METHOD_NOT_ALLOWED, "Method Not Allowed")
    headers = {**(error.headers or {}), "x-gateway-error-type": failure.error_type.value}
    status = surface.status(failure)
    return Response(
        surface.error_body(failure, None), status_code=status, media_type="application/json", headers=headers
    )


def _nowhere(path: str) -> Surface:
    """The surface of a path that is none of ours, in the shape of the vendor whose API it belongs to, or MLflow's."""
    if path.startswith("/v1/messages"):
        return _NOT_OF_ANTHROPIC
    if path.startswith("/v1beta/") or (path.startswith("/v1/models/") and ":" in path):
        return _NOT_OF_GEMINI
    return _NOT_OF_OPENAI if path.startswith(("/v1/", "/openai/")) else NOWHERE


def _not_available(path: str) -> GatewayError:
    return RequestError(
        ErrorType.UNSUPPORTED_OPERATION,
        f"{path[:_SHOWN_CHARS]} is not available through this gateway. GET /docs shows what is.",
    )


NOWHERE = msgspec.structs.replace(ENDPOINTS, path=OTHER)
"""Every path that is none of ours: no route has a path for its name, so each request ends as `unknown_route`."""
_NOT_OF_OPENAI, _NOT_OF_ANTHROPIC, _NOT_OF_GEMINI = (
    msgspec.structs.replace(surface, path=OTHER, unknown_route=_not_available)
    for surface in (native.RESPONSES, native.MESSAGES, native.GEMINI_CALLS["/v1beta/models"][":generateContent"])
)


def _internal_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    _LOG.error("a page failed", exc_info=error)
    return Response({"detail": "The gateway failed; its log has the cause."}, status_code=500)
