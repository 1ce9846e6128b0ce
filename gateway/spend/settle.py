"""The settle table: what an attempt is charged for, and how sure that is. Pure; docs/spend.md publishes it.

The estimates are rules, not guesses: where a vendor says nothing, the same request is always charged the same.
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

from gateway.config.money import MAX_NANO_USD
from gateway.spend.rates import RateCard
from gateway.store.spec import Payer
from gateway.types.errors import ErrorType
from gateway.types.records import Basis, Cost, CostPart
from gateway.types.route import Operation
from gateway.types.usage import Usage, UsageSource

BYTES_PER_TOKEN = 4
"""What a token is taken to hold where nobody counted: four bytes of input, four characters of output."""
MESSAGE_TOKENS = 16
"""Upper bound of what a chat format adds to each message, in tokens."""
REQUEST_TOKENS = 64
"""Upper bound of what a chat format adds to a request, in tokens."""
IMAGE_TOKENS = 6_000
"""Upper bound of an image that is given by its address, in input tokens."""
DOCUMENT_TOKENS = 200_000
"""What a document or a video is held as whose bytes say little of it: a PDF has 1,500 to 4,600 tokens a page, up to 100
pages where a model reads 200,000 (https://docs.anthropic.com/en/docs/build-with-claude/pdf-support)."""
MAX_DOCUMENT_TOKENS = 1_000_000
"""The most that all documents of a request are held as for their bytes: no more fits into a model."""
TOOLS_TOKENS = 600
"""What a vendor adds for using tools at all; Anthropic up to 530:
https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview#pricing."""
DESCRIBED_TOOL_TOKENS = 1_000
"""A tool that the vendor describes has no schema in the request; Anthropic's take up to 735 tokens each."""
RESULT_TOKENS = 16_000
"""What a call of a vendor's own tool brings the model to read: 20 pieces of 800 tokens of a file, or a search of the
web, which OpenAI charges its smaller models as 8,000: https://platform.openai.com/docs/pricing."""
MAX_TOKENS = 10**12
"""A count above this is a provider's mistake; it is taken as this."""

_LONGEST_TIER = 40
_NO_OUTPUT = frozenset({Operation.EMBEDDINGS, Operation.EMBED_CONTENT, Operation.COUNT_TOKENS})


class Ending(StrEnum):
    """What became of an attempt, as far as charging it goes."""

    NOT_SENT = "not_sent"
    PROVIDER_ERROR = "provider_error"
    COMPLETE = "complete"
    DRAINED = "drained"
    CUT = "cut"
    NO_ANSWER = "no_answer"


class OwnTools(Struct, frozen=True, kw_only=True):
    """The tools that a request offers, and how often its vendor may run those that are its own.

    `calls` sums up the limits that the caller set; `unlimited` counts those that it left out, or that the vendor has no
    field for. A call brings `result_tokens` at most.
    """

    offered: int = 0
    described: int = 0
    """How many the vendor describes to the model, beside what the request says of them."""
    calls: int = 0
    unlimited: int = 0
    result_tokens: int = RESULT_TOKENS

    @property
    def run(self) -> bool:
        """Whether the vendor runs any."""
        return bool(self.calls or self.unlimited)


NO_TOOLS = OwnTools()


class ChargeFacts(Struct, frozen=True, kw_only=True):
    """What is known about an attempt before it is sent.

    `input_bytes` counts the UTF-8 bytes of the request's text (data URLs of images excluded when `images` counts
    them), `messages` its messages or inputs, `choices` how many answers it asks for. `documents` counts PDFs, videos
    and files by address; `document_bytes` of `input_bytes` are theirs.
    """

    request_id: str
    attempt: int
    payer: Payer
    operation: Operation
    input_bytes: int
    messages: int = 1
    images: int = 0
    documents: int = 0
    document_bytes: int = 0
    max_tokens: int | None = None
    """The caller's limit on output tokens, None where it gave none that is a number."""
    choices: int = 1
    tools: OwnTools = NO_TOOLS
    service_tier: str = ""
    """The service tier that the request asks for, "" for the standard one."""
    long_cache: bool = False
    """Whether it may write to a cache that lives an hour."""


def input_bound_tokens(facts: ChargeFacts, tool_calls: int = 0, output_tokens: int = 0) -> int:
    """The most input tokens that the request can be: no tokenizer makes more tokens than bytes.

    After each call of the vendor's own tools the model reads everything again: the request, what it has written of its
    `output_tokens`, and all results so far.
    """
    tools = facts.tools
    request = facts.input_bytes - facts.document_bytes + facts.images * IMAGE_TOKENS
    request += max(facts.documents * DOCUMENT_TOKENS, min(facts.document_bytes, MAX_DOCUMENT_TOKENS))
    request += facts.messages * MESSAGE_TOKENS + REQUEST_TOKENS
    if tools.offered:
        request += TOOLS_TOKENS + tools.described * DESCRIBED_TOOL_TOKENS
    results = tool_calls * (tool_calls + 1) // 2 * tools.result_tokens
    return request * (tool_calls + 1) + output_tokens * tool_calls + results


def input_estimate_tokens(facts: ChargeFacts) -> int:
    """The input tokens that the request is taken to have where nobody reported them."""
    return -(-facts.input_bytes // BYTES_PER_TOKEN) + 4 * facts.messages


def observed_output_tokens(output_chars: int, chunks: int = 0) -> int:
    """The output tokens that were seen: four characters each, and at least one a streamed chunk."""
    return max(-(-output_chars // BYTES_PER_TOKEN), chunks)


def ending(
    error: ErrorType | None,
    *,
    sent: bool,
    status: int | None,
    finished: bool,
    started: bool,
    drained: bool = False,
    generated: bool = False,
) -> Ending:
    """The row of the settle table.

    Args:
        error: why the attempt failed, None when it succeeded.
        sent: whether request bytes may have reached the provider.
        status: the provider's HTTP status, where it gave one.
        finished: the provider said that its reply is complete.
        started: some of the reply's body came.
        drained: the caller left and the reply was read to its end all the same.
        generated: some output came, whatever status the provider's error has that ended it.
    """
    if not sent:
        return Ending.NOT_SENT
    if status is not None and status >= 400 and not generated:
        return Ending.PROVIDER_ERROR
    if drained and finished:
        return Ending.DRAINED
    if error is None or finished:
        return Ending.COMPLETE
    return Ending.CUT if started or status is not None else Ending.NO_ANSWER


def may_be_estimated(how: Ending, usage: Usage | None) -> bool:
    """Whether `billed_usage` may look at the request's own size."""
    if usage is None:
        return how not in {Ending.NOT_SENT, Ending.PROVIDER_ERROR}
    return how is not Ending.COMPLETE or usage.input_tokens is None or usage.output_tokens is None


def billed_usage(
    how: Ending, facts: ChargeFacts, usage: Usage | None, output_chars: int = 0, chunks: int = 0
) -> tuple[Usage | None, Basis]:
    """The token counts that an attempt is charged for, and the basis of that."""
    if usage is not None:
        usage = _sane(usage)
    if how is Ending.NOT_SENT:
        return None, Basis.NOT_SENT
    if how is Ending.PROVIDER_ERROR and not _reported(usage):
        return None, Basis.PROVIDER_ERROR
    if facts.operation is Operation.COUNT_TOKENS:
        # Vendors count for nothing, whatever became of it.
        return Usage(input_tokens=0, output_tokens=0), Basis.PROVIDER_USAGE
    if how is Ending.NO_ANSWER and not _reported(usage):
        bound = Usage(input_tokens=input_bound_tokens(facts), output_tokens=0, source=UsageSource.ESTIMATED)
        return bound, Basis.UNKNOWN
    observed = 0 if facts.operation in _NO_OUTPUT else observed_output_tokens(output_chars, chunks)
    if how in {Ending.CUT, Ending.NO_ANSWER} or (how is Ending.DRAINED and not _reported(usage)):
        return _completed(usage, facts, observed, at_least=True), Basis.PARTIAL
    if usage is None or usage.input_tokens is None or (usage.output_tokens is None and observed):
        return _completed(usage, facts, observed, at_least=False), Basis.ESTIMATED
    return usage, Basis.DRAINED if how is Ending.DRAINED else Basis.PROVIDER_USAGE


def cost_of(card: RateCard | None, usage: Usage | None, basis: Basis, at_ns: int) -> Cost:
    """The price of what is billed. `nano_usd` is None when no price is known (no card), whatever the usage."""
    if usage is None:
        return Cost(nano_usd=0, basis=basis)
    if card is None:
        return Cost(nano_usd=None, basis=basis)
    dated = card.at(at_ns, usage.service_tier)
    row = dated.tiers.row(usage.input_tokens or 0)
    saved, surcharge = row.cache_nano_usd(usage)
    unpriced = row.unpriced(usage)
    if not (card.knows(usage.service_tier) or row.free):
        unpriced += (CostPart.SERVICE_TIER,)
    return Cost(
        nano_usd=min(row.nano_usd(usage), MAX_NANO_USD),
        basis=basis,
        price_version=dated.version,
        cache_saved_nano_usd=min(saved, MAX_NANO_USD),
        cache_surcharge_nano_usd=min(surcharge, MAX_NANO_USD),
        unpriced=unpriced,
    )


def _reported(usage: Usage | None) -> bool:
    return usage is not None and (usage.input_tokens is not None or usage.output_tokens is not None)


def _completed(usage: Usage | None, facts: ChargeFacts, observed: int, *, at_least: bool) -> Usage:
    """What was reported, with estimates for what was not; `at_least` the output that was seen."""
    known = usage if usage is not None else Usage()
    reported = known.output_tokens
    output = observed if reported is None else max(reported, observed) if at_least else reported
    complete = known.input_tokens is not None and reported is not None and output == reported
    return msgspec.structs.replace(
        known,
        input_tokens=input_estimate_tokens(facts) if known.input_tokens is None else known.input_tokens,
        output_tokens=output,
        source=known.source if complete else UsageSource.ESTIMATED,
    )


def _sane(usage: Usage) -> Usage:
    """Counts that a ledger can hold: neither negative nor beyond all measure; and no essay as a tier."""
    counts = [value for value in msgspec.structs.astuple(usage) if isinstance(value, int)]
    if (not counts or (min(counts) >= 0 and max(counts) <= MAX_TOKENS)) and len(usage.service_tier) <= _LONGEST_TIER:
        return usage
    sane = {
        name: min(max(value, 0), MAX_TOKENS)
        for name in usage.__struct_fields__
        if isinstance(value := getattr(usage, name), int) and not 0 <= value <= MAX_TOKENS
    }
    return msgspec.structs.replace(usage, **sane, service_tier=usage.service_tier[:_LONGEST_TIER])
