"""Where a request's time went is told of whoever spent it: the gateway, the provider, the caller, or a retry's wait.

Time stands still unless a test moves it, so every figure is exact.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from gateway.telemetry import names
from gateway.types.errors import ErrorType
from gateway.types.records import RequestRecord
from gateway.upstream.pool import Pool
from tests.certificates import certificate
from tests.clocks import ManualClock
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_error, openai_stream, openai_usage
from tests.raw_http import raw_connection, request_head
from tests.replies import SilentReply, StreamReply
from tests.running_gateway import routes_yaml, until
from tests.scripted_upstream import ScriptedUpstream

USER = [{"role": "user", "content": "x"}]
PATH = "/endpoints/chat/invocations"


def timing(header: str | None) -> dict[str, float]:
    """The milliseconds of a Server-Timing header."""
    assert header is not None
    return {name: float(dur.removeprefix("dur=")) for name, dur in (part.split(";") for part in header.split(", "))}


def shares(record: RequestRecord) -> dict[str, float]:
    """The seconds of a request by who spent them."""
    phases = record.phases
    return {"own": record.overhead_s, "upstream": phases.upstream_s, "caller": phases.caller_s}


async def test_a_unary_request_splits_into_its_shares(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Two seconds of the caller's body and three of the provider's are theirs, in Server-Timing and in the record."""
    clock = ManualClock()
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"), clock=clock)
    hold = asyncio.Event()
    upstream.script(openai_chat(hold=hold))
    body = json.dumps({"messages": USER}).encode()
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", PATH, [("content-length", str(len(body)))]) + body[:5])
        await until(lambda: gateway.metric(names.REQUESTS_IN_FLIGHT), "a request in flight")
        clock.advance(2.0)
        await caller.write(body[5:])
        await upstream.wait_requests(1)
        clock.advance(3.0)
        hold.set()
        reply = await caller.reply()
    assert timing(reply.header("server-timing")) == {"gateway": 0.0, "upstream": 3000.0, "caller": 2000.0}
    record = await gateway.records.last()
    assert shares(record) == {"own": 0.0, "upstream": 3.0, "caller": 2.0}
    [attempt] = record.attempts
    assert (attempt.first_byte_s, attempt.duration_s, record.duration_s) == (3.0, 3.0, 5.0)
    assert gateway.metric(names.OVERHEAD, "_sum", phase="total") == 0.0
    assert gateway.metric(names.CALLER_WAIT, "_sum", route="chat") == 2.0


