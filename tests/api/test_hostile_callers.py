"""Whatever a caller sends, it gets the documented error of its surface, and the gateway serves on."""

import asyncio
import gc
import gzip
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.telemetry import names
from gateway.telemetry.setup import TraceExport
from gateway.types.errors import ErrorType, GatewayError, Outcome
from tests.collector import attributes_of, running_collector
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_error, openai_stream
from tests.raw_http import raw_connection, request_head
from tests.running_gateway import RunningGateway, routes_yaml, running_gateway, until
from tests.scripted_upstream import BytesReply, HangupReply, ScriptedUpstream, json_reply

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
    told = [*caplog.get_records("call"), *caplog.records]
    assert [record.getMessage() for record in told if record.levelno >= logging.ERROR] == []


async def serves_on(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """An honest request gets its reply, and nothing is left in flight."""
    upstream.script(openai_chat("still here"))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER})
    assert reply.json()["choices"][0]["message"]["content"] == "still here"
    await until(lambda: gateway.metric(names.REQUESTS_IN_FLIGHT) == 0, "nothing is in flight")


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


@pytest.mark.parametrize("path", ["/gateway/chat/invocations", "/v1/chat/completions", "/v1/messages"])
async def test_an_announced_flood_is_refused_unread(
    upstream: ScriptedUpstream, start_gateway: StartGateway, path: str
) -> None:
    """A body that says it is over 64 MiB is refused with 413 before it is sent, in the surface's own shape."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", path, [("content-length", str(2**40))]) + b"{")
        reply = await caller.reply()
    assert (reply.status, reply.header("x-gateway-error-type")) == (413, "request_too_large")
    assert json.loads(reply.body)
    await serves_on(gateway, upstream)


async def test_a_chunked_flood_is_refused_on_the_way(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A body of unknown length is refused as soon as it is over 64 MiB, though it goes on."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", "/v1/chat/completions", [("transfer-encoding", "chunked")]))
        for _ in range(65):
            await caller.write(piece)
        reply = await caller.reply()
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (413, "request_too_large")
    await serves_on(gateway, upstream)


async def test_a_slow_chunked_body_is_served(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A body that comes byte by byte is a request like any other, and keeps nobody else waiting."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    body = json.dumps({"model": "chat", "messages": USER}).encode()
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", "/v1/chat/completions", [("transfer-encoding", "chunked")]))
        for index, byte in enumerate(body):
            await caller.write(b"1\r\n%c\r\n" % byte)
            if index == 10:
                await serves_on_meanwhile(gateway, upstream)
        upstream.script(openai_chat("slowly"))
        await caller.write(b"0\r\n\r\n")
        reply = await caller.reply()
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "slowly"
    # The wait for the caller is not the gateway's.
    record = (await gateway.records.wait(2))[-1]
    assert record.phases.caller_s > record.overhead_s


async def serves_on_meanwhile(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script(openai_chat("meanwhile"))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER})
    assert reply.json()["choices"][0]["message"]["content"] == "meanwhile"


async def test_a_body_cut_short(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Who hangs up in the middle of a body is counted as a caller who left, and nothing is sent upstream."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("POST", "/v1/chat/completions", [("content-length", "100")]) + b'{"model": ')
        caller.leave()
    record = await gateway.records.last()
    assert (record.error_type, record.status_code) == (ErrorType.CALLER_LEFT, 499)
    assert upstream.hits == 0
    await serves_on(gateway, upstream)


async def test_leaving_with_a_request_in_the_queue(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Who leaves a stream with another request sent behind it ends the provider's work like any who leaves."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    stream = openai_stream(["Hel", asyncio.Event(), "lo"])
    upstream.script(stream)
    body = json.dumps({"model": "chat", "messages": USER, "stream": True}).encode()
    asked = request_head("POST", "/v1/chat/completions", [("content-length", str(len(body)))]) + body
    async with raw_connection(gateway.url) as caller:
        await caller.write(asked + asked)
        await caller.reader.readuntil(b"Hel")
        caller.leave()
    async with asyncio.timeout(10):
        await stream.peer_left.wait()
    assert (await gateway.records.last()).error_type is ErrorType.CALLER_LEFT
    assert upstream.hits == 1
    await serves_on(gateway, upstream)


async def test_a_packed_body(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A body packed by gzip is unpacked; one that is broken, cut, or unpacks to more than 64 MiB is refused."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    packed = gzip.compress(json.dumps({"model": "chat", "messages": USER}).encode())
    bomb = gzip.compress(b" " * (64 * 1024 * 1024 + 1))
    headers = {"content-encoding": "gzip"}
    upstream.script(openai_chat("unpacked"))
    reply = await gateway.client.post("/v1/chat/completions", content=packed, headers=headers)
    assert reply.json()["choices"][0]["message"]["content"] == "unpacked"
    for wrong, code in (
        (packed[:-9], "invalid_json"),
        (packed[:2] + b"x", "invalid_json"),
        (bomb, "request_too_large"),
    ):
        refused = await gateway.client.post("/v1/chat/completions", content=wrong, headers=headers)
        assert refused.json()["error"]["code"] == code
    assert upstream.hits == 1


def failures() -> list[GatewayError]:
    """Those that are in memory."""
    return [kept for kept in gc.get_objects() if isinstance(kept, GatewayError)]


async def test_a_failure_is_forgotten(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A failed request is gone with its end, body and all: it does not wait for the garbage collector."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    chat = json.dumps({"model": "chat", "messages": USER}).encode()
    gc.collect()
    # Tests before this one may have left some.
    before = failures()
    gc.disable()
    try:
        for body, reply in (
            (b"{", None),
            (b'{"model": "nobody"}', None),
            (b'{"model": "chat", "messages": 5}', None),
            (chat, openai_error(400)),
            (chat, HangupReply()),
            (chat, openai_error(503)),
            (chat, BytesReply(b"{")),
        ):
            if reply is not None:
                upstream.script(reply)
            assert (await gateway.client.post("/v1/chat/completions", content=body)).status_code >= 400
        await until(lambda: len(failures()) == len(before), "the failures' end")
    finally:
        gc.enable()


async def test_numbers_without_end_in_defaults(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A number out of every range, where a vendor's default is looked for, goes to the vendor like any other."""
    yaml = routes_yaml(upstream.url).replace("openai_api", "groq_api").replace("provider: openai", "provider: groq")
    chat = json.dumps({"model": "chat", "messages": USER})[:-1]
    gateway = await start_gateway(yaml.split("  - name: completions")[0])
    upstream.script(openai_chat())
    reply = await gateway.client.post("/v1/chat/completions", content=f'{chat}, "frequency_penalty": 1e999}}')
    assert reply.status_code == 200
    assert b'"frequency_penalty":1e999' in upstream.requests[0].body


