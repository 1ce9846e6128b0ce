"""Time that a test moves by hand."""


class ManualClock:
    """A clock that stands still until `advance`. It starts on 30 August 2015, 12:36 UTC, the date of AWS's examples."""

    def __init__(self, now_s: int = 1_440_938_160) -> None:
        self._now_ns = now_s * 1_000_000_000
        self._monotonic = 1000.0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now_ns += int(seconds * 1_000_000_000)
        self._monotonic += seconds
