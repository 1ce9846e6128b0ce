"""Where signals go: by the standard variables, over HTTP or gRPC, and what becomes of them when the collector fails."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from gateway.config.schema import TelemetryFile
from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.exporters import protocol
from gateway.telemetry.metric import Metric
from gateway.telemetry.readings import read
from gateway.telemetry.request_observation import observe_request
from gateway.telemetry.setup import Telemetry, TraceExport, trace_export
from gateway.telemetry.variables import Signal, VariableError, metric_interval_s
from gateway.types.errors import ErrorType
from tests.clocks import ManualClock
from tests.collector import Collector, attributes_of
from tests.telemetry import facts

FILE = TelemetryFile()


@contextmanager
def telemetry(file: TelemetryFile = FILE, export: TraceExport = TraceExport.OTLP, **more: Any) -> Iterator[Telemetry]:
    """All signals, the request log to nowhere; closed at the end if it was not before."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    made = Telemetry(file, export, ManualClock(), random.Random(1), log_descriptor=nowhere, **more)
    try:
        yield made
    finally:
        made.close()
        os.close(nowhere)


def publish(made: Telemetry, count: int = 1) -> int:
    """Hand over `count` finished requests of three spans; how many spans that is."""
    for number in range(count):
        made.observer.publish(facts.request(request_id=f"req_{number}"))
    return 3 * count


def total(made: Telemetry, metric: Metric) -> float:
    """The sum of a counter's series."""
    return sum(series.values[0] for series in made.metrics.read().get(metric.name, {}).values())


# --- by the standard variables


@pytest.mark.parametrize(
    ("chosen", "environment", "expected"),
    [
        (None, {}, TraceExport.NONE),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, TraceExport.OTLP),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, TraceExport.OTLP),
        (None, {"OTEL_TRACES_EXPORTER": "console"}, TraceExport.CONSOLE),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, TraceExport.NONE),
        ("otlp", {"OTEL_TRACES_EXPORTER": "none"}, TraceExport.OTLP),
        ("otlp", {"OTEL_SDK_DISABLED": "true"}, TraceExport.NONE),
    ],
)
def test_where_spans_go(chosen: str | None, environment: dict[str, str], expected: TraceExport) -> None:
    """The command line, then OTEL_TRACES_EXPORTER, then the presence of an endpoint decide."""
    assert trace_export(chosen, environment) is expected


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "carrier-pigeon", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_an_unknown_protocol_is_refused(environment: dict[str, str]) -> None:
    """The refusal names the variable and what it may be."""
    with pytest.raises(VariableError, match=r"OTEL_EXPORTER_OTLP_.*PROTOCOL .* http/protobuf, grpc"):
        protocol(Signal.TRACES, environment)


@pytest.mark.parametrize("value", ["0", "-5", "soon", "nan"])
def test_a_wrong_interval_is_refused(value: str) -> None:
    """An interval is a positive number of milliseconds."""
    with pytest.raises(VariableError, match="OTEL_METRIC_EXPORT_INTERVAL"):
        metric_interval_s({"OTEL_METRIC_EXPORT_INTERVAL": value})


