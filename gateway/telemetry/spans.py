"""The span sink: spans are made from finished records, off the event loop, as the SDK's own ReadableSpans.

A request is a SERVER span; each attempt a CLIENT span below it, named by the GenAI conventions; each HTTP exchange a
CLIENT span below its attempt. Ids and the sampling decision were made at the start; attributes are set once, here.
"""

from collections.abc import Callable, Iterator, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from gateway import __version__
from gateway.telemetry.queue import BackgroundQueue
from gateway.types.errors import Outcome
from gateway.types.records import AttemptRecord, HttpExchange, RequestRecord

SCOPE = InstrumentationScope("gaugeway", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.UNSET)


def spans_of(record: RequestRecord, resource: Resource) -> Iterator[ReadableSpan]:
    """All spans of one request, the SERVER span first."""
    trace = record.trace
    server = _context(trace.trace_id, trace.span_id)
    parent = _context(trace.trace_id, trace.parent_span_id, remote=True) if trace.parent_span_id else None
    links = (
        (Link(_context(trace.link_trace_id, trace.link_span_id, remote=True)),)
        if trace.link_trace_id and trace.link_span_id
        else ()
    )
    # The caller's own mistakes are no errors of a server, by the HTTP conventions.
    failed = record.outcome in (Outcome.PROVIDER, Outcome.GATEWAY)
    yield ReadableSpan(
        name=f"{record.method} {record.path_template}",
        context=server,
        parent=parent,
        resource=resource,
        attributes=_server_attributes(record),
        links=links,
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR) if failed else _OK,
        start_time=record.start_ns,
        end_time=record.end_ns,
        instrumentation_scope=SCOPE,
    )
    for attempt in record.attempts:
        context = _context(trace.trace_id, attempt.span_id)
        yield ReadableSpan(
            name=f"{attempt.operation.gen_ai_name} {attempt.request_model}",
            context=context,
            parent=server,
            resource=resource,
            attributes=_attempt_attributes(record, attempt),
            kind=SpanKind.CLIENT,
            status=_OK if attempt.error_type is None else Status(StatusCode.ERROR),
            start_time=attempt.start_ns,
            end_time=attempt.end_ns,
            instrumentation_scope=SCOPE,
        )
        if attempt.http is not None:
            yield _http_span(attempt.http, context, resource)


def _context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, remote, _SAMPLED)


def _server_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue | None] = {
        "http.request.method": record.method,
        "http.route": record.path_template,
        "url.scheme": record.scheme,
        "url.path": record.path_template,
        "server.address": record.server_address,
        "server.port": record.server_port,
        "client.address": record.client_address or None,
        "user_agent.original": record.user_agent or None,
        "http.response.status_code": record.status_code or None,
        "gateway.request.id": record.request_id,
        "gateway.route": record.route,
        "gateway.route_type": record.route_type or None,
        "gateway.team": record.caller.team,
        "gateway.key.id": record.caller.key_id,
        "gateway.outcome": record.outcome.value,
        "gateway.attempts": len(record.attempts),
        "gateway.overhead_s": record.overhead_s,
        "gateway.stream": record.stream,
        "error.type": record.error_type.value if record.error_type is not None else None,
    }
    cost_nano_usd = record.cost_nano_usd
    if cost_nano_usd is not None:
        attributes["gateway.cost.usd"] = cost_nano_usd / 1e9
        attributes["gateway.cost.nano_usd"] = cost_nano_usd
    return _known(attributes)


def _attempt_attributes(record: RequestRecord, attempt: AttemptRecord) -> dict[str, AttributeValue]:
    parameters = attempt.parameters
    attributes: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": attempt.operation.gen_ai_name,
        "gen_ai.provider.name": attempt.gen_ai_provider,
        "gen_ai.request.model": attempt.request_model,
        "server.address": attempt.server_address,
        "server.port": attempt.server_port,
        "gateway.route": record.route,
        "gateway.attempt.number": attempt.number,
        "gateway.attempt.kind": attempt.kind.value,
        "gateway.provider": attempt.provider,
        "gen_ai.request.stream": True if attempt.stream else None,
        "gen_ai.request.max_tokens": parameters.max_tokens,
        "gen_ai.request.temperature": parameters.temperature,
        "gen_ai.request.top_p": parameters.top_p,
        "gen_ai.request.frequency_penalty": parameters.frequency_penalty,
        "gen_ai.request.presence_penalty": parameters.presence_penalty,
        "gen_ai.request.seed": parameters.seed,
        "gen_ai.request.stop_sequences": parameters.stop,
        "gen_ai.request.choice.count": parameters.choice_count,
        "gen_ai.response.id": attempt.response_id,
        "gen_ai.response.model": attempt.response_model,
        "gen_ai.response.finish_reasons": attempt.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": attempt.first_chunk_s,
        "error.type": attempt.error_type.value if attempt.error_type is not None else None,
    }
    usage = attempt.usage
    if usage is not None:
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
        attributes["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write_tokens
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    cost = attempt.cost
    if cost is not None:
        attributes["gateway.cost.basis"] = cost.basis.value
        if cost.nano_usd is not None:
            attributes["gateway.cost.usd"] = cost.nano_usd / 1e9
            attributes["gateway.cost.nano_usd"] = cost.nano_usd
    return _known(attributes)


def _http_span(http: HttpExchange, parent: SpanContext, resource: Resource) -> ReadableSpan:
    failed = http.error is not None or (http.status_code is not None and http.status_code >= 400)
    attributes: dict[str, AttributeValue | None] = {
        "http.request.method": http.method,
        "url.full": http.url,
        "server.address": http.server_address,
        "server.port": http.server_port,
        "http.response.status_code": http.status_code,
        "network.protocol.version": "1.1" if http.status_code is not None else None,
        "error.type": http.error or (str(http.status_code) if failed else None),
    }
    return ReadableSpan(
        name=http.method,
        context=_context(parent.trace_id, http.span_id),
        parent=parent,
        resource=resource,
        attributes=_known(attributes),
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR) if failed else _OK,
        start_time=http.start_ns,
        end_time=http.end_ns,
        instrumentation_scope=SCOPE,
    )


def _known(attributes: dict[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


def span_count(record: RequestRecord) -> int:
    """How many spans a record makes."""
    return 1 + sum(2 if attempt.http is not None else 1 for attempt in record.attempts)


class SpanSink:
    """Queues sampled records and exports their spans in small batches, on a thread.

    Small batches keep the exporting thread from holding the interpreter for long.
    """

    name = "spans"

    def __init__(
        self,
        exporter: SpanExporter,
        resource: Resource,
        *,
        on_export: Callable[[int], None],
        on_drop: Callable[[str, int], None],
    ) -> None:
        self._exporter = exporter
        self._resource = resource
        self._on_export = on_export
        self.queue: BackgroundQueue[RequestRecord] = BackgroundQueue(
            "span-export", self._export, lambda reason, records: on_drop(reason, sum(map(span_count, records)))
        )

    def record(self, record: RequestRecord) -> None:
        """Queue the spans of a sampled request."""
        if record.trace.sampled:
            self.queue.put(record)

    def _export(self, records: Sequence[RequestRecord]) -> bool:
        spans = [span for record in records for span in spans_of(record, self._resource)]
        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            return False
        self._on_export(len(spans))
        return True

    def close(self, timeout_s: float) -> None:
        """Export what is queued, for at most `timeout_s` seconds."""
        self.queue.close(timeout_s)
        self._exporter.shutdown()
