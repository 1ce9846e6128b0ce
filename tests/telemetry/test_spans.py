"""Spans made from records are the spans that the SDK itself makes of the same facts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway.config.schema import Semconv
from gateway.telemetry import attributes
from gateway.telemetry.spans import SCOPE, SpanMaker, span_count
from gateway.types.errors import ErrorType
from gateway.types.records import NO_PARAMETERS, AttemptKind, Basis, Content, Cost, Phases
from gateway.types.route import CaptureTo
from gateway.types.usage import Usage
from tests.telemetry import facts

RESOURCE = Resource({"service.name": "gateway"})
MAKER = SpanMaker(RESOURCE)
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Ids(IdGenerator):
    """Gives the ids of a record, in the order in which its spans begin."""

    def __init__(self, trace_id: int, span_ids: Iterator[int]) -> None:
        self._trace_id = trace_id
        self._span_ids = span_ids

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return next(self._span_ids)


def plain(spans: list[ReadableSpan]) -> list[Any]:
    """Spans as values, in order of their ids: the SDK's own JSON, and what it leaves out."""
    ordered = sorted(spans, key=lambda span: span.context.span_id if span.context else 0)
    return [
        (
            json.loads(span.to_json()) | {"links": None},
            span.instrumentation_scope,
            span.context,
            span.parent,
            [(link.context, dict(link.attributes or {})) for link in span.links],
        )
        for span in ordered
    ]


def test_a_request_with_a_failed_and_a_good_attempt_equals_the_sdks_own_spans() -> None:
    """Names, kinds, times, parents, statuses and attributes are those of spans made with the SDK's tracer."""
    failed = facts.attempt(
        span_id=0xA1, error_type=ErrorType.PROVIDER_OVERLOADED, status_code=503, usage=None, cost=None,
        response_model=None, response_id=None, finish_reasons=(), parameters=NO_PARAMETERS,
        http=facts.http(span_id=0xA2, status_code=503),
    )  # fmt: skip
    good = facts.streamed(span_id=0xB1, number=2, kind=AttemptKind.RETRY, http=facts.http(span_id=0xB2))
    record = facts.request(failed, good, stream=True)
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=RESOURCE, id_generator=Ids(record.trace.trace_id, iter([record.trace.span_id, 0xA1, 0xA2, 0xB1, 0xB2]))
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer(SCOPE.name, SCOPE.version)
    server = tracer.start_span(
        "POST /gateway/{route}/invocations",
        kind=SpanKind.SERVER,
        start_time=record.start_ns,
        attributes={
            "http.request.method": "POST",
            "http.route": "/gateway/{route}/invocations",
            "url.scheme": "http",
            "url.path": "/gateway/{route}/invocations",
            "server.address": "127.0.0.1",
            "server.port": 5000,
            "client.address": "10.0.0.9",
            "user_agent.original": "openai-python/2.0",
            "http.response.status_code": 200,
            "gateway.request.id": "req_0af7651916cd43dd8448eb21",
            "gateway.route": "chat",
            "gateway.route_type": "llm/v1/chat",
            "gateway.team": "search",
            "gateway.key.id": "key_1",
            "gateway.outcome": "ok",
            "gateway.attempts": 2,
            "gateway.stream": True,
            "gateway.overhead_s": record.overhead_s,
            "gateway.upstream_s": 0.5,
            "gateway.caller_s": 0.004,
            "gateway.cost.usd": 27.6e-6,
            "gateway.cost.nano_usd": 27_600,
        },
    )
    shared = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "server.address": "api.openai.com",
        "server.port": 443,
        "gateway.route": "chat",
        "gateway.provider": "openai",
    }
    exchange = {
        "http.request.method": "POST",
        "url.full": "https://api.openai.com:443/v1/chat/completions",
        "server.address": "api.openai.com",
        "server.port": 443,
        "network.peer.address": "api.openai.com",
        "network.peer.port": 443,
        "network.protocol.version": "1.1",
    }
    below_server = set_span_in_context(server)
    first = tracer.start_span(
        "chat gpt-4o-mini",
        below_server,
        kind=SpanKind.CLIENT,
        start_time=failed.start_ns,
        attributes=shared
        | {
            "gateway.attempt.number": 1,
            "gateway.attempt.kind": "first",
            "gateway.connect_s": 0.03,
            "error.type": "provider_overloaded",
        },
    )
    first_http = tracer.start_span(
        "POST",
        set_span_in_context(first),
        kind=SpanKind.CLIENT,
        start_time=facts.http().start_ns,
        attributes=exchange | {"http.response.status_code": 503, "error.type": "503"},
    )
    for span, end_ns in ((first_http, facts.http().end_ns), (first, failed.end_ns)):
        span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)
    second = tracer.start_span(
        "chat gpt-4o-mini",
        below_server,
        kind=SpanKind.CLIENT,
        start_time=good.start_ns,
        attributes=shared
        | {
            "gateway.attempt.number": 2,
            "gateway.attempt.kind": "retry",
            "gateway.connect_s": 0.03,
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": 64,
            "gen_ai.request.temperature": 0.2,
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.response.time_to_first_chunk": 0.3,
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 21,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.reasoning.output_tokens": 5,
            "gateway.usage.source": "provider",
            "gateway.cost.basis": "provider_usage",
            "gateway.cost.usd": 27.6e-6,
            "gateway.cost.nano_usd": 27_600,
        },
    )
    second_http = tracer.start_span(
        "POST",
        set_span_in_context(second),
        kind=SpanKind.CLIENT,
        start_time=facts.http().start_ns,
        attributes=exchange | {"http.response.status_code": 200},
    )
    second_http.end(facts.http().end_ns)
    second.end(good.end_ns)
    server.end(record.end_ns)

    assert plain(list(MAKER.spans_of(record))) == plain(list(exporter.get_finished_spans()))
    assert span_count(record) == 5


