"""What both versions of Cohere's API word alike: token counts, finish reasons, and the options of embeddings.

Source: the types of the `cohere` package (ApiMeta, Usage, FinishReason); https://docs.cohere.com/reference
"""

from msgspec import Struct

from gateway.types.usage import Usage

FINISH_REASONS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
FAILED_REASONS = ("ERROR", "TIMEOUT", "USER_CANCEL")
"""The reasons by which Cohere says that a generation was not completed."""


def finish_reason(theirs: str | None) -> str | None:
    """The canonical finish reason; one that is new to us counts as a stop."""
    return None if theirs is None else FINISH_REASONS.get(theirs, "stop")


class EmbedOptions(Struct, frozen=True):
    """`input_type` of embeddings whose caller names none; None sends none."""

    input_type: str | None = None


class TokenPair(Struct):
    """A pair of counts, which Cohere writes as floats."""

    input_tokens: float | None = None
    output_tokens: float | None = None


class Meta(Struct):
    """`meta` of version 1 and of embeddings; `usage` of version 2."""

    billed_units: TokenPair | None = None
    tokens: TokenPair | None = None
    cached_tokens: float | None = None


def usage_of(meta: Meta | None, *, generates: bool = True) -> Usage | None:
    """The billed tokens, which are what is priced (Cohere's own prompt around the caller's is not); else the counted."""
    if meta is None:
        return None
    pair = next((p for p in (meta.billed_units, meta.tokens) if p is not None and p.input_tokens is not None), None)
    if pair is None or pair.input_tokens is None:
        return None
    output = pair.output_tokens if generates else 0.0
    cached = meta.cached_tokens
    return Usage(
        input_tokens=int(pair.input_tokens),
        output_tokens=None if output is None else int(output),
        # Cached tokens are a subset of the input: of the billed input there can be fewer.
        cache_read_tokens=None if cached is None else int(min(cached, pair.input_tokens)),
    )
