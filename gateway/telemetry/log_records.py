"""The request log by OTLP: the same fields as the JSON line, as a log record that stands in the request's trace."""

from collections.abc import Callable, Iterator, Sequence

from msgspec import structs
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from gateway.telemetry.logs import RequestLine, line_of
from gateway.telemetry.queue import REJECTED, USUAL_BATCHING, BackgroundQueue, Batching
from gateway.telemetry.spans import SCOPE
from gateway.telemetry.transport import BoundedTransport, rejected
from gateway.types.records import RequestRecord
from gateway.types.route import CaptureTo

_SEVERITIES = {"INFO": SeverityNumber.INFO, "ERROR": SeverityNumber.ERROR}
CONTENT_EVENT = "gen_ai.client.inference.operation.details"
_ELSEWHERE = frozenset({"time", "level", "message", "trace_id", "span_id"})


def log_record(record: RequestRecord, resource: Resource) -> ReadableLogRecord:
    """One request as a log record."""
    fields: RequestLine = line_of(record)
    trace = record.trace
    return ReadableLogRecord(
        LogRecord(
            timestamp=record.end_ns,
            observed_timestamp=record.end_ns,
            context=_within(trace.trace_id, trace.span_id, sampled=trace.sampled),
            severity_text=fields.level,
            severity_number=_SEVERITIES[fields.level],
            body=fields.message,
            attributes={
                name: str(value) if isinstance(value, str) else value
                for name, value in structs.asdict(fields).items()
                if value is not None and name not in _ELSEWHERE
            },
        ),
        resource,
        SCOPE,
    )


def content_events(record: RequestRecord, resource: Resource) -> Iterator[ReadableLogRecord]:
    """The content of attempts on routes that capture `to: event`, as the conventions' event in the attempt's span."""
    trace = record.trace
    for attempt in record.attempts:
        content = attempt.content
        if content is None or content.to is not CaptureTo.EVENT:
            continue
        told = {
            "gen_ai.operation.name": attempt.operation.gen_ai_name,
            "gen_ai.provider.name": attempt.gen_ai_provider,
            "gen_ai.request.model": attempt.request_model,
            "gen_ai.response.model": attempt.response_model,
            "gen_ai.response.id": attempt.response_id,
            "gen_ai.input.messages": content.input_messages,
            "gen_ai.output.messages": content.output_messages,
            "gateway.route": record.route,
            "gateway.content.cut": content.cut or None,
        }
        yield ReadableLogRecord(
            LogRecord(
                timestamp=attempt.end_ns,
                observed_timestamp=attempt.end_ns,
                context=_within(trace.trace_id, attempt.span_id, sampled=trace.sampled),
                severity_number=SeverityNumber.INFO,
                event_name=CONTENT_EVENT,
                attributes={name: value for name, value in told.items() if value is not None},
            ),
            resource,
            SCOPE,
        )


def _within(trace_id: int, span_id: int, *, sampled: bool) -> Context:
    context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(int(sampled)))
    return set_span_in_context(NonRecordingSpan(context))


class LogRecordSink:
    """Queues records and exports them as log records in batches, on a thread.

    Args:
        transport: the exporter's; its last answer says what a collector rejected.
    """

    name = "otlp_logs"

    def __init__(
        self,
        exporter: LogRecordExporter,
        transport: BoundedTransport | None,
        resource: Resource,
        *,
        on_export: Callable[[int], None],
        on_drop: Callable[[str, int], None],
        batching: Batching = USUAL_BATCHING,
    ) -> None:
        self._exporter = exporter
        self._transport = transport
        self._resource = resource
        self._on_export = on_export
        self._on_drop = on_drop
        self.queue: BackgroundQueue[RequestRecord] = BackgroundQueue(
            "log-export",
            self._export,
            lambda reason, records: on_drop(reason, len(records)),
            self._exported,
            batching=batching,
        )

    def record(self, record: RequestRecord) -> None:
        """Queue the record."""
        self.queue.put(record)

    def _export(self, records: Sequence[RequestRecord]) -> Iterator[int]:
        batch = [log_record(record, self._resource) for record in records]
        batch += (event for record in records for event in content_events(record, self._resource))
        if self._exporter.export(batch) is LogRecordExportResult.SUCCESS:
            yield len(records)

    def _exported(self, records: Sequence[RequestRecord]) -> None:
        lost = min(rejected(self._transport.answer), len(records)) if self._transport is not None else 0
        if lost:
            self._on_drop(REJECTED, lost)
        self._on_export(len(records) - lost)

    def close(self, timeout_s: float) -> None:
        """Export what is queued, for at most `timeout_s` seconds."""
        self.queue.close(timeout_s)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
