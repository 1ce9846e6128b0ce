"""The listings, the limits API and the pages, as MLflow's clients and browsers ask for them."""

import base64

import pytest

from gateway.api.listing import PAGE_SIZE, page
from tests.conftest import StartGateway
from tests.running_gateway import routes_yaml

BASE = "http://provider.invalid"
CHAT_ROUTE = {
    "name": "chat",
    "route_type": "llm/v1/chat",
    "model": {"name": "gpt-4o-mini", "provider": "openai"},
    "route_url": "/gateway/chat/invocations",
    "limit": None,
}
CHAT_ENDPOINT = {
    "name": "chat",
    "endpoint_type": "llm/v1/chat",
    "model": {"name": "gpt-4o-mini", "provider": "openai"},
    "endpoint_url": "/gateway/chat/invocations",
    "limit": None,
}


def token(text: bytes) -> str:
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/health", 200, {"status": "OK"}),
        ("GET", "/version", 404, {"detail": "Not Found"}),
        ("GET", "/api/2.0/gateway/routes/chat", 200, CHAT_ROUTE),
        (
            "GET",
            "/api/2.0/gateway/routes/nope",
            404,
            {"detail": "The route 'nope' is not present or active on the server. Please verify the route name."},
        ),
        ("POST", "/api/2.0/gateway/routes/chat", 405, {"detail": "Method Not Allowed"}),
        ("DELETE", "/api/2.0/gateway/routes/chat", 405, {"detail": "Method Not Allowed"}),
        ("GET", "/api/2.0/endpoints/chat", 200, CHAT_ENDPOINT),
        (
            "GET",
            "/api/2.0/endpoints/nope",
            404,
            {"detail": "The endpoint 'nope' is not present or active on the server. Please verify the endpoint name."},
        ),
        (
            "GET",
            "/api/2.0/gateway/limits/chat",
            501,
            {"detail": "The get_limits API is not available in OSS MLflow AI Gateway."},
        ),
        ("GET", "/api/2.0/endpoints/limits/chat", 501, {"detail": "The get_limits API is not available yet."}),
        ("GET", "/gateway/nope", 404, {"detail": "Not Found"}),
        ("GET", "/nothing/here", 404, {"detail": "Not Found"}),
    ],
)
async def test_rows(start_gateway: StartGateway, method: str, path: str, status: int, body: object) -> None:
    """Each path answers with the status and the whole body of the contract's table."""
    gateway = await start_gateway(routes_yaml(BASE))
    reply = await gateway.client.request(method, path)
    assert (reply.status_code, reply.json()) == (status, body)
    assert reply.headers["content-type"] == "application/json"
    assert (status == 405) == ("allow" in reply.headers)


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        (
            "/api/2.0/gateway/limits/",
            {"route": "chat", "limits": [{"calls": 1}]},
            501,
            "The set_limits API is not available in OSS MLflow AI Gateway.",
        ),
        (
            "/api/2.0/endpoints/limits/",
            {"route": "chat", "limits": []},
            501,
            "The set_limits API is not available yet.",
        ),
        (
            "/api/2.0/gateway/limits/",
            {"limits": []},
            422,
            [{"type": "missing", "loc": ["body", "route"], "msg": "Field required", "input": {"limits": []}}],
        ),
        (
            "/api/2.0/endpoints/limits/",
            {"route": 1, "limits": []},
            422,
            [{"type": "string_type", "loc": ["body", "route"], "msg": "Input should be a valid string", "input": 1}],
        ),
    ],
)
async def test_setting_limits(
    start_gateway: StartGateway, path: str, body: object, status: int, detail: object
) -> None:
    """Limits are not set by a call: 501 in MLflow's words, and 422 for a body that would not do either."""
    gateway = await start_gateway(routes_yaml(BASE))
    reply = await gateway.client.post(path, json=body)
    assert (reply.status_code, reply.json()["detail"]) == (status, detail)


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/", "/docs"),
        ("/api/2.0/gateway/routes", "/api/2.0/gateway/routes/"),
        ("/api/2.0/gateway/routes?page_token=a%3D", "/api/2.0/gateway/routes/?page_token=a%3D"),
        ("/api/2.0/gateway/routes/chat/", "/api/2.0/gateway/routes/chat"),
        ("/api/2.0/endpoints", "/api/2.0/endpoints/"),
        ("/api/2.0/endpoints/chat/", "/api/2.0/endpoints/chat"),
    ],
)
async def test_redirects(start_gateway: StartGateway, path: str, location: str) -> None:
    """Paths without their slash, or with one too many, are redirected by 307 as FastAPI did, the query kept."""
    gateway = await start_gateway(routes_yaml(BASE))
    reply = await gateway.client.get(path)
    assert (reply.status_code, reply.headers["location"]) == (307, location)


