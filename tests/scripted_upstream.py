"""A provider's HTTP server for tests: real TCP, scripted replies, able to misbehave.

Invariant: nothing here sleeps. Whatever a test must order in time is ordered by an ``asyncio.Event``: a gate in a
stream, `Reply.peer_left`, `ScriptedUpstream.until`. The HTTP/1.1 framing is written by hand, because a library would
refuse to produce the broken replies that the gateway has to survive.

    async with ScriptedUpstream() as upstream:
        upstream.script(openai_error(429), openai_chat(text="hi"))
        ...  # call the gateway, whose provider's base URL is upstream.url + "/v1"
        assert upstream.requests[1].json()["model"] == "m"

Canned replies in OpenAI's shapes are in `tests.openai_replies`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

from tests.replies import (
    BytesReply,
    GarbageReply,
    HangupReply,
    Header,
    PeerLeftError,
    RecordedRequest,
    Reply,
    ReplySource,
    SilentReply,
    StreamReply,
    Wire,
    gzip_reply,
    huge_headers,
    json_reply,
    redirect,
)

__all__ = [
    "BytesReply",
    "GarbageReply",
    "HangupReply",
    "Header",
    "RecordedRequest",
    "Reply",
    "ReplySource",
    "ScriptedUpstream",
    "SilentReply",
    "StreamReply",
    "gzip_reply",
    "huge_headers",
    "json_reply",
    "redirect",
]

_WAIT_S = 30.0
_HEAD_LIMIT_BYTES = 1 << 24


class _Connection(asyncio.Protocol):
    """One accepted connection: requests are parsed and answered one after the other."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._reader = asyncio.StreamReader(limit=_HEAD_LIMIT_BYTES)
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.number = self._upstream._opened(self)
        self.task = asyncio.ensure_future(self._serve())

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def eof_received(self) -> bool:
        self._left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        self._upstream._closed(self)

    def _left(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._reader.feed_eof()

    async def _serve(self) -> None:
        try:
            while (request := await self._read_request()) is not None:
                closing = (request.header("connection") or "").lower() == "close"
                wire = Wire(self.transport, self.gone, closing)
                await self._answer(request, wire)
                if not wire.keep_alive:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.transport.close()

    async def _answer(self, request: RecordedRequest, wire: Wire) -> None:
        reply = self._upstream._next_reply(request)
        reply.started.set()
        try:
            await reply.send(wire)
        except PeerLeftError:
            wire.keep_alive = False
            reply.peer_left.set()
            request.peer_left.set()
        else:
            reply.finished.set()

    async def _read_request(self) -> RecordedRequest | None:
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        by_name = dict(headers)
        body = b""
        if by_name.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")
        elif length := int(by_name.get("content-length", "0")):
            body = await self._reader.readexactly(length)
        parts = urlsplit(target)
        return RecordedRequest(method, parts.path, parts.query, headers, body, self.number)


class ScriptedUpstream:
    """The server. Every request is recorded; replies come from `script` first, then from `always`.

    With neither, the reply is a 500 that says so, hence a surplus hit shows in the caller and in `surplus`. An
    exception inside a reply function is answered with a 500 and raised again when the server is left.
    """

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self.requests: list[RecordedRequest] = []
        self.surplus = 0
        self.connections = 0
        self._open: set[_Connection] = set()
        self._script: deque[ReplySource] = deque()
        self._always: ReplySource | None = None
        self._changed = asyncio.Event()
        self._failures: list[Exception] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self._host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'http' if self._tls is None else 'https'}://{host}:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        tasks = [connection.task for connection in self._open]
        for connection in list(self._open):
            connection.task.cancel()
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.until(lambda up: not up._open, "connections closed")
        await self._server.wait_closed()
        if self._failures and error is None:
            raise self._failures[0]

    def script(self, *replies: ReplySource) -> None:
        """Queue replies, one for each request to come; a function gets the request and returns the reply."""
        self._script.extend(replies)

    def always(self, reply: ReplySource) -> None:
        """The reply to every request for which nothing is queued."""
        self._always = reply

    @property
    def hits(self) -> int:
        """Requests that have arrived in full."""
        return len(self.requests)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def until(self, condition: Callable[[Self], bool], what: str = "the condition") -> None:
        """Wait until `condition(self)` holds, checked whenever a request arrives or a connection opens or closes.

        AssertionError after 30 s.
        """
        try:
            async with asyncio.timeout(_WAIT_S):
                while not condition(self):
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"upstream: {what} did not come true within {_WAIT_S:.0f} s") from None

    async def wait_requests(self, count: int = 1) -> None:
        """Wait until `count` requests have arrived in full."""
        await self.until(lambda up: up.hits >= count, f"{count} request(s)")

    async def wait_closed_connection(self, count: int = 1) -> None:
        """Wait until `count` of the opened connections are closed."""
        await self.until(lambda up: up.connections - up.open_connections >= count, f"{count} closed connection(s)")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _opened(self, connection: _Connection) -> int:
        self._open.add(connection)
        self.connections += 1
        self._tell()
        return self.connections - 1

    def _closed(self, connection: _Connection) -> None:
        self._open.discard(connection)
        self._tell()

    def _next_reply(self, request: RecordedRequest) -> Reply:
        self.requests.append(request)
        self._tell()
        source = self._script.popleft() if self._script else self._always
        if source is None:
            self.surplus += 1
            message = f"scripted upstream: no reply left for request {self.hits}: {request.method} {request.path}"
            return json_reply({"error": {"message": message, "type": "surplus_request"}}, status=500)
        if isinstance(source, Reply):
            return source
        try:
            return source(request)
        except Exception as error:
            self._failures.append(error)
            return json_reply({"error": {"message": f"scripted upstream: {error!r}"}}, status=500)