def test_a_trusted_parent_and_a_link_equal_the_sdks() -> None:
    """A continued trace has a remote parent; a caller's other trace is a link on a root."""
    their_trace, their_span = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
    theirs = SpanContext(their_trace, their_span, is_remote=True, trace_flags=SAMPLED)
    for changes, parent, links in (
        ({"trace_id": their_trace, "parent_span_id": their_span}, theirs, []),
        ({"link_trace_id": their_trace, "link_span_id": their_span}, None, [Link(theirs)]),
    ):
        record = facts.request(error_type=ErrorType.UNKNOWN_ROUTE, trace=facts.trace(**changes))
        exporter = InMemorySpanExporter()
        ids = Ids(record.trace.trace_id, iter([record.trace.span_id]))
        provider = TracerProvider(resource=RESOURCE, id_generator=ids)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        [ours] = MAKER.spans_of(record)
        span = provider.get_tracer(SCOPE.name, SCOPE.version).start_span(
            ours.name,
            set_span_in_context(NonRecordingSpan(parent)) if parent else None,
            kind=SpanKind.SERVER,
            links=links,
            start_time=record.start_ns,
            attributes=dict(ours.attributes or {}),
        )
        span.end(record.end_ns)
        assert plain([ours]) == plain(list(exporter.get_finished_spans()))


@pytest.mark.parametrize(
    ("error_type", "failed"),
    [
        (ErrorType.INVALID_REQUEST, False),
        (ErrorType.RATE_LIMITED, False),
        (ErrorType.PROVIDER_ERROR, True),
        (ErrorType.INTERNAL, True),
    ],
)
def test_only_the_servers_own_failures_are_errors(error_type: ErrorType, *, failed: bool) -> None:
    """What the caller or a policy caused has its error.type and no error status, by the HTTP conventions."""
    [server] = MAKER.spans_of(facts.request(error_type=error_type))
    assert server.attributes is not None
    assert server.attributes["error.type"] == error_type.value
    assert server.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)


def test_an_exchange_without_an_answer_says_why() -> None:
    """No status, no protocol version, and the cause as error.type."""
    http = facts.http(status_code=None, error="connect_failed")
    error = {"error_type": ErrorType.CONNECT_FAILED, "status_code": None, "usage": None, "cost": None}
    spans = list(MAKER.spans_of(facts.request(facts.attempt(http=http, **error), error_type=ErrorType.CONNECT_FAILED)))
    assert spans[2].status.status_code is StatusCode.ERROR
    assert dict(spans[2].attributes or {}) == {
        "http.request.method": "POST",
        "url.full": "https://api.openai.com:443/v1/chat/completions",
        "server.address": "api.openai.com",
        "server.port": 443,
        "network.peer.address": "api.openai.com",
        "network.peer.port": 443,
        "error.type": "connect_failed",
    }


