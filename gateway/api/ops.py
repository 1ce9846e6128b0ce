"""The pages and answers for people and load balancers: health and documentation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestar import MediaType, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Redirect

from gateway.api.openapi import document
from gateway.serve.routing import RoutingTable

_ASSETS = Path(__file__).parent / "assets"
_ASSET_TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".ico": "image/x-icon"}

_DOCS_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gaugeway API</title>
<link rel="icon" href="/docs/assets/favicon.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout", validatorUrl: null
});
</script>
</body>
</html>
"""


def ops_handlers(routes: Callable[[], RoutingTable], health_detail: Callable[[], str | None]) -> list[HTTPRouteHandler]:
    """The handlers.

    Args:
        routes: gives the table in force.
        health_detail: what an operator should know although the gateway serves.
    """

    @get("/health", include_in_schema=False, sync_to_thread=False)
    def health() -> dict[str, str]:
        detail = health_detail()
        return {"status": "OK"} if detail is None else {"status": "OK", "detail": detail}

    @get("/", include_in_schema=False, sync_to_thread=False)
    def root() -> Redirect:
        return Redirect("/docs", status_code=307)

    # FastAPI had a second page of the same document.
    @get(["/docs", "/redoc"], include_in_schema=False, sync_to_thread=False)
    def docs() -> Response[str]:
        return Response(_DOCS_PAGE, media_type=MediaType.HTML)

    @get("/docs/assets/{name:str}", include_in_schema=False, sync_to_thread=True)
    def asset(name: FromPath[str]) -> Response[bytes]:
        path = _ASSETS / name
        if path.suffix not in _ASSET_TYPES or path.parent != _ASSETS or not path.is_file():
            raise NotFoundException("Not Found")
        return Response(
            path.read_bytes(),
            media_type=_ASSET_TYPES[path.suffix],
            headers={"cache-control": "public, max-age=86400"},
        )

    @get("/favicon.ico", include_in_schema=False, sync_to_thread=True)
    def favicon() -> Response[bytes]:
        path = _ASSETS / "favicon.png"
        if not path.is_file():
            raise NotFoundException("favicon.ico not found")
        return Response(path.read_bytes(), media_type="image/png")

    @get("/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi() -> dict[str, Any]:
        return document(routes())

    return [health, root, docs, asset, favicon, openapi]
