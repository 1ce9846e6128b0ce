"""An OTLP/HTTP collector in the test process: it keeps what it gets, or fails in the ways that collectors fail."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What has come in, by signal. `status` and `hold` decide how the next exports are answered."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """(path, headers by lower-case name, body with its encoding undone)."""
        self.status = 200
        self.body = b""
        self.arrived = threading.Event()
        self.go = threading.Event()
        """While it is not set, exports wait for their answer."""
        self.go.set()

    @property
    def spans(self) -> list[Span]:
        """All spans, in order of arrival."""
        return [
            span
            for path, _, body in self.requests
            if path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def logs(self) -> list[ExportLogsServiceRequest]:
        """All exports of logs."""
        return [ExportLogsServiceRequest.FromString(body) for path, _, body in self.requests if path == "/v1/logs"]

    @property
    def metrics(self) -> list[ExportMetricsServiceRequest]:
        """All exports of metrics."""
        return [
            ExportMetricsServiceRequest.FromString(body) for path, _, body in self.requests if path == "/v1/metrics"
        ]


def value_of(value: AnyValue) -> Any:
    """An attribute's value as Python's."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes_of(thing: Any) -> dict[str, Any]:
    """The attributes of a span, a log record or a resource."""
    return {attribute.key: value_of(attribute.value) for attribute in thing.attributes}


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port of the loopback."""
    collector = Collector()

    class Take(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.arrived.set()
            collector.go.wait()
            if collector.status == 200:
                collector.requests.append((self.path, headers, body))
            self.send_response(collector.status)
            self.send_header("content-length", str(len(collector.body)))
            self.end_headers()
            self.wfile.write(collector.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A gateway that has given up an export is no error of the collector."""

    with Server(("127.0.0.1", 0), Take) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield collector
        finally:
            collector.go.set()
            server.shutdown()
            thread.join()
