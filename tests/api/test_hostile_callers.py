"""Whatever a caller sends, it gets the documented error of its surface, and the gateway serves on."""

import json
import logging
from collections.abc import Iterator

import pytest

from gateway.telemetry import names
from gateway.types.records import Outcome
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat
from tests.running_gateway import RunningGateway, routes_yaml
from tests.upstream import ScriptedUpstream, json_reply

USER = [{"role": "user", "content": "hello"}]
PATHS = {
    "/gateway/chat/invocations": 422,
    "/endpoints/chat/invocations": 422,
    "/v1/chat/completions": 400,
    "/v1/responses": 400,
    "/v1/messages": 400,
    "/v1beta/models/chat:generateContent": 400,
}
"""Each surface and the status by which it refuses a body."""


@pytest.fixture(autouse=True)
def nothing_unexpected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test here may leave a traceback or an error in the gateway's log."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def serves_on(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """An honest request gets its reply, and nothing is left in flight."""
    upstream.script(openai_chat("still here"))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER})
    assert reply.json()["choices"][0]["message"]["content"] == "still here"
    records = await gateway.records.wait(len(gateway.records.all))
    assert records
    assert gateway.metric(names.REQUESTS_IN_FLIGHT) == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1, ",
        b"null",
        b'"\xff"',
        b'{"model": "chat", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"\xff": 1}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"model": "chat", "messages": ' + b"[" * 100_000,
        b'{"model": "chat", "messages": ' + b'{"a":' * 100_000,
        b'{"model": "chat", "messages": NaN}',
        b'{"model": "chat"} trailing',
        b"1e999",
        b"[" + b"9" * 5000 + b"]",
        b'{"a": "\x00"}',
        b'{"a": "\\ud800"}',
        b"\x1f\x8b\x08\x00not json",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_bodies_that_are_no_json(
    upstream: ScriptedUpstream, start_gateway: StartGateway, path: str, body: bytes
) -> None:
    """A body that is no JSON object is refused by every surface as its clients expect, and never sent upstream."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    reply = await gateway.client.post(path, content=body)
    assert reply.status_code == PATHS[path], reply.text
    assert reply.headers["x-gateway-error-type"] in ("invalid_json", "invalid_request")
    json.loads(reply.content)
    assert upstream.hits == 0
    record = await gateway.records.last()
    assert record.error_type is not None
    assert record.error_type.outcome is Outcome.CALLER


DIALECTS = {
    "openai": "openai_api_key: k, openai_api_base",
    "anthropic": "anthropic_api_key: k, anthropic_api_base",
    "gemini": "gemini_api_key: k, gemini_api_base",
}


@pytest.mark.parametrize("provider", DIALECTS)
async def test_nesting_near_the_limit(upstream: ScriptedUpstream, start_gateway: StartGateway, provider: str) -> None:
    """However deep a body is nested, the caller is served or refused: no dialect breaks where another room read it."""
    gateway = await start_gateway(
        "endpoints: [{name: chat, endpoint_type: llm/v1/chat, model: {provider: "
        f"{provider}, name: m, config: {{{DIALECTS[provider]}: '{upstream.url}'}}}}}}]"
    )
    upstream.always(json_reply({"error": {"message": "no"}}, status=400))
    codes = set()
    for depth in range(840, 1000, 3):
        schema = '{"a":' * depth + "1" + "}" * depth
        tool = '{"type": "function", "function": {"name": "f", "parameters": ' + schema + "}}"
        body = '{"model": "chat", "messages": [{"role": "user", "content": "x"}], "tools": [' + tool + "]}"
        reply = await gateway.client.post("/v1/chat/completions", content=body)
        assert reply.status_code == 400, (depth, reply.text)
        codes.add(reply.json()["error"]["code"])
    assert codes == {"provider_invalid_request", "invalid_json"}
