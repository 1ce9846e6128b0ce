"""What one attempt used, as its provider reported it: tokens, calls of the vendor's own tools, the tier that served."""

from enum import StrEnum

from msgspec import Struct


class UsageSource(StrEnum):
    """How a usage became known."""

    PROVIDER = "provider"
    ESTIMATED = "estimated"


_STANDARD_TIERS = frozenset({"auto", "default", "standard", "standard_only", "on_demand"})


def service_tier(word: str | None) -> str:
    """A vendor's word for a service tier, in lower case; "" for the one whose prices are a model's own."""
    tier = (word or "").lower()
    return "" if tier in _STANDARD_TIERS else tier


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one attempt, and what else is charged. None means unknown, which is never the same as 0.

    `cache_read_tokens`, `cache_write_tokens` and `input_audio_tokens` are subsets of `input_tokens`;
    `reasoning_tokens` and `output_audio_tokens` are subsets of `output_tokens`. Never add a subset to its total.
    `cache_write_1h_tokens` is a subset of `cache_write_tokens`: what was written to live an hour.

    `web_searches` and `file_searches` are calls that vendors charge one by one, `other_tool_calls` those of their own
    tools that nobody prices by the call (code containers, generated images). `service_tier` is the vendor's word for
    how the request was served, such as `priority`; "" for the standard tier, and where it said nothing.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    web_searches: int | None = None
    file_searches: int | None = None
    other_tool_calls: int | None = None
    service_tier: str = ""
    source: UsageSource = UsageSource.PROVIDER

    @property
    def total_tokens(self) -> int | None:
        """Input plus output, or None while both are unknown."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)
