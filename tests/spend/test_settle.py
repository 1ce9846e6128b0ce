"""The settle table, row by row: what happened, what is charged, and how sure that is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spend.prices import PriceBook
from gateway.spend.settle import Ending, billed_usage, cost_of, ending, input_bound_tokens
from gateway.types.errors import ErrorType
from gateway.types.records import Basis
from gateway.types.route import Operation
from gateway.types.usage import Usage, UsageSource
from tests.spend.accounts import NOON_NS, PAYER, UNPRICED, facts

FULL = Usage(input_tokens=100, output_tokens=5)
ZERO = Usage(input_tokens=0, output_tokens=0)
INPUT_ESTIMATE = 936 // 4 + 4
BOUND = 936 + 16 + 64

ROWS: list[tuple[str, Ending, Usage | None, dict[str, int], int, Basis]] = [
    ("never sent", Ending.NOT_SENT, None, {}, 0, Basis.NOT_SENT),
    ("refused by the provider", Ending.PROVIDER_ERROR, None, {}, 0, Basis.PROVIDER_ERROR),
    ("an error that reports usage", Ending.PROVIDER_ERROR, FULL, {}, 150, Basis.PROVIDER_USAGE),
    ("complete, with usage", Ending.COMPLETE, FULL, {}, 150, Basis.PROVIDER_USAGE),
    ("complete, usage says zero", Ending.COMPLETE, ZERO, {"output_chars": 400}, 0, Basis.PROVIDER_USAGE),
    ("complete, no usage", Ending.COMPLETE, None, {"output_chars": 40}, INPUT_ESTIMATE + 100, Basis.ESTIMATED),
    ("complete, no usage, chunks seen", Ending.COMPLETE, None, {"chunks": 7}, INPUT_ESTIMATE + 70, Basis.ESTIMATED),
    ("complete, only output known", Ending.COMPLETE, Usage(output_tokens=5), {}, INPUT_ESTIMATE + 50, Basis.ESTIMATED),
    ("complete, only input known", Ending.COMPLETE, Usage(input_tokens=9), {"output_chars": 4}, 9 + 10, Basis.ESTIMATED),
    ("caller left, drained", Ending.DRAINED, FULL, {"output_chars": 400}, 150, Basis.DRAINED),
    ("caller left, drained, no usage", Ending.DRAINED, None, {"chunks": 3}, INPUT_ESTIMATE + 30, Basis.PARTIAL),
    ("cut, nothing reported", Ending.CUT, None, {"output_chars": 40}, INPUT_ESTIMATE + 100, Basis.PARTIAL),
    ("cut, more reported than seen", Ending.CUT, FULL, {"output_chars": 4}, 150, Basis.PARTIAL),
    ("cut, more seen than reported", Ending.CUT, FULL, {"output_chars": 80}, 100 + 200, Basis.PARTIAL),
    ("cut before the first chunk", Ending.CUT, None, {}, INPUT_ESTIMATE, Basis.PARTIAL),
    ("sent, no answer", Ending.NO_ANSWER, None, {}, BOUND, Basis.UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "how", "usage", "seen", "nano_usd", "basis"), ROWS, ids=[row[0] for row in ROWS])
def test_the_settle_table(
    prices: PriceBook, name: str, how: Ending, usage: Usage | None, seen: dict[str, Any], nano_usd: int, basis: Basis
) -> None:
    """Each row of the published table, with an input token at 1 and an output token at 10 nano-dollars."""
    billed, found = billed_usage(how, facts(name), usage, **seen)
    cost = cost_of(prices.card(PAYER.provider, PAYER.model), billed, found, NOON_NS)
    assert (cost.nano_usd, cost.basis) == (nano_usd, basis)


def test_every_basis_has_a_row() -> None:
    """Only `orphan` is charged elsewhere: by the sweep at the start."""
    assert {row[5] for row in ROWS} == set(Basis) - {Basis.ORPHAN}


@pytest.mark.parametrize(("name", "how", "usage", "seen", "nano_usd", "basis"), ROWS, ids=[row[0] for row in ROWS])
def test_without_a_price_nothing_that_was_used_is_free(
    prices: PriceBook, name: str, how: Ending, usage: Usage | None, seen: dict[str, Any], nano_usd: int, basis: Basis
) -> None:
    """An unpriced model's attempts have no amount, except where nothing was used at all."""
    billed, found = billed_usage(how, facts(name), usage, **seen)
    cost = cost_of(prices.card(UNPRICED.provider, UNPRICED.model), billed, found, NOON_NS)
    assert cost.basis is basis
    assert cost.nano_usd == (0 if billed is None else None)


