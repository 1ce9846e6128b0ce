"""What providers say is left of their rate limits, as gauges of the last answer.

The headers of an answer that says so are only kept; they are read when somebody looks at the gauges, since a request has
no time for that.
"""

from collections.abc import Mapping
from enum import StrEnum

from gateway.telemetry import names
from gateway.telemetry.cells import Gauge
from gateway.telemetry.metrics import Metrics
from gateway.types.clock import Clock

TOLD_FOR_S = 120.0
"""How long an answer's figures are shown. Limits refill by the minute: what was left long ago says nothing."""


class RateLimitKind(StrEnum):
    """What a provider's limit counts, within its window (mostly a minute)."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


_SPELLINGS: Mapping[RateLimitKind, tuple[str, ...]] = {
    # OpenAI, Azure, Groq, xAI; Anthropic; Mistral; Together and OpenRouter.
    RateLimitKind.REQUESTS: (
        "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-requests-remaining",
        "x-ratelimit-remaining-req-minute",
        "x-ratelimit-remaining",
    ),
    RateLimitKind.TOKENS: (
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-tokens-remaining",
        "x-ratelimit-remaining-tokens-minute",
        "x-tokenlimit-remaining",
    ),
    # Anthropic; Fireworks.
    RateLimitKind.INPUT_TOKENS: (
        "anthropic-ratelimit-input-tokens-remaining",
        "x-ratelimit-remaining-tokens-prompt",
    ),
    RateLimitKind.OUTPUT_TOKENS: (
        "anthropic-ratelimit-output-tokens-remaining",
        "x-ratelimit-remaining-tokens-generated",
    ),
}
"""Looked for in every reply: proxies and compatible servers pass on the headers of whoever is behind them."""
_NAMES = tuple(name for spellings in _SPELLINGS.values() for name in spellings)
_LONGEST = 15
"""Digits, so that a double holds the number exactly."""


def remaining(headers: Mapping[str, str]) -> dict[RateLimitKind, int]:
    """What is left by the headers of one reply, whatever its status; a kind that the provider does not tell is absent.

    So is a value that is no whole number, and a negative one: Azure's -1 means that it does not know.
    """
    found: dict[RateLimitKind, int] = {}
    for kind, spellings in _SPELLINGS.items():
        value = next((headers[name] for name in spellings if name in headers), "")
        # Not `int`, which takes "1_0" and as many digits as a header can hold.
        if len(value) <= _LONGEST and value.isascii() and value.isdigit():
            found[kind] = int(value)
    return found


class ProviderLimits:
    """Shows each target's latest figures, and takes them away when no answer has renewed them."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._answers: dict[tuple[str, str], tuple[Mapping[str, str], float]] = {}
        self._shown: dict[tuple[str, str, RateLimitKind], tuple[Gauge, float]] = {}

    def answered(self, provider: str, model: str, headers: Mapping[str, str]) -> None:
        """A reply of this configured target came with these headers."""
        for name in _NAMES:
            if name in headers:
                self._answers[provider, model] = headers, self._clock.monotonic()
                return

    def refresh(self) -> None:
        """Read the answers since the last time, and take away what is too old."""
        answers, self._answers = self._answers, {}
        for target, (headers, came) in answers.items():
            for kind, left in remaining(headers).items():
                gauge = self._metrics.gauge(names.RATELIMIT_REMAINING, *target, kind)
                gauge.set(left)
                self._shown[*target, kind] = gauge, came
        oldest = self._clock.monotonic() - TOLD_FOR_S
        for place, (gauge, came) in list(self._shown.items()):
            if came < oldest:
                gauge.clear()
                del self._shown[place]
