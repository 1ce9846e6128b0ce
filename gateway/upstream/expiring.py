"""A value that expires, such as an access token: fetched by one task at a time and renewed before its end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from gateway.types.clock import Clock

_T = TypeVar("_T")

RENEW_BEFORE_S = 300.0
"""How long before its end a value is renewed in the background; a fifth of its life where that is shorter."""
UNUSABLE_BEFORE_S = 10.0
"""How long before its end a value counts as expired: a request that is on its way needs it a little longer."""
RETRY_RENEWAL_S = 10.0
"""After a failed renewal, while the old value still holds, the next one waits this long."""


class Expiring(Generic[_T]):
    """Holds one expiring value.

    Whoever asks while there is none waits for the one fetch under way, and shares its failure. While the value holds,
    nobody waits: from `RENEW_BEFORE_S` before its end on, the first who asks starts its renewal in the background.

    Args:
        fetch: gets a new value and its lifetime in seconds; it may raise.
        clock: its monotonic time decides.
    """

    def __init__(self, fetch: Callable[[], Awaitable[tuple[_T, float]]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: _T | None = None
        self._renew_at = 0.0
        self._expires_at = float("-inf")
        self._task: asyncio.Task[_T] | None = None

    async def get(self) -> _T:
        """The value, at least `UNUSABLE_BEFORE_S` (or a tenth of its life) before its end. Raises what `fetch` raises."""
        now = self._clock.monotonic()
        value = self._value
        if value is not None and now < self._expires_at:
            if now >= self._renew_at and self._task is None:
                self._start()
            return value
        # Shielded: a caller who leaves must not break off what others wait for.
        return await asyncio.shield(self._task or self._start())

    def _start(self) -> "asyncio.Task[_T]":
        task = asyncio.ensure_future(self._renew())
        self._task = task
        task.add_done_callback(self._done)
        return task

    async def _renew(self) -> _T:
        value, lifetime_s = await self._fetch()
        now = self._clock.monotonic()
        self._value = value
        self._expires_at = now + lifetime_s - min(UNUSABLE_BEFORE_S, lifetime_s / 10)
        self._renew_at = now + lifetime_s - min(RENEW_BEFORE_S, lifetime_s / 5)
        return value

    def _done(self, task: "asyncio.Task[_T]") -> None:
        self._task = None
        # Asking for the exception marks it as seen: a renewal in the background has nobody else to tell.
        if task.cancelled() or task.exception() is not None:
            self._renew_at = self._clock.monotonic() + RETRY_RENEWAL_S

    def close(self) -> None:
        """Break off a fetch under way."""
        if self._task is not None:
            self._task.cancel()
