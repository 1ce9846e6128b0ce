"""The project's own client, sync and async, against the real gateway."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from gateway import client as api
from gateway.client import (
    AsyncGatewayClient,
    BudgetExceededError,
    ForbiddenError,
    GatewayClient,
    GatewayClientError,
    GatewayFailedError,
    InvalidRequestError,
    NotFoundError,
    ProviderFailedError,
    RateLimitedError,
    RouteLimit,
    UnauthenticatedError,
    UnreachableError,
    Usage,
    wire,
)
from gateway.client.errors import _BY_TYPE, error_of
from gateway.client.results import ChatChunk
from gateway.client.wire import Events
from gateway.types.errors import ErrorType, Outcome
from tests.conftest import StartGateway
from tests.openai_replies import (
    openai_chat,
    openai_embeddings,
    openai_error,
    openai_stream,
    openai_usage,
)
from tests.running_gateway import RunningGateway, routes_yaml
from tests.scripted_upstream import BytesReply, Reply, ScriptedUpstream, StreamReply

LIMIT = "limit: {calls: 1000, renewal_period: minute}"
HI = openai_usage(13, 7)
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.fixture
async def gateway(upstream: ScriptedUpstream, start_gateway: StartGateway) -> RunningGateway:
    """The gateway with three routes in the original form."""
    return await start_gateway(routes_yaml(upstream.url, extra=LIMIT))


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[AsyncGatewayClient]:
    """An asynchronous client that tries again at once."""
    async with AsyncGatewayClient(gateway.url) as client:
        yield client


async def test_fluent_calls(
    upstream: ScriptedUpstream, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls of mlflow.gateway, word for word: a script changes its import and nothing else."""
    monkeypatch.setattr("gateway.client.fluent._PROCESS", type(api.fluent._PROCESS)())
    upstream.script(openai_chat("hi", usage=HI))

    def script() -> dict[str, Any]:
        from gateway.client import get_gateway_uri, get_route, query, search_routes, set_gateway_uri

        set_gateway_uri(gateway.url)
        answer = {
            "uri": get_gateway_uri(),
            "route": get_route("chat"),
            "routes": search_routes(),
            "reply": query("chat", {"messages": [{"role": "user", "content": "hello"}], "temperature": 0.4}),
        }
        api.fluent._PROCESS.client().close()
        return answer

    got = await asyncio.to_thread(script)
    assert got["uri"] == gateway.url
    assert got["route"] == got["routes"][0]
    assert got["route"].route_url == f"{gateway.url}/gateway/chat/invocations"
    assert got["route"].limit == RouteLimit(calls=1000, renewal_period="minute")
    assert [route.name for route in got["routes"]] == ["chat", "completions", "embeddings"]
    assert got["reply"]["candidates"][0]["message"] == {"role": "assistant", "content": "hi"}
    assert got["reply"]["metadata"]["total_tokens"] == 20
    assert upstream.requests[0].json()["temperature"] == 0.8


def test_a_gateway_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address nothing is guessed; the environment's names work, the argument wins, and it must be a URL."""
    monkeypatch.delenv("GATEWAY_URI", raising=False)
    monkeypatch.delenv("MLFLOW_GATEWAY_URI", raising=False)
    with pytest.raises(ValueError, match="set_gateway_uri"):
        GatewayClient()
    with pytest.raises(ValueError, match="must begin with http"):
        api.set_gateway_uri("localhost:5000")
    monkeypatch.setenv("MLFLOW_GATEWAY_URI", "http://one/")
    with GatewayClient() as client:
        assert client.gateway_uri == "http://one"
    monkeypatch.setenv("GATEWAY_URI", "http://two")
    with GatewayClient() as client, GatewayClient("http://three") as other:
        assert (client.gateway_uri, other.gateway_uri) == ("http://two", "http://three")


