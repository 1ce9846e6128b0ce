"""Newline-delimited JSON, sans-IO: bytes in at any split, whole lines out."""

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import StreamEvent

MAX_LINE_BYTES = 16 * 1024 * 1024


class NdjsonDecoder:
    """Cuts a byte stream into lines, one event each; empty lines are dropped."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that `data` completes. Raises UpstreamError for a line over 16 MiB."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > MAX_LINE_BYTES:
            raise UpstreamError(ErrorType.UNREADABLE_REPLY, "A line of the provider's stream is over 16 MiB.")
        return [StreamEvent(text, line + b"\n") for line in lines if (text := line.strip())]

    def close(self) -> list[StreamEvent]:
        """The last event, where the stream ended without a newline."""
        rest, self._pending = self._pending, b""
        text = rest.strip()
        return [StreamEvent(text, rest)] if text else []
