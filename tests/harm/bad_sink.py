"""An OTLP/HTTP collector in a process of its own that behaves as MODE says, and counts what it took.

    python -m tests.harm.bad_sink MODE     # prints its port

GET /taken answers with the number of spans in exports that it answered with success.
"""

import asyncio
import re
import sys
import zlib
from collections.abc import Callable
from typing import cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from bench.mock_upstream import count_spans

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SLOW_S = 2.0
PARTIAL = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=1)).SerializeToString()
"""Of each batch, one span is not kept."""


def answer(
    status: str, body: bytes = b"", content_type: str = "application/x-protobuf", length: int | None = None
) -> bytes:
    """An HTTP answer; `length` may lie about the body's."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {size}\r\n\r\n".encode() + body


ANSWERS = {
    "take": answer("200 OK"),
    "slow": answer("200 OK"),
    "html": answer("200 OK", b"<html>hello</html>", "text/html"),
    "partial": answer("200 OK", PARTIAL),
    "http-500": answer("500 Internal Server Error", b"\x00\xff garbage"),
    "http-400": answer("400 Bad Request", b"no"),
    "http-503": answer("503 Service Unavailable"),
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
    "truncated": answer("200 OK", b"cut", length=1000),
    "other-protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "endless": answer("200 OK", length=1 << 40),
}
MODES = (*ANSWERS, "frozen", "silent")
TAKES = frozenset({"take", "slow", "html", "partial"})


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, mode: str, took: Callable[[int], None], taken: Callable[[], int]) -> None:
        self._mode = mode
        self._took = took
        self._taken = taken
        self._received = b""
        self._endless: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._endless is not None:
            self._endless.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and head.startswith(b"GET "):
            self._received = b""
            self._transport.write(answer("200 OK", str(self._taken()).encode(), "text/plain"))
            return
        if self._mode == "frozen":
            self._transport.pause_reading()
            return
        length = _LENGTH.search(head + b"\r\n")
        if not end or length is None or len(body) < int(length[1]):
            return
        self._received = b""
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if self._mode == "silent":
            return
        if self._mode in TAKES and b"/v1/traces" in head:
            zipped = b"content-encoding: gzip" in head.lower()
            spans = count_spans(zlib.decompress(body, 31) if zipped else body)
            self._took(spans - (self._mode == "partial"))
        if self._mode == "slow":
            asyncio.get_running_loop().call_later(_SLOW_S, self._transport.write, ANSWERS["slow"])
            return
        self._transport.write(ANSWERS[self._mode])
        if self._mode == "endless":
            self._endless = asyncio.create_task(self._go_on())
        elif self._mode in {"truncated", "other-protocol"}:
            self._transport.close()

    async def _go_on(self) -> None:
        while True:
            self._transport.write(b"x" * 65_536)
            await self._writable.wait()
            await asyncio.sleep(0)


async def serve(mode: str) -> None:
    """Serve until the process is ended."""
    taken = 0

    def took(spans: int) -> None:
        nonlocal taken
        taken += spans

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(mode, took, lambda: taken), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
