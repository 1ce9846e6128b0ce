"""The body of a caller's request: bounded, plain or packed by gzip."""

import asyncio
import zlib

from litestar.types import HTTPScope, Receive

from gateway.types.errors import ErrorType, RequestError

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The longest body, packed or not."""
_GZIP = b"\x1f\x8b"


async def read_body(receive: Receive, scope: HTTPScope) -> bytes:
    """The body, unpacked. Raises RequestError when it is too large, is no gzip, or its caller leaves before its end."""
    body, more = await _next_part(receive)
    if more:
        body = await _all_parts(body, receive, scope)
    # No JSON begins so: what a header says of the encoding need not be looked for.
    # Apart from the loop, since a small body may take a quarter of a second to unpack.
    return await asyncio.to_thread(_unpacked, body) if body.startswith(_GZIP) else body


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        # One byte more than allowed is enough to know: a small body may unpack to terabytes.
        unpacked = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise RequestError(ErrorType.INVALID_JSON, "The request's body is neither JSON nor gzip.") from None
    _check_size(len(unpacked))
    if not unpacker.eof:
        raise RequestError(ErrorType.INVALID_JSON, "The request's body is cut short in the middle of its gzip.")
    return unpacked


async def _all_parts(first: bytes, receive: Receive, scope: HTTPScope) -> bytes:
    # Only large bodies come in parts: who announces too large a one need not send it.
    _check_size(_announced_bytes(scope))
    parts = [first]
    size = len(first)
    more = True
    while more:
        part, more = await _next_part(receive)
        size += len(part)
        _check_size(size)
        parts.append(part)
    return b"".join(parts)


async def _next_part(receive: Receive) -> tuple[bytes, bool]:
    """One part of the body, and whether another follows."""
    message = await receive()
    if message["type"] != "http.request":
        raise RequestError(ErrorType.CALLER_LEFT, "The caller closed the connection.")
    return message.get("body", b""), message.get("more_body", False)


def _announced_bytes(scope: HTTPScope) -> int:
    # The server has refused lengths that are none.
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise RequestError(ErrorType.REQUEST_TOO_LARGE, f"The request's body is over {MAX_BODY_BYTES // 2**20} MiB.")
