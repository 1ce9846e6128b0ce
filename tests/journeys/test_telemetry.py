"""Every journey of a request is told the same by its reply, its span, its metrics and its log line."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.telemetry import attributes, names
from gateway.telemetry.logs import RequestLine
from gateway.telemetry.setup import TraceExport
from gateway.types.errors import ErrorType
from gateway.types.records import RequestRecord
from tests.collector import attributes_of, running_collector
from tests.openai_replies import openai_chat, openai_embeddings, openai_error, openai_stream, openai_usage
from tests.replies import BytesReply, GarbageReply, HangupReply, Reply
from tests.running_gateway import running_gateway
from tests.scripted_upstream import ScriptedUpstream

MESSAGES = [{"role": "user", "content": "the prompt that no signal may hold"}]
TARGET = (
    '{{provider: {provider}, name: {model}, config: {{{provider}_api_key: sk-test, {provider}_api_base: "{url}/v1"}}}}'
)
NOWHERE = "http://127.0.0.1:1"


class Journey(Struct, frozen=True, kw_only=True):
    """One request and how it ends. `replies` answer the upstream requests that it makes, `kinds` are their attempts'."""

    name: str
    embeds: bool = False
    down: bool = False
    unknown: bool = False
    replies: tuple[Callable[[], Reply], ...] = ()
    body: Any = None
    status: int = 200
    error_type: str = ""
    stream: bool = False
    kinds: tuple[str, ...] = ("first",)
    leaves: bool = False

    def route(self, number: int) -> str:
        """The route that it asks for; `number` is its place in the list."""
        return "nowhere" if self.unknown else f"route-{number}"


def busy() -> Reply:
    return openai_error(503, headers=[("retry-after", "0")])


USAGE = openai_usage(11, 7, cached=3, reasoning=2)
JOURNEYS = (
    Journey(name="unary", replies=(lambda: openai_chat(usage=USAGE),)),
    Journey(name="stream", stream=True, replies=(lambda: openai_stream(["a", "b", "c"], usage=USAGE),)),
    Journey(name="embeddings", embeds=True, replies=(lambda: openai_embeddings([0.1, 0.2]),)),
    Journey(name="retry", replies=(busy, openai_chat), kinds=("first", "retry")),
    Journey(
        name="fallback", replies=(busy, busy, openai_chat), kinds=("first", "retry", "fallback")
    ),
    Journey(name="caller's mistake", replies=(lambda: openai_error(400),), status=400,
            error_type="provider_invalid_request"),
    Journey(name="wrong key", replies=(lambda: openai_error(401),), status=401, error_type="provider_auth"),
    Journey(name="limited", replies=(lambda: openai_error(429),), status=429, error_type="provider_rate_limited"),
    Journey(name="failed", replies=(lambda: openai_error(500),), status=500, error_type="provider_error"),
    Journey(name="garbage", replies=(lambda: BytesReply(b"<html>"),), status=502, error_type="unreadable_reply"),
    Journey(name="no HTTP", replies=(GarbageReply,), status=502, error_type="unreadable_reply"),
    Journey(name="hung up", replies=(HangupReply,), status=502, error_type="connection_lost"),
    Journey(name="cut", stream=True, replies=(lambda: openai_stream(["a", "b"], cut_after=2),), status=200,
            error_type="stream_cut"),
    Journey(name="down", down=True, status=502, error_type="connect_failed"),
    Journey(name="no route", unknown=True, status=404, error_type="unknown_route", kinds=()),
    Journey(name="no JSON", body=b"{", status=422, error_type="invalid_json", kinds=()),
    Journey(name="wrong type", body={"messages": 1}, status=422, error_type="invalid_request", kinds=()),
    Journey(name="caller left", stream=True, leaves=True, status=499, error_type="caller_left"),
)  # fmt: skip


