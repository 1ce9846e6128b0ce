"""What serving needs of the caller's side of a connection. The surfaces in `gateway.api` implement it."""

from collections.abc import Callable
from typing import Protocol

from gateway.types.model_io import ModelReply


class Delivery(Protocol):
    """Takes a reply to the caller, whole or in pieces.

    `left` becomes true when the caller has gone; the serving task is then cancelled once, unless `stop_watching` was
    called before, or `on_left` is there to be called instead.
    """

    left: bool
    on_left: Callable[[], None] | None
    begun: bool
    """The first bytes have gone to the caller: from here on nothing may be tried again."""

    async def whole(self, reply: ModelReply) -> None:
        """Send a whole reply."""
        ...

    async def begin_stream(self) -> None:
        """Send the headers of a stream."""
        ...

    async def chunk(self, data: bytes) -> None:
        """Send complete SSE events; returns when the caller can take more."""
        ...

    async def end_stream(self) -> None:
        """Send the end of a stream."""
        ...

    def watch(self) -> None:
        """Cancel the running task if the caller leaves."""
        ...

    def stop_watching(self) -> None:
        """Let the running task finish even if the caller leaves."""
        ...

    def has_left(self) -> bool:
        """Whether the caller has gone by now, also where nobody watches."""
        ...