def test_estimated_counts_say_so() -> None:
    """Counts that nobody reported are marked, reported ones are not."""
    estimated, _ = billed_usage(Ending.COMPLETE, facts("r"), None, 40)
    exact, _ = billed_usage(Ending.COMPLETE, facts("r"), FULL, 40)
    assert estimated is not None
    assert estimated.source is UsageSource.ESTIMATED
    assert exact is FULL


@given(seen=st.lists(st.integers(1, 50), min_size=1, max_size=30), reported=st.none() | st.integers(0, 400))
def test_leaving_after_any_chunk_is_never_free_and_never_cheaper_than_leaving_before(
    prices: PriceBook, seen: list[int], reported: int | None
) -> None:
    """For every k, a caller who leaves after chunk k pays for the input and for what came until then."""
    usage = None if reported is None else Usage(input_tokens=100, output_tokens=reported)
    costs = []
    for k in range(len(seen) + 1):
        billed, basis = billed_usage(Ending.CUT, facts("r"), usage, sum(seen[:k]), k)
        cost = cost_of(prices.card(PAYER.provider, PAYER.model), billed, basis, NOON_NS)
        assert cost.nano_usd is not None
        assert cost.nano_usd >= 100 + 10 * max(k, reported or 0)
        costs.append(cost.nano_usd)
    assert costs == sorted(costs)


@given(
    how=st.sampled_from(list(Ending)),
    output=st.integers(0, 100),
    chars=st.integers(0, 400),
    chunks=st.integers(0, 100),
    text=st.text(max_size=300),
)
def test_no_charge_is_above_its_hold(
    prices: PriceBook, how: Ending, output: int, chars: int, chunks: int, text: str
) -> None:
    """When the provider keeps to the request's limit, whatever happens costs at most what was held."""
    what = facts("r", input_bytes=len(text.encode()))
    held = input_bound_tokens(what) + 10 * 100
    usage = Usage(input_tokens=len(text.encode()) + 4, output_tokens=output)
    for reported in (None, usage):
        billed, basis = billed_usage(how, what, reported, chars, chunks)
        cost = cost_of(prices.card(PAYER.provider, PAYER.model), billed, basis, NOON_NS)
        assert cost.nano_usd is not None
        assert cost.nano_usd <= held


@pytest.mark.parametrize(
    ("error", "sent", "status", "finished", "started", "drained", "expected"),
    [
        (None, True, 200, True, True, False, Ending.COMPLETE),
        (ErrorType.CONNECT_FAILED, False, None, False, False, False, Ending.NOT_SENT),
        (ErrorType.PROVIDER_RATE_LIMITED, True, 429, False, False, False, Ending.PROVIDER_ERROR),
        (ErrorType.PROVIDER_ERROR, True, 500, False, True, False, Ending.PROVIDER_ERROR),
        (ErrorType.FIRST_BYTE_TIMEOUT, True, None, False, False, False, Ending.NO_ANSWER),
        (ErrorType.CONNECTION_LOST, True, None, False, False, False, Ending.NO_ANSWER),
        (ErrorType.STREAM_CUT, True, 200, False, True, False, Ending.CUT),
        (ErrorType.STREAM_TIMEOUT, True, 200, False, False, False, Ending.CUT),
        (ErrorType.CALLER_LEFT, True, 200, False, True, False, Ending.CUT),
        (ErrorType.CALLER_LEFT, True, 200, True, True, True, Ending.DRAINED),
        (ErrorType.CALLER_LEFT, True, 200, True, True, False, Ending.COMPLETE),
        (ErrorType.CALLER_LEFT, True, None, False, False, False, Ending.NO_ANSWER),
        (ErrorType.UNREADABLE_REPLY, True, 200, False, True, False, Ending.CUT),
    ],
)
def test_how_an_attempt_ended(
    error: ErrorType | None,
    sent: bool,
    status: int | None,
    finished: bool,
    started: bool,
    drained: bool,
    expected: Ending,
) -> None:
    """What is known of an attempt names its row of the table."""
    found = ending(error, sent=sent, status=status, finished=finished, started=started, drained=drained)
    assert found is expected


def test_an_embedding_without_an_output_count_is_exact(prices: PriceBook) -> None:
    """Vendors report no output for embeddings: that is no missing usage."""
    billed, basis = billed_usage(Ending.COMPLETE, facts("r", operation=Operation.EMBEDDINGS), Usage(input_tokens=3))
    assert (cost_of(prices.card(PAYER.provider, PAYER.model), billed, basis, NOON_NS).nano_usd, basis) == (
        3,
        Basis.PROVIDER_USAGE,
    )
