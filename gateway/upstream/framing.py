"""Server-sent events, sans-IO: bytes in at any split, whole events out.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import StreamEvent

MAX_EVENT_BYTES = 16 * 1024 * 1024
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class SseDecoder:
    """Cuts a byte stream into events.

    `StreamEvent.raw` holds an event's bytes with line ends normalised to LF, so that raws can be concatenated and
    forwarded. Comments and events without data are dropped: they only keep a connection alive.
    """

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that `data` completes. Raises UpstreamError for an event over 16 MiB."""
        buffer = self._pending + data if self._pending else data
        if b"\r" in buffer:
            return self._feed_with_carriage_returns(buffer)
        # The usual case by far: LF only, cut by plain splits.
        *blocks, self._pending = buffer.split(b"\n\n")
        self._check_size()
        return [event for block in blocks if (event := _event(block)) is not None]

    def _feed_with_carriage_returns(self, buffer: bytes) -> list[StreamEvent]:
        held = b""
        if buffer.endswith(b"\r"):
            # It may be the first half of CRLF: wait for the rest.
            buffer, held = buffer[:-1], b"\r"
        *blocks, rest = _EVENT_END.split(buffer)
        self._pending = rest + held
        self._check_size()
        return [event for block in blocks if (event := _event(_LINE_END.sub(b"\n", block))) is not None]

    def _check_size(self) -> None:
        if len(self._pending) > MAX_EVENT_BYTES:
            raise UpstreamError(ErrorType.UNREADABLE_REPLY, "An event of the provider's stream is over 16 MiB.")

    def close(self) -> list[StreamEvent]:
        """The last event, where the stream ended without the blank line that should close it."""
        rest, self._pending = self._pending, b""
        event = _event(_LINE_END.sub(b"\n", rest).rstrip(b"\n"))
        return [] if event is None else [event]


def _event(block: bytes) -> StreamEvent | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return StreamEvent(block[6:], block + b"\n\n")
    data: list[bytes] = []
    name = ""
    for line in block.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    if not data:
        return None
    return StreamEvent(b"\n".join(data), block.lstrip(b"\n") + b"\n\n", name)
