"""A stream as one JSON array that grows, which is Google's form of a stream where a caller did not ask for `alt=sse`.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""


class JsonArray:
    """Turns server-sent events into an array's items, sans-IO. One instance a stream."""

    def __init__(self) -> None:
        self._begun = False

    def feed(self, events: bytes) -> bytes:
        """The items of complete events; what stands in no `data` line is left out."""
        return b"".join(self._item(data) for event in events.split(b"\n\n") if (data := _data(event)))

    def close(self) -> bytes:
        """The array's end."""
        return b"]" if self._begun else b"[]"

    def _item(self, data: bytes) -> bytes:
        before = b",\r\n" if self._begun else b"["
        self._begun = True
        return before + data


def _data(event: bytes) -> bytes:
    lines = (line.removeprefix(b"data:").removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)
