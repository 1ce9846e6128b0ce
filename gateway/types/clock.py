"""Time and ids as arguments, so that tests decide them."""

from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class Rng(Protocol):
    """Where ids and random choices come from (`random.Random` is one)."""

    def getrandbits(self, k: int, /) -> int:
        """A non-negative integer of `k` random bits."""
        ...

    def random(self) -> float:
        """A float in [0, 1)."""
        ...