def test_resource_attributes_of_the_environment_win(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES stand in the exported resource, before the configuration's name."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    with telemetry(TelemetryFile(service_name="file")) as made:
        publish(made)
    [(_, _, body)] = collector.requests
    request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
    resource = attributes_of(request.resource_spans[0].resource)
    assert resource["service.name"] == "edge"
    assert resource["deployment.environment.name"] == "prod"
    assert "service.version" in resource


def test_the_samplers_variables_decide_what_is_kept(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_TRACES_SAMPLER=parentbased_traceidratio keeps its share of the traces, whatever callers' flags say."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    with telemetry() as made:
        kept = 0
        for flags in ("00", "01") * 500:
            observation = observe_request(
                made.observer, method="POST", path_template="/x", scheme="http", server=("h", 1),
                traceparent=f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}",
            )  # fmt: skip
            with observation:
                kept += observation.trace.sampled
    assert 180 < kept < 320
    assert len(collector.spans) == kept


def test_what_a_collector_rejects_is_counted(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that takes batches in part: what it rejects counts as dropped, and the rest as exported."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=1)
    collector.body = trace_service_pb2.ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with telemetry() as made:
        spans = publish(made, 5)
        made.close()
        assert made.metrics.counter(names.SPANS_DROPPED, "rejected").value == 1
        assert made.metrics.counter(names.SPANS_EXPORTED).value == spans - 1
        assert made.metrics.counter(names.LOG_LINES_DROPPED, "otlp_logs", "rejected").value == 1
        assert made.metrics.counter(names.LOG_LINES_WRITTEN, "otlp_logs").value == 4


# --- grpc


class TraceService(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans_go_over_grpc_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gRPC collector gets the spans that an HTTP one gets."""
    service = TraceService()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        with telemetry() as made:
            publish(made, 2)
    finally:
        server.stop(None).wait()
    spans = [s for r in service.requests for g in r.resource_spans for c in g.scope_spans for s in c.spans]
    assert sorted(span.name for span in spans) == sorted(
        ["POST /gateway/{route}/invocations", "chat gpt-4o-mini", "POST"] * 2
    )


# --- metrics and logs


def test_pushed_metrics_are_the_scraped_ones(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTLP carries every family under the same name with the same labels and values, exemplars included."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    with telemetry(export=TraceExport.NONE) as made:
        made.observer.publish(facts.request(facts.streamed(), stream=True))
        made.observer.publish(facts.request(error_type=ErrorType.RATE_LIMITED, attempts=()))
    scraped = made.metrics.read()
    pushed = _points(collector.metrics[-1])
    expected: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {
        (name, tuple(zip(_labels(name), labels, strict=True))): series.values
        for name, family in scraped.items()
        for labels, series in family.items()
    }
    assert pushed == expected
    exemplars = {
        exemplar.trace_id.hex()
        for metric in _metrics(collector.metrics[-1])
        for point in metric.histogram.data_points
        for exemplar in point.exemplars
    }
    assert exemplars == {f"{facts.TRACE_ID:032x}"}


def _labels(name: str) -> tuple[str, ...]:
    [metric] = [metric for metric in names.CATALOGUE if metric.name == name]
    return metric.labels


def _metrics(request: ExportMetricsServiceRequest) -> list[Any]:
    return [metric for group in request.resource_metrics for scope in group.scope_metrics for metric in scope.metrics]


def _points(request: ExportMetricsServiceRequest) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for metric in _metrics(request):
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            labels = tuple(attributes_of(point).items())
            if kind == "histogram":
                found[metric.name, labels] = [point.sum, *map(float, point.bucket_counts)]
                assert point.count == sum(point.bucket_counts)
            else:
                assert kind == ("sum" if metric.name.endswith("_total") else "gauge")
                found[metric.name, labels] = [point.as_double]
    return found


def test_metrics_are_not_pushed_by_a_worker(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's supervisor pushes for all of them; a worker of its own would overwrite the others."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    block = Block.private()
    with telemetry(export=TraceExport.NONE, block=block) as made:
        publish(made)
    assert collector.requests == []
    assert names.REQUESTS.name in read(block)


def test_the_request_log_goes_by_otlp_too(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log record has the line's fields, and stands in the request's trace and span."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    with telemetry(export=TraceExport.NONE) as made:
        made.observer.publish(facts.request(error_type=ErrorType.PROVIDER_ERROR, status_code=502))
    [group] = collector.logs[0].resource_logs
    [record] = group.scope_logs[0].log_records
    assert record.trace_id.hex() == f"{facts.TRACE_ID:032x}"
    assert record.span_id.hex() == "b7ad6b7169203331"
    assert (record.severity_text, record.body.string_value) == ("ERROR", "request")
    assert record.time_unix_nano == facts.START_NS + 510_000_000
    found = attributes_of(record)
    assert found["error_type"] == "provider_error"
    assert found["status"] == 502
    assert "trace_id" not in found


# --- a collector that fails


def test_everything_arrives_at_a_healthy_collector(collector: Collector) -> None:
    """Every span of every request, once, and counted as exported."""
    with telemetry() as made:
        produced = publish(made, 500)
    assert len(collector.spans) == produced == total(made, names.SPANS_EXPORTED)
    assert total(made, names.SPANS_DROPPED) == 0


def test_a_frozen_collector_does_not_hold_the_end(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an export hangs, records are taken and the process ends; all spans are counted as lost."""
    monkeypatch.setattr("gateway.telemetry.setup.CLOSE_TIMEOUT_S", 0.2)
    collector.go.clear()
    with telemetry() as made:
        produced = publish(made, 100)
        assert collector.arrived.wait(10)
        produced += publish(made, 100)
        made.close()
        # It is frozen still: nothing here has waited for it.
        assert not collector.go.is_set()
        assert made.metrics.counter(names.SPANS_DROPPED, "shutdown").value == produced
        assert total(made, names.SPANS_EXPORTED) == 0
    monkeypatch.undo()


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_refusing_collector_is_a_counted_loss(collector: Collector, status: int) -> None:
    """Statuses that trying again cannot mend lose the batch, and say so by reason and by signal."""
    collector.status, collector.body = status, b"\x00garbage\xff"
    with telemetry() as made:
        produced = publish(made, 10)
    assert made.metrics.counter(names.SPANS_DROPPED, "export_failed").value == produced
    assert made.metrics.counter(names.EXPORT_ERRORS, "traces").value >= 1
    assert total(made, names.SPANS_EXPORTED) == 0


def test_garbage_for_an_answer_is_no_harm(collector: Collector) -> None:
    """A 200 with a body that is no protobuf counts as taken."""
    collector.body = b"\x00\x01<html>not protobuf</html>"
    with telemetry() as made:
        produced = publish(made, 10)
    assert total(made, names.SPANS_EXPORTED) == produced


def test_no_collector_at_all_is_a_counted_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody at the endpoint, the end does not wait for the retries, and all spans are lost and counted."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("gateway.telemetry.setup.CLOSE_TIMEOUT_S", 0.2)
    with telemetry() as made:
        produced = publish(made, 10)
        made.close()
        assert total(made, names.SPANS_DROPPED) == produced
    assert total(made, names.SPANS_EXPORTED) == 0


def test_no_request_waits_for_a_frozen_collector(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue full, taking a record still returns; what did not fit is counted as it happens."""
    monkeypatch.setattr("gateway.telemetry.setup.CLOSE_TIMEOUT_S", 0.2)
    collector.go.clear()
    with telemetry() as made:
        produced = publish(made, 10_000)
        full = made.metrics.counter(names.SPANS_DROPPED, "queue_full").value
        assert 0 < full < produced
        made.close()
        assert total(made, names.SPANS_DROPPED) == produced
