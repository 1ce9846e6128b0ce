"""What a provider says is left of its rate limits."""

from enum import StrEnum


class RateLimitKind(StrEnum):
    """What a provider's limit counts, within its window (mostly a minute)."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


Remaining = tuple[tuple[RateLimitKind, int], ...]
"""What is left, by kind; a kind that the provider did not tell is absent."""