async def test_duplicate_members(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Of members that stand twice the last counts, for the gateway and for the provider alike: nobody is fooled."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat())
    body = b'{"model": "embeddings", "max_tokens": 1, "model": "chat", "messages": [], "max_tokens": 7, "messages": %b}'
    reply = await gateway.client.post("/v1/chat/completions", content=body % json.dumps(USER).encode())
    assert reply.status_code == 200
    sent = upstream.requests[0].body
    assert (sent.count(b'"model"'), sent.count(b'"max_tokens"'), sent.count(b'"messages"')) == (1, 1, 1)
    assert upstream.requests[0].json() == {"model": "gpt-4o-mini", "max_tokens": 7, "messages": USER}


@pytest.mark.parametrize(
    "name",
    ["chat\r\nx-evil: 1", "chat\x00", "../chat", "chat%0d%0ax-evil:1", "\u2028", "a" * 100_000, "chat\n", " chat"],
)
async def test_names_that_would_break_out(upstream: ScriptedUpstream, start_gateway: StartGateway, name: str) -> None:
    """A route's name never reaches a header, a metric or the log: an unknown one is named in the error's text alone."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": name, "messages": USER})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_route")
    assert "x-evil" not in reply.headers
    assert (await gateway.records.last()).route == "_other"
    quoted = quote(name, safe="")
    for path in (f"/gateway/{quoted}/invocations", f"/v1beta/models/{quoted}:generateContent"):
        if len(path) < 60_000:
            assert (await gateway.client.post(path, json={"messages": USER})).status_code == 404
    assert upstream.hits == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer " + "x" * 30_000},
        {"authorization": "Basic %%%"},
        {"x-api-key": "\xff\xfe"},
        {"traceparent": "00-" + "f" * 32 + "-" + "0" * 16 + "-zz"},
        {"traceparent": "\xff"},
        {"user-agent": "\xff" * 1000},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-encoding": "gzip"},
        {"anthropic-beta": "\xff\xfe", "anthropic-version": "x" * 10_000},
        {"cookie": "a=b;" * 5000},
        {"accept": "text/html"},
        {"host": ""},
        {"x-forwarded-for": "1.2.3.4"},
        {"tracestate": "x" * 20_000, "baggage": "\xff=1"},
    ],
    ids=" ".join,
)
async def test_odd_headers_change_nothing(
    upstream: ScriptedUpstream, start_gateway: StartGateway, headers: dict[str, str]
) -> None:
    """Whatever stands in a caller's headers, the request is served, and none of them reaches the provider."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("fine"))
    raw = [(name, value.encode("latin-1")) for name, value in headers.items()]
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER}, headers=raw)
    assert reply.status_code == 200, reply.text
    sent = upstream.requests[0]
    ours = {"authorization": "Bearer sk-test", "content-type": "application/json", "accept": "*/*"}
    assert {name: sent.header(name) for name in ours} == ours
    named = {"host", "content-length", "user-agent", "accept-encoding", *ours}
    assert sorted(name for name, _ in sent.headers) == sorted(named)
    assert str(sent.header("user-agent")).startswith("gaugeway/")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
