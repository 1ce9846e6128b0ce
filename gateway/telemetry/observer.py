"""The seam: what happens between `observe_request` and its end becomes one frozen RequestRecord for every sink.

While a request runs, its observation only stamps clocks and keeps references. At the end the record is made once and
handed to the sinks (spans, metrics, log line). A sink that fails is counted and never disturbs the request.
No provider call happens outside `observe_attempt`: upstream hits = attempt records = CLIENT spans.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.telemetry.content import ContentMaker
from gateway.telemetry.redact import Redactor
from gateway.types.clock import Clock, Rng
from gateway.types.model_io import ModelRequest
from gateway.types.records import Content, RequestRecord, TraceContext
from gateway.types.route import ContentCapture

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Sink(Protocol):
    """A consumer of finished records. It must not block."""

    name: str

    def record(self, record: RequestRecord) -> None:
        """Take one finished request."""
        ...


class InFlight(Protocol):
    """Counts the requests being served, by route."""

    def enter(self, route: str) -> None:
        """A request of this route began."""
        ...

    def leave(self, route: str) -> None:
        """A request of this route ended."""
        ...


class Observer:
    """What all observations work with, and where their records go.

    Args:
        sample: whether the spans of a trace are exported; called once a request with the trace id and the path template.
        on_answer: told a target's provider and model, and the headers of its reply.
        on_sink_error: told the name of a sink that failed.
        trusts: whether the trace of a caller at an address is continued; otherwise it is linked.
        reads_traceparent: do either.
    """

    def __init__(
        self,
        *,
        sinks: Sequence[Sink],
        clock: Clock,
        rng: Rng,
        sample: Callable[[int, str], bool],
        in_flight: InFlight,
        on_answer: Callable[[str, str, Mapping[str, str]], None],
        on_sink_error: Callable[[str], None],
        trusts: Callable[[str], bool],
        reads_traceparent: bool = True,
        http_spans: bool = True,
        redactor: Redactor | None = None,
    ) -> None:
        self.sinks = tuple(sinks)
        self.clock = clock
        self.rng = rng
        self.in_flight = in_flight
        self.on_answer = on_answer
        self.http_spans = http_spans
        self.redactor = redactor or Redactor()
        self._contents = ContentMaker(self.redactor)
        self._sample = sample
        self._on_sink_error = on_sink_error
        self._trusts = trusts
        self._reads_traceparent = reads_traceparent

    def trace_context(self, path_template: str, traceparent: str | None, address: str) -> TraceContext:
        """The ids of a request that came from `address` with this W3C header, and whether its spans are kept."""
        rng = self.rng
        span_id = rng.getrandbits(64) or 1
        inbound = _TRACEPARENT.fullmatch(traceparent) if traceparent and self._reads_traceparent else None
        their_trace, their_span = (int(inbound[1], 16), int(inbound[2], 16)) if inbound else (0, 0)
        if their_trace and their_span and self._trusts(address):
            # Their sampled flag is not asked: a caller must not decide what is kept here.
            sampled = self._sample(their_trace, path_template)
            return TraceContext(trace_id=their_trace, span_id=span_id, sampled=sampled, parent_span_id=their_span)
        trace_id = rng.getrandbits(128) or 1
        return TraceContext(
            trace_id=trace_id,
            span_id=span_id,
            sampled=self._sample(trace_id, path_template),
            link_trace_id=their_trace or None,
            link_span_id=their_span or None,
        )

    def content(
        self, capture: ContentCapture, request: ModelRequest, reply: bytes | Sequence[bytes] | None
    ) -> Content | None:
        """The content of an attempt, redacted; None when it cannot be made."""
        try:
            return self._contents.make(capture, request, reply)
        except Exception:  # noqa: BLE001 - whatever a body holds, the request has been served
            self._on_sink_error("content")
            return None

    def publish(self, record: RequestRecord) -> None:
        """Hand a record to every sink."""
        for sink in self.sinks:
            try:
                sink.record(record)
            except Exception:  # noqa: BLE001 - whatever a sink does, the request has been served
                self._on_sink_error(sink.name)
