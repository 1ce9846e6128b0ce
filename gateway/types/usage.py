"""Token counts, as one provider reported them for one attempt."""

from enum import StrEnum

from msgspec import Struct


class UsageSource(StrEnum):
    """How a usage became known."""

    PROVIDER = "provider"
    ESTIMATED = "estimated"


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one attempt. None means unknown, which is never the same as 0.

    `cache_read_tokens`, `cache_write_tokens` and `input_audio_tokens` are subsets of `input_tokens`;
    `reasoning_tokens` and `output_audio_tokens` are subsets of `output_tokens`. Never add a subset to its total.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    source: UsageSource = UsageSource.PROVIDER

    @property
    def total_tokens(self) -> int | None:
        """Input plus output, or None while both are unknown."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)
