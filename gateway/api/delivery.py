"""The caller's side of a connection, in ASGI: replies go out whole or in pieces, and a caller who leaves is noticed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import cast

from litestar.types import Message, Receive, Send

from gateway.api.errors import error_headers
from gateway.api.json_array import JsonArray
from gateway.api.surface import Surface
from gateway.serve.routing import BoundRoute
from gateway.telemetry.request_observation import RequestObservation
from gateway.types.errors import ErrorType, GatewayError
from gateway.types.model_io import ModelReply

_JSON = (b"content-type", b"application/json")
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its kin would otherwise hold the chunks back.
    (b"x-accel-buffering", b"no"),
)


class AsgiDelivery:
    """Implements `gateway.serve.delivery.Delivery` for one request of one surface."""

    __slots__ = (
        "_array",
        "_observation",
        "_receive",
        "_route",
        "_send",
        "_surface",
        "_watcher",
        "begun",
        "left",
        "on_left",
    )

    def __init__(self, surface: Surface, observation: RequestObservation, receive: Receive, send: Send) -> None:
        self._surface = surface
        self._observation = observation
        self._receive = receive
        self._send = send
        self._route: BoundRoute | None = None
        self._array = JsonArray() if surface.stream_array else None
        self._watcher: asyncio.Task[None] | None = None
        self.left = False
        self.on_left: Callable[[], None] | None = None
        self.begun = False

    def routed(self, route: BoundRoute) -> None:
        """The route whose shape replies and errors take."""
        self._route = route
        self._surface = self._surface.of(route)

    # --- gateway.serve.delivery.Delivery

    async def whole(self, reply: ModelReply) -> None:
        """Send a whole reply."""
        assert self._route is not None
        await self._respond(200, self._surface.whole(reply, self._route), [])

    async def begin_stream(self) -> None:
        """Send the headers of a stream."""
        self.begun = True
        self._observation.status_code = 200
        headers = _STREAM if self._array is None else (_JSON, *_STREAM[1:])
        await self._tell({"type": "http.response.start", "status": 200, "headers": [*headers, *self._facts()]})

    async def chunk(self, data: bytes) -> None:
        """Send complete SSE events, in the form that the caller reads."""
        if self._array is not None:
            data = self._array.feed(data)
        await self._tell({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        """Send the surface's end of a stream."""
        # A comment, which readers of server-sent events ignore: headers went out before the cost was known.
        cost = cost_usd(self._observation.cost_nano_usd) if self._surface.stream_comments else None
        comment = f": x-gateway-cost-usd={cost}\n\n".encode() if cost is not None else b""
        end = comment + self._surface.stream_end if self._array is None else self._array.close()
        await self._tell({"type": "http.response.body", "body": end, "more_body": False})

    def watch(self) -> None:
        """Cancel the running task if the caller leaves."""
        serving = asyncio.current_task()
        assert serving is not None
        self._watcher = asyncio.create_task(self._until_left(serving))

    def stop_watching(self) -> None:
        """Let the running task finish even if the caller leaves."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def has_left(self) -> bool:
        """Whether the caller has gone by now."""
        if self._watcher is None and not self.left:
            # The server says at once that a caller has gone, and waits otherwise: its first step tells.
            saying = cast("Coroutine[None, None, Message]", self._receive())
            try:
                saying.send(None)
            except StopIteration as said:
                self.left = said.value["type"] == "http.disconnect"
            else:
                saying.close()
        return self.left

    async def _until_left(self, serving: asyncio.Task[object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self.on_left is not None:
            self.on_left()
        else:
            serving.cancel()

    # --- errors

    async def error(self, error: GatewayError) -> None:
        """Tell the caller of an error, inside a stream that has begun or instead of a reply."""
        if error.error_type is ErrorType.CALLER_LEFT:
            self._observation.status_code = 499
            return
        trace_id = self._observation.trace.trace_id_hex
        if self.begun:
            last = self._surface.stream_error(self._surface.error_body(error, trace_id))
            if self._array is not None:
                last = self._array.feed(last) + self._array.close()
            await self._tell({"type": "http.response.body", "body": last, "more_body": False})
            return
        await self._respond(
            self._surface.status(error), self._surface.error_body(error, trace_id), error_headers(error)
        )

    async def _respond(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.begun = True
        observation = self._observation
        observation.status_code = status
        await self._tell(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    _JSON,
                    (b"content-length", str(len(body)).encode()),
                    *self._facts(),
                    *headers,
                ],
            },
            {"type": "http.response.body", "body": body, "more_body": False},
        )

    async def _tell(self, *messages: Message) -> None:
        """Send, and count how long the caller took to take it, also one who then leaves."""
        observation = self._observation
        clock = observation.clock
        begun = clock.monotonic()
        try:
            for message in messages:
                await self._send(message)
        finally:
            observation.caller_s += clock.monotonic() - begun

    def _facts(self) -> list[tuple[bytes, bytes]]:
        """What every reply says of itself: trace id, attempts, and whose time was spent (Server-Timing, in ms)."""
        observation = self._observation
        cost = cost_usd(observation.cost_nano_usd)
        timing = (
            f"gateway;dur={observation.own_s * 1e3:.2f}, upstream;dur={observation.upstream_s * 1e3:.2f}, "
            f"caller;dur={observation.caller_s * 1e3:.2f}"
        )
        if observation.backoff_s:
            timing += f", backoff;dur={observation.backoff_s * 1e3:.2f}"
        request_id = observation.request_id.encode()
        return [
            (b"x-gateway-trace-id", observation.trace.trace_id_hex.encode()),
            (b"x-gateway-request-id", request_id),
            (self._surface.request_id_header, request_id),
            (b"x-gateway-attempts", str(observation.attempt_count).encode()),
            (b"server-timing", timing.encode()),
            *(((b"x-gateway-cost-usd", cost.encode()),) if cost is not None else ()),
        ]


def cost_usd(nano_usd: int | None) -> str | None:
    """Nano-dollars as exact decimal dollars; None stays None, since an unknown price is not 0."""
    return None if nano_usd is None else f"{nano_usd // 1_000_000_000}.{nano_usd % 1_000_000_000:09d}"
