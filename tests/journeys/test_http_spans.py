"""The light HTTP span is the one that opentelemetry-instrumentation-httpx makes, and no trace header leaves uninvited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.telemetry.setup import TraceExport
from tests.collector import attributes_of, running_collector
from tests.openai_replies import openai_chat, openai_error, openai_stream
from tests.replies import GarbageReply, HangupReply, RecordedRequest, Reply
from tests.running_gateway import running_gateway
from tests.scripted_upstream import ScriptedUpstream

CALLERS_TRACE = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "vendor=x",
    "baggage": "email=someone@example.com",
}
CONFIG = """
telemetry: {{http_spans: {http_spans}, trust_inbound_trace: {trust}}}
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: m
      propagate_trace: {propagate}
      config: {{openai_api_key: sk-test, openai_api_base: "{url}/v1"}}
"""


async def _spans(
    http_spans: str,
    upstream: ScriptedUpstream,
    reply: Reply | None,
    url: str = "",
    *,
    propagate: bool = False,
    trust: bool = False,
    stream: bool = False,
) -> list[Span]:
    """The spans of one request, answered with `reply` (or sent to `url`, where nobody listens)."""
    with running_collector() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        config = CONFIG.format(
            http_spans=http_spans, url=url or upstream.url, propagate=str(propagate).lower(), trust=str(trust).lower()
        )
        async with running_gateway(config, export=TraceExport.OTLP) as gateway:
            if reply is not None:
                upstream.script(reply)
            body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
            await gateway.client.post("/endpoints/chat/invocations", json=body, headers=CALLERS_TRACE)
            await gateway.records.wait(1)
        return collector.spans


def _exchange(spans: list[Span]) -> tuple[Span, dict[str, Any]]:
    [span] = [span for span in spans if "url.full" in attributes_of(span)]
    return span, attributes_of(span)


def _attempt(spans: list[Span]) -> Span:
    [span] = [span for span in spans if "gen_ai.operation.name" in attributes_of(span)]
    return span


REPLIES = {
    "200": openai_chat,
    "400": lambda: openai_error(400),
    "503": lambda: openai_error(503),
    "stream": lambda: openai_stream(["a", "b"]),
}


@pytest.mark.parametrize("name", REPLIES)
async def test_the_light_span_is_the_instrumentations(name: str, upstream: ScriptedUpstream) -> None:
    """Name, kind, status, parent and every attribute are the same, whoever makes the span."""
    make, stream = REPLIES[name], name == "stream"
    told = {}
    for http_spans in ("light", "instrumented"):
        spans = await _spans(http_spans, upstream, make(), stream=stream)
        span, facts = _exchange(spans)
        assert span.parent_span_id == _attempt(spans).span_id
        told[http_spans] = (span.name, span.kind, span.status.code, facts)
        assert len(spans) == 3
    assert told["light"] == told["instrumented"]


@pytest.mark.parametrize("reply", [GarbageReply, HangupReply, None])
async def test_without_an_answer_only_the_causes_name_differs(
    reply: type[Reply] | None, upstream: ScriptedUpstream
) -> None:
    """Where no status came, `error.type` is the gateway's own closed word; the instrumentation has a class's name."""
    url = "" if reply is not None else "http://127.0.0.1:1"
    light, its = [
        _exchange(await _spans(http_spans, upstream, reply() if reply is not None else None, url))
        for http_spans in ("light", "instrumented")
    ]
    assert (light[0].name, light[0].kind, light[0].status.code) == (its[0].name, its[0].kind, its[0].status.code)
    assert light[1].pop("error.type") in {"unreadable_reply", "connection_lost", "connect_failed"}
    assert its[1].pop("error.type") == "UpstreamError"
    assert light[1] == its[1]


async def test_http_spans_can_be_left_out(upstream: ScriptedUpstream) -> None:
    """`off` leaves the request and its attempts."""
    spans = await _spans("off", upstream, openai_chat())
    assert [attributes_of(span).get("url.full") for span in spans] == [None, None]


@pytest.mark.parametrize("http_spans", ["light", "instrumented", "off"])
async def test_no_trace_header_leaves_by_default(http_spans: str, upstream: ScriptedUpstream) -> None:
    """The provider gets neither the caller's trace and baggage nor the gateway's."""
    await _spans(http_spans, upstream, openai_chat())
    assert _trace_headers(upstream.requests[0]) == {}


@pytest.mark.parametrize("http_spans", ["light", "instrumented"])
async def test_a_provider_may_be_told_of_the_trace(http_spans: str, upstream: ScriptedUpstream) -> None:
    """With propagate_trace the provider's spans hang below this attempt; baggage and tracestate still stay here."""
    spans = await _spans(http_spans, upstream, openai_chat(), propagate=True, trust=True)
    headers = _trace_headers(upstream.requests[0])
    assert headers.keys() == {"traceparent"}
    _, trace_id, parent, flags = headers["traceparent"].split("-")
    assert trace_id == _attempt(spans).trace_id.hex() == CALLERS_TRACE["traceparent"].split("-")[1]
    assert parent in {span.span_id.hex() for span in spans if span.kind == Span.SPAN_KIND_CLIENT}
    assert flags == "01"


def _trace_headers(request: RecordedRequest) -> dict[str, str]:
    return {name: value for name, value in request.headers if name in {"traceparent", "tracestate", "baggage", "b3"}}


async def test_instrumented_spans_end_with_the_headers(upstream: ScriptedUpstream) -> None:
    """The exchange ends before a stream does, in either span: what comes later is the attempt's time."""
    gate = asyncio.Event()
    for http_spans in ("light", "instrumented"):
        gate.clear()
        task = asyncio.create_task(_spans(http_spans, upstream, openai_stream(["a", gate, "b"]), stream=True))
        await upstream.wait_requests(upstream.hits or 1)
        gate.set()
        spans = await task
        exchange, _ = _exchange(spans)
        assert exchange.end_time_unix_nano < _attempt(spans).end_time_unix_nano
