"""What a provider's reply headers say is left of its rate limits."""

from collections.abc import Mapping

from gateway.types.rate_limits import RateLimitKind, Remaining

_SPELLINGS: tuple[tuple[RateLimitKind, tuple[str, ...]], ...] = (
    (
        RateLimitKind.REQUESTS,
        # OpenAI, Azure, Groq, xAI; Anthropic; Mistral; Together and OpenRouter.
        (
            "x-ratelimit-remaining-requests",
            "anthropic-ratelimit-requests-remaining",
            "x-ratelimit-remaining-req-minute",
            "x-ratelimit-remaining",
        ),
    ),
    (
        RateLimitKind.TOKENS,
        (
            "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-tokens-remaining",
            "x-ratelimit-remaining-tokens-minute",
            "x-tokenlimit-remaining",
        ),
    ),
    (
        RateLimitKind.INPUT_TOKENS,
        # Anthropic; Fireworks.
        ("anthropic-ratelimit-input-tokens-remaining", "x-ratelimit-remaining-tokens-prompt"),
    ),
    (
        RateLimitKind.OUTPUT_TOKENS,
        ("anthropic-ratelimit-output-tokens-remaining", "x-ratelimit-remaining-tokens-generated"),
    ),
)
"""Looked for in every reply: proxies and compatible servers pass on the headers of whoever is behind them."""
_LONGEST = 15
"""Digits, so that a double holds the number exactly."""


def remaining(headers: Mapping[str, str]) -> Remaining:
    """What is left by the headers of one reply, whatever its status; empty where the provider does not say.

    A value that is no whole number is left out, and so is a negative one: Azure's -1 means that it does not know.
    """
    found: list[tuple[RateLimitKind, int]] = []
    for kind, names in _SPELLINGS:
        for name in names:
            value = headers.get(name)
            if value is not None:
                # Not `int`, which takes "1_0" and as many digits as a header can hold.
                if len(value) <= _LONGEST and value.isascii() and value.isdigit():
                    found.append((kind, int(value)))
                break
    return tuple(found)