@pytest.mark.parametrize(
    ("section", "path", "key"),
    [("routes", "/api/2.0/gateway/routes/", "routes"), ("endpoints", "/api/2.0/endpoints/", "endpoints")],
)
async def test_whole_listing(start_gateway: StartGateway, section: str, path: str, key: str) -> None:
    """A listing has every route in the file's order, and null for the next page."""
    gateway = await start_gateway(routes_yaml(BASE, section))
    body = (await gateway.client.get(path)).json()
    assert [item["name"] for item in body[key]] == ["chat", "completions", "embeddings"]
    assert body["next_page_token"] is None
    assert set(body) == {key, "next_page_token"}


@pytest.mark.parametrize("path", ["/api/2.0/gateway/routes/", "/api/2.0/endpoints/"])
@pytest.mark.parametrize(
    ("page_token", "status"),
    [
        (token(b'{"index": 1}'), 200),
        (token(b'{"index": -1}'), 400),
        (token(b'{"index": "x"}'), 400),
        (token(b"[]"), 400),
        ("not base64!", 400),
        (token(b"\xff\xfe"), 400),
    ],
)
async def test_page_tokens(start_gateway: StartGateway, path: str, page_token: str, status: int) -> None:
    """A token continues the listing; one that is none of ours is 400, where the original broke with 500."""
    gateway = await start_gateway(routes_yaml(BASE))
    reply = await gateway.client.get(path, params={"page_token": page_token})
    assert reply.status_code == status
    if status == 200:
        items = next(value for value in reply.json().values() if isinstance(value, list))
        assert [item["name"] for item in items] == ["completions", "embeddings"]


def test_pages_join_to_the_whole() -> None:
    """Following the tokens gives each item once; a page has 3000, and a token is base64 of {"index": N}."""
    items = [{"name": str(number)} for number in range(2 * PAGE_SIZE + 1)]
    first, second_token = page(items, None)
    second, third_token = page(items, second_token)
    third, end = page(items, third_token)
    assert (len(first), len(second), len(third), end) == (3000, 3000, 1, None)
    assert first + second + third == items
    assert page(items[:PAGE_SIZE], None)[1] is None
    assert second_token == token(b'{"index": 3000}')


async def test_documentation_page(start_gateway: StartGateway) -> None:
    """The page loads nothing from elsewhere, and the document lists each configured route with its schemas."""
    gateway = await start_gateway(routes_yaml(BASE))
    docs = await gateway.client.get("/docs")
    assert (await gateway.client.get("/redoc")).text == docs.text
    assert docs.headers["content-type"].startswith("text/html")
    assert "http://" not in docs.text
    assert "https://" not in docs.text
    document = (await gateway.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {f"/gateway/{name}/invocations" for name in ("chat", "completions", "embeddings")} <= set(document["paths"])
    assert (await gateway.client.get("/favicon.ico")).status_code == 200


async def test_models_are_the_routes(start_gateway: StartGateway) -> None:
    """OpenAI's listing names the routes; an unknown model is OpenAI's 404."""
    gateway = await start_gateway(routes_yaml(BASE))
    models = (await gateway.client.get("/v1/models")).json()
    assert [model["id"] for model in models["data"]] == ["chat", "completions", "embeddings"]
    assert (await gateway.client.get("/v1/models/chat")).json()["object"] == "model"
    for path in ("/models", "/openai/v1/models", "/v1/models/"):
        assert (await gateway.client.get(path)).json() == models, path
    missing = await gateway.client.get("/v1/models/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_route")
