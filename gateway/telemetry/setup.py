"""Telemetry joined together: exporters by the standard OTEL_* variables, the registry, the sinks and the observer."""

import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, disable_created_metrics

from gateway import __version__
from gateway.config.schema import HttpSpans, Semconv, TelemetryFile
from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.exporters import OtlpProtocol, log_exporter, metric_exporter, protocol, span_exporter
from gateway.telemetry.listener import Exposition
from gateway.telemetry.logs import RequestLog
from gateway.telemetry.messages import count_lost_messages
from gateway.telemetry.metric import Metric
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observer import Observer, Sink
from gateway.telemetry.otlp import DirectOTLPSpanExporter
from gateway.telemetry.provider_limits import ProviderLimits
from gateway.telemetry.queue import EXPORT_FAILED
from gateway.telemetry.readings import Reading
from gateway.telemetry.redact import Redactor
from gateway.telemetry.registry import CatalogueCollector, process_registry
from gateway.telemetry.spans import InstrumentedSpans, RecordExporter, SdkExporter, SpanMaker, SpanSink
from gateway.telemetry.trust import trusting
from gateway.telemetry.variables import (
    Signal,
    VariableError,
    batching,
    is_disabled,
    metric_interval_s,
    reads_trace_context,
    wants_otlp,
)
from gateway.types.clock import Clock, Rng

if TYPE_CHECKING:
    from gateway.telemetry.push import MetricsPush

_LOG = logging.getLogger(__name__)
CLOSE_TIMEOUT_S = 3.0
"""How long the end of the process may wait for telemetry, within any usual grace period."""
_LAG_INTERVAL_S = 0.5


class TraceExport(StrEnum):
    """Where spans go."""

    OTLP = "otlp"
    CONSOLE = "console"
    NONE = "none"


def trace_export(chosen: str | None, environment: Mapping[str, str]) -> TraceExport:
    """The command line's choice, else OTEL_TRACES_EXPORTER, else OTLP where an endpoint is configured."""
    if is_disabled(environment):
        return TraceExport.NONE
    if chosen is not None:
        return TraceExport(chosen)
    by_variable = environment.get("OTEL_TRACES_EXPORTER")
    if by_variable:
        if by_variable not in set(TraceExport):
            raise VariableError(f"OTEL_TRACES_EXPORTER is '{by_variable}'; it must be one of {', '.join(TraceExport)}")
        return TraceExport(by_variable)
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return TraceExport.OTLP if any(environment.get(name) for name in endpoints) else TraceExport.NONE


