"""The bytes that the benchmark sends, and what it understands of those that come back."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.mock_upstream import count_spans
from bench.payloads import STAMP, chat_event, chat_event_end, chat_reply, chat_request
from bench.report import paired, table
from bench.rounds import Figure


@pytest.mark.parametrize("body", [chat_request(), chat_request(200), chat_request(native=True)])
def test_requests_have_one_size(body: bytes) -> None:
    """Every chat request is JSON of exactly 664 bytes, so that variants do the same work."""
    assert len(body) == 664
    assert json.loads(body)["messages"]


def test_reply_has_its_size_and_usage() -> None:
    """The chat reply is 787 bytes and carries the usage that a gateway must account for."""
    assert len(chat_reply()) == 787
    assert json.loads(chat_reply())["usage"]["total_tokens"] == 161


def test_stamp_survives_another_json_encoder() -> None:
    """The send time is found in an event, also when a gateway writes blanks after colons."""
    event = chat_event("1234567890123456")
    again = b"data: " + json.dumps(json.loads(event.removeprefix(b"data: "))).encode()
    assert [match.group(1) for match in STAMP.finditer(event + again)] == [b"1234567890123456"] * 2
    assert not STAMP.search(chat_event_end())


def test_spans_are_counted_as_the_exporter_wrote_them() -> None:
    """Spans are counted over all resources and scopes of a real OTLP message, attributes notwithstanding."""
    export = ExportTraceServiceRequest()
    for spans in (2, 0, 3):
        resource = export.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "bench"
        for number in range(spans):
            span = resource.scope_spans.add().spans.add(name=f"chat {number}", span_id=b"\x12\x08" * 4)
            span.attributes.add(key="k").value.int_value = number
    assert count_spans(export.SerializeToString()) == 5


def test_table_shows_spread_and_gaps() -> None:
    """A wide spread is shown with its median, and what was not measured is a dash."""
    figures = [Figure("new", "cpu_us_event", [50.0, 60.0, 70.0]), Figure("old", "rss_mib", [80.0])]
    lines = table(figures).splitlines()
    assert lines[0] == "| | new | old |"
    assert "| CPU us/SSE event | 60 (±17%) | - |" in lines
    assert "| RSS MiB | - | 80 |" in lines


def test_pairs_are_compared_round_by_round() -> None:
    """The cost of a change is the median of the rounds' ratios."""
    figures = [Figure("new", "cpu_us_chat_64", [110.0, 220.0]), Figure("old", "cpu_us_chat_64", [100.0, 200.0])]
    assert paired(figures, "new", "old") == "- CPU us/request, 64 connections: +10.0%"