async def test_typed_replies(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """Chat, completion and vectors come as values, with tokens and the trace id that the gateway gave."""
    upstream.script(
        openai_chat("hi", usage=HI),
        openai_chat("", tool_calls=None),
        openai_chat("blue"),
        openai_embeddings([0.5], [0.25]),
    )
    reply = await client.chat("chat", "hello", temperature=1.5)
    assert (reply.text, reply.usage, len(reply.trace_id)) == ("hi", Usage(13, 7, 20), 32)
    assert upstream.requests[0].json()["messages"] == [{"role": "user", "content": "hello"}]
    assert upstream.requests[0].json()["temperature"] == 1.5
    assert (await client.chat("chat", [{"role": "user", "content": "a"}])).text == ""
    assert (await client.complete("completions", "The sky is")).text == "blue"
    assert (await client.embed("embeddings", ["a", "b"])).vectors == [(0.5,), (0.25,)]


async def test_the_cost_is_exact(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The gateway's price of a call comes as a decimal, to the nano-dollar."""
    prices = "prices: [{model: gpt-4o-mini, input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6}]\n"
    gateway = await start_gateway(prices + routes_yaml(upstream.url))
    upstream.script(openai_chat("hi", usage=HI))
    async with AsyncGatewayClient(gateway.url) as client:
        assert (await client.chat("chat", "hello")).cost_usd == Decimal("0.00000615")


async def test_tool_calls(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """What the model wants called comes as values."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    upstream.script(openai_chat(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))
    choice = (await client.chat("chat", "hello")).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.name == "f"


async def test_streams(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """Chunks come one by one, with the usage in the last when asked for."""
    upstream.script(openai_stream(["he", "llo"], usage=HI), openai_stream(["bl", "ue"]), openai_stream(["a"], usage=HI))
    asked = client.stream_chat("chat", "hi", stream_options={"include_usage": True})
    chunks = [chunk async for chunk in asked]
    assert "".join(chunk.text for chunk in chunks) == "hello"
    assert chunks[-1].usage == Usage(13, 7, 20)
    assert "".join([chunk.text async for chunk in client.stream_complete("completions", "The sky is")]) == "blue"


async def test_texts_with_other_line_ends(upstream: ScriptedUpstream, gateway: RunningGateway) -> None:
    """What Unicode counts as a line's end, and vendors send as it is, is text like any other, wherever it is cut."""
    text = "a\u2028b\u2029c\u0085d"
    stream = openai_stream([text])
    pieces = [piece.replace(json.dumps(text).encode(), f'"{text}"'.encode()) for piece in stream.pieces]  # type: ignore[union-attr]
    whole = b"".join(pieces)
    assert text.encode() in whole
    upstream.script(StreamReply(pieces), StreamReply(pieces))
    async with AsyncGatewayClient(gateway.url) as client:
        assert "".join([chunk.text async for chunk in client.stream_chat("chat", "hi")]) == text

    def blocking() -> str:
        with GatewayClient(gateway.url) as client:
            return "".join(chunk.text for chunk in client.stream_chat("chat", "hi"))

    assert await asyncio.to_thread(blocking) == text
    events = Events()
    assert [chunk for byte in whole for chunk in events.feed(bytes((byte,)), ChatChunk)] == [
        *Events().feed(whole, ChatChunk)
    ]
    assert events.finished


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (BytesReply(b"<html>", content_type="text/html"), GatewayClientError),
        (BytesReply(b'{"a": "\xff"}'), GatewayClientError),
        (BytesReply(b"[" * 50_000), GatewayClientError),
        (BytesReply(b"[" * 50_000, status=502), GatewayFailedError),
        (BytesReply(b"{}", status=429, headers=[("retry-after", "-5")]), RateLimitedError),
        (BytesReply(b"{}", status=503, headers=[("retry-after", "nan")]), GatewayFailedError),
    ],
    ids=["html", "no-utf-8", "deep", "deep-error", "negative-wait", "no-wait"],
)
async def test_what_no_gateway_answers(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, reply: Reply, failure: type[GatewayClientError]
) -> None:
    """Whatever a proxy on the way answers instead is one of the client's own errors, in both clients."""
    monkeypatch.setattr(wire, "FIRST_BACKOFF_S", 0.0)
    upstream.always(reply)

    def blocking() -> Any:
        with GatewayClient(upstream.url, retries=1) as client:
            return client.query("chat", {})

    async with AsyncGatewayClient(upstream.url, retries=1) as client:
        for call in (client.query("chat", {}), client.chat("chat", "hi"), asyncio.to_thread(blocking)):
            with pytest.raises(GatewayClientError) as caught:
                await call
            assert type(caught.value) is failure


async def test_an_error_that_speaks_of_choices() -> None:
    """An event with the gateway's word is an error, whatever the provider's own words in it are."""
    event = b'data: {"detail": "no such \\"choices\\"", "error_type": "stream_error", "trace_id": "t"}\n\n'
    with pytest.raises(ProviderFailedError, match='no such "choices"'):
        list(Events().feed(event, ChatChunk))


async def test_leaving_a_stream_ends_it_upstream(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """Who stops reading stops the provider too."""
    gate = asyncio.Event()
    upstream.script(openai_stream(["he", gate, "llo"]))
    async with aclosing(client.stream_chat("chat", "hi")) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk.text:
                break
    async with asyncio.timeout(10):
        await upstream.requests[0].peer_left.wait()


async def test_a_stream_that_breaks_off(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """A provider that fails in the middle is an error after the chunks that came, not a short answer."""
    upstream.script(openai_stream(["he", "llo"], cut_after=2))
    got = ""
    with pytest.raises(ProviderFailedError) as failure:
        async for chunk in client.stream_chat("chat", "hi"):
            got += chunk.text
    assert got == "he"
    assert failure.value.error_type == "stream_cut"
    assert len(failure.value.trace_id) == 32


async def test_errors(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """Each failure has its class, with status, word, trace id and the words of who refused."""
    with pytest.raises(InvalidRequestError, match="messages: List should have at least 1 item") as invalid:
        await client.chat("chat", [])
    assert (invalid.value.status, invalid.value.error_type, len(invalid.value.trace_id)) == (422, "invalid_request", 32)
    with pytest.raises(NotFoundError, match="not present or active"):
        await client.get_route("nope")
    with pytest.raises(NotFoundError):
        await client.query("nope", {})
    with pytest.raises(InvalidRequestError):
        [chunk async for chunk in client.stream_chat("chat", [])]
    upstream.script(openai_error(401, "Incorrect API key provided."))
    with pytest.raises(ProviderFailedError, match="Incorrect API key provided") as refused:
        await client.chat("chat", "hi")
    assert refused.value.status == 401
    assert upstream.hits == 1


async def test_what_was_not_served_is_tried_again(upstream: ScriptedUpstream, client: AsyncGatewayClient) -> None:
    """429 and 503 are tried again after the wait that they name; a wait that is too long is the caller's to decide."""
    wait = [("retry-after", "0")]
    upstream.script(openai_error(429, headers=wait), openai_error(503, headers=wait), openai_chat("third"))
    assert (await client.chat("chat", "hi")).text == "third"
    upstream.script(openai_error(429, headers=[("retry-after", "3600")]))
    with pytest.raises(RateLimitedError) as limited:
        await client.chat("chat", "hi")
    assert limited.value.retry_after_s == 3600
    upstream.script(openai_error(500))
    with pytest.raises(ProviderFailedError):
        await client.chat("chat", "hi")
    assert upstream.hits == 5


async def test_nobody_listens() -> None:
    """A gateway that is not there is UnreachableError."""
    async with AsyncGatewayClient("http://127.0.0.1:9", retries=0) as client:
        with pytest.raises(UnreachableError):
            await client.chat("chat", "hi")


async def test_keys(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A gateway key is sent as a bearer token; a wrong one is UnauthenticatedError."""
    key = "gwk_aaaaaaaaaaaa_" + "s" * 43
    gateway = await start_gateway(f"keys: [{{secret: {key}, routes: [chat]}}]\n" + routes_yaml(upstream.url))
    upstream.script(openai_chat("hi"))
    async with AsyncGatewayClient(gateway.url, api_key=key) as client:
        assert (await client.chat("chat", "hi")).text == "hi"
        with pytest.raises(ForbiddenError):
            await client.complete("completions", "hi")
    async with AsyncGatewayClient(gateway.url, api_key="wrong") as client:
        with pytest.raises(UnauthenticatedError):
            await client.chat("chat", "hi")


async def test_the_blocking_client_does_the_same(upstream: ScriptedUpstream, gateway: RunningGateway) -> None:
    """Every call of the synchronous client, from a thread."""
    upstream.script(
        openai_chat("hi", usage=HI),
        openai_error(429, headers=[("retry-after", "0")]),
        openai_chat("blue"),
        openai_embeddings([0.5]),
        openai_stream(["he", "llo"]),
        openai_stream(["bl", "ue"]),
        openai_chat("query"),
    )

    def script() -> None:
        with GatewayClient(gateway.url) as client:
            assert client.chat("chat", "hello").text == "hi"
            assert client.complete("completions", "The sky is").text == "blue"
            assert client.embed("embeddings", "a").vectors == [(0.5,)]
            assert "".join(chunk.text for chunk in client.stream_chat("chat", "hi")) == "hello"
            assert "".join(chunk.text for chunk in client.stream_complete("completions", "hi")) == "blue"
            body = {"messages": [{"role": "user", "content": "hello"}]}
            assert client.query("chat", body)["candidates"][0]["message"]["content"] == "query"
            assert [route.name for route in client.search_routes()] == ["chat", "completions", "embeddings"]
            assert client.get_route("chat").route_type == "llm/v1/chat"
            with pytest.raises(InvalidRequestError):
                list(client.stream_chat("chat", []))

    await asyncio.to_thread(script)


def test_both_clients_are_alike() -> None:
    """The same calls with the same arguments, so that going async is adding `await`."""

    def calls(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert calls(GatewayClient) == calls(AsyncGatewayClient)


async def test_calls_join_the_apps_trace(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The gateway's trace continues the app's, where it trusts its callers' traces."""
    gateway = await start_gateway("telemetry: {trust_inbound_trace: true}\n" + routes_yaml(upstream.url))
    upstream.script(openai_chat("hi"))
    provider = TracerProvider()
    async with AsyncGatewayClient(gateway.url, tracer_provider=provider) as client:
        with provider.get_tracer("app").start_as_current_span("work") as span:
            reply = await client.chat("chat", "hi")
    assert reply.trace_id == f"{span.get_span_context().trace_id:032x}"
    record = await gateway.records.last()
    assert record.trace.parent_span_id not in (None, span.get_span_context().span_id)


@pytest.mark.parametrize("error_type", list(ErrorType))
def test_every_word_of_the_gateway_has_its_class(error_type: ErrorType) -> None:
    """The closed list of causes is known here too: policy and caller by name, the rest is the provider's."""
    error = error_of(500, {"x-gateway-error-type": error_type.value}, b"{}")
    if error_type is ErrorType.CALLER_LEFT:
        return
    if error_type.outcome is Outcome.GATEWAY:
        assert type(error) is GatewayFailedError
    elif error_type.outcome is Outcome.PROVIDER and error_type.value not in _BY_TYPE:
        assert type(error) is ProviderFailedError
    else:
        assert error_type.value in _BY_TYPE
    assert isinstance(error, GatewayClientError)


def test_no_word_is_known_that_the_gateway_does_not_say() -> None:
    """A cause that the gateway drops is dropped here."""
    assert set(_BY_TYPE) <= set(ErrorType)
    assert _BY_TYPE[ErrorType.BUDGET_EXCEEDED] is BudgetExceededError
