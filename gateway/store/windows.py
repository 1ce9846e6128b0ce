"""Counting calls in windows of time: the part of rate limits that is kept somewhere.

A window begins with its first call and lasts for the period, as in the MLflow gateway (the `limits` library's fixed
window): never more than the allowed calls in a window.
"""

from typing import Protocol

from gateway.types.clock import Clock


class StorageUnavailableError(Exception):
    """The storage did not count in time."""


class Windows(Protocol):
    """Counts calls by key."""

    async def hit(self, key: str, calls: int, period_s: int) -> float | None:
        """Count one call; None when it is within `calls` a window, else the seconds until the window ends.

        Raises StorageUnavailableError.
        """
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...


class _Window:
    __slots__ = ("count", "end")

    def __init__(self, end: float) -> None:
        self.end = end
        self.count = 0


class MemoryWindows:
    """Windows of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._sweep_at = 1024

    async def hit(self, key: str, calls: int, period_s: int) -> float | None:
        """Count one call. It never waits, so nothing comes between reading and counting."""
        now = self._clock.monotonic()
        window = self._windows.get(key)
        if window is None or window.end <= now:
            if len(self._windows) >= self._sweep_at:
                self._sweep(now)
            window = self._windows[key] = _Window(now + period_s)
        if window.count >= calls:
            return window.end - now
        window.count += 1
        return None

    async def close(self) -> None:
        """Nothing to give back."""

    def _sweep(self, now: float) -> None:
        """Forget what has ended; rare enough that it costs each call next to nothing."""
        self._windows = {key: window for key, window in self._windows.items() if window.end > now}
        self._sweep_at = max(1024, 2 * len(self._windows))
