"""Server-sent events, sans-IO: bytes in at any split, whole events out.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import StreamEvent

MAX_EVENT_BYTES = 16 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseDecoder:
    """Cuts a byte stream into events.

    `StreamEvent.raw` holds an event's bytes with line ends normalised to LF, so that raws can be concatenated and
    forwarded. Comments and events without data are dropped: they only keep a connection alive.
    """

    def __init__(self) -> None:
        # The beginning of an event, as it came: joined only once, since an event may come in many pieces.
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that `data` completes. Raises UpstreamError for an event over 16 MiB."""
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        pending = self._pending
        size = self._pending_bytes + len(data)
        if not pending:
            # The usual case by far: whole events.
            *blocks, rest = data.split(b"\n\n")
        elif b"\n\n" in data or (data.startswith(b"\n") and pending[-1].endswith(b"\n")):
            *blocks, rest = b"".join([*pending, data]).split(b"\n\n")
            pending.clear()
            self._pending_bytes = 0
        else:
            blocks, rest = [], data
        if rest:
            pending.append(rest)
            self._pending_bytes += len(rest)
        if size > MAX_EVENT_BYTES and max(self._pending_bytes, *map(len, blocks), 0) > MAX_EVENT_BYTES:
            raise UpstreamError(ErrorType.UNREADABLE_REPLY, "An event of the provider's stream is over 16 MiB.")
        if blocks and not self._begun:
            self._begun = True
            blocks[0] = blocks[0].removeprefix(_BYTE_ORDER_MARK)
        return [event for block in blocks if (event := _event(block)) is not None]

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_cr and data:
            # The second half of CRLF: its first half has been taken for a line's end.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def close(self) -> list[StreamEvent]:
        """The last event, where the stream ended without the blank line that should close it."""
        rest = b"".join(self._pending).rstrip(b"\n")
        self._pending.clear()
        self._pending_bytes = 0
        event = _event(rest if self._begun else rest.removeprefix(_BYTE_ORDER_MARK))
        return [] if event is None else [event]


def _event(block: bytes) -> StreamEvent | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return StreamEvent(block[6:], block + b"\n\n")
    data: list[bytes] = []
    name = ""
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    if not data:
        return None
    return StreamEvent(b"\n".join(data), block.lstrip(b"\n") + b"\n\n", name)
