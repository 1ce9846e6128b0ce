"""A provider and an OTLP collector that cost next to nothing: `python -m bench.mock_upstream --port P`.

    POST .../chat/completions   a fixed reply, or with "stream": true, max_tokens events at --events-per-s
    POST .../embeddings         a fixed reply
    POST /v1/traces, /v1/metrics, /v1/logs   read, counted and thrown away
    GET  /health, /counts       `Counts` as JSON

The first event of a stream is sent at once, each later one at its fixed time after it, whatever delays there were.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import re
import time
from collections.abc import Iterator
from typing import cast

import httptools
import msgspec
import uvloop

from bench.payloads import STAMP_DIGITS, chat_event, chat_event_end, chat_reply, embeddings_reply

_MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')
_EVENT_HEAD, _EVENT_TAIL = chat_event("0" * STAMP_DIGITS).split(b"0" * STAMP_DIGITS)
_EVENT_BYTES = len(_EVENT_HEAD) + STAMP_DIGITS + len(_EVENT_TAIL)


class Counts(msgspec.Struct):
    """What arrived since the start. `spans` are those in OTLP trace exports, `otlp_bytes` their bodies."""

    requests: int = 0
    spans: int = 0
    otlp_requests: int = 0
    otlp_bytes: int = 0


def _head(content_type: bytes, length: int | None) -> bytes:
    """The response head of a provider, with the headers that a real one sends."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return (
        b"HTTP/1.1 200 OK\r\ndate: Mon, 10 Mar 2025 01:25:52 GMT\r\ncontent-type: %b\r\n%b\r\n"
        b"openai-organization: bench\r\nopenai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\n"
        b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n"
        b"x-request-id: req_4c2b8f0b8a5b4d0e9a40c8f6f0f7a0d1\r\n\r\n" % (content_type, framing)
    )


def _whole(body: bytes, content_type: bytes = b"application/json") -> bytes:
    return _head(content_type, len(body)) + body


_CHAT = _whole(chat_reply())
_EMBEDDINGS = _whole(embeddings_reply())
_STREAM_HEAD = _head(b"text/event-stream; charset=utf-8", None)
_ACCEPTED = _whole(b"", b"application/x-protobuf")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; OTLP has no others down to the spans."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        yield tag >> 3, data[at : at + size]
        at += size


def count_spans(export: bytes) -> int:
    """The spans in an ExportTraceServiceRequest: resource_spans (1) / scope_spans (2) / spans (2)."""
    return sum(
        1
        for outer, resource_spans in _fields(export)
        if outer == 1
        for middle, scope_spans in _fields(resource_spans)
        if middle == 2
        for inner, _ in _fields(scope_spans)
        if inner == 2
    )


class MockProvider(asyncio.Protocol):
    """One connection. httptools calls the on_* methods."""

    def __init__(self, counts: Counts, interval_s: float) -> None:
        self._counts = counts
        self._interval_s = interval_s
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._zipped = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if value == b"gzip" and name.lower() == b"content-encoding":
            self._zipped = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/chat/completions"):
            self._counts.requests += 1
            if _STREAM.search(self._body):
                self._begin_stream()
            else:
                self._transport.write(_CHAT)
        elif self._url.endswith(b"/embeddings"):
            self._counts.requests += 1
            self._transport.write(_EMBEDDINGS)
        elif self._url in (b"/v1/traces", b"/v1/metrics", b"/v1/logs"):
            self._discard_export()
        else:
            self._transport.write(_whole(json.dumps(msgspec.to_builtins(self._counts)).encode()))

    def _discard_export(self) -> None:
        self._counts.otlp_requests += 1
        self._counts.otlp_bytes += len(self._body)
        if self._url == b"/v1/traces":
            self._counts.spans += count_spans(gzip.decompress(self._body) if self._zipped else self._body)
        self._transport.write(_ACCEPTED)

    def _begin_stream(self) -> None:
        asked = _MAX_TOKENS.search(self._body)
        self._left = int(asked.group(1)) if asked else 100
        self._due_s = self._loop.time()
        self._transport.write(_STREAM_HEAD)
        self._send_event()

    def _send_event(self) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            end = chat_event_end()
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
            return
        self._left -= 1
        stamp = b"%0*d" % (STAMP_DIGITS, time.monotonic_ns())
        self._transport.write(b"%x\r\n%b%b%b\r\n" % (_EVENT_BYTES, _EVENT_HEAD, stamp, _EVENT_TAIL))
        self._due_s += self._interval_s
        self._timer = self._loop.call_at(self._due_s, self._send_event)


async def serve(port: int, events_per_s: float) -> None:
    """Serve until the process is ended."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: MockProvider(counts, 1 / events_per_s), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve on the port of the command line."""
    parser = argparse.ArgumentParser(prog="bench.mock_upstream", description="A mock provider and OTLP sink.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--events-per-s", type=float, default=50.0)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.events_per_s))


if __name__ == "__main__":
    main()
