"""The replies that `tests.scripted_upstream` can give: well-formed, slow, cut short, or no HTTP at all.

Invariant: a reply writes its own framing, byte for byte, and waits only for events.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Header = tuple[str, str]
Framing = Literal["chunked", "length", "close"]


class PeerLeftError(Exception):
    """The caller closed its connection before the reply was complete."""


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived. `headers` keeps order and repeats; names are lower case."""

    method: str
    path: str
    query: str
    headers: tuple[Header, ...]
    body: bytes
    connection: int
    """Which connection brought it, counted from 0: equal numbers mean keep-alive."""
    peer_left: asyncio.Event = field(default_factory=asyncio.Event, compare=False)
    """Set when the caller disconnected before the reply to this request was complete."""

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        """The body decoded; ValueError when it is not JSON."""
        return json.loads(self.body)


class Wire:
    """What a reply writes to: one connection, for the time of one exchange."""

    def __init__(self, transport: asyncio.Transport, gone: asyncio.Event, closing: bool) -> None:
        self._transport = transport
        self._gone = gone
        self.keep_alive = not closing

    def write(self, data: bytes) -> None:
        """Hand bytes to the kernel; PeerLeftError when nobody is there to read them."""
        if self._gone.is_set():
            raise PeerLeftError
        self._transport.write(data)

    @property
    def waiting_bytes(self) -> int:
        """What was written and does not fit into the kernel's buffers."""
        return self._transport.get_write_buffer_size()

    async def wait(self, gate: asyncio.Event | None) -> None:
        """Wait for a gate, or for ever when it is None; PeerLeftError as soon as the caller disconnects."""
        left = asyncio.ensure_future(self._gone.wait())
        opened = asyncio.ensure_future(gate.wait()) if gate is not None else None
        waiting = {left} if opened is None else {left, opened}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if self._gone.is_set() and (gate is None or not gate.is_set()):
            raise PeerLeftError

    def close(self, *, reset: bool = False) -> None:
        """Drop the connection: FIN after what was written, or RST, which may destroy what the peer has not read."""
        self.keep_alive = False
        if reset:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()


class Reply:
    """One scripted reply. Subclasses write themselves to a `Wire`; the events tell a test where the exchange stands."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        """Set when the request has arrived and this reply begins."""
        self.finished = asyncio.Event()
        """Set when all of the reply was written."""
        self.peer_left = asyncio.Event()
        """Set when the caller disconnected before the reply was complete."""

    async def send(self, wire: Wire) -> None:
        """Write the reply; raises PeerLeftError when the caller went away."""
        raise NotImplementedError


ReplySource = Reply | Callable[[RecordedRequest], Reply]


def head(status: int, headers: Sequence[Header]) -> bytes:
    """A response head with its blank line; no header is added or checked."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


class BytesReply(Reply):
    """A whole body with a content-length. `hold` delays all of it, `hold_headers` all after the status line."""

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: Sequence[Header] = (),
        content_type: str | None = "application/json",
        hold: asyncio.Event | None = None,
        hold_headers: asyncio.Event | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.status = status
        typed: list[Header] = [("content-type", content_type)] if content_type is not None else []
        self.headers: tuple[Header, ...] = (*typed, ("content-length", str(len(body))), *headers)
        self._hold = hold
        self._hold_headers = hold_headers

    async def send(self, wire: Wire) -> None:
        if self._hold is not None:
            await wire.wait(self._hold)
        whole = head(self.status, self.headers) + self.body
        if self._hold_headers is not None:
            end = whole.index(b"\r\n") + 2
            wire.write(whole[:end])
            await wire.wait(self._hold_headers)
            whole = whole[end:]
        wire.write(whole)


class StreamReply(Reply):
    """A body in pieces. An ``asyncio.Event`` among the pieces is a gate: what follows waits for it.

    `cut_after=k` drops the connection after the k-th piece of bytes (0: right after the headers), by FIN, or by RST
    with `reset`; `terminated=False` leaves out the terminating chunk and closes. Pieces may reach the peer joined
    unless a gate is between them.
    """

    def __init__(
        self,
        pieces: Sequence[bytes | asyncio.Event],
        *,
        status: int = 200,
        headers: Sequence[Header] = (),
        content_type: str | None = "text/event-stream",
        framing: Framing = "chunked",
        cut_after: int | None = None,
        reset: bool = False,
        terminated: bool = True,
    ) -> None:
        super().__init__()
        self.pieces = tuple(pieces)
        self.status = status
        self._chunked = framing == "chunked"
        self._cut_after = cut_after
        self._reset = reset
        self._close = not terminated or framing == "close"
        self._terminated = terminated
        length = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        framed: dict[Framing, tuple[Header, ...]] = {
            "chunked": (("transfer-encoding", "chunked"),),
            "length": (("content-length", str(length)),),
            "close": (("connection", "close"),),
        }
        typed: list[Header] = [("content-type", content_type)] if content_type is not None else []
        self.headers: tuple[Header, ...] = (*typed, *framed[framing], *headers)

    async def send(self, wire: Wire) -> None:
        wire.write(head(self.status, self.headers))
        sent = 0
        for piece in self.pieces:
            if sent == self._cut_after:
                break
            if isinstance(piece, asyncio.Event):
                await wire.wait(piece)
                continue
            wire.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            sent += 1
        if sent == self._cut_after:
            wire.close(reset=self._reset)
            return
        if self._chunked and self._terminated:
            wire.write(b"0\r\n\r\n")
        if self._close:
            wire.close()


class GarbageReply(Reply):
    """Bytes that are not HTTP, then the connection is closed."""

    def __init__(self, data: bytes = b"\x00\x01SSH-2.0-not-http\r\n\r\n") -> None:
        super().__init__()
        self.data = data

    async def send(self, wire: Wire) -> None:
        wire.write(self.data)
        wire.close()


class HangupReply(Reply):
    """The connection is dropped without a byte, by FIN or by RST."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self._reset = reset

    async def send(self, wire: Wire) -> None:
        wire.close(reset=self._reset)


class SilentReply(Reply):
    """No answer until `until` is set, then the connection is closed; without `until`, never."""

    def __init__(self, until: asyncio.Event | None = None) -> None:
        super().__init__()
        self._until = until

    async def send(self, wire: Wire) -> None:
        await wire.wait(self._until)
        wire.close()


def json_reply(
    value: object, *, status: int = 200, headers: Sequence[Header] = (), hold: asyncio.Event | None = None
) -> BytesReply:
    """A JSON body."""
    return BytesReply(json.dumps(value).encode(), status=status, headers=headers, hold=hold)


def gzip_reply(body: bytes, *, content_type: str = "application/json") -> BytesReply:
    """A body with content-encoding gzip."""
    return BytesReply(gzip.compress(body), headers=[("content-encoding", "gzip")], content_type=content_type)


def redirect(location: str, *, status: int = 307) -> BytesReply:
    """A redirect, which no provider has cause to send."""
    return BytesReply(b"", status=status, headers=[("location", location)], content_type=None)


def huge_headers(size_bytes: int, body: bytes = b"{}") -> BytesReply:
    """A reply with one header value of `size_bytes`."""
    return BytesReply(body, headers=[("x-padding", "x" * size_bytes)])
