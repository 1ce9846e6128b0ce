"""The listings that MLflow's clients read, `/api/2.0/gateway/routes/` and `/api/2.0/endpoints/`, and the limits API.

Source: mlflow 2.8.1, 2.22 and 3.17 `gateway/app.py`; a page token is base64 of `{"index": N}`.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect

from gateway.api.schema_error import SchemaError
from gateway.serve.routing import BoundRoute, RoutingTable
from gateway.types.route import Limit

PAGE_SIZE = 3000

AnyRequest = Request[Any, Any, Any]


class _PageToken(msgspec.Struct):
    index: int


def page(items: list[dict[str, Any]], token: str | None) -> tuple[list[dict[str, Any]], str | None]:
    """One page of a listing and the token of the next. Raises HTTPException 400 for a token that is none of ours."""
    start = 0
    if token:
        try:
            start = msgspec.json.decode(base64.b64decode(token, validate=True), type=_PageToken).index
        except (binascii.Error, ValueError):
            start = -1
        if start < 0:
            raise HTTPException(
                status_code=400, detail="The page token is not valid. Use the next_page_token of a listing as it is."
            )
    end = start + PAGE_SIZE
    more = end < len(items)
    next_token = base64.b64encode(b'{"index": %d}' % end).decode() if more else None
    return items[start:end], next_token


def _limit_entry(limits: tuple[Limit, ...]) -> dict[str, Any] | None:
    if not limits:
        return None
    limit = limits[0]
    return {"calls": limit.calls, "key": limit.key, "renewal_period": limit.period}


def route_entry(bound: BoundRoute) -> dict[str, Any]:
    """A route as MLflow 2.5 to 2.8 listed it, with the `limit` of later releases."""
    route = bound.route
    return {
        "name": route.name,
        "route_type": route.route_type.value,
        "model": {"name": route.model, "provider": route.provider},
        "route_url": f"/gateway/{route.name}/invocations",
        "limit": _limit_entry(route.limits),
    }


def endpoint_entry(bound: BoundRoute) -> dict[str, Any]:
    """An endpoint as MLflow 2.9 and later list it; `limit` must be present for its client."""
    route = bound.route
    return {
        "name": route.name,
        "endpoint_type": route.route_type.value,
        "model": {"name": route.model, "provider": route.provider},
        "endpoint_url": f"/gateway/{route.name}/invocations",
        "limit": _limit_entry(route.limits),
    }


def traffic_entry(bound: BoundRoute) -> dict[str, Any]:
    """A traffic route as MLflow 3 shows one."""
    route = bound.route
    return {
        "name": route.name,
        "task_type": route.route_type.value,
        "destinations": [msgspec.structs.asdict(destination) for destination in route.destinations],
        "routing_strategy": "TRAFFIC_SPLIT",
    }


def listing_handlers(routes: Callable[[], RoutingTable]) -> list[HTTPRouteHandler]:
    """The handlers of both listings and of the limits API; `routes` gives the table in force."""

    @get("/api/2.0/gateway/routes", include_in_schema=False, sync_to_thread=False)
    def list_routes(request: AnyRequest, page_token: FromQuery[str | None] = None) -> dict[str, Any] | Redirect:
        if moved := _moved(request, slash=True):
            return moved
        entries, token = page([route_entry(bound) for bound in _listed(routes())], page_token)
        return {"routes": entries, "next_page_token": token}

    @get("/api/2.0/gateway/routes/{name:str}", include_in_schema=False, sync_to_thread=False)
    def get_route(request: AnyRequest, name: FromPath[str]) -> dict[str, Any] | Redirect:
        return _moved(request, slash=False) or route_entry(_find(routes(), name, "route"))

    @get("/api/2.0/endpoints", include_in_schema=False, sync_to_thread=False)
    def list_endpoints(request: AnyRequest, page_token: FromQuery[str | None] = None) -> dict[str, Any] | Redirect:
        if moved := _moved(request, slash=True):
            return moved
        entries, token = page([endpoint_entry(bound) for bound in _listed(routes())], page_token)
        return {"endpoints": entries, "next_page_token": token}

    @get("/api/2.0/endpoints/{name:str}", include_in_schema=False, sync_to_thread=False)
    def get_endpoint(request: AnyRequest, name: FromPath[str]) -> dict[str, Any] | Redirect:
        return _moved(request, slash=False) or endpoint_entry(_find(routes(), name, "endpoint"))

    @get("/api/3.0/gateway/endpoint/{name:str}", include_in_schema=False, sync_to_thread=False)
    def get_endpoint_3(name: FromPath[str]) -> dict[str, Any]:
        return endpoint_entry(_find(routes(), name, "endpoint"))

    @get("/api/3.0/gateway/route/{name:str}", include_in_schema=False, sync_to_thread=False)
    def get_traffic_route(name: FromPath[str]) -> dict[str, Any]:
        return traffic_entry(_find(routes(), name, "route", traffic=True))

    return [
        list_routes,
        get_route,
        list_endpoints,
        get_endpoint,
        get_endpoint_3,
        get_traffic_route,
        *_limits_handlers("/api/2.0/gateway/limits", "in OSS MLflow AI Gateway"),
        *_limits_handlers("/api/2.0/endpoints/limits", "yet"),
    ]


def _listed(routes: RoutingTable) -> list[BoundRoute]:
    """What MLflow lists: its traffic routes have a path of their own."""
    return [bound for bound in routes.values() if not bound.route.destinations]


class _Limits(msgspec.Struct):
    """The body, which has `route` for endpoints, too."""

    route: str
    limits: list[dict[str, Any]]


def _limits_handlers(path: str, when: str) -> list[HTTPRouteHandler]:
    """The API that sets limits at run time, which MLflow has on Databricks only. Here a limit stands in the file."""

    @get(f"{path}/{{name:str}}", include_in_schema=False, sync_to_thread=False)
    def get_limits(name: FromPath[str]) -> None:
        raise HTTPException(status_code=501, detail=f"The get_limits API is not available {when}.")

    @post(path, include_in_schema=False)
    async def set_limits(request: AnyRequest) -> Response[dict[str, Any]]:
        sent = await request.body()
        try:
            msgspec.json.decode(sent, type=_Limits)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # Litestar's exceptions have texts; FastAPI's list is an answer of its own.
            return Response({"detail": SchemaError(error, sent, _Limits).detail}, status_code=422)
        raise HTTPException(status_code=501, detail=f"The set_limits API is not available {when}.")

    return [get_limits, set_limits]


def _moved(request: AnyRequest, *, slash: bool) -> Redirect | None:
    """FastAPI's redirect to the spelling with (or without) the slash at the end, the query kept."""
    path = request.scope["raw_path"].decode("latin-1")
    if path.endswith("/") is slash:
        return None
    query = request.scope["query_string"].decode("latin-1")
    wanted = f"{path}/" if slash else path.rstrip("/")
    return Redirect(f"{wanted}?{query}" if query else wanted, status_code=307)


def _find(routes: Mapping[str, BoundRoute], name: str, word: str, *, traffic: bool = False) -> BoundRoute:
    if name not in routes or bool(routes[name].route.destinations) is not traffic:
        raise HTTPException(
            status_code=404,
            detail=f"The {word} '{name}' is not present or active on the server. Please verify the {word} name.",
        )
    return routes[name]
