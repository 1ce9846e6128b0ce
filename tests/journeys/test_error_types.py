"""Every cause of the closed list, reached over HTTP, is the same word in reply, record, span, metric and log line."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.serve import attempt as serve_attempt
from gateway.spend.opening import Ledgers, passing_ledgers
from gateway.store.spec import Committed, HoldOp, LedgerStore, Op, StoreError
from gateway.telemetry import names
from gateway.telemetry.setup import TraceExport
from gateway.types.errors import ErrorType
from gateway.types.model_io import ModelRequest
from gateway.types.records import RequestParameters, RequestRecord
from tests.collector import attributes_of, running_collector
from tests.conftest import StartGateway
from tests.openai_replies import openai_error, openai_stream, sse
from tests.raw_http import raw_connection, request_head
from tests.replies import BytesReply, HangupReply, Reply, SilentReply, StreamReply, json_reply
from tests.running_gateway import RunningGateway, running_gateway
from tests.scripted_upstream import ScriptedUpstream

KEY = "gwk_all_" + "a1" * 16
NARROW = "gwk_narrow_" + "b1" * 16
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "x"}]


class Case(Struct, frozen=True, kw_only=True):
    """One request that ends with `error_type`. Its route's name is the cause's, unless it asks for another.

    `attempted`: an attempt was made, and ended for the same cause.
    """

    error_type: ErrorType
    status: int
    attempted: bool = False
    method: str = "POST"
    path: str = CHAT
    model: str = ""
    key: str = KEY
    content: bytes | None = None
    stream: bool = False
    times: int = 1
    """How often it is sent; the last one is looked at."""
    reply: Callable[[], Reply] | None = None

    @property
    def route(self) -> str:
        """The route that it asks for."""
        return self.model or self.error_type.value

    @property
    def body(self) -> bytes:
        """What is sent."""
        body = {"model": self.route, "messages": MESSAGES, "stream": self.stream, "max_tokens": 9, "input": "x"}
        return json.dumps(body).encode() if self.content is None else self.content


def stalls() -> Reply:
    return openai_stream(["a", asyncio.Event()])


def complains() -> Reply:
    return StreamReply([sse({"error": {"message": "no", "type": "server_error"}})])


E = ErrorType
CASES = (
    Case(error_type=E.INVALID_JSON, status=400, content=b"{"),
    Case(error_type=E.INVALID_REQUEST, status=400, content=b'{"model": "chat", "messages": 1}'),
    Case(error_type=E.UNKNOWN_ROUTE, status=404, model="nowhere"),
    Case(error_type=E.WRONG_ROUTE_TYPE, status=400, model="chat", path="/v1/embeddings"),
    Case(error_type=E.UNSUPPORTED_OPERATION, status=404, model="chat", path="/v1/messages"),
    Case(error_type=E.METHOD_NOT_ALLOWED, status=405, method="GET"),
    Case(error_type=E.UNAUTHENTICATED, status=401, key="gwk_wrong"),
    Case(error_type=E.FORBIDDEN_ROUTE, status=403, model="chat", key=NARROW),
    Case(error_type=E.RATE_LIMITED, status=429, times=2, reply=lambda: openai_error(400)),
    Case(error_type=E.BUDGET_EXCEEDED, status=429),
    Case(error_type=E.PRICE_UNKNOWN, status=403),
    Case(error_type=E.CONNECT_FAILED, status=502, attempted=True),
    Case(error_type=E.CONNECT_TIMEOUT, status=504, attempted=True),
    Case(error_type=E.FIRST_BYTE_TIMEOUT, status=504, attempted=True, reply=SilentReply),
    Case(error_type=E.STREAM_TIMEOUT, status=200, attempted=True, stream=True, reply=stalls),
    Case(error_type=E.TOTAL_TIMEOUT, status=504, attempted=True, reply=SilentReply),
    Case(error_type=E.CONNECTION_LOST, status=502, attempted=True, reply=HangupReply),
    Case(error_type=E.STREAM_CUT, status=200, attempted=True, stream=True,
         reply=lambda: openai_stream(["a", "b"], cut_after=2)),
    Case(error_type=E.STREAM_ERROR, status=502, attempted=True, stream=True, reply=complains),
    Case(error_type=E.UNREADABLE_REPLY, status=502, attempted=True, reply=lambda: BytesReply(b"<html>")),
    Case(error_type=E.PROVIDER_INVALID_REQUEST, status=400, attempted=True, reply=lambda: openai_error(400)),
    Case(error_type=E.PROVIDER_AUTH, status=401, attempted=True, reply=lambda: openai_error(401)),
    Case(error_type=E.PROVIDER_NOT_FOUND, status=404, attempted=True, reply=lambda: openai_error(404)),
    Case(error_type=E.PROVIDER_RATE_LIMITED, status=429, attempted=True, reply=lambda: openai_error(429)),
    Case(error_type=E.PROVIDER_OVERLOADED, status=503, attempted=True, reply=lambda: openai_error(503)),
    Case(error_type=E.PROVIDER_ERROR, status=500, attempted=True, reply=lambda: openai_error(500)),
    Case(error_type=E.LEDGER_UNAVAILABLE, status=503),
    Case(error_type=E.CREDENTIAL_UNAVAILABLE, status=502, attempted=True, reply=lambda: json_reply({}, status=400)),
    Case(error_type=E.INTERNAL, status=500),
)  # fmt: skip
TOO_LARGE = Case(error_type=E.REQUEST_TOO_LARGE, status=413)
LEFT = Case(error_type=E.CALLER_LEFT, status=499, attempted=True, stream=True)
STOPPED = Case(error_type=E.SHUTTING_DOWN, status=200, attempted=True, stream=True)
"""These three a client library cannot cause."""
TIMEOUTS = {
    E.CONNECT_TIMEOUT: {"connect_s": 0.1},
    E.FIRST_BYTE_TIMEOUT: {"first_byte_s": 0.1},
    E.STREAM_TIMEOUT: {"between_chunks_s": 0.1},
    E.TOTAL_TIMEOUT: {"total_s": 0.1},
}


def config(url: str, silent_port: int) -> str:
    """A route for each cause, and `chat`."""
    bases = {E.CONNECT_FAILED: "http://127.0.0.1:1", E.CONNECT_TIMEOUT: f"https://127.0.0.1:{silent_port}"}
    routes = [_route("chat", url)]
    for cause in ErrorType:
        route = _route(cause.value, bases.get(cause, url))
        if cause is E.CREDENTIAL_UNAVAILABLE:
            route["model"] |= {"provider": "databricks"}
            route["model"]["config"] = {"host": url, "client_id": "c", "client_secret": "s"}
        if cause in TIMEOUTS:
            route["timeouts"] = TIMEOUTS[cause]
        if cause is E.RATE_LIMITED:
            route["limit"] = {"calls": 1, "renewal_period": "hour"}
        routes.append(route)
    budgets = [
        {"name": cause.value, "amount_usd": amount, "scope": {"route": cause.value}}
        for cause, amount in ((E.BUDGET_EXCEEDED, 0), (E.PRICE_UNKNOWN, 5), (E.LEDGER_UNAVAILABLE, 5))
    ]
    prices = [
        {"model": f"m-{cause}", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}
        for cause in (E.BUDGET_EXCEEDED, E.LEDGER_UNAVAILABLE)
    ]
    keys = [{"secret": KEY, "team": "search"}, {"secret": NARROW, "team": "search", "routes": ["internal"]}]
    return json.dumps({"endpoints": routes, "budgets": budgets, "prices": prices, "keys": keys})


def _route(name: str, base: str) -> dict[str, Any]:
    account = {"openai_api_key": "sk-test", "openai_api_base": f"{base}/v1"}
    model = {"provider": "openai", "name": f"m-{name}", "config": account}
    return {"name": name, "endpoint_type": "llm/v1/chat", "model": model}


class FailingStore:
    """A ledger that cannot keep a hold."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    def commit(self, ops: list[Op]) -> Committed:
        if any(isinstance(op, HoldOp) and op.payer.route == E.LEDGER_UNAVAILABLE for op in ops):
            raise StoreError("the disk is full")
        return self._store.commit(ops)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Told(Struct, kw_only=True):
    """What one run over every cause left behind."""

    replies: dict[ErrorType, Answer] = {}
    records: dict[ErrorType, RequestRecord] = {}
    spans: list[Span] = []
    samples: list[Sample] = []
    lines: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One gateway meets every cause; all of its signals are then read."""
    log: Path = tmp_path_factory.mktemp("errors") / "requests.jsonl"
    parameters = serve_attempt.request_parameters

    def defective(request: ModelRequest) -> RequestParameters:
        if bytes(request.fields["model"]) == b'"internal"':
            raise ZeroDivisionError
        return parameters(request)

    with running_collector() as collector, pytest.MonkeyPatch.context() as patch, log.open("wb") as lines:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setattr(serve_attempt, "request_parameters", defective)
        told = asyncio.run(_all(lines.fileno()))
        told.spans = collector.spans
    told.lines = [json.loads(line) for line in log.read_text().splitlines()]
    return told


async def _all(log_descriptor: int) -> Told:
    told = Told()
    async with AsyncExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ledgers = stack.enter_context(passing_ledgers())
        failing = Ledgers(write=lambda: FailingStore(ledgers.write()), read=ledgers.read)  # type: ignore[arg-type,return-value]
        upstream = await stack.enter_async_context(ScriptedUpstream())
        settings = config(upstream.url, silent.getsockname()[1])
        async with running_gateway(
            settings, export=TraceExport.OTLP, log_descriptor=log_descriptor, ledgers=failing
        ) as gateway:
            for case in CASES:
                if case.reply is not None:
                    upstream.script(case.reply())
                for _ in range(case.times):
                    before = len(gateway.records.all)
                    told.replies[case.error_type] = await _send(gateway, case)
                    told.records[case.error_type] = (await gateway.records.wait(before + 1))[-1]
            for case in (TOO_LARGE, LEFT):
                told.replies[case.error_type] = await _send_by_hand(gateway, upstream, case)
                told.records[case.error_type] = (await gateway.records.wait(len(told.records) + 2))[-1]
            caller = await stack.enter_async_context(raw_connection(gateway.url))
            upstream.script(stalls())
            await caller.write(_head(len(STOPPED.body)) + STOPPED.body)
            await caller.reader.readuntil(b'"a"')
        told.replies[STOPPED.error_type] = (200, {}, await caller.reader.read())
        told.records[STOPPED.error_type] = gateway.records.all[-1]
        text = "".join(gateway.telemetry.exposition.pieces(openmetrics=True))
    told.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return told


async def _send(gateway: RunningGateway, case: Case) -> Answer:
    headers = {"authorization": f"Bearer {case.key}"}
    reply = await gateway.client.request(case.method, case.path, content=case.body, headers=headers)
    return reply.status_code, dict(reply.headers), reply.content


def _head(length: int) -> bytes:
    return request_head("POST", CHAT, [("content-length", str(length)), ("authorization", f"Bearer {KEY}")])


async def _send_by_hand(gateway: RunningGateway, upstream: ScriptedUpstream, case: Case) -> Answer:
    async with raw_connection(gateway.url) as caller:
        if case is TOO_LARGE:
            await caller.write(_head(2**30) + case.body)
            reply = await caller.reply()
            return reply.status, dict(reply.headers), reply.body
        never = stalls()
        upstream.script(never)
        await caller.write(_head(len(case.body)) + case.body)
        await caller.reader.readuntil(b'"a"')
        caller.leave()
        await asyncio.wait_for(never.peer_left.wait(), 10)
        return 499, {}, b""


EVERY = pytest.mark.parametrize("case", [*CASES, TOO_LARGE, LEFT, STOPPED], ids=lambda case: case.error_type.value)


def test_no_cause_is_left_out() -> None:
    """The list has no word that nothing causes."""
    assert {case.error_type for case in (*CASES, TOO_LARGE, LEFT, STOPPED)} == set(ErrorType)


@EVERY
def test_the_reply_has_the_word(told: Told, case: Case) -> None:
    """Status, header and body of the error, or its event inside a stream that had begun, name it and the trace."""
    status, headers, body = told.replies[case.error_type]
    assert status == case.status
    if case is LEFT:
        return
    text = body.decode()
    if case.status == 200:
        # The chunked framing is still around what was read by hand.
        [event] = [line for line in text.splitlines() if line.startswith('data: {"error"')]
        error = json.loads(event.removeprefix("data: "))["error"]
    else:
        assert headers["x-gateway-error-type"] == case.error_type
        error = json.loads(text)["error"]
    if case.path == CHAT:
        assert error["code"] == case.error_type
        assert error["trace_id"] == told.records[case.error_type].trace.trace_id_hex


@EVERY
def test_every_signal_has_the_word(told: Told, case: Case) -> None:
    """Record, SERVER span, request counter and log line have the cause and whose fault it is; so has the attempt."""
    record, word = told.records[case.error_type], case.error_type
    fault = word.outcome.value
    assert (record.error_type, record.outcome, record.status_code) == (word, fault, case.status)
    trace_id = record.trace.trace_id.to_bytes(16, "big")
    spans = [(span, attributes_of(span)) for span in told.spans if span.trace_id == trace_id]
    [server] = [facts for span, facts in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert (server["error.type"], server["gateway.outcome"]) == (word, fault)
    [line] = [line for line in told.lines if line["trace_id"] == record.trace.trace_id_hex]
    assert (line["error_type"], line["outcome"], line["status"]) == (word, fault, case.status)
    labels = {"route": record.route, "outcome": fault, "error_type": word.value}
    assert _count(told, "gateway_requests_total", labels) == 1
    timed = {"route": record.route, "outcome": fault}
    assert _count(told, "gateway_request_duration_seconds_count", timed) >= 1
    attempts = [facts for _, facts in spans if "gen_ai.operation.name" in facts]
    assert [facts["error.type"] for facts in attempts] == ([word] if case.attempted else [])
    assert [a.error_type for a in record.attempts] == ([word] if case.attempted else [])
    assert _count(told, "gateway_attempts_total", labels) == case.attempted
    generated = {"route": record.route, "error_type": word.value}
    assert _count(told, "gen_ai_client_operation_duration_seconds_count", generated) == case.attempted


def test_refusals_are_measured_under_their_route_and_payer(told: Told) -> None:
    """A rejected key has no team, a refused one has its own; a name that nobody configured is `_other`."""
    who = {cause: (record.route, record.caller.team) for cause, record in told.records.items()}
    assert who[E.UNAUTHENTICATED] == ("_other", "default")
    assert who[E.FORBIDDEN_ROUTE] == ("chat", "search")
    assert who[E.RATE_LIMITED] == ("rate_limited", "search")
    assert who[E.UNKNOWN_ROUTE] == ("_other", "search")


@pytest.mark.parametrize("path", ["/completions/chat", "/api/chat", "/endpoints/chat"])
async def test_a_path_that_is_none_is_measured(start_gateway: StartGateway, path: str) -> None:
    """An application with a wrong base URL gets its 404 and is seen: counted, logged and traced, without its path."""
    gateway = await start_gateway(config("http://127.0.0.1:1", 1))
    reply = await gateway.client.post(path, content=b"{")
    record = await gateway.records.last()
    assert (reply.status_code, reply.json()["detail"], reply.json()["error_type"]) == (
        404,
        "Not Found",
        "unknown_route",
    )
    assert reply.json()["trace_id"] == record.trace.trace_id_hex
    assert (record.path_template, record.route) == ("_other", "_other")
    assert gateway.metric(names.REQUESTS, route="_other", error_type="unknown_route") == 1
    assert (await gateway.client.get(path)).status_code in {404, 405}


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/messages/batches", "/v1beta/models/chat:sing"])
async def test_a_call_that_is_not_served_is_measured(start_gateway: StartGateway, path: str) -> None:
    """A vendor's call that no route has is counted like a wrong path, and said in the vendor's shape."""
    gateway = await start_gateway(config("http://127.0.0.1:1", 1))
    reply = await gateway.client.post(path, content=b"{")
    record = await gateway.records.last()
    assert (reply.status_code, reply.headers["x-gateway-error-type"]) == (404, "unsupported_operation")
    assert reply.json()["error"]["message"].startswith(f"{path} is not available")
    assert record.trace.trace_id_hex in reply.text
    assert (record.path_template, record.route) == ("_other", "_other")


def _count(told: Told, name: str, labels: dict[str, str]) -> float:
    return sum(s.value for s in told.samples if s.name == name and labels.items() <= s.labels.items())
