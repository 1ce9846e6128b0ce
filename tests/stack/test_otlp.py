"""All signals through a real collector, over HTTP and over gRPC: what the gateway says it exported is what comes out."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import TelemetryFile
from gateway.telemetry import names
from gateway.telemetry.setup import Telemetry, TraceExport
from otel.stack import find
from tests.clocks import ManualClock
from tests.collector import Collector, attributes_of, running_collector
from tests.servers import missing
from tests.stack.processes import free_port
from tests.telemetry import facts

pytestmark = pytest.mark.stack
REQUESTS = 200
CONFIG = """\
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  otlp_http:
    endpoint: {backend}
    sending_queue: {{enabled: false}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [otlp_http]}}
    logs: {{receivers: [otlp], exporters: [otlp_http]}}
"""


@pytest.fixture
def program() -> str:
    """The collector's program."""
    found = find(("otelcol-gaugeway",))
    if found is None and shutil.which("go") is None:
        pytest.skip("there is no collector, and no Go to build it (make collector)")
    if found is None:
        missing("there is no collector; make collector builds it")
    return found


@contextmanager
def passing_on(program: str, folder: Path, backend: str) -> Iterator[dict[str, int]]:
    """A collector that passes everything on; its ports by protocol."""
    ports = {"http": free_port(), "grpc": free_port()}
    config = folder / "collector.yaml"
    config.write_text(CONFIG.format(backend=backend, **ports))
    # It says on standard error when it is ready.
    with subprocess.Popen([program, "--config", str(config)], stderr=subprocess.PIPE, text=True) as collector:
        assert collector.stderr is not None
        said = []
        try:
            for line in collector.stderr:
                said.append(line)
                if "Everything is ready" in line:
                    break
            else:
                raise AssertionError("".join(said))
            yield ports
        finally:
            collector.kill()


def points(collector: Collector, name: str) -> list[float]:
    """The values of a counter's series in the last export that has it."""
    for request in reversed(collector.metrics):
        for group in request.resource_metrics:
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        return [point.as_double for point in metric.sum.data_points]
    return []


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_real_collector_gets_every_signal(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, compression: str
) -> None:
    """Spans, log records and metrics of 200 requests arrive, each once, with the resource that the variables name."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with running_collector() as backend, passing_on(program, tmp_path, backend.url) as ports:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports[protocol.partition('/')[0]]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "5000",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_SERVICE_NAME": "edge",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        telemetry = Telemetry(
            TelemetryFile(), TraceExport.OTLP, ManualClock(), random.Random(1), log_descriptor=nowhere
        )
        for number in range(REQUESTS):
            telemetry.observer.publish(facts.request(request_id=f"req_{number}"))
        await asyncio.to_thread(telemetry.close)
        os.close(nowhere)
        assert telemetry.metrics.counter(names.SPANS_EXPORTED).value == 3 * REQUESTS
        assert telemetry.metrics.counter(names.LOG_LINES_WRITTEN, "otlp_logs").value == REQUESTS
    assert len(backend.spans) == 3 * REQUESTS
    records = [
        record for request in backend.logs for group in request.resource_logs
        for scope in group.scope_logs for record in scope.log_records
    ]  # fmt: skip
    assert {attributes_of(record)["request_id"] for record in records} == {f"req_{n}" for n in range(REQUESTS)}
    assert len(records) == REQUESTS
    assert sum(points(backend, names.REQUESTS.name)) == REQUESTS
    resources: list[Any] = [group.resource for request in backend.logs for group in request.resource_logs]
    resources += [group.resource for request in backend.metrics for group in request.resource_metrics]
    told = [attributes_of(resource) for resource in resources]
    assert {(one["service.name"], one["deployment.environment.name"]) for one in told} == {("edge", "prod")}