async def test_other_methods(start_gateway: StartGateway, path: str, method: str) -> None:
    """A method that a surface does not have is 405 with what it allows, in its own shape."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    async with raw_connection(gateway.url) as caller:
        for _ in range(2):
            await caller.write(request_head(method, path))
            reply = await caller.reply(bodiless=method == "HEAD")
            assert (reply.status, reply.header("allow")) == (405, "POST")
            assert method == "HEAD" or json.loads(reply.body)
    record = (await gateway.records.wait(2))[-1]
    assert record.method in (method, "_OTHER")


PAGES = ("/health", "/docs", "/openapi.json", "/v1/models", "/v1/models/chat", "/api/2.0/gateway/routes/", "/nothing")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT"])
@pytest.mark.parametrize("path", PAGES)
async def test_other_methods_on_pages(start_gateway: StartGateway, path: str, method: str) -> None:
    """Pages take GET; other methods and paths are refused, and never break."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    reply = await gateway.client.request(method, path, content=b"x")
    assert reply.status_code in {200, 204, 404, 405}, reply.text


@pytest.mark.parametrize(
    "query", ["?page_token=%ff", "?page_token=AAAA", "?page_token=" + "e" * 50_000, "?%00=%00&&=;"]
)
@pytest.mark.parametrize("path", ["/api/2.0/gateway/routes/", "/api/2.0/endpoints/", "/v1/models", "/docs", "/health"])
async def test_odd_queries(start_gateway: StartGateway, path: str, query: str) -> None:
    """A query is understood, refused or ignored; it breaks no page."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    assert (await gateway.client.get(path + query)).status_code in {200, 400}


@pytest.mark.parametrize(
    "path",
    ["/docs/assets/..%2f..%2fapp.py", "/docs/assets/%2e%2e/ops.py", "/docs/assets/README.md", "/docs/assets/%00.js"],
)
async def test_assets_are_the_pages_own(start_gateway: StartGateway, path: str) -> None:
    """Nothing but the page's own files can be fetched."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    async with raw_connection(gateway.url) as caller:
        await caller.write(request_head("GET", path))
        assert (await caller.reply()).status == 404


