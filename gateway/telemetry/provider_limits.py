"""What providers say is left of their rate limits, as gauges of the last answer."""

from gateway.telemetry import names
from gateway.telemetry.cells import Gauge
from gateway.telemetry.metrics import Metrics
from gateway.types.clock import Clock
from gateway.types.rate_limits import RateLimitKind, Remaining

TOLD_FOR_S = 120.0
"""How long an answer's figures are shown. Limits refill by the minute: what was left long ago says nothing."""


class ProviderLimits:
    """Shows each target's latest figures, and takes them away when no answer has renewed them."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._shown: dict[tuple[str, str, RateLimitKind], tuple[Gauge, float]] = {}

    def told(self, provider: str, model: str, remaining: Remaining) -> None:
        """A reply of this configured target said what is left."""
        now = self._clock.monotonic()
        for kind, left in remaining:
            target = (provider, model, kind)
            shown = self._shown.get(target)
            gauge = shown[0] if shown is not None else self._metrics.gauge(names.RATELIMIT_REMAINING, *target)
            gauge.set(left)
            self._shown[target] = (gauge, now)

    def refresh(self) -> None:
        """Take away what is too old."""
        oldest = self._clock.monotonic() - TOLD_FOR_S
        for target, (gauge, told) in list(self._shown.items()):
            if told < oldest:
                gauge.clear()
                del self._shown[target]
