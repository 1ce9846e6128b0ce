"""HTTP/1.1 for callers: uvicorn's httptools protocol, with bounds on what one caller may make it keep.

httptools has none: headers without an end would fill the memory, and a request without an end would hold its connection
for good.
"""

import re
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, HTTPScope, Scope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024
"""The longest request line with its headers; also what a request may have besides its head and body (trailers)."""
STUCK_AFTER_S = 60.0
"""How long a caller may send nothing in the middle of a request, take nothing of a reply, and take for its headers."""
_FRAMING = 8
"""Chunks of one byte take six on the wire."""
_EXPLANATION = b"The request's headers are over 64 KiB.\n"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_EXPLANATION), _EXPLANATION)
)


_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """One connection of a caller.

    Java's HTTP client asks to go on in HTTP/2 with its first request. A server may pass over that, but httptools takes
    the body that follows for another protocol's: so the wish is taken out before it sees the request.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._besides_body_bytes = 0
        self._last_data = self.loop.time()
        self._head_since: float | None = None
        self._between_requests = True
        self._served: RequestResponseCycle | None = None
        self._untaken_bytes = 0
        self._untaken_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent; end the connection of one who sends headers without end."""
        self._besides_body_bytes += len(data)
        if self._between_requests and b"h2c" in data:
            head, end, body = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"", head + b"\r\n")[:-2] + end + body
        super().data_received(data)
        self._last_data = self.loop.time()
        if self._in_head:
            if self._head_since is None:
                self._head_since = self._last_data
        else:
            self._head_since = None
        if self._besides_body_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head and not self._answering:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
            else:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being served; uvicorn tells the last that came, which may wait behind it."""
        super().connection_lost(exc)
        if self._served is not None and not self._served.response_complete:
            self._served.disconnected = True
            self._served.message_event.set()

    def _start_asgi_task(self, cycle: "RequestResponseCycle", app: "ASGI3Application") -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app if cycle.scope["http_version"] != "1.0" else _without_chunks(app, cycle))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; behind a request that is being served, the refusal would pass for its reply."""
        served = self._served
        if served is not None and not served.response_complete and not served.more_body:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Take the beginning of a request."""
        self._between_requests = False
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._besides_body_bytes -= len(body) * (1 + _FRAMING)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._besides_body_bytes = 0
        self._between_requests = True
        super().on_message_complete()

    @property
    def _in_head(self) -> bool:
        # Uvicorn makes the scope when a request begins, and puts the method in when its headers are complete.
        scope = cast("HTTPScope | None", self.scope)
        return scope is not None and "method" not in scope

    @property
    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def leave_if_stuck(self, now: float) -> None:
        """Break the connection off if its caller has stopped in the middle of a request; `now` is the loop's time."""
        if self._head_since is not None:
            stuck = now - self._head_since > STUCK_AFTER_S and not self._answering
        elif self.timeout_keep_alive_task is not None:
            # Between requests, uvicorn's own timer runs.
            stuck = False
        else:
            waits = not self._answering or (self.cycle.more_body and not self.flow.read_paused)
            stuck = waits and now - self._last_data > STUCK_AFTER_S
        if stuck or self._takes_nothing(now):
            self.transport.abort()

    def _takes_nothing(self, now: float) -> bool:
        """Whether the caller has left what was sent to it unread for so long: its request would never end."""
        untaken_bytes = self.transport.get_write_buffer_size()
        if untaken_bytes != self._untaken_bytes:
            self._untaken_bytes, self._untaken_since = untaken_bytes, now
        return untaken_bytes > 0 and now - self._untaken_since > STUCK_AFTER_S


def _without_chunks(app: "ASGI3Application", cycle: "RequestResponseCycle") -> "ASGI3Application":
    """For HTTP/1.0, which knows no chunks: a body of unknown length ends with its connection."""

    async def old(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        async def send_plain(message: "ASGISendEvent") -> None:
            cycle.chunked_encoding = False
            cycle.expected_content_length = len(cast("bytes", message.get("body", b"")))
            await send(message)

        await app(scope, receive, send_plain)

    return old
