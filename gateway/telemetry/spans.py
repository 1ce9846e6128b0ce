"""The span sink: spans are made from finished records, off the event loop.

A request is a SERVER span; each attempt a CLIENT span below it, named by the GenAI conventions; each HTTP exchange a
CLIENT span below its attempt. Ids and the sampling decision were made at the start; attributes are set once, here.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Protocol

from msgspec import Struct
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from gateway import __version__
from gateway.config.schema import Semconv
from gateway.telemetry import attributes
from gateway.telemetry.attributes import Attribute, Told, attempt_told, of_generation, server_told
from gateway.telemetry.queue import REJECTED, USUAL_BATCHING, BackgroundQueue, Batching
from gateway.types.errors import Outcome
from gateway.types.records import HttpExchange, RequestRecord

SCOPE = InstrumentationScope("gaugeway", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.UNSET)


class SpanMaker:
    """Makes the SDK's ReadableSpans of records, by one choice of conventions."""

    def __init__(self, resource: Resource, semconv: Semconv = Semconv.V1_41) -> None:
        self.resource = resource
        self._server = _Table(of_generation(attributes.SERVER, semconv))
        self._attempt = _Table(of_generation(attributes.ATTEMPT, semconv))
        self._http = _Table(of_generation(attributes.HTTP, semconv))

    def spans_of(self, record: RequestRecord) -> Iterator[ReadableSpan]:
        """All spans of one request, the SERVER span first."""
        trace = record.trace
        server = _context(trace.trace_id, trace.span_id)
        yield self._span(
            f"{record.method} {record.path_template}",
            server,
            _context(trace.trace_id, trace.parent_span_id, remote=True) if trace.parent_span_id else None,
            self._server.values(server_told(record)),
            (record.start_ns, record.end_ns),
            kind=SpanKind.SERVER,
            failed=server_failed(record),
            links=(
                (Link(_context(trace.link_trace_id, trace.link_span_id, remote=True)),)
                if trace.link_trace_id and trace.link_span_id
                else ()
            ),
        )
        for attempt in record.attempts:
            context = _context(trace.trace_id, attempt.span_id)
            told = attempt_told(record, attempt)
            yield self._span(
                f"{attempt.operation.gen_ai_name} {attempt.request_model}",
                context,
                server,
                self._attempt.values(told),
                (attempt.start_ns, attempt.end_ns),
                failed=attempt.error_type is not None,
            )
            http = attempt.http
            if http is not None:
                yield self._span(
                    http.method,
                    _context(trace.trace_id, http.span_id),
                    context,
                    self._http.values(told),
                    (http.start_ns, http.end_ns),
                    failed=http_failed(http),
                )

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        values: dict[str, AttributeValue],
        times_ns: tuple[int, int],
        *,
        failed: bool,
        kind: SpanKind = SpanKind.CLIENT,
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        return ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self.resource,
            attributes=values,
            links=links,
            kind=kind,
            status=Status(StatusCode.ERROR) if failed else _OK,
            start_time=times_ns[0],
            end_time=times_ns[1],
            instrumentation_scope=SCOPE,
        )


class _Table:
    def __init__(self, table: tuple[Attribute, ...]) -> None:
        self._table = table
        self._read = attrgetter(*(attribute.source for attribute in table))

    def values(self, told: Told) -> dict[str, AttributeValue]:
        return {
            attribute.name: value
            for attribute, raw in zip(self._table, self._read(told), strict=True)
            if (value := attribute.value(raw)) is not None
        }


def server_failed(record: RequestRecord) -> bool:
    """Whether the SERVER span is an error: the caller's own mistakes are none of a server's, by the HTTP conventions."""
    return record.outcome in (Outcome.PROVIDER, Outcome.GATEWAY)


def http_failed(http: HttpExchange) -> bool:
    """Whether an exchange failed, by the HTTP conventions for clients."""
    return http.error is not None or (http.status_code is not None and http.status_code >= 400)


def _context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, remote, _SAMPLED)


def span_count(record: RequestRecord) -> int:
    """How many spans a record makes."""
    return 1 + sum(2 if attempt.http is not None else 1 for attempt in record.attempts)


class Export(Struct, frozen=True):
    """What became of a batch: whether the collector took it, and how many spans of it it says that it did not keep."""

    taken: bool
    rejected_spans: int = 0


class RecordExporter(Protocol):
    """Sends the spans of records to wherever they go."""

    def export_records(self, records: Sequence[RequestRecord]) -> Export:
        """Send a batch."""
        ...

    def shutdown(self) -> None:
        """Break off what is under way; nothing is sent any more."""
        ...


class SdkExporter:
    """Any of the SDK's exporters, given the SDK's own spans."""

    def __init__(self, exporter: SpanExporter, maker: SpanMaker) -> None:
        self._exporter = exporter
        self._maker = maker

    def export_records(self, records: Sequence[RequestRecord]) -> Export:
        """Send a batch. Which of its spans a collector rejected, the SDK's exporters do not tell."""
        spans = [span for record in records for span in self._maker.spans_of(record)]
        return Export(taken=self._exporter.export(spans) is SpanExportResult.SUCCESS)

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()


class SpanSink:
    """Queues sampled records and exports their spans in small batches, on a thread."""

    name = "spans"

    def __init__(
        self,
        exporter: RecordExporter,
        *,
        on_export: Callable[[int], None],
        on_drop: Callable[[str, int], None],
        batching: Batching = USUAL_BATCHING,
    ) -> None:
        self._exporter = exporter
        self._on_export = on_export
        self._on_drop = on_drop
        self._rejected = 0
        self.queue: BackgroundQueue[RequestRecord] = BackgroundQueue(
            "span-export",
            self._export,
            lambda reason, records: on_drop(reason, sum(map(span_count, records))),
            self._exported,
            batching=batching,
        )

    def record(self, record: RequestRecord) -> None:
        """Queue the spans of a sampled request."""
        if record.trace.sampled:
            self.queue.put(record)

    def _export(self, records: Sequence[RequestRecord]) -> Iterator[int]:
        export = self._exporter.export_records(records)
        self._rejected = export.rejected_spans
        if export.taken:
            yield len(records)

    def _exported(self, records: Sequence[RequestRecord]) -> None:
        spans = sum(map(span_count, records))
        rejected = min(self._rejected, spans)
        if rejected:
            self._on_drop(REJECTED, rejected)
        self._on_export(spans - rejected)

    def close(self, timeout_s: float) -> None:
        """Export what is queued, for at most `timeout_s` seconds."""
        self.queue.close(timeout_s)
        self._exporter.shutdown()


class InstrumentedSpans(SpanProcessor):
    """Queues the spans that instrumentations make, and exports them as the gateway's own: bounded, and counted.

    The SDK's BatchSpanProcessor counts no loss, and keeps to no timeout when it is shut down.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        on_export: Callable[[int], None],
        on_drop: Callable[[str, int], None],
        batching: Batching = USUAL_BATCHING,
    ) -> None:
        self._exporter = exporter
        self.queue: BackgroundQueue[ReadableSpan] = BackgroundQueue(
            "instrumented-export",
            self._export,
            lambda reason, spans: on_drop(reason, len(spans)),
            lambda spans: on_export(len(spans)),
            batching=batching,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.queue.put(span)

    def _export(self, spans: Sequence[ReadableSpan]) -> Iterator[int]:
        if self._exporter.export(spans) is SpanExportResult.SUCCESS:
            yield len(spans)

    def close(self, timeout_s: float) -> None:
        """Export what is queued, for at most `timeout_s` seconds."""
        self.queue.close(timeout_s)
        self._exporter.shutdown()
