"""AWS's binary event stream, sans-IO: bytes in at any split, whole messages out.

A message is a prelude (total length, headers length, CRC-32 of both), headers, a payload, and a CRC-32 of it all.

Source: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
from zlib import crc32

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import StreamEvent

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_STRING = 7
_BYTES = 6
_FIXED_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header value by its type, for the types of fixed length."""


class AwsEventStreamDecoder:
    """Cuts a byte stream into events.

    `StreamEvent.name` is the message's `:event-type`, or its `:exception-type` or `:error-code` where it reports a
    failure (those end in `Exception` or `Error`, event types never do); `data` is its payload.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that `data` completes. Raises UpstreamError for a message that is damaged or over 24 MiB."""
        self._pending += data
        events: list[StreamEvent] = []
        start = 0
        while len(self._pending) - start >= _PRELUDE.size:
            total, headers_length, prelude_crc = _PRELUDE.unpack_from(self._pending, start)
            if crc32(self._pending[start : start + 8]) != prelude_crc:
                raise _damaged()
            if total > MAX_MESSAGE_BYTES:
                raise UpstreamError(ErrorType.UNREADABLE_REPLY, "A message of the provider's stream is over 24 MiB.")
            if total < _PRELUDE.size + headers_length + _CRC.size:
                raise _damaged()
            if len(self._pending) - start < total:
                break
            events.append(_event(bytes(self._pending[start : start + total]), headers_length))
            start += total
        del self._pending[:start]
        return events

    def close(self) -> list[StreamEvent]:
        """Raises UpstreamError when the stream ended inside a message."""
        if self._pending:
            raise UpstreamError(ErrorType.STREAM_CUT, "The provider broke its reply off before its end.")
        return []


def _event(message: bytes, headers_length: int) -> StreamEvent:
    (crc,) = _CRC.unpack_from(message, len(message) - _CRC.size)
    if crc32(message[: -_CRC.size]) != crc:
        raise _damaged()
    headers_end = _PRELUDE.size + headers_length
    try:
        headers = _headers(message[_PRELUDE.size : headers_end])
    except (struct.error, IndexError, KeyError, UnicodeDecodeError):
        raise _damaged() from None
    payload = message[headers_end : -_CRC.size]
    kind = headers.get(":message-type", "event")
    if kind == "error":
        # An error has its text in a header and no payload.
        code = headers.get(":error-code", "")
        name = code if code.endswith(("Exception", "Error")) else f"{code}Error"
        return StreamEvent(headers.get(":error-message", "").encode(), message, name)
    return StreamEvent(payload, message, headers.get(f":{kind}-type", ""))


def _headers(block: bytes) -> dict[str, str]:
    """The headers whose values are strings; the others are skipped."""
    headers: dict[str, str] = {}
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        name = block[at + 1 : name_end].decode()
        kind = block[name_end]
        at = name_end + 1
        if kind in (_STRING, _BYTES):
            (length,) = struct.unpack_from(">H", block, at)
            at += 2
            if kind == _STRING:
                headers[name] = block[at : at + length].decode()
            at += length
        else:
            at += _FIXED_SIZES[kind]
    return headers


def _damaged() -> UpstreamError:
    return UpstreamError(ErrorType.UNREADABLE_REPLY, "A message of the provider's stream is damaged.")
