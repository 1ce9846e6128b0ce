"""Spans written as bytes are the spans that the SDK would have sent."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from gateway.config.schema import Semconv
from gateway.telemetry.otlp import DirectOTLPSpanExporter, RecordEncoder
from gateway.telemetry.spans import SpanMaker
from gateway.types.errors import ErrorType
from gateway.types.records import AttemptKind, Basis, Caller, Cost, Phases, RequestParameters, RequestRecord
from gateway.types.route import Operation
from gateway.types.usage import Usage
from tests.collector import Collector
from tests.telemetry import facts

RESOURCE = Resource({"service.name": "gateway", "host.cpus": 2}, "https://opentelemetry.io/schemas/1.38.0")
MAKERS = {semconv: SpanMaker(RESOURCE, semconv) for semconv in Semconv}


def assert_same(*records: RequestRecord, encoder: RecordEncoder | None = None, semconv: Semconv | None = None) -> None:
    """The bytes decode to the SDK's own message."""
    semconv = semconv or Semconv.V1_41
    encoded = (encoder or RecordEncoder(MAKERS[semconv], semconv)).encode(records)
    spans = [span for record in records for span in MAKERS[semconv].spans_of(record)]
    assert ExportTraceServiceRequest.FromString(encoded) == encode_spans(spans)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
COUNT = st.none() | st.integers(0, 2**40)
NUMBER = st.none() | st.floats(allow_nan=False)
ID = st.integers(1, 2**64 - 1)
USAGES = st.none() | st.builds(
    Usage,
    input_tokens=COUNT,
    output_tokens=COUNT,
    cache_read_tokens=COUNT,
    cache_write_tokens=COUNT,
    reasoning_tokens=COUNT,
    input_audio_tokens=COUNT,
)
PARAMETERS = st.builds(
    RequestParameters,
    max_tokens=COUNT,
    temperature=NUMBER,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.none() | st.lists(TEXT, max_size=4).map(tuple),
)
ATTEMPTS = st.builds(
    facts.streamed,
    number=st.integers(1, 9),
    kind=st.sampled_from(AttemptKind),
    operation=st.sampled_from(Operation),
    provider=TEXT,
    request_model=TEXT,
    response_model=st.none() | TEXT,
    response_id=st.none() | TEXT,
    span_id=ID,
    stream=st.booleans(),
    first_chunk_s=NUMBER,
    error_type=st.none() | st.sampled_from(ErrorType),
    finish_reasons=st.lists(TEXT, max_size=3).map(tuple),
    usage=USAGES,
    cost=st.none() | st.builds(Cost, nano_usd=COUNT, basis=st.sampled_from(Basis)),
    parameters=PARAMETERS,
    http=st.none()
    | st.builds(
        facts.http, url=TEXT, span_id=ID, status_code=st.none() | st.integers(100, 599), error=st.none() | TEXT
    ),
)
RECORDS = st.builds(
    lambda attempts, **changes: facts.request(*attempts, **changes),
    attempts=st.lists(ATTEMPTS, max_size=3),
    caller=st.builds(Caller, team=TEXT, key_id=st.none() | TEXT),
    method=st.sampled_from(["POST", "GET", "_OTHER"]),
    server_port=st.integers(0, 65535),
    status_code=st.integers(0, 599),
    error_type=st.none() | st.sampled_from(ErrorType),
    duration_s=st.floats(0, 1e6),
    phases=st.builds(Phases, upstream_s=st.floats(0, 1e6), caller_s=st.floats(0, 1e6)),
    user_agent=TEXT,
    trace=st.builds(
        facts.trace,
        trace_id=st.integers(1, 2**128 - 1),
        span_id=ID,
        parent_span_id=st.none() | ID,
        link_trace_id=st.none() | st.integers(1, 2**128 - 1),
        link_span_id=st.none() | ID,
    ),
)


@given(records=st.lists(RECORDS, min_size=1, max_size=3), semconv=st.sampled_from(Semconv))
def test_any_record_is_encoded_as_the_sdk_does(records: list[RequestRecord], semconv: Semconv) -> None:
    """Whatever a record holds, the collector reads the spans that the SDK would have sent, in either convention."""
    assert_same(*records, semconv=semconv)


def test_one_encoder_serves_many_kinds_of_request() -> None:
    """What is kept from one record never stands in another's spans."""
    encoder = RecordEncoder(MAKERS[Semconv.V1_41], Semconv.V1_41)
    streams = [facts.request(facts.streamed(number=n), stream=n % 2 == 0, route=f"r{n % 3}") for n in range(1, 9)]
    failures = [facts.request(error_type=error, status_code=500 + n) for n, error in enumerate(ErrorType)]
    for record in (*streams, *failures, *reversed(streams)):
        assert_same(record, encoder=encoder)


def test_requests_of_one_kind_share_what_is_kept() -> None:
    """A thousand requests that differ in ids, times, tokens and cost alone are encoded from one kept group a span."""
    encoder = RecordEncoder(MAKERS[Semconv.V1_41], Semconv.V1_41)
    for number in range(1, 1000):
        attempt = facts.attempt(
            span_id=number, response_id=f"r{number}", usage=Usage(input_tokens=number), duration_s=number / 7,
            cost=Cost(nano_usd=number, basis=Basis.PROVIDER_USAGE), http=facts.http(span_id=number + 5000),
        )  # fmt: skip
        encoder.encode([facts.request(attempt, request_id=f"req_{number}", client_address=f"10.0.0.{number % 250}")])
    assert [len(table._kept) for table in (encoder._server, encoder._attempt, encoder._http)] == [1, 1, 1]


def test_what_is_kept_is_bounded() -> None:
    """Ten thousand routes and models leave the encoding what it was."""
    encoder = RecordEncoder(MAKERS[Semconv.V1_41], Semconv.V1_41)
    for number in range(10_000):
        encoder.encode([facts.request(facts.attempt(request_model=f"m{number}"), route=f"r{number}")])
    assert_same(facts.request(), encoder=encoder)
    assert max(len(table._kept) for table in (encoder._server, encoder._attempt, encoder._http)) <= 1024


def test_export_reaches_a_collector_by_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    """Endpoint, headers and compression come from OTEL_*, and a collector decodes what was sent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    maker = MAKERS[Semconv.V1_41]
    exporter = DirectOTLPSpanExporter(maker, Semconv.V1_41, os.environ)
    record = facts.request()
    assert exporter.export_records([record]).taken
    exporter.shutdown()  # type: ignore[no-untyped-call]
    assert not exporter.export_records([record]).taken
    [(path, headers, body)] = collector.requests
    assert (path, headers["x-tenant"], headers["content-encoding"]) == ("/v1/traces", "a", "gzip")
    assert ExportTraceServiceRequest.FromString(body) == encode_spans(list(maker.spans_of(record)))
