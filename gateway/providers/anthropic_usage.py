"""What Anthropic's replies say of tokens and prices.

Anthropic counts cached input apart; `Usage.input_tokens` is all of it. The tokens by which Claude compacts a conversation,
and those of an advisor it asks, stand in `iterations` alone.

Source: https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/compaction
"""

from collections.abc import Iterable

from msgspec import Struct

from gateway.types.usage import Usage, service_tier

_ANYWHERE = {None, "", "global", "not_available"}
"""Where inference without a regional premium says that it took place."""


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _CacheCreation(Struct):
    ephemeral_1h_input_tokens: int | None = None


class _ServerTools(Struct):
    web_search_requests: int | None = None


class _Counts(Struct, kw_only=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None

    @property
    def written_for_an_hour(self) -> int | None:
        return None if self.cache_creation is None else self.cache_creation.ephemeral_1h_input_tokens


class _Iteration(_Counts, kw_only=True):
    type: str = ""


class MessageUsage(_Counts, kw_only=True):
    """`usage` of a message."""

    iterations: list[_Iteration] | None = None
    output_tokens_details: _OutputDetails | None = None
    server_tool_use: _ServerTools | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


def usage_of(reported: MessageUsage | None) -> Usage | None:
    """The counts in our words, compaction included; None where there are none."""
    if reported is None or (reported.input_tokens is None and reported.output_tokens is None):
        return None
    iterations = reported.iterations or ()
    counts: list[_Counts] = [reported, *(turn for turn in iterations if turn.type == "compaction")]
    read = _sum(turn.cache_read_input_tokens for turn in counts)
    written = _sum(turn.cache_creation_input_tokens for turn in counts)
    fresh = _sum(turn.input_tokens for turn in counts)
    details, tools = reported.output_tokens_details, reported.server_tool_use
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=_sum(turn.output_tokens for turn in counts),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=None if details is None else details.thinking_tokens,
        cache_write_1h_tokens=_sum(turn.written_for_an_hour for turn in counts),
        web_searches=None if tools is None else tools.web_search_requests,
        # An advisor is another model, at another price.
        other_tool_calls=sum(turn.type == "advisor_message" for turn in iterations) or None,
        service_tier=_tier(reported),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum of what is known; None where nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _tier(reported: MessageUsage) -> str:
    """What makes a reply's price differ from the standard one, in one word: it was fast, prioritised, kept in a region."""
    tier = service_tier(reported.speed) or service_tier(reported.service_tier)
    return tier if tier or reported.inference_geo in _ANYWHERE else f"geo-{reported.inference_geo}"