async def test_routes_with_names_of_other_scripts(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A route may have a name in any script; paths quote it, and all listings and signals have it as configured."""
    name = "чат-模型"
    gateway = await start_gateway(routes_yaml(upstream.url).replace("name: chat", f"name: {name}"))
    upstream.always(openai_chat())
    quoted = quote(name)
    for path, body in (
        (f"/gateway/{quoted}/invocations", {"messages": USER}),
        (f"/endpoints/{quoted}/invocations", {"messages": USER}),
        ("/v1/chat/completions", {"model": name, "messages": USER}),
    ):
        reply = await gateway.client.post(path, json=body)
        assert reply.status_code == 200, reply.text
    records = await gateway.records.wait(3)
    assert {record.route for record in records} == {name}
    assert gateway.metric(names.REQUESTS, route=name, outcome="ok") == 3
    assert (await gateway.client.get(f"/v1/models/{quoted}")).json()["id"] == name
    assert f"/gateway/{name}/invocations" in (await gateway.client.get("/openapi.json")).json()["paths"]


@pytest.mark.parametrize("depth", [900, 10_000, 100_000])
@pytest.mark.parametrize(
    ("status", "told", "error_type"),
    [
        (200, 502, ErrorType.UNREADABLE_REPLY),
        (400, 400, ErrorType.PROVIDER_INVALID_REQUEST),
        (500, 500, ErrorType.PROVIDER_ERROR),
    ],
)
async def test_a_provider_that_nests_too_deep(
    upstream: ScriptedUpstream, start_gateway: StartGateway, status: int, told: int, error_type: ErrorType, depth: int
) -> None:
    """A reply that is nested beyond reason is the provider's failure, whether it is an answer or a refusal."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    for path, body in (
        ("/gateway/chat/invocations", {"messages": USER}),
        ("/v1/chat/completions", {"model": "chat", "messages": USER}),
        ("/v1/chat/completions", {"model": "chat", "messages": USER, "stream": True}),
    ):
        deep = b'{"choices":' + b"[" * depth + b"]" * depth + b"}"
        streaming = status == 200 and "stream" in body
        upstream.script(BytesReply(b"data: " + deep + b"\n\n" if streaming else deep, status=status))
        reply = await gateway.client.post(path, json=body)
        assert reply.status_code == told
    assert [record.error_type for record in await gateway.records.wait(3)] == [error_type] * 3


ODD_MEMBERS: list[dict[str, object]] = [
    {"seed": 7},
    {"seed": 10**25},
    {"seed": -(10**25)},
    {"seed": 2**63},
    {"max_tokens": 10**25},
    {"max_tokens": -5},
    {"max_tokens": 1.5},
    {"max_completion_tokens": 2**64},
    {"n": 10**25},
    {"n": -1},
    {"temperature": 1e308},
    {"temperature": 10**25},
    {"top_p": -1e308},
    {"stop": ["\x00"] * 100},
    {"stop": "\u0000"},
]
ODD_USAGES: list[dict[str, object]] = [
    {"prompt_tokens": 10**25, "completion_tokens": 10**25, "total_tokens": 10**25},
    {"prompt_tokens": 2**63, "completion_tokens": 1, "total_tokens": 2**63 + 1},
    {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12},
    {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 10**25}},
]


async def test_odd_values_reach_no_signal(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers beyond every range and texts of any kind, from callers and providers, lose no span, charge or log line."""
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with running_gateway(routes_yaml(upstream.url), export=TraceExport.OTLP) as gateway:
            for extra in ODD_MEMBERS:
                upstream.script(openai_chat("fine"))
                body = {"model": "chat", "messages": USER} | extra
                reply = await gateway.client.post("/v1/chat/completions", json=body)
                assert reply.status_code == 200, reply.text
            for usage in ODD_USAGES:
                upstream.script(openai_chat("fine", usage=usage, model="gpt-4o-mini" * 1000, finish_reason="\x00"))
                reply = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER})
                assert reply.status_code in {200, 502}, reply.text
            count = len(ODD_MEMBERS) + len(ODD_USAGES)
            records = await gateway.records.wait(count)
            accounts = gateway.gateway.accounts
            assert accounts is not None
            await accounts.flush()
            assert (accounts.stats().lost, accounts.stats().failed_commits) == (0, 0)
            assert gateway.metric(names.SINK_ERRORS) == 0
            assert all(sample.value >= 0 for family in gateway.registry.collect() for sample in family.samples)
            for usage in (attempt.usage for record in records for attempt in record.attempts):
                assert usage is None or usage.input_tokens is None or 0 <= usage.input_tokens < 2**63
        assert sum(span.kind == Span.SPAN_KIND_SERVER for span in collector.spans) == count
        seeds = [attributes_of(span).get("gen_ai.request.seed") for span in collector.spans]
        assert [seed for seed in seeds if seed is not None] == [7]
        assert gateway.metric(names.SPANS_DROPPED) == 0
