"""The many spellings of a path that SDKs make of the base URLs that people write."""

import pytest

from gateway.api.application import find_surface
from tests.conftest import StartGateway
from tests.running_gateway import routes_yaml


@pytest.mark.parametrize(
    ("spelling", "path", "route"),
    [
        ("/v1/chat/completions/", "/v1/chat/completions", None),
        ("//v1//chat/completions", "/v1/chat/completions", None),
        ("/chat/completions", "/v1/chat/completions", None),
        ("/openai/v1/chat/completions", "/v1/chat/completions", None),
        ("/openai/responses", "/v1/responses", None),
        ("/v1/v1/messages", "/v1/messages", None),
        ("/v1/v1/messages/count_tokens", "/v1/messages/count_tokens", None),
        ("/embeddings", "/v1/embeddings", None),
        ("/gateway/chat/invocations//", "/gateway/{route}/invocations", "chat"),
        ("/openai/deployments/chat/chat/completions", "/openai/deployments/{name}/chat/completions", "chat"),
        ("//openai/deployments/a.b/embeddings/", "/openai/deployments/{name}/embeddings", "a.b"),
        ("//v1beta/models/chat:generateContent", "/v1beta/models/{model}:generateContent", "chat"),
    ],
)
def test_each_spelling_finds_its_surface(spelling: str, path: str, route: str | None) -> None:
    """What is missing, doubled or in front of a path does not hide its surface."""
    found = find_surface(spelling)
    assert found is not None
    assert (found[0].path, found[1]) == (path, route)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/openai", "/v1/models", "/models", "/completions/chat", "/openai/deployments/x/audio/speech"]
)
def test_other_paths_are_pages(path: str) -> None:
    """Nothing else becomes a surface."""
    assert find_surface(path) is None


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/audio/speech", 404, ("error", "message")),
        ("DELETE", "/v1/responses/resp_1", 404, ("error", "message")),
        ("POST", "/openai/deployments/chat/audio/speech", 404, ("error", "message")),
        ("GET", "/v1/audio/speech", 404, ("error", "message")),
        ("POST", "/v1/models/chat:predict", 404, ("error", "message")),
        ("POST", "/v1/models", 405, ("error", "message")),
        ("POST", "/v1/messages/batches", 404, ("error", "message")),
        ("POST", "/v1beta/models/chat:predict", 404, ("error", "message")),
        ("GET", "/v1beta/files", 404, ("error", "message")),
        ("GET", "/nothing", 404, ("detail",)),
    ],
)
async def test_what_there_is_not_is_said_in_the_vendors_shape(
    start_gateway: StartGateway, method: str, path: str, status: int, message: tuple[str, ...]
) -> None:
    """An SDK's other calls get its vendor's error, which names them; other paths FastAPI's."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    reply = await gateway.client.request(method, path)
    found = reply.json()
    for step in message:
        found = found[step]
    assert reply.status_code == status
    if message[0] == "error":
        sentence = f"{path} is not available through this gateway. GET /docs shows what is."
        assert found == (sentence if status == 404 else "Method Not Allowed")
        kinds = {404: "unsupported_operation", 405: "method_not_allowed"}
        assert reply.headers["x-gateway-error-type"] == kinds[status]
    if path.startswith("/v1/messages"):
        assert (reply.json()["type"], reply.json()["error"]["type"]) == ("error", "not_found_error")
    if path.startswith("/v1beta"):
        assert reply.json()["error"]["status"] == "NOT_FOUND"