async def test_a_stream_has_its_first_token_and_its_pace(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """The announcement of a reply is no first chunk: that comes with the text, and the pace is per token after it."""
    clock = ManualClock()
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"), clock=clock)
    thinks, talks = asyncio.Event(), asyncio.Event()
    upstream.script(openai_stream([thinks, "a", talks, "b"], usage=openai_usage(1, 5)))
    async with gateway.client.stream("POST", PATH, json={"messages": USER, "stream": True}) as reply:
        lines = (line async for line in reply.aiter_lines() if line.startswith("data: {"))
        assert '"content":""' in (await anext(lines)).replace(" ", "")
        clock.advance(4.0)
        thinks.set()
        assert '"content":"a"' in (await anext(lines)).replace(" ", "")
        clock.advance(2.0)
        talks.set()
        assert [line async for line in lines]
    record = await gateway.records.last()
    [attempt] = record.attempts
    assert (attempt.first_byte_s, attempt.first_chunk_s, attempt.last_chunk_s) == (0.0, 4.0, 6.0)
    assert attempt.time_per_output_token_s == 2.0 / 4
    assert shares(record) == {"own": 0.0, "upstream": 6.0, "caller": 0.0}
    assert gateway.metric(names.TIME_TO_FIRST_CHUNK, "_sum") == 4.0
    assert gateway.metric(names.TIME_PER_OUTPUT_CHUNK, "_sum") == 0.5
    assert gateway.metric(names.ATTEMPT_PHASE, "_sum", phase="stream") == 2.0


async def test_a_vendors_preamble_is_no_first_token(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Anthropic's message_start, which its own API passes on, comes before the model has said anything."""
    clock = ManualClock()
    config = {"anthropic_api_key": "sk-test", "anthropic_api_base": f"{upstream.url}/v1"}
    model = {"provider": "anthropic", "name": "claude", "config": config}
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "model": model}
    gateway = await start_gateway(json.dumps({"endpoints": [route]}), clock=clock)
    sse = (Path(__file__).parents[1] / "fixtures/anthropic/messages_stream/upstream.sse").read_bytes()
    cut = sse.index(b"event: content_block_delta")
    thinks = asyncio.Event()
    upstream.script(StreamReply([sse[:cut], thinks, sse[cut:]]))
    body = {"model": "chat", "max_tokens": 9, "messages": USER, "stream": True}
    async with gateway.client.stream("POST", "/v1/messages", json=body) as reply:
        pieces = reply.aiter_bytes()
        assert b"message_start" in await anext(pieces)
        clock.advance(4.0)
        thinks.set()
        assert [piece async for piece in pieces]
    [attempt] = (await gateway.records.last()).attempts
    assert (attempt.first_byte_s, attempt.first_chunk_s) == (0.0, 4.0)


async def test_a_stall_is_the_providers_time(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A minute in which a stream says nothing until its timeout is not the gateway's."""
    clock = ManualClock()
    extra = "timeouts: {between_chunks_s: 0.2}"
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints", extra), clock=clock)
    upstream.script(openai_stream(["a", asyncio.Event()]))
    async with gateway.client.stream("POST", PATH, json={"messages": USER, "stream": True}) as reply:
        pieces = reply.aiter_bytes()
        await anext(pieces)
        clock.advance(60.0)
        assert [piece async for piece in pieces]
    record = await gateway.records.last()
    assert record.error_type is ErrorType.STREAM_TIMEOUT
    assert shares(record) == {"own": 0.0, "upstream": 60.0, "caller": 0.0}


async def test_a_slow_reader_is_the_callers_time(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Half a minute in which a caller takes nothing, and then leaves, is not the gateway's."""
    clock = ManualClock()
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"), clock=clock)
    upstream.script(openai_stream(["x" * 10_000] * 4_000))
    body = json.dumps({"messages": USER, "stream": True}).encode()
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", PATH, [("content-length", str(len(body)))]) + body)
        await until(lambda: gateway.blocked, "a blocked caller")
        # The stream goes on until its next piece finds no room; others are served meanwhile.
        assert (await gateway.client.get("/health")).status_code == 200
        clock.advance(30.0)
        caller.leave()
        record = await gateway.records.last()
    assert record.error_type is ErrorType.CALLER_LEFT
    assert shares(record) == {"own": 0.0, "upstream": 0.0, "caller": 30.0}
    assert gateway.metric(names.CALLER_WAIT, "_sum", route="chat") == 30.0


async def test_the_wait_before_a_retry_is_nobodys_overhead(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """What a provider asks to wait is told apart: in Server-Timing, in the record, and not in the overhead."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints", "retries: 1"))
    upstream.script(openai_error(503, headers=[("retry-after-ms", "50")]), openai_chat())
    reply = await gateway.client.post(PATH, json={"messages": USER})
    record = await gateway.records.last()
    phases = record.phases
    assert phases.backoff_s >= 0.05
    assert timing(reply.headers["server-timing"])["backoff"] == round(phases.backoff_s * 1e3, 2)
    waits_s = phases.upstream_s + phases.caller_s + phases.backoff_s
    assert record.overhead_s == pytest.approx(record.duration_s - waits_s)


# --- connecting -------------------------------------------------------------------------------------------------


def trusting(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Let gateways that start from now on trust a certificate."""
    monkeypatch.setattr("gateway.app.Pool", lambda: Pool(tls=ssl.create_default_context(cafile=str(file))))


@pytest.mark.parametrize("http_spans", ["light", "instrumented"])
async def test_connecting_by_tls_is_told_once_a_connection(
    http_spans: str, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The handshake stands in the attempt that made it, also where that was refused; the retry reuses the connection."""
    public, context = certificate(tmp_path, "server", "127.0.0.1")
    trusting(monkeypatch, public)
    async with ScriptedUpstream(tls=context) as upstream:
        telemetry = f"telemetry: {{http_spans: {http_spans}}}\n"
        gateway = await start_gateway(telemetry + routes_yaml(upstream.url, "endpoints", "retries: 1"))
        upstream.script(openai_error(503, headers=[("retry-after-ms", "1")]), openai_chat(), openai_chat())
        for _ in range(2):
            assert (await gateway.client.post(PATH, json={"messages": USER})).status_code == 200
        assert upstream.connections == 1
        one, two = await gateway.records.wait(2)
        refused, retried, reused = *one.attempts, *two.attempts
        assert refused.connect_s is not None
        assert refused.first_byte_s is not None
        assert 0 < refused.connect_s <= refused.first_byte_s
        assert (retried.connect_s, reused.connect_s) == (None, None)
        assert gateway.metric(names.ATTEMPT_PHASE, "_count", phase="connect") == 1
        assert gateway.metric(names.ATTEMPT_PHASE, "_count", phase="first_byte") == 3
        assert gateway.metric(names.ATTEMPT_PHASE, "_sum", phase="connect") == refused.connect_s


async def test_connecting_in_vain_has_its_time_too(start_gateway: StartGateway, tmp_path: Path) -> None:
    """A handshake that fails is told of with its cause, and no first byte; nobody listening is, too."""
    _, context = certificate(tmp_path, "server", "127.0.0.1")
    async with ScriptedUpstream(tls=context) as upstream:
        gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
        reply = await gateway.client.post(PATH, json={"messages": USER})
        assert "certificate" in reply.json()["detail"]
        assert upstream.hits == 0
    await gateway.client.post(PATH, json={"messages": USER})
    for record in await gateway.records.wait(2):
        [attempt] = record.attempts
        assert attempt.error_type is ErrorType.CONNECT_FAILED
        assert attempt.first_byte_s is None
        assert attempt.connect_s is not None
        assert 0 < attempt.connect_s <= attempt.duration_s
    assert gateway.metric(names.ATTEMPT_PHASE, "_count", phase="connect") == 2


async def test_an_exchange_that_a_caller_left_lasted_until_then(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A caller who leaves before the reply's headers ends the exchange's span with the attempt, not where it began."""
    clock = ManualClock()
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"), clock=clock)
    upstream.script(SilentReply())
    body = json.dumps({"messages": USER, "stream": True}).encode()
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", PATH, [("content-length", str(len(body)))]) + body)
        await upstream.wait_requests(1)
        clock.advance(7.0)
        caller.leave()
        [attempt] = (await gateway.records.last()).attempts
    assert (attempt.error_type, attempt.first_byte_s, attempt.duration_s) == (ErrorType.CALLER_LEFT, None, 7.0)
    assert attempt.http is not None
    assert attempt.http.end_ns - attempt.http.start_ns == 7_000_000_000
