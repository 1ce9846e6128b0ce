"""HTTP/1.1 by hand, for requests that no client library would send."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

_WAIT_S = 10.0


@dataclass(frozen=True)
class RawReply:
    """What came back: the status, the header lines as (lower-case name, value), and the body as framed by its length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


class RawConnection:
    """One TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self, *, bodiless: bool = False) -> RawReply:
        """The next reply; `bodiless` for the answer to HEAD. EOFError when the server hung up instead."""
        async with asyncio.timeout(_WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")
            first, *lines = head.split("\r\n")
            headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
            length = int(dict(headers).get("content-length", "0"))
            body = b"" if bodiless else await self.reader.readexactly(length)
        return RawReply(int(first.split(" ")[1]), headers, body)

    def leave(self) -> None:
        """Break the connection off."""
        self._writer.transport.abort()


@asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator[RawConnection]:
    """Connect to the server of a URL."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    connection = RawConnection(reader, writer)
    try:
        yield connection
    finally:
        connection.leave()


def request_head(method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A request's head with its blank line; only Host is added."""
    lines = [f"{method} {target} HTTP/1.1", "host: gateway", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