def config(url: str) -> str:
    """A route for each journey, with models of its own: a failure must not open the breaker of the next one."""
    lines = ["endpoints:"]
    for number, journey in enumerate(JOURNEYS):
        if journey.unknown:
            continue
        route_type = "llm/v1/embeddings" if journey.embeds else "llm/v1/chat"
        lines += [f"  - name: {journey.route(number)}", f"    endpoint_type: {route_type}"]
        lines += [f"    retries: {journey.kinds.count('retry')}", "    targets:"]
        address = NOWHERE if journey.down else url
        lines.append("      - " + TARGET.format(provider="openai", model=f"gpt-4o-mini-{number}", url=address))
        if "fallback" in journey.kinds:
            target = TARGET.format(provider="groq", model="llama", url=address)
            lines.append(f"      - {target[:-1]}, tier: 1}}")
    return "\n".join(lines)


class Told(Struct, kw_only=True):
    """All signals of one run over every journey."""

    replies: dict[str, httpx.Response] = {}
    records: dict[str, RequestRecord] = {}
    hits: int = 0
    """How many requests the upstream got."""
    spans: list[Span] = []
    samples: list[Sample] = []
    lines: list[dict[str, Any]] = []

    def trace(self, name: str) -> list[tuple[Span, dict[str, Any]]]:
        """The spans of one journey with their attributes, in order of their start, parents first."""
        trace_id = self.records[name].trace.trace_id.to_bytes(16, "big")
        found = [span for span in self.spans if span.trace_id == trace_id]
        return [
            (span, attributes_of(span)) for span in sorted(found, key=lambda s: (s.start_time_unix_nano, len(s.name)))
        ]

    def line(self, name: str) -> dict[str, Any]:
        """The log line of one journey."""
        [line] = [x for x in self.lines if x["trace_id"] == self.records[name].trace.trace_id_hex]
        return line


