"""Serving under failure: what is tried again, what is not, and what everyone sees of it. Over real HTTP."""

import asyncio
import json

import httpx
import pytest

from gateway.telemetry import names
from gateway.types.errors import ErrorType, Outcome
from gateway.types.records import AttemptKind, Basis
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_error, openai_stream, openai_usage
from tests.replies import BytesReply, GarbageReply, HangupReply, Reply, SilentReply, StreamReply, json_reply
from tests.running_gateway import RunningGateway, until
from tests.scripted_upstream import ScriptedUpstream

BODY = {"model": "chat", "messages": [{"role": "user", "content": "Hello?"}]}


def _target(url: str, **extra: object) -> dict[str, object]:
    config = {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"}
    return {"provider": "openai", "name": "gpt-4o-mini", "config": config, **extra}


def _config(*targets: dict[str, object], **route: object) -> str:
    # JSON is YAML.
    entry = {"name": "chat", "endpoint_type": "llm/v1/chat", "targets": list(targets), **route}
    return json.dumps({"endpoints": [entry]})


async def _ask(gateway: RunningGateway, **extra: object) -> httpx.Response:
    return await gateway.client.post("/v1/chat/completions", json=BODY | extra)


async def _give_up(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """Ask for a whole reply, and leave while the provider works at it."""
    asking = asyncio.create_task(_ask(gateway))
    await upstream.wait_requests()
    asking.cancel()
    await until(lambda: gateway.connections == 0, "the caller's leaving")


async def test_a_retry_follows_a_busy_provider(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """With `retries: 1` a 503 that says when to come back is tried again, and both attempts are seen."""
    gateway = await start_gateway(_config(_target(upstream.url), retries=1))
    upstream.script(openai_error(503, "busy", headers=[("retry-after-ms", "1")]), openai_chat())
    reply = await _ask(gateway)
    assert reply.status_code == 200
    assert reply.headers["x-gateway-attempts"] == "2"
    record = await gateway.records.last()
    assert [(attempt.kind, attempt.outcome) for attempt in record.attempts] == [
        (AttemptKind.FIRST, Outcome.PROVIDER),
        (AttemptKind.RETRY, Outcome.OK),
    ]
    assert upstream.hits == len(record.attempts) == 2
    assert gateway.metric(names.ATTEMPTS, kind="retry", outcome="ok") == 1


async def test_what_a_retry_cannot_mend_is_not_retried(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A 400, and a 500 that may have done the work, are answered at once."""
    gateway = await start_gateway(_config(_target(upstream.url), retries=3))
    upstream.script(openai_error(400, "no such parameter"), openai_error(500, "oops"))
    assert (await _ask(gateway)).status_code == 400
    assert (await _ask(gateway)).status_code == 500
    assert upstream.hits == 2


async def test_the_next_tier_serves_when_the_first_fails(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A target that cannot be reached is replaced by the next tier's."""
    gateway = await start_gateway(
        _config(_target("http://127.0.0.1:9", tier=0), _target(upstream.url, tier=1, name="spare"))
    )
    upstream.script(openai_chat("from the spare"))
    reply = await _ask(gateway)
    assert reply.json()["choices"][0]["message"]["content"] == "from the spare"
    first, second = (await gateway.records.last()).attempts
    assert first.error_type is ErrorType.CONNECT_FAILED
    assert (second.kind, second.request_model) == (AttemptKind.FALLBACK, "spare")


async def test_nothing_is_tried_again_after_the_first_byte(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A stream that breaks after its first chunk ends with an error event, whatever targets are left."""
    gateway = await start_gateway(_config(_target(upstream.url), _target(upstream.url, tier=1), retries=3))
    upstream.script(openai_stream(["Hel"], cut_after=2))
    reply = await _ask(gateway, stream=True)
    assert reply.status_code == 200
    last = json.loads(reply.text.strip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "stream_cut"
    assert last["error"]["trace_id"] == reply.headers["x-gateway-trace-id"]
    assert upstream.hits == 1


async def test_a_whole_reply_becomes_the_stream_that_was_asked_for(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A provider that answers in one piece is passed on as one chunk, its calls numbered and its usage counted."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    calls = [
        {"id": name, "type": "function", "function": {"name": "now", "arguments": "{}"}}
        for name in ("call_1", "call_2")
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    body = json.dumps(whole | {"usage": openai_usage(9, 3)}).encode()
    # In two pieces, as a network may bring it.
    upstream.script(StreamReply([body[:40], body[40:]], content_type="application/json"))
    reply = await _ask(gateway, stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    first, usage = json.loads(events[0]), json.loads(events[1])
    assert first["object"] == "chat.completion.chunk"
    [piece] = first["choices"]
    numbered = [{"index": index, **call} for index, call in enumerate(calls)]
    assert piece == {"index": 0, "delta": message | {"tool_calls": numbered}, "finish_reason": "tool_calls"}
    assert (usage["choices"], usage["usage"]["total_tokens"], events[2]) == ([], 12, "[DONE]")
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.output_tokens, attempt.finish_reasons) == (3, ("tool_calls",))


async def test_an_error_in_the_place_of_a_stream_is_said(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A provider that answers a stream's request with status 200 and an error gets heard, before anything is sent."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    upstream.script(json_reply({"error": {"message": "No tokens left.", "code": "empty"}}), BytesReply(b'{"a": '))
    refused, cut = await _ask(gateway, stream=True), await _ask(gateway, stream=True)
    assert (refused.status_code, refused.json()["error"]["message"]) == (502, "No tokens left.")
    assert (cut.status_code, cut.json()["error"]["code"]) == (502, "unreadable_reply")


async def test_a_stream_refused_before_its_first_byte_falls_back(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Before any byte went out, a stream may move to the next target like any request."""
    gateway = await start_gateway(_config(_target(upstream.url), _target(upstream.url, tier=1)))
    upstream.script(openai_error(503, "busy"), openai_stream(["Hello"]))
    reply = await _ask(gateway, stream=True)
    assert reply.text.endswith("data: [DONE]\n\n")
    assert [attempt.kind for attempt in (await gateway.records.last()).attempts] == ["first", "fallback"]


@pytest.mark.parametrize(
    ("scripted", "status", "error_type"),
    [
        (GarbageReply(), 502, ErrorType.UNREADABLE_REPLY),
        (HangupReply(), 502, ErrorType.CONNECTION_LOST),
        (HangupReply(reset=True), 502, ErrorType.CONNECTION_LOST),
        (BytesReply(b"<html>not json</html>"), 502, ErrorType.UNREADABLE_REPLY),
        (BytesReply(b'{"choices": 3}'), 502, ErrorType.UNREADABLE_REPLY),
        (openai_error(401, "bad key"), 401, ErrorType.PROVIDER_AUTH),
        (openai_error(429, "slow down"), 429, ErrorType.PROVIDER_RATE_LIMITED),
        (openai_error(529, "overloaded"), 503, ErrorType.PROVIDER_OVERLOADED),
    ],
)
async def test_each_failure_has_its_status_and_type_everywhere(
    scripted: Reply, status: int, error_type: ErrorType, upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Reply, record and metric name the same cause, and the gateway goes on serving."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    upstream.script(scripted)
    reply = await _ask(gateway)
    assert reply.status_code == status
    assert reply.json()["error"]["code"] == error_type == reply.headers["x-gateway-error-type"]
    record = await gateway.records.last()
    assert record.error_type is error_type
    assert gateway.metric(names.REQUESTS, error_type=error_type) == 1
    assert gateway.metric(names.REQUEST_DURATION, "_count", outcome=error_type.outcome) == 1
    assert gateway.metric(names.REQUESTS_IN_FLIGHT, route="chat") == 0
    upstream.script(openai_chat())
    assert (await _ask(gateway)).status_code == 200


@pytest.mark.parametrize(
    ("timeouts", "stream", "error_type"),
    [
        ({"first_byte_s": 0.05}, False, ErrorType.FIRST_BYTE_TIMEOUT),
        ({"total_s": 0.05}, False, ErrorType.TOTAL_TIMEOUT),
        ({"between_chunks_s": 0.05}, True, ErrorType.STREAM_TIMEOUT),
    ],
)
async def test_each_timeout_is_its_own(
    timeouts: dict[str, float],
    stream: bool,
    error_type: ErrorType,
    upstream: ScriptedUpstream,
    start_gateway: StartGateway,
) -> None:
    """A provider that is slow to begin, slow as a whole, or silent between chunks is told apart, as a 504."""
    never = asyncio.Event()
    gateway = await start_gateway(_config(_target(upstream.url), timeouts=timeouts))
    upstream.script(openai_stream(["Hel", never, "lo"]) if stream else SilentReply(never))
    reply = await _ask(gateway, stream=stream)
    assert reply.status_code == (200 if stream else 504)
    record = await gateway.records.last()
    assert record.error_type is error_type
    await upstream.wait_closed_connection()


async def test_a_caller_who_leaves_ends_the_upstream(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """When the caller closes a stream, the upstream connection is broken off and what was seen is recorded."""
    never = asyncio.Event()
    gateway = await start_gateway(_config(_target(upstream.url)))
    upstream.script(openai_stream(["Hello", never]))
    async with gateway.client.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as reply:
        async for line in reply.aiter_lines():
            if "Hello" in line:
                break
    async with asyncio.timeout(5):
        await upstream.requests[0].peer_left.wait()
    record = await gateway.records.last()
    assert record.error_type is ErrorType.CALLER_LEFT
    assert record.attempts[0].error_type is ErrorType.CALLER_LEFT
    assert record.attempts[0].output_chars == len("Hello")
    assert gateway.metric(names.REQUESTS_IN_FLIGHT, route="chat") == 0


async def test_a_caller_who_leaves_before_the_first_byte_ends_the_upstream(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A streaming caller who gives up while the provider thinks is noticed too."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    upstream.script(SilentReply())
    asking = asyncio.create_task(_ask(gateway, stream=True))
    await upstream.wait_requests()
    asking.cancel()
    async with asyncio.timeout(5):
        await upstream.requests[0].peer_left.wait()
    assert (await gateway.records.last()).error_type is ErrorType.CALLER_LEFT


async def test_a_caller_who_leaves_a_whole_reply_is_recorded(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """The reply is read to its end and counts as the provider's success; that nobody got it is told, too."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    thinking = asyncio.Event()
    upstream.script(openai_chat(usage=openai_usage(9, 3), hold=thinking))
    await _give_up(gateway, upstream)
    thinking.set()
    record = await gateway.records.last()
    assert (record.error_type, record.status_code) == (ErrorType.CALLER_LEFT, 499)
    (attempt,) = record.attempts
    assert (attempt.outcome, attempt.cost.basis) == (Outcome.OK, Basis.PROVIDER_USAGE)
    assert gateway.metric(names.REQUESTS, outcome="caller", error_type="caller_left") == 1


@pytest.mark.parametrize(
    ("further", "route"), [([], {"retries": 2}), ([{"tier": 1}], {})], ids=["no retry", "no fallback"]
)
async def test_nobody_is_asked_again_for_a_caller_who_left(
    further: list[dict[str, object]],
    route: dict[str, object],
    upstream: ScriptedUpstream,
    start_gateway: StartGateway,
) -> None:
    """Who waited for a whole reply and gave up while the provider was failing costs no second request."""
    targets = [_target(upstream.url), *(_target(upstream.url, **extra) for extra in further)]
    gateway = await start_gateway(_config(*targets, **route))
    failing = asyncio.Event()
    upstream.script(BytesReply(b"{}", status=503, headers=[("retry-after-ms", "1")], hold=failing), openai_chat())
    await _give_up(gateway, upstream)
    failing.set()
    record = await gateway.records.last()
    assert record.error_type is ErrorType.CALLER_LEFT
    assert [attempt.error_type for attempt in record.attempts] == [ErrorType.PROVIDER_OVERLOADED]
    assert upstream.hits == 1


async def test_a_failing_target_is_left_out_once_its_circuit_opens(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """After enough failures in a row requests go straight to the target that works."""
    gateway = await start_gateway(
        _config(_target("http://127.0.0.1:9", name="down"), _target(upstream.url, tier=1, name="up"))
    )
    upstream.always(openai_chat())
    for _ in range(6):
        assert (await _ask(gateway)).status_code == 200
    records = await gateway.records.wait(6)
    assert [len(record.attempts) for record in records] == [2, 2, 2, 2, 2, 1]
    assert gateway.metric(names.CIRCUIT_STATE, model="down") == 2


async def test_no_trace_header_or_baggage_reaches_a_provider(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """What a caller sends for its own tracing stays here unless the target says `propagate_trace`."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    upstream.script(openai_chat())
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": traceparent, "tracestate": "a=b", "baggage": "email=someone@example.org"}
    await gateway.client.post("/v1/chat/completions", json=BODY, headers=headers)
    sent = {name for name, _ in upstream.requests[0].headers}
    assert not sent & {"traceparent", "tracestate", "baggage"}
    record = await gateway.records.last()
    assert record.trace.link_trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert record.trace.trace_id != record.trace.link_trace_id


async def test_a_provider_that_may_trace_gets_the_attempts_context(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """With `propagate_trace` the provider's spans become children of the attempt."""
    gateway = await start_gateway(_config(_target(upstream.url, propagate_trace=True)))
    upstream.script(openai_chat())
    reply = await _ask(gateway)
    attempt = (await gateway.records.last()).attempts[0]
    expected = f"00-{reply.headers['x-gateway-trace-id']}-{attempt.span_id:016x}-00"
    assert upstream.requests[0].header("traceparent") == expected


async def test_no_request_follows_a_stream_on_its_connection(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Model servers may close a connection behind a stream: a stream has its own, all other requests share one."""
    gateway = await start_gateway(_config(_target(upstream.url)))
    upstream.script(openai_chat(), openai_chat(), openai_stream(["Hi"]), openai_chat())
    for stream in (False, False, True, False):
        assert (await _ask(gateway, stream=stream)).status_code == 200
    assert [request.connection for request in upstream.requests] == [0, 0, 1, 0]


async def test_a_stream_that_no_target_has_is_refused(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Embeddings cannot stream: who asks is told so, before any provider is."""
    target = _target(upstream.url)
    entry = {"name": "chat", "endpoint_type": "llm/v1/embeddings", "model": target}
    gateway = await start_gateway(json.dumps({"endpoints": [entry]}))
    reply = await gateway.client.post("/v1/embeddings", json={"model": "chat", "input": "a", "stream": True})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "stream"
    assert upstream.hits == 0
