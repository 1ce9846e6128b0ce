"""The listings that MLflow's clients read: `/api/2.0/gateway/routes/` and `/api/2.0/endpoints/`.

Source: mlflow 2.8.1 and 2.22 `gateway/app.py`; a page token is base64 of `{"index": N}`.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from gateway.serve.routing import BoundRoute, RoutingTable

PAGE_SIZE = 3000


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


def route_entry(bound: BoundRoute) -> dict[str, Any]:
    """A route as MLflow 2.5 to 2.8 listed it."""
    route = bound.route
    return {
        "name": route.name,
        "route_type": route.route_type.value,
        "model": {"name": route.model, "provider": route.provider},
        "route_url": f"/gateway/{route.name}/invocations",
        "limit": None,
    }


def endpoint_entry(bound: BoundRoute) -> dict[str, Any]:
    """An endpoint as MLflow 2.9 and later list it; `limit` must be present for its client."""
    route = bound.route
    return {
        "name": route.name,
        "endpoint_type": route.route_type.value,
        "model": {"name": route.model, "provider": route.provider},
        "endpoint_url": f"/gateway/{route.name}/invocations",
        "limit": None,
    }


def listing_handlers(routes: Callable[[], RoutingTable]) -> list[HTTPRouteHandler]:
    """The handlers of both listings; `routes` gives the table in force."""

    @get("/api/2.0/gateway/routes", include_in_schema=False, sync_to_thread=False)
    def list_routes(page_token: FromQuery[str | None] = None) -> dict[str, Any]:
        entries, token = page([route_entry(bound) for bound in routes().values()], page_token)
        return {"routes": entries, "next_page_token": token}

    @get("/api/2.0/gateway/routes/{name:str}", include_in_schema=False, sync_to_thread=False)
    def get_route(name: FromPath[str]) -> dict[str, Any]:
        return route_entry(_find(routes(), name, "route"))

    @get("/api/2.0/endpoints", include_in_schema=False, sync_to_thread=False)
    def list_endpoints(page_token: FromQuery[str | None] = None) -> dict[str, Any]:
        entries, token = page([endpoint_entry(bound) for bound in routes().values()], page_token)
        return {"endpoints": entries, "next_page_token": token}

    @get("/api/2.0/endpoints/{name:str}", include_in_schema=False, sync_to_thread=False)
    def get_endpoint(name: FromPath[str]) -> dict[str, Any]:
        return endpoint_entry(_find(routes(), name, "endpoint"))

    return [list_routes, get_route, list_endpoints, get_endpoint]


def _find(routes: RoutingTable, name: str, word: str) -> BoundRoute:
    if name not in routes:
        raise HTTPException(
            status_code=404,
            detail=f"The {word} '{name}' is not present or active on the server. Please verify the {word} name.",
        )
    return routes[name]
