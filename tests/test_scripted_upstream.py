"""The scripted upstream does to an HTTP client what its script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.openai_replies import openai_chat, openai_error, openai_stream, openai_usage
from tests.running_gateway import PLAIN
from tests.scripted_upstream import (
    BytesReply,
    GarbageReply,
    HangupReply,
    ScriptedUpstream,
    SilentReply,
    StreamReply,
    gzip_reply,
    huge_headers,
    json_reply,
    redirect,
)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """The server under test."""
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A real HTTP client."""
    async with httpx.AsyncClient(base_url=upstream.url, trust_env=False, verify=PLAIN) as client:
        yield client


async def test_records_what_arrived(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """Method, path, query, repeated headers and body are recorded, and keep-alive shows in the connection number."""
    upstream.script(openai_chat("one"), openai_error(429, headers=[("retry-after", "7")]))
    first = await client.post("/v1/chat/completions?a=1", json={"model": "m"}, headers=[("X-A", "1"), ("x-a", "2")])
    second = await client.post("/v1/chat/completions", content=chunks())
    assert first.json()["choices"][0]["message"]["content"] == "one"
    assert (second.status_code, second.headers["retry-after"]) == (429, "7")
    request = upstream.requests[0]
    assert (request.method, request.path, request.query) == ("POST", "/v1/chat/completions", "a=1")
    assert request.json() == {"model": "m"}
    assert [value for name, value in request.headers if name == "x-a"] == ["1", "2"]
    assert upstream.requests[1].body == b"ab"
    assert [item.connection for item in upstream.requests] == [0, 0]


async def chunks() -> AsyncIterator[bytes]:
    """A body without a known length."""
    yield b"a"
    yield b"b"


async def test_surplus_request_is_refused_loudly(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """A request for which there is no reply gets a 500 that says so, and is counted."""
    reply = await client.get("/x")
    assert reply.status_code == 500
    assert "no reply left" in reply.json()["error"]["message"]
    assert (upstream.hits, upstream.surplus) == (1, 1)


async def test_reply_function_sees_the_request(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """A reply can be made from the request, for every request."""
    upstream.always(lambda request: json_reply({"path": request.path}))
    assert [(await client.get(path)).json()["path"] for path in ("/a", "/b")] == ["/a", "/b"]


async def test_failing_reply_function_fails_the_test() -> None:
    """An exception in a reply function is raised when the server is left."""

    def wrong(request: object) -> BytesReply:
        raise LookupError("in the script")

    async def use() -> None:
        async with ScriptedUpstream() as upstream, httpx.AsyncClient(trust_env=False) as client:
            upstream.always(wrong)
            assert (await client.get(upstream.url)).status_code == 500

    with pytest.raises(LookupError, match="in the script"):
        await use()


async def test_gates_order_a_stream(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """What follows a gate is sent only when the gate is opened."""
    gate = asyncio.Event()
    upstream.script(openai_stream(["Hel", gate, "lo"], usage=openai_usage(4, 2, cached=1)))
    async with client.stream("POST", "/v1/chat/completions") as reply:
        seen = b""
        pieces = reply.aiter_raw()
        while b"Hel" not in seen:
            seen += await anext(pieces)
        assert b'"lo"' not in seen
        gate.set()
        async for piece in pieces:
            seen += piece
    assert b'"lo"' in seen
    assert b'"cached_tokens": 1' in seen
    assert seen.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "reply",
    [
        StreamReply([b"a", b"b"], cut_after=1),
        StreamReply([b"a", b"b"], cut_after=0, reset=True),
        StreamReply([b"a"], terminated=False),
        StreamReply([b"a", b"b"], framing="length", cut_after=1),
        GarbageReply(),
        HangupReply(),
        HangupReply(reset=True),
    ],
    ids=["cut", "cut-reset", "no-terminator", "short-length", "garbage", "hangup", "hangup-reset"],
)
async def test_broken_replies_break_the_client(reply: StreamReply) -> None:
    """Each kind of broken reply is a transport error to a real client."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(trust_env=False) as client:
        upstream.script(reply)
        with pytest.raises(httpx.TransportError):
            await client.get(upstream.url)
        assert upstream.hits == 1


async def test_reply_until_close(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """A body may be ended by the connection's end."""
    upstream.script(StreamReply([b"a", b"b"], framing="close"))
    assert (await client.get("/")).content == b"ab"


async def test_unusual_replies(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """Redirects, gzip bodies, other content types and huge headers arrive as scripted."""
    upstream.script(
        redirect("http://elsewhere.invalid/"),
        gzip_reply(b'{"a": 1}'),
        BytesReply(b"<html>", status=502, content_type="text/html"),
        huge_headers(20_000),
    )
    moved, zipped, page, huge = [await client.get("/") for _ in range(4)]
    assert (moved.status_code, moved.headers["location"]) == (307, "http://elsewhere.invalid/")
    assert zipped.json() == {"a": 1}
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html")
    assert len(huge.headers["x-padding"]) == 20_000


async def test_slow_headers_come_when_released(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """A reply can stop after its status line until an event is set."""
    gate = asyncio.Event()
    reply = BytesReply(b"{}", hold_headers=gate)
    upstream.script(reply)
    call = asyncio.create_task(client.get("/"))
    await reply.started.wait()
    assert not call.done()
    gate.set()
    assert (await call).status_code == 200


async def test_leaving_caller_is_noticed(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """When the caller leaves in mid-stream, the reply, the request and the connection count all show it."""
    reply = StreamReply([b"data: 1\n\n", asyncio.Event(), b"data: 2\n\n"])
    upstream.script(reply)
    async with client.stream("GET", "/") as answer:
        await anext(answer.aiter_raw())
        assert upstream.open_connections == 1
    await asyncio.wait_for(reply.peer_left.wait(), 5)
    await upstream.wait_closed_connection()
    assert upstream.requests[0].peer_left.is_set()
    assert not reply.finished.is_set()
    assert (upstream.connections, upstream.open_connections) == (1, 0)


async def test_silence_lasts_until_the_caller_gives_up(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    """A silent reply never answers, and sees its caller go."""
    reply = SilentReply()
    upstream.script(reply)
    call = asyncio.create_task(client.get("/"))
    await upstream.wait_requests(1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.wait_for(reply.peer_left.wait(), 5)