def test_an_unknown_price_is_absent_and_its_basis_says_so() -> None:
    """No cost attribute at all, rather than a 0."""
    spans = list(MAKER.spans_of(facts.request(facts.attempt(cost=Cost(nano_usd=None, basis=Basis.UNKNOWN)))))
    for span in spans[:2]:
        assert not {"gateway.cost.usd", "gateway.cost.nano_usd"} & set(span.attributes or {})
    assert (spans[1].attributes or {})["gateway.cost.basis"] == "unknown"


def test_the_generations_of_conventions_differ_as_the_catalogue_says() -> None:
    """v1.41 has cache_creation, the latest has cache_write, audio and the level of reasoning, both has all; top_k is a
    double in the one and an int in the other; nothing else differs.
    """
    usage = Usage(input_tokens=9, output_tokens=8, cache_write_tokens=7, input_audio_tokens=6, output_audio_tokens=5)
    parameters = facts.RequestParameters(top_k=40.0, reasoning_level="low")
    record = facts.request(facts.attempt(usage=usage, parameters=parameters))
    found = {}
    for semconv in Semconv:
        _, span, _ = SpanMaker(RESOURCE, semconv).spans_of(record)
        found[semconv] = dict(span.attributes or {})
    old = {"gen_ai.usage.cache_creation.input_tokens": 7, "gen_ai.request.top_k": 40.0}
    new = {
        "gen_ai.request.top_k": 40,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.usage.cache_write.input_tokens": 7,
        "gen_ai.usage.audio.input_tokens": 6,
        "gen_ai.usage.audio.output_tokens": 5,
    }
    common = {name: value for name, value in found[Semconv.BOTH].items() if name not in old | new}
    assert found == {
        Semconv.V1_41: common | old,
        Semconv.LATEST: common | new,
        Semconv.BOTH: common | new | old,
    }
    assert [type(found[semconv]["gen_ai.request.top_k"]) for semconv in Semconv] == [float, int, float]


def test_every_attribute_of_the_catalogue_is_emitted() -> None:
    """A record that holds everything makes every attribute, each of the type that the catalogue gives."""
    types = {"string": str, "int": int, "double": float, "boolean": bool, "string[]": tuple}
    usage = Usage(
        input_tokens=9, output_tokens=8, cache_read_tokens=7, cache_write_tokens=6, reasoning_tokens=5,
        input_audio_tokens=4, output_audio_tokens=3,
    )  # fmt: skip
    parameters = facts.RequestParameters(
        max_tokens=1, temperature=0.1, top_p=0.2, frequency_penalty=0.3, presence_penalty=0.4, seed=5, stop=("x",),
        choice_count=2, top_k=40.0, output_type="json", reasoning_level="low",
    )  # fmt: skip
    content = Content(to=CaptureTo.SPAN, input_messages="[]", output_messages="[]", cut=True)
    failed = facts.streamed(error_type=ErrorType.STREAM_CUT, usage=usage, parameters=parameters, content=content)
    good = facts.attempt(http=facts.http(status_code=500))
    record = facts.request(failed, good, error_type=ErrorType.STREAM_CUT, phases=Phases(backoff_s=0.25))
    server, one, _, _, http = SpanMaker(RESOURCE, Semconv.BOTH).spans_of(record)
    for table, span in ((attributes.SERVER, server), (attributes.ATTEMPT, one), (attributes.HTTP, http)):
        emitted = {name: type(value) for name, value in (span.attributes or {}).items()}
        of_both = attributes.of_generation(table, Semconv.BOTH)
        assert emitted == {attribute.name: types[attribute.type] for attribute in of_both}


def test_ids_are_unique_within_a_record() -> None:
    """No two spans of a request share an id, and all share the trace."""
    record = facts.request(facts.attempt(), facts.attempt(span_id=3, number=2, http=facts.http(span_id=4)))
    contexts = [span.context for span in MAKER.spans_of(record)]
    assert len({c.span_id for c in contexts if c}) == len(contexts) == 5
    assert set(chain(c.trace_id for c in contexts if c)) == {record.trace.trace_id}
