"""What was left of a provider's limit is not shown for ever."""

from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.provider_limits import TOLD_FOR_S, ProviderLimits
from gateway.types.rate_limits import RateLimitKind
from tests.clocks import ManualClock


def test_old_figures_go_and_new_ones_come_back() -> None:
    """A target's figure is taken away when no answer renewed it, another target's stays, and a new answer shows."""
    metrics, clock = Metrics(Block.private()), ManualClock()
    limits = ProviderLimits(metrics, clock)
    metrics.on_refresh(limits.refresh)

    def shown() -> dict[tuple[str, ...], float]:
        return {labels: s.values[0] for labels, s in metrics.read().get(names.RATELIMIT_REMAINING.name, {}).items()}

    limits.told("openai", "m", ((RateLimitKind.REQUESTS, 0), (RateLimitKind.TOKENS, 7)))
    clock.advance(TOLD_FOR_S - 1)
    limits.told("openai", "m", ((RateLimitKind.TOKENS, 6),))
    assert shown() == {("openai", "m", "requests"): 0, ("openai", "m", "tokens"): 6}
    clock.advance(2)
    assert shown() == {("openai", "m", "tokens"): 6}
    limits.told("openai", "m", ((RateLimitKind.REQUESTS, 60),))
    assert shown() == {("openai", "m", "requests"): 60, ("openai", "m", "tokens"): 6}