class Telemetry:
    """All signals of one process.

    Args:
        export: where spans go.
        log_descriptor: the file descriptor of the request log.
        block: where the metrics are counted; a worker gets one that its supervisor reads, and pushes.
        environment: the OTEL_* variables that the SDK does not read itself.

    Raises VariableError when a variable asks for what cannot be, ConfigError for a hook that cannot be imported.
    """

    def __init__(
        self,
        file: TelemetryFile,
        export: TraceExport,
        clock: Clock,
        rng: Rng,
        *,
        log_descriptor: int = 1,
        block: Block | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.metrics = Metrics(block or Block.private(), file.semconv)
        self.metrics.gauge(names.BUILD_INFO, __version__, platform.python_version()).set(1)
        count_lost_messages(self.metrics.counter(names.MESSAGES_DROPPED).inc)
        self._provider = TracerProvider(resource=service_resource(file), shutdown_on_exit=False)
        self._export = export
        self._environment = environment
        self.instrumented = file.http_span_maker is HttpSpans.INSTRUMENTED and export is not TraceExport.NONE
        self._parts: list[_Part] = []
        """What holds something back and is flushed at the end, in this order."""
        self._instrumented_spans: InstrumentedSpans | None = None
        exporter = self._record_exporter(file.semconv)
        sinks = list(self._sinks(file, exporter, log_descriptor))
        if block is None:
            push = start_push(file, environment, self.metrics.read, lambda: self._export_failed(Signal.METRICS))
            if push is not None:
                self._parts.append(push)
        self._sampler = self._provider.sampler
        self._samples_all = exporter is not None and _is_always_on(self._sampler)
        self._exports = exporter is not None
        for counted in (*(sink.name for sink in sinks), "content"):
            self.metrics.counter(names.SINK_ERRORS, counted)
        for signal in Signal:
            self.metrics.counter(names.EXPORT_ERRORS, signal)
        limits = ProviderLimits(self.metrics, clock)
        self.metrics.on_refresh(limits.refresh)
        self.observer = Observer(
            sinks=sinks,
            clock=clock,
            rng=rng,
            sample=self._sample,
            in_flight=self.metrics,
            on_answer=limits.answered,
            on_sink_error=lambda sink: self.metrics.counter(names.SINK_ERRORS, sink).inc(),
            trusts=trusting(file.trust_inbound_trace),
            reads_traceparent=reads_trace_context(environment),
            http_spans=file.http_span_maker is HttpSpans.LIGHT,
            redactor=Redactor(file.redact),
        )

    def _sinks(self, file: TelemetryFile, exporter: RecordExporter | None, log_descriptor: int) -> Iterator[Sink]:
        yield self.metrics
        if exporter is not None:
            yield self._queued(
                SpanSink(
                    exporter,
                    on_export=self._spans_exported,
                    on_drop=self._spans_dropped,
                    batching=batching(Signal.TRACES, self._environment),
                )
            )
        if file.log_requests:
            on_write, on_drop = self._line_counts(RequestLog.name)
            yield self._queued(RequestLog(log_descriptor, on_write=on_write, on_drop=on_drop))
        if wants_otlp(Signal.LOGS, self._environment):
            yield self._queued(self._log_records())
        if file.content_hook is not None:
            yield self._content_hook(file.content_hook)

    def _queued(self, sink: "_QueuedSink") -> Sink:
        """Flush a sink at the end, and show what waits in it."""
        self._parts.append(sink)
        self.metrics.watch(self.metrics.gauge(names.QUEUE_SIZE, sink.name), sink.queue.__len__)
        return sink

    def _content_hook(self, name: str) -> Sink:
        from gateway.telemetry.content_hook import ContentHookSink, load_hook

        errors = self.metrics.counter(names.SINK_ERRORS, ContentHookSink.name)
        sink = ContentHookSink(load_hook(name), errors.inc, errors.inc)
        self._parts.append(sink)
        return sink

    def _record_exporter(self, semconv: Semconv) -> RecordExporter | None:
        maker = SpanMaker(self._provider.resource, semconv)
        match self._export:
            case TraceExport.OTLP if protocol(Signal.TRACES, self._environment) is OtlpProtocol.HTTP:
                return DirectOTLPSpanExporter(maker, semconv, self._environment)
            case TraceExport.OTLP | TraceExport.CONSOLE:
                return SdkExporter(self._sdk_exporter(), maker)
            case TraceExport.NONE:
                return None

    def _sdk_exporter(self) -> SpanExporter:
        if self._export is TraceExport.CONSOLE:
            return ConsoleSpanExporter(out=sys.stderr)
        return span_exporter(self._environment)

    def _log_records(self) -> "_QueuedSink":
        from gateway.telemetry.log_records import LogRecordSink

        on_export, on_drop = self._line_counts(LogRecordSink.name)
        exporter, transport = log_exporter(self._environment)
        return LogRecordSink(
            exporter,
            transport,
            self._provider.resource,
            on_export=on_export,
            on_drop=on_drop,
            batching=batching(Signal.LOGS, self._environment),
        )

    @property
    def exposition(self) -> Exposition:
        """What a scrape of this process gets."""
        return Exposition(self.metrics.families, (process_registry(),))

    @property
    def registry(self) -> CollectorRegistry:
        """The same, for readers that know prometheus_client."""
        registry = process_registry()
        registry.register(CatalogueCollector(self.metrics.families))
        return registry

    def instrument_http(self, client: Any) -> None:
        """Put opentelemetry-instrumentation-httpx on an httpx client, with the gateway's own resource and exporter."""
        # A quarter of a second of import, paid by gateways that use such a client.
        from gateway.telemetry.httpx_spans import instrument_client

        if self._instrumented_spans is None and self._exports:
            spans = InstrumentedSpans(
                self._sdk_exporter(),
                on_export=self._spans_exported,
                on_drop=self._spans_dropped,
                batching=batching(Signal.TRACES, self._environment),
            )
            self._instrumented_spans = spans
            # Before the gateway's own: it ends first, and its spans are part of those traces.
            self._parts.insert(0, spans)
            self._provider.add_span_processor(spans)
        instrument_client(client, self._provider)

    def _sample(self, trace_id: int, path_template: str) -> bool:
        if self._samples_all or not self._exports:
            return self._exports
        result = self._sampler.should_sample(
            None, trace_id, f"POST {path_template}", SpanKind.SERVER, {"http.route": path_template}
        )
        return result.decision is Decision.RECORD_AND_SAMPLE

    async def watch_loop_lag(self, clock: Clock) -> None:
        """Measure how late the event loop runs; until cancelled."""
        lag = self.metrics.histogram(names.EVENT_LOOP_LAG)
        while True:
            due = clock.monotonic() + _LAG_INTERVAL_S
            await asyncio.sleep(_LAG_INTERVAL_S)
            lag.observe(max(0.0, clock.monotonic() - due))
            self.metrics.refresh()

    def _spans_exported(self, count: int) -> None:
        self.metrics.counter(names.SPANS_EXPORTED).inc(count)

    def _spans_dropped(self, reason: str, count: int) -> None:
        self.metrics.counter(names.SPANS_DROPPED, reason).inc(count)
        if reason == EXPORT_FAILED:
            self._export_failed(Signal.TRACES)

    def _line_counts(self, sink: str) -> tuple[Callable[[int], None], Callable[[str, int], None]]:
        def dropped(reason: str, count: int) -> None:
            self.metrics.counter(names.LOG_LINES_DROPPED, sink, reason).inc(count)
            if reason == EXPORT_FAILED:
                self._export_failed(Signal.LOGS)

        return self.metrics.counter(names.LOG_LINES_WRITTEN, sink).inc, dropped

    def _export_failed(self, signal: Signal) -> None:
        self.metrics.counter(names.EXPORT_ERRORS, signal).inc()

    def _total(self, metric: Metric) -> int:
        return int(sum(series.values[0] for series in self.metrics.read().get(metric.name, {}).values()))

    def close(self) -> None:
        """Flush what is held back, within CLOSE_TIMEOUT_S in all; what is left is dropped and counted."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for position, part in enumerate(self._parts):
            left = len(self._parts) - position
            # A part that hangs leaves the others their share.
            part.close(max(0.1, (deadline - time.monotonic()) / left))
        self._parts.clear()
        told = (names.SPANS_EXPORTED, names.SPANS_DROPPED, names.LOG_LINES_WRITTEN, names.LOG_LINES_DROPPED)
        counts = [self._total(metric) for metric in told]
        # Who could not start, or was never asked, has nothing to tell.
        if any(counts):
            _LOG.info("%d spans exported, %d lost; %d log lines written, %d lost", *counts)


class _Part(Protocol):
    def close(self, timeout_s: float) -> None:
        """Flush, for at most `timeout_s` seconds."""
        ...


class _QueuedSink(Sink, _Part, Protocol):
    @property
    def queue(self) -> Sized:
        """What waits."""
        ...


def start_push(
    file: TelemetryFile, environment: Mapping[str, str], read: Callable[[], Reading], on_error: Callable[[], None]
) -> "MetricsPush | None":
    """Push readings by OTLP, where OTEL_METRICS_EXPORTER asks for it. Raises VariableError."""
    if not wants_otlp(Signal.METRICS, environment):
        return None
    from gateway.telemetry.push import MetricsPush

    return MetricsPush(
        read, metric_exporter(environment), service_resource(file), metric_interval_s(environment), on_error
    )


def service_resource(file: TelemetryFile) -> Resource:
    """What all signals say of their source. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the file."""
    resource = Resource.create({"service.version": __version__})
    if resource.attributes.get("service.name") in (None, "", "unknown_service"):
        return resource.merge(Resource({"service.name": file.service_name}))
    return resource


def _is_always_on(sampler: Sampler) -> bool:
    # A new root under ParentBased(ALWAYS_ON), the SDK's default, is always sampled: no need to ask each time.
    return sampler is ALWAYS_ON or (
        isinstance(sampler, ParentBased) and "root:AlwaysOnSampler" in sampler.get_description()  # type: ignore[no-untyped-call]
    )
