"""Telemetry joined together: exporters by the standard OTEL_* variables, the registry, the sinks and the observer."""

import asyncio
import logging
import platform
import sys
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, disable_created_metrics

from gateway import __version__
from gateway.config.schema import HttpSpans, Semconv, TelemetryFile
from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.listener import Exposition
from gateway.telemetry.logs import JsonFormatter, RequestLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observe import Observer, Sink
from gateway.telemetry.otlp import DirectOTLPSpanExporter
from gateway.telemetry.queue import EXPORT_FAILED
from gateway.telemetry.registry import CatalogueCollector, process_registry
from gateway.telemetry.spans import RecordExporter, SdkExporter, SpanMaker, SpanSink
from gateway.types.clock import Clock, Rng

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
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return TraceExport.NONE
    if chosen is not None:
        return TraceExport(chosen)
    by_variable = environment.get("OTEL_TRACES_EXPORTER")
    if by_variable:
        if by_variable not in set(TraceExport):
            raise ValueError(f"OTEL_TRACES_EXPORTER is '{by_variable}'; it must be one of {', '.join(TraceExport)}")
        return TraceExport(by_variable)
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return TraceExport.OTLP if any(environment.get(name) for name in endpoints) else TraceExport.NONE


class Telemetry:
    """All signals of one process.

    Args:
        export: where spans go.
        log_descriptor: the file descriptor of the request log.
        block: where the metrics are counted; a worker gets one that its supervisor reads.
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
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.metrics = Metrics(block or Block.private())
        self.metrics.gauge(names.BUILD_INFO, __version__, platform.python_version()).set(1)
        # Resource.create lets OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what stands here.
        self._provider = TracerProvider(
            resource=Resource.create({"service.version": __version__}).merge(_service_name(file)),
            shutdown_on_exit=False,
        )
        self.instrumented = file.http_spans is HttpSpans.INSTRUMENTED and export is not TraceExport.NONE
        sinks: list[Sink] = [self.metrics]
        self._spans: SpanSink | None = None
        exporter = _exporter(export, SpanMaker(self._provider.resource, file.semconv), file.semconv)
        if exporter is not None:
            self._spans = SpanSink(
                exporter,
                on_export=lambda count: self.metrics.counter(names.SPANS_EXPORTED).inc(count),
                on_drop=self._spans_dropped,
            )
            sinks.append(self._spans)
            self.metrics.watch(self.metrics.gauge(names.QUEUE_SIZE, "spans"), self._spans.queue.__len__)
            if self.instrumented:
                self._provider.add_span_processor(BatchSpanProcessor(_sdk_exporter(export)))
        self._log: RequestLog | None = None
        if file.log_requests:
            self._log = RequestLog(
                log_descriptor,
                lambda reason, count: self.metrics.counter(names.LOG_LINES_DROPPED, reason).inc(count),
            )
            sinks.append(self._log)
            self.metrics.watch(self.metrics.gauge(names.QUEUE_SIZE, "log"), self._log.queue.__len__)
        self._sampler = self._provider.sampler
        self._samples_all = exporter is not None and _is_always_on(self._sampler)
        self._exports = exporter is not None
        self.observer = Observer(
            sinks=sinks,
            clock=clock,
            rng=rng,
            sample=self._sample,
            in_flight=self.metrics,
            on_sink_error=lambda sink: self.metrics.counter(names.SINK_ERRORS, sink).inc(),
            trust_inbound_trace=file.trust_inbound_trace,
            http_spans=file.http_spans is HttpSpans.LIGHT,
        )

    @property
    def exposition(self) -> Exposition:
        """What a scrape of this process gets."""
        return Exposition(self.metrics.read, (process_registry(),))

    @property
    def registry(self) -> CollectorRegistry:
        """The same, for readers that know prometheus_client."""
        registry = process_registry()
        registry.register(CatalogueCollector(self.metrics.read))
        return registry

    def instrument_http(self, client: Any) -> None:
        """Put opentelemetry-instrumentation-httpx on an httpx client, with the gateway's own tracer provider."""
        # A quarter of a second of import, paid by gateways that use such a client.
        from gateway.telemetry.httpx_spans import instrument_client

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

    def _spans_dropped(self, reason: str, count: int) -> None:
        self.metrics.counter(names.SPANS_DROPPED, reason).inc(count)
        if reason == EXPORT_FAILED:
            self.metrics.counter(names.EXPORT_ERRORS, "traces").inc()

    def close(self) -> None:
        """Flush what is queued, within CLOSE_TIMEOUT_S in all; what is left is dropped and counted."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        if self.instrumented:
            # Its own timeout is not kept to, hence the thread.
            shutdown = threading.Thread(target=self._provider.shutdown, daemon=True)
            shutdown.start()
            shutdown.join(CLOSE_TIMEOUT_S / 3)
        if self._spans is not None:
            self._spans.close(max(0.1, deadline - time.monotonic()))
        if self._log is not None:
            self._log.queue.close(max(0.1, deadline - time.monotonic()))


def _service_name(file: TelemetryFile) -> Resource:
    detected = Resource.create({})
    if detected.attributes.get("service.name") in (None, "", "unknown_service"):
        return Resource({"service.name": file.service_name})
    return Resource({})


def _exporter(export: TraceExport, maker: SpanMaker, semconv: Semconv) -> RecordExporter | None:
    match export:
        case TraceExport.OTLP:
            return DirectOTLPSpanExporter(maker, semconv)
        case TraceExport.CONSOLE:
            return SdkExporter(_sdk_exporter(export), maker)
        case TraceExport.NONE:
            return None


def _sdk_exporter(export: TraceExport) -> SpanExporter:
    return OTLPSpanExporter() if export is TraceExport.OTLP else ConsoleSpanExporter(out=sys.stderr)


def _is_always_on(sampler: Sampler) -> bool:
    # A new root under ParentBased(ALWAYS_ON), the SDK's default, is always sampled: no need to ask each time.
    return sampler is ALWAYS_ON or (
        isinstance(sampler, ParentBased) and "root:AlwaysOnSampler" in sampler.get_description()  # type: ignore[no-untyped-call]
    )


def configure_logging(level: str = "INFO") -> None:
    """The process's own messages go to stderr, a JSON line each."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[stream], force=True)
    # Uvicorn says each start and stop three times; the gateway says it once.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