async def _send(
    client: httpx.AsyncClient, journey: Journey, route: str, upstream: ScriptedUpstream
) -> httpx.Response | None:
    path = f"/endpoints/{route}/invocations"
    if journey.body is not None:
        content = journey.body if isinstance(journey.body, bytes) else json.dumps(journey.body).encode()
        return await client.post(path, content=content)
    if journey.embeds:
        return await client.post(path, json={"input": "the prompt that no signal may hold"})
    if not journey.leaves:
        return await client.post(path, json={"messages": MESSAGES, "stream": journey.stream})
    never = asyncio.Event()
    reply = openai_stream(["a", never])
    upstream.script(reply)
    async with client.stream("POST", path, json={"messages": MESSAGES, "stream": True}) as response:
        await anext(response.aiter_bytes())
    await asyncio.wait_for(reply.peer_left.wait(), 10)
    return None


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One gateway goes through every journey; all of its signals are then read."""
    log: Path = tmp_path_factory.mktemp("told") / "requests.jsonl"
    with running_collector() as collector, pytest.MonkeyPatch.context() as patch, log.open("wb") as lines:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        told, text = asyncio.run(_all_journeys(lines.fileno()))
        # The gateway has been closed, which flushed its queues.
        told.spans = collector.spans
    told.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    told.lines = [json.loads(line) for line in log.read_text().splitlines()]
    return told


async def _all_journeys(log_descriptor: int) -> tuple[Told, str]:
    told = Told()
    async with (
        ScriptedUpstream() as upstream,
        running_gateway(config(upstream.url), export=TraceExport.OTLP, log_descriptor=log_descriptor) as gateway,
    ):
        for number, journey in enumerate(JOURNEYS):
            hits = upstream.hits
            upstream.script(*(make() for make in journey.replies))
            reply = await _send(gateway.client, journey, journey.route(number), upstream)
            told.records[journey.name] = (await gateway.records.wait(number + 1))[-1]
            assert upstream.hits - hits == len(journey.replies) + journey.leaves, journey.name
            if reply is not None:
                told.replies[journey.name] = reply
        told.hits = upstream.hits
        assert upstream.surplus == 0
        return told, "".join(gateway.telemetry.exposition.pieces(openmetrics=True))


by_name = pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.name)


def test_hits_are_attempts_are_client_spans(told: Told) -> None:
    """Each upstream request is one attempt record and one gen_ai span, and none is told of that was not made."""
    attempts = sum(len(record.attempts) for record in told.records.values())
    generative = [span for span in told.spans if "gen_ai.operation.name" in attributes_of(span)]
    assert {span.kind for span in generative} == {Span.SPAN_KIND_CLIENT}
    # One attempt went to an address where nobody listens.
    assert told.hits + 1 == attempts == len(generative)
    assert sum(s.value for s in told.samples if s.name == "gateway_attempts_total") == attempts
    servers = [span for span in told.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert len(servers) == len(told.lines) == len(JOURNEYS)
    assert sum(s.value for s in told.samples if s.name == "gateway_requests_total") == len(JOURNEYS)


@by_name
def test_one_outcome_everywhere(told: Told, journey: Journey) -> None:
    """Status, route, outcome and cause are the same words in reply, record, span, log line and metric."""
    record, line = told.records[journey.name], told.line(journey.name)
    server, facts = told.trace(journey.name)[0]
    error_type = journey.error_type or None
    outcome = ErrorType(journey.error_type).outcome.value if journey.error_type else "ok"
    assert (record.status_code, record.error_type, record.outcome) == (journey.status, error_type, outcome)
    assert (line["status"], line.get("error_type"), line["outcome"]) == (journey.status, error_type, outcome)
    told_by_span = (facts["http.response.status_code"], facts.get("error.type"), facts["gateway.outcome"])
    assert told_by_span == (journey.status, error_type, outcome)
    failed = outcome in {"provider", "gateway"}
    assert server.status.code == (Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET)
    route = "_other" if journey.unknown else journey.route(JOURNEYS.index(journey))
    assert {record.route, line["route"], facts["gateway.route"]} == {route}
    labels = {"route": route, "outcome": outcome, "error_type": journey.error_type}
    assert [s for s in told.samples if s.name == "gateway_requests_total" and labels.items() <= s.labels.items()]
    reply = told.replies.get(journey.name)
    if reply is not None:
        assert reply.status_code == journey.status
        if journey.error_type and journey.status != 200:
            assert reply.headers["x-gateway-error-type"] == journey.error_type
            assert reply.json()["error_type"] == journey.error_type
            assert reply.json()["trace_id"] == record.trace.trace_id_hex


@by_name
def test_one_trace_everywhere(told: Told, journey: Journey) -> None:
    """Reply header, log line and spans have one trace id; attempts hang below the request, exchanges below attempts."""
    record = told.records[journey.name]
    trace_id = record.trace.trace_id_hex
    if journey.name in told.replies:
        assert told.replies[journey.name].headers["x-gateway-trace-id"] == trace_id
    spans = told.trace(journey.name)
    server, _ = spans[0]
    assert told.line(journey.name)["span_id"] == server.span_id.hex()
    attempts = [(span, facts) for span, facts in spans if "gen_ai.operation.name" in facts]
    assert tuple(facts["gateway.attempt.kind"] for _, facts in attempts) == journey.kinds
    assert {span.parent_span_id for span, _ in attempts} <= {server.span_id}
    exchanges = [span for span, facts in spans if "url.full" in facts]
    assert [span.parent_span_id for span in exchanges] == [span.span_id for span, _ in attempts]
    assert len(spans) == 1 + 2 * len(attempts)
    for span, _ in spans[1:]:
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= server.end_time_unix_nano


def test_exemplars_are_these_traces(told: Told) -> None:
    """Every exemplar names the trace of a request of this run, and the last success has one."""
    known = {record.trace.trace_id_hex for record in told.records.values()}
    exemplars = {s.exemplar.labels["trace_id"] for s in told.samples if s.exemplar is not None}
    assert exemplars <= known
    assert told.records["fallback"].trace.trace_id_hex in exemplars


@pytest.mark.parametrize("name", ["unary", "stream"])
def test_tokens_agree(told: Told, name: str) -> None:
    """The provider's counts stand in record, attempt span, log line and (if unary) the reply."""
    [attempt] = told.records[name].attempts
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (11, 7)
    [(_, facts)] = [(s, f) for s, f in told.trace(name) if "gen_ai.operation.name" in f]
    by_span = {key.removeprefix("gen_ai.usage."): value for key, value in facts.items() if "gen_ai.usage" in key}
    assert by_span == {
        "input_tokens": 11, "output_tokens": 7, "cache_read.input_tokens": 3, "reasoning.output_tokens": 2,
    }  # fmt: skip
    line = told.line(name)
    assert (line["input_tokens"], line["output_tokens"]) == (11, 7)
    if name == "unary":
        reply = told.replies[name].json()["usage"]
        assert (reply["prompt_tokens"], reply["completion_tokens"]) == (11, 7)


