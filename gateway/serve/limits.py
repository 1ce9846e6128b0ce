"""Rate limits: how many calls a route, a caller or a gateway key may make in a period, the same on every surface.

A caller is its gateway key, or its network address where there are no keys. Where the shared storage does not answer,
each process counts on its own until it does: callers are served, and a limit still holds within the process.
"""

import logging
from collections.abc import Callable

from gateway.store.windows import MemoryWindows, StorageUnavailableError, Windows
from gateway.types.clock import Clock
from gateway.types.errors import ErrorType, PolicyError
from gateway.types.records import Caller
from gateway.types.route import Limit, Route

_LOG = logging.getLogger(__name__)
_TRY_AGAIN_S = 1.0


class Limits:
    """Counts calls and refuses those beyond a limit.

    Args:
        shared: where several processes count together; None counts in this process.
        on_storage_error: told of each call that the shared storage could not count.
    """

    def __init__(self, clock: Clock, shared: Windows | None, on_storage_error: Callable[[], None]) -> None:
        self._clock = clock
        self._shared = shared
        self._own = MemoryWindows(clock)
        self._on_storage_error = on_storage_error
        self._shared_from = 0.0
        self._available = True

    async def admit(self, route: Route, caller: Caller) -> None:
        """Count a call of `caller` on `route`; raises PolicyError RATE_LIMITED with the wait in `retry_after_s`.

        The caller's limits come first: who is refused by one takes nothing from what all callers share.
        """
        for limit in sorted(route.limits, key=lambda limit: limit.per_route):
            who = "*" if limit.per_route else caller.key_id or caller.address
            await self._hit(f"route/{route.name}/{limit.text}/{who}", limit)

    async def admit_key(self, key_id: str, calls_per_minute: int) -> None:
        """Count a call of a gateway key against its own limit, over all routes; raises as `admit` does."""
        limit = Limit(calls=calls_per_minute, period_s=60, period="minute")
        await self._hit(f"key/{key_id}/{limit.text}", limit)

    async def _hit(self, key: str, limit: Limit) -> None:
        wait_s = await self._count(key, limit)
        if wait_s is not None:
            raise PolicyError(ErrorType.RATE_LIMITED, f"Rate limit exceeded: {limit.text}", retry_after_s=wait_s)

    async def _count(self, key: str, limit: Limit) -> float | None:
        if self._shared is not None and self._clock.monotonic() >= self._shared_from:
            try:
                wait_s = await self._shared.hit(key, limit.calls, limit.period_s)
            except StorageUnavailableError as error:
                self._on_storage_error()
                self._shared_from = self._clock.monotonic() + _TRY_AGAIN_S
                self._tell(available=False, cause=str(error))
            else:
                self._tell(available=True)
                return wait_s
        return await self._own.hit(key, limit.calls, limit.period_s)

    def _tell(self, *, available: bool, cause: str = "") -> None:
        if available is self._available:
            return
        self._available = available
        if available:
            _LOG.info("the limits' storage answers again")
        else:
            _LOG.warning("the limits' storage does not answer (%s); this process counts on its own meanwhile", cause)

    async def close(self) -> None:
        """Close the shared storage."""
        if self._shared is not None:
            await self._shared.close()
