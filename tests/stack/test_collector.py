"""The shipped collector configuration in a real collector: what goes in, what is kept, and what it no longer says.

`make collector` builds the collector from its published modules into build/; without Go these tests are skipped.
"""

import asyncio
import gzip
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from otel.stack import find
from tests.servers import missing

pytestmark = pytest.mark.stack
CONFIG = Path(__file__).parents[2] / "otel" / "collector" / "config.yaml"
SECOND_NS = 1_000_000_000
START_NS = 1_800_000_000 * SECOND_NS
_WAIT_S = 30.0
HOST = "127.0.0.77"
"""An address of the loopback that no other collector on this machine listens on."""


@pytest.fixture
def program() -> str:
    """The collector's program."""
    found = find(("otelcol-gaugeway",))
    if found is None and shutil.which("go") is None:
        pytest.skip("there is no collector, and no Go to build it (make collector)")
    if found is None:
        missing("there is no collector; make collector builds it")
    return found


def _span(
    number: int,
    name: str,
    attributes: Mapping[str, str | int] | None = None,
    *,
    seconds: float = 0.2,
    error: bool = False,
) -> ResourceSpans:
    values = [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in (attributes or {}).items()
    ]
    span = Span(
        trace_id=number.to_bytes(16, "big"),
        span_id=(number % 2**63).to_bytes(8, "big"),
        name=name,
        start_time_unix_nano=START_NS,
        end_time_unix_nano=START_NS + int(seconds * SECOND_NS),
        attributes=values,
        status=Status(code=Status.STATUS_CODE_ERROR) if error else Status(),
    )
    return ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])


class Backend:
    """Takes what the collector exports over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self.counts: Counter[str] = Counter()
        self.lines: Queue[LogRecord] = Queue()
        self._new: Queue[Span] = Queue()

    def take(self, path: str, body: bytes) -> None:
        """Keep the spans or the log lines of one request."""
        if path == "/v1/logs":
            for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                for lines in logs.scope_logs:
                    for line in lines.log_records:
                        self.lines.put(line)
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._new.put(span)

    async def until(self, names: set[str]) -> None:
        """Wait until spans of these names have come; AssertionError after 30 s."""
        deadline = asyncio.get_running_loop().time() + _WAIT_S
        while not names <= set(self.spans):
            try:
                span = await asyncio.to_thread(self._new.get, True, 1.0)
                self.spans[span.name] = span
                self.counts[span.name] += 1
            except Empty:
                assert asyncio.get_running_loop().time() < deadline, f"only {sorted(self.spans)} came"


@asynccontextmanager
async def running_backend() -> AsyncIterator[tuple[Backend, str]]:
    """A backend on a free port, and its address."""
    backend = Backend()

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            backend.take(self.path, gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Not worth a line."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receive) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield backend, f"http://127.0.0.1:{server.server_port}"
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()


@asynccontextmanager
async def running_collector(program: str, folder: Path, backend_url: str) -> AsyncIterator[str]:
    """The collector with the shipped file, deciding after a second; its OTLP/HTTP address."""
    environment = {
        **os.environ,
        "COLLECTOR_HOST": HOST,
        "TRACES_EXPORTER": "otlp_http/other",
        "LOGS_EXPORTER": "otlp_http/other",
        "OTLP_HTTP_ENDPOINT": backend_url,
        "SAMPLING_WAIT": "1s",
    }
    process = await asyncio.to_thread(_start, [program, "--config", str(CONFIG)], environment, folder / "collector.log")
    try:
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(_WAIT_S):
            while True:
                assert process.poll() is None, await asyncio.to_thread((folder / "collector.log").read_text, "utf-8")
                try:
                    if (await client.get(f"http://{HOST}:13133/")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        yield f"http://{HOST}:4318"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _start(command: list[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def test_the_collector_accepts_the_file(program: str) -> None:
    """`validate` finds no fault, with each of the exporters that the file offers."""
    for exporter in ("otlp_grpc/tempo", "otlp_http/other", "otlp_http/loki", "debug"):
        variable = "LOGS_EXPORTER" if exporter.endswith("loki") else "TRACES_EXPORTER"
        environment = {**os.environ, variable: exporter}
        command = [program, "validate", "--config", str(CONFIG)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


_TALKATIVE = {
    "route": "chat",
    "note": "ask jane.doe@example.com, key sk-abcdefghijklmnopqrstuv",
    "api_key": "very-secret-value",
}


async def test_what_matters_is_kept_and_secrets_are_not(program: str, tmp_path: Path) -> None:
    """Errors, slow, expensive and retried requests all pass; of a thousand others few do; no key or address is left."""
    # Sampling by probability takes the randomness from the trace id.
    rng = random.Random(20_260_101)
    ordinary = [_span(rng.getrandbits(127) + 1_000, "ordinary") for _ in range(1_000)]
    wanted = [
        _span(1, "error", error=True),
        _span(2, "slow", seconds=25),
        _span(3, "expensive", {"gateway.cost.nano_usd": 200_000_000}),
        _span(4, "retried", {"gateway.attempts": 2}),
        _span(5, "talkative", _TALKATIVE, error=True),
    ]
    async with running_backend() as (backend, url), running_collector(program, tmp_path, url) as endpoint:
        body = ExportTraceServiceRequest(resource_spans=[*ordinary, *wanted]).SerializeToString()
        async with httpx.AsyncClient(trust_env=False) as client:
            reply = await client.post(
                f"{endpoint}/v1/traces", content=body, headers={"content-type": "application/x-protobuf"}
            )
        assert reply.status_code == 200, reply.text
        await backend.until({"error", "slow", "expensive", "retried", "talkative", "ordinary"})
    assert backend.counts["ordinary"] < 150
    talkative = {one.key: one.value.string_value for one in backend.spans["talkative"].attributes}
    assert talkative["route"] == "chat"
    assert not any(secret in str(talkative) for secret in ("jane.doe", "sk-abc", "very-secret"))


async def test_log_lines_pass_without_secrets(program: str, tmp_path: Path) -> None:
    """A log line comes through with its trace and fields; a key or an address in its text or its fields does not."""
    fields = [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in _TALKATIVE.items()]
    body = AnyValue(string_value=_TALKATIVE["note"])
    line = LogRecord(time_unix_nano=START_NS, body=body, attributes=fields, trace_id=b"t" * 16)
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[line])])])
    async with running_backend() as (backend, url), running_collector(program, tmp_path, url) as endpoint:
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"content-type": "application/x-protobuf"}
            reply = await client.post(f"{endpoint}/v1/logs", content=request.SerializeToString(), headers=headers)
        assert reply.status_code == 200, reply.text
        came = await asyncio.to_thread(backend.lines.get, True, _WAIT_S)
    said = {one.key: one.value.string_value for one in came.attributes}
    assert (came.trace_id, said["route"]) == (b"t" * 16, "chat")
    for secret in ("jane.doe", "sk-abc", "very-secret"):
        assert secret not in f"{came.body.string_value} {said}"
