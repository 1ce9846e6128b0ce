"""An export over HTTP ends, whatever the other end answers, and only what was taken counts as taken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from gateway.telemetry.exporters import transport
from gateway.telemetry.transport import LONGEST_ANSWER_BYTES, BoundedTransport, rejected
from gateway.telemetry.variables import Signal

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n"
BODY = b"some spans"
Script = Callable[[socket.socket], None]


@contextmanager
def answering(script: Script) -> Iterator[str]:
    """A server that does `script` with each connection for each request; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        request = b""
                        while data := connection.recv(65536):
                            request += data
                            if request.endswith(BODY):
                                request = b""
                                script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/traces"
        listening.shutdown(socket.SHUT_RDWR)


def post(url: str, timeout_s: float = 5.0) -> tuple[BoundedTransport, int | None, Exception | None]:
    """Export some bytes."""
    bounded = BoundedTransport(verify=True, cert=None, proxy=None)
    result = bounded.request("POST", url, data=BODY, timeout=timeout_s)
    bounded.close()
    return bounded, result.status_code, result.error


def test_an_answer_is_read_whole() -> None:
    """Status and body of an ordinary answer, chunked or not."""
    answers = iter(
        [HEAD + b"content-length: 3\r\n\r\nabc", HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
    )
    with answering(lambda connection: connection.sendall(next(answers))) as url:
        for _ in range(2):
            bounded, status, error = post(url)
            assert (bounded.answer, status, error) == (b"abc", 200, None)


def test_connections_are_kept() -> None:
    """Two exports of one transport use one connection."""
    seen: set[tuple[str, int]] = set()

    def script(connection: socket.socket) -> None:
        seen.add(connection.getpeername())
        connection.sendall(HEAD + b"content-length: 0\r\n\r\n")

    with answering(script) as url:
        bounded = BoundedTransport(verify=True, cert=None, proxy=None)
        for _ in range(3):
            assert bounded.request("POST", url, data=BODY, timeout=5.0).status_code == 200
        bounded.close()
    assert len(seen) == 1


def test_an_endless_answer_ends() -> None:
    """However much comes, no more than a little is read, and it is no success."""

    def script(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"content-length: 1000000000000\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with answering(script) as url:
        bounded, status, error = post(url)
    assert status is None
    assert "does not end" in str(error)
    assert len(bounded.answer) <= LONGEST_ANSWER_BYTES


def test_a_trickling_answer_ends() -> None:
    """A byte now and then keeps no export busy beyond its timeout."""
    left = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"content-length: 1000000\r\n\r\n")
        while not left.wait(0.01):
            connection.sendall(b"x")

    with answering(script) as url:
        _, status, error = post(url, timeout_s=0.2)
        left.set()
    assert status is None
    assert "in time" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        HEAD + b"content-length: 100\r\n\r\ncut",
        HEAD + b"transfer-encoding: chunked\r\n\r\nnot a size\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: https://login.example/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ],
    ids=["hung up", "cut head", "another protocol", "cut body", "wrong chunks", "redirect", "not modified"],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    """A broken answer is no success, nor is a redirect, which the SDK would count as one."""

    def script(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    with answering(script) as url:
        _, status, error = post(url)
    assert status is None
    assert error is not None


def test_what_was_rejected_is_read() -> None:
    """A collector may take a batch in part, and says how much of it; garbage says nothing."""
    partial = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=7))
    assert rejected(partial.SerializeToString()) == 7
    assert rejected(b"") == 0
    assert rejected(b"<html>no protobuf</html>") == 0


def test_a_proxy_is_used_where_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export goes to the proxy, which is told the whole URL; not for addresses that need none."""

    def script(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"content-length: 0\r\n\r\n")

    with answering(script) as url:
        proxy = url.removesuffix("/v1/traces")
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "near.example")
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far.example:4318"}
        far = transport(Signal.TRACES, environment)
        assert far is not None
        assert far.request("POST", "http://far.example:4318/v1/traces", data=BODY, timeout=5.0).status_code == 200
        far.close()
        near = transport(Signal.TRACES, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://near.example:4318"})
        assert near is not None
        assert near._pool.proxy is None


def test_a_credential_provider_brings_its_own_transport() -> None:
    """Ours is not put in its place."""
    assert transport(Signal.TRACES, {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "gcp"}) is None
    assert transport(Signal.TRACES, {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": "gcp"}) is None
    assert transport(Signal.LOGS, {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": "gcp"}) is not None