def test_totals_agree(told: Told) -> None:
    """Summed over all journeys, metrics, spans, log lines and records have the same tokens and the same cost."""
    by_record: Counter[str] = Counter()
    by_span: Counter[str] = Counter()
    nano_usd = 0
    for record in told.records.values():
        for attempt in record.attempts:
            if attempt.usage is not None:
                by_record["input"] += attempt.usage.input_tokens or 0
                by_record["output"] += attempt.usage.output_tokens or 0
            if attempt.cost is not None:
                nano_usd += attempt.cost.nano_usd or 0
    span_nano_usd = 0
    for span in told.spans:
        facts = attributes_of(span)
        if "gen_ai.operation.name" in facts:
            by_span["input"] += facts.get("gen_ai.usage.input_tokens", 0)
            by_span["output"] += facts.get("gen_ai.usage.output_tokens", 0)
            span_nano_usd += facts.get("gateway.cost.nano_usd", 0)
    by_metric: Counter[str] = Counter()
    for sample in told.samples:
        if sample.name == "gateway_tokens_total" and sample.labels["type"] in {"input", "output"}:
            by_metric[sample.labels["type"]] += int(sample.value)
    by_line = Counter({kind: sum(line.get(f"{kind}_tokens", 0) for line in told.lines) for kind in ("input", "output")})
    assert by_record == by_span == by_metric == by_line
    line_nano_usd = sum(line.get("cost_nano_usd", 0) for line in told.lines)
    cost = sum(s.value for s in told.samples if s.name == "gateway_cost_usd_total")
    assert nano_usd == span_nano_usd == line_nano_usd == round(cost * 1e9) > 0
    servers = [attributes_of(span) for span in told.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert sum(facts.get("gateway.cost.nano_usd", 0) for facts in servers) == nano_usd


def test_nothing_is_emitted_that_the_catalogue_does_not_name(told: Told) -> None:
    """Families, span attributes and log fields are those of the catalogue; no prompt stands in any of them."""
    known = {metric.name for metric in names.CATALOGUE}
    families = {s.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for s in told.samples}
    assert {name for name in families if not name.startswith(("process_", "python_"))} <= known
    tables = (*attributes.SERVER, *attributes.ATTEMPT, *attributes.HTTP)
    assert {key for span in told.spans for key in attributes_of(span)} <= {attribute.name for attribute in tables}
    assert {key for line in told.lines for key in line} <= set(RequestLine.__struct_fields__)
    everything = repr(told.spans) + repr(told.samples) + repr(told.lines)
    assert "the prompt that no signal may hold" not in everything
    assert "sk-test" not in everything


def test_nothing_stays_in_flight(told: Told) -> None:
    """After the last request every gauge of requests in flight is 0, the caller who left included."""
    gauges = {s.labels["route"]: s.value for s in told.samples if s.name == "gateway_requests_in_flight"}
    assert set(gauges.values()) == {0.0}
    assert len(gauges) == len(JOURNEYS) - 1


def test_every_outcome_has_its_latency(told: Told) -> None:
    """Failures and refusals stand in the duration histogram, each request once."""
    counts: Counter[str] = Counter()
    for sample in told.samples:
        if sample.name == "gateway_request_duration_seconds_count":
            counts[sample.labels["outcome"]] += int(sample.value)
    expected = Counter(record.outcome.value for record in told.records.values())
    assert +counts == expected


def test_connecting_is_told_of_once_a_connection(told: Told) -> None:
    """The first attempt on a connection has the time it took to open; attempts that find one open have none."""
    connected = [a.connect_s for record in told.records.values() for a in record.attempts if a.connect_s is not None]
    assert 0 < len(connected) < sum(len(record.attempts) for record in told.records.values())
    counted = sum(s.value for s in told.samples
                  if s.name == "gateway_attempt_phase_seconds_count" and s.labels["phase"] == "connect")  # fmt: skip
    assert counted == len(connected)
    [first] = told.records["unary"].attempts
    assert first.connect_s is not None
    assert first.first_byte_s is not None
    assert 0 < first.connect_s < first.first_byte_s
