"""Spans written as bytes are the spans that the SDK would have sent."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from gateway.telemetry.otlp import DirectOTLPSpanExporter, SpanEncoder

RESOURCE = Resource({"service.name": "gateway", "host.cpus": 2}, "https://opentelemetry.io/schemas/1.38.0")
SCOPE = InstrumentationScope("gaugeway", "1.0")


def context(span_id: int = 7, *, remote: bool = False, state: TraceState | None = None) -> SpanContext:
    """A context in one fixed trace."""
    return SpanContext((1 << 127) + 5, span_id, remote, TraceFlags(1), state)


def span(attributes: dict[str, AttributeValue] | None = None, **changes: object) -> ReadableSpan:
    """A finished span."""
    facts: dict[str, object] = {
        "name": "chat m",
        "context": context(),
        "resource": RESOURCE,
        "attributes": attributes or {},
        "start_time": 1_700_000_000_000_000_000,
        "end_time": 1_700_000_001_000_000_000,
        "instrumentation_scope": SCOPE,
    }
    return ReadableSpan(**{**facts, **changes})  # type: ignore[arg-type]


def assert_same(*spans: ReadableSpan, encoder: SpanEncoder | None = None) -> None:
    """The bytes decode to the SDK's own message."""
    encoded = (encoder or SpanEncoder()).encode(spans)
    assert ExportTraceServiceRequest.FromString(encoded) == encode_spans(spans)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
INT64 = st.integers(-(2**63), 2**63 - 1)
NUMBER = st.floats(allow_nan=False)
VALUES = st.one_of(TEXT, st.booleans(), INT64, NUMBER, st.lists(TEXT), st.lists(INT64), st.lists(NUMBER))


@given(attributes=st.dictionaries(TEXT, VALUES, max_size=8), name=TEXT, kind=st.sampled_from(SpanKind))
def test_any_attributes_are_encoded_as_the_sdk_does(
    attributes: dict[str, AttributeValue], name: str, kind: SpanKind
) -> None:
    """Whatever the attributes, name and kind, the collector reads the same span."""
    assert_same(span(attributes, name=name, kind=kind))


def test_equal_values_of_different_types_stay_different() -> None:
    """True, 1 and 1.0 under one key do not take each other's place in the cache, in any order."""
    encoder = SpanEncoder()
    values: tuple[AttributeValue, ...] = (True, 1, 1.0, (True,), (1,), (1.0,), False, 0, 0.0, "1")
    for value in (*values, *reversed(values)):
        assert_same(span({"k": value}), encoder=encoder)


def test_cache_stays_right_when_it_overflows() -> None:
    """Ten thousand different ids leave the encoding what it was."""
    encoder = SpanEncoder()
    encoder.encode([span({"id": f"req_{number}", "route": "chat"}) for number in range(10_000)])
    assert_same(span({"id": "req_1", "route": "chat"}), encoder=encoder)


@pytest.mark.parametrize(
    "changes",
    [
        {"parent": context(9)},
        {"parent": context(9, remote=True), "links": (Link(context(3, remote=True)), Link(context(4)))},
        {"status": Status(StatusCode.ERROR)},
        {"status": Status(StatusCode.OK)},
        {"status": Status(StatusCode.ERROR, "why")},
        {"events": (Event("e", {"a": 1}, 5),)},
        {"links": (Link(context(3), {"a": "b"}),)},
        {"context": context(state=TraceState([("v", "1")]))},
    ],
    ids=["parent", "remote", "error", "ok", "description", "event", "link-attributes", "state"],
)
def test_every_part_of_a_span(changes: dict[str, object]) -> None:
    """Parents, links, statuses, events and trace state arrive, whoever encodes them."""
    assert_same(span({"a": "b"}, **changes), span({"a": "c"}))


def test_spans_of_several_resources_and_scopes() -> None:
    """Spans of other resources and scopes keep their own."""
    other = Resource({"service.name": "other"})
    scope = InstrumentationScope("second", "2", "https://schema.invalid")
    encoder = SpanEncoder()
    assert_same(span(), encoder=encoder)
    assert_same(span(resource=other), encoder=encoder)
    assert_same(span(), span(resource=other), span(instrumentation_scope=scope), span({"k": 1}))


def test_export_reaches_a_collector_by_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, collector: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    """Endpoint, headers and compression come from OTEL_*, and a collector decodes what was sent."""
    url, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    exporter = DirectOTLPSpanExporter()
    assert exporter.export([span({"k": "v"})]) is SpanExportResult.SUCCESS
    exporter.shutdown()  # type: ignore[no-untyped-call]
    assert exporter.export([span()]) is SpanExportResult.FAILURE
    [(headers, body)] = received
    assert headers["x-tenant"] == "a"
    assert ExportTraceServiceRequest.FromString(gzip.decompress(body)) == encode_spans([span({"k": "v"})])
