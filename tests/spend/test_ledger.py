"""Accounts: who is admitted, what is charged, and that no charge is lost or doubled. On both stores."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import pytest

from gateway.config.money import PriceFile
from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts, Hold
from gateway.spend.prices import PriceBook, PriceData
from gateway.spend.settle import ChargeFacts, Ending, OwnTools
from gateway.store.spec import Committed, Counter, LedgerStore, Op, StoreError
from gateway.types.errors import ErrorType, PolicyError, ServiceError
from gateway.types.records import Basis
from gateway.types.route import Operation
from gateway.types.usage import Usage
from tests.proving import Proof
from tests.spend.accounts import FREE, HELD, NOON_NS, PAYER, UNPRICED, OpenAccounts, SetClock, budget, facts
from tests.store.stores import POSTGRES

HOUR_NS = 3600 * 10**9


def settle(accounts: Accounts, hold: Hold | None, what: ChargeFacts, output: int = 5, *, at_ns: int = NOON_NS) -> int:
    """Charge a complete attempt with 100 input tokens; what it cost."""
    cost, usage = accounts.price(
        what,
        Ending.COMPLETE,
        Usage(input_tokens=100, output_tokens=output),
        at_ns=hold.at_ns if hold else at_ns,
        hold=hold,
    )
    accounts.settle(hold, what, cost, usage, started_ns=at_ns)
    assert cost.nano_usd is not None
    return cost.nano_usd


async def entries(accounts: Accounts) -> list[tuple[str, int | None, Basis]]:
    """The ledger's lines."""
    lines = await accounts.call(lambda store: list(store.entries()))
    return [(line.request_id, line.nano_usd, line.basis) for line in lines]


async def balance(accounts: Accounts) -> tuple[int, int]:
    """(spent, held) of the only budget, after checking that ledger, counter and gauge agree."""
    await accounts.return_leases()
    # A hold that nobody waited for any more is given back once its commit is told.
    await accounts.flush()
    (state,) = accounts.budget_states()
    # As a window opens: its counter is made with its first request, from the lines.
    present = accounts.budgets.present(state.resets_ns - 1 if state.resets_ns else NOON_NS)
    await accounts.call(lambda store: store.ensure(present))
    counters = await accounts.call(lambda store: [c for c in store.counters() if c.end_ns == state.resets_ns])
    holds = await accounts.call(lambda store: store.holds())
    lines = await accounts.call(lambda store: list(store.entries()))
    inside = [line for line in lines if counters[0].start_ns <= line.at_ns < counters[0].end_ns]
    assert counters[0].spent_nano_usd == sum(line.nano_usd or 0 for line in inside) == state.spent_nano_usd
    assert counters[0].held_nano_usd == sum(hold.nano_usd for hold in holds) == state.held_nano_usd
    return state.spent_nano_usd, state.held_nano_usd


async def test_200_at_once_and_room_for_7(open_accounts: OpenAccounts) -> None:
    """Of 200 concurrent requests with room for 7, exactly 7 are admitted, a scope's first requests included."""
    accounts = await open_accounts(budget(7 * HELD))
    results = await asyncio.gather(*(accounts.admit(facts(f"r{i}")) for i in range(200)), return_exceptions=True)
    admitted = [result for result in results if isinstance(result, Hold)]
    assert len(admitted) == 7
    refused = [result for result in results if isinstance(result, PolicyError)]
    assert len(refused) == 193
    assert {error.error_type for error in refused} == {ErrorType.BUDGET_EXCEEDED}
    assert await balance(accounts) == (0, 7 * HELD)


async def test_a_refusal_says_what_is_left_and_when_it_resets(open_accounts: OpenAccounts) -> None:
    """The 429's text has the budget, what is left, what was asked, the reset; its Retry-After is the time until then."""
    accounts = await open_accounts(budget(HELD - 1, scope={"team": "red"}, zone="Europe/Berlin"))
    with pytest.raises(PolicyError) as caught:
        await accounts.admit(facts("r"))
    assert caught.value.message == (
        "The budget 'b' (team=red, month/2026-11/Europe/Berlin) has $0.000002015 left of $0.000002015, and this "
        "request could cost up to $0.000002016. It resets at 2026-11-30T23:00:00Z."
    )
    assert caught.value.retry_after_s == (7 * 24 + 11) * 3600


async def test_a_refusal_because_of_requests_in_flight_says_try_again(open_accounts: OpenAccounts) -> None:
    """When only holds are in the way, Retry-After is a second, not the end of the month."""
    accounts = await open_accounts(budget(HELD))
    await accounts.admit(facts("a"))
    with pytest.raises(PolicyError) as caught:
        await accounts.admit(facts("b"))
    assert caught.value.retry_after_s == 1.0


async def test_after_quiesce_nothing_is_held_and_nobody_is_refused_falsely(open_accounts: OpenAccounts) -> None:
    """After 100 requests in all orders: held is 0, spent is the sum of the lines, and what is left may be spent."""
    accounts = await open_accounts(budget(100 * HELD))

    async def one(i: int) -> int:
        what = facts(f"r{i}")
        hold = await accounts.admit(what)
        await asyncio.sleep(0)
        return settle(accounts, hold, what, output=i)

    costs = await asyncio.gather(*(one(i) for i in range(100)))
    assert await balance(accounts) == (sum(costs), 0)
    left = 100 * HELD - sum(costs)
    for i in range(left // HELD):
        await accounts.admit(facts(f"s{i}"))
    with pytest.raises(PolicyError):
        await accounts.admit(facts("one too many"))


async def test_an_unpriced_model_is_refused_under_a_hard_budget(open_accounts: OpenAccounts) -> None:
    """No price and a hard budget: refused, never free. Without a hard budget it passes, and its line has no amount."""
    accounts = await open_accounts(budget(100))
    with pytest.raises(PolicyError) as caught:
        await accounts.admit(facts("r", payer=UNPRICED))
    assert caught.value.error_type is ErrorType.PRICE_UNKNOWN
    await accounts.close()
    soft = await open_accounts(budget(100, enforcement="soft"))
    what = facts("s", payer=UNPRICED)
    hold = await soft.admit(what)
    cost, usage = soft.price(what, Ending.COMPLETE, Usage(input_tokens=1, output_tokens=1), at_ns=NOON_NS)
    assert (cost.nano_usd, cost.basis) == (None, Basis.PROVIDER_USAGE)
    soft.settle(hold, what, cost, usage, started_ns=NOON_NS)
    assert await entries(soft) == [("s", None, Basis.PROVIDER_USAGE)]


async def test_a_free_model_works_after_exhaustion(open_accounts: OpenAccounts) -> None:
    """A model with an explicit price of 0 is admitted when nothing is left."""
    accounts = await open_accounts(budget(0))
    with pytest.raises(PolicyError):
        await accounts.admit(facts("paid"))
    what = facts("free", payer=FREE)
    hold = await accounts.admit(what)
    assert settle(accounts, hold, what) == 0


@pytest.mark.parametrize(
    ("max_tokens", "choices", "cap", "output_tokens"),
    [
        (50, 1, None, 50),
        (None, 1, 16_384, 16_384),
        (-1, 1, 16_384, 16_384),
        (0, 1, 16_384, 16_384),
        (10**12, 1, 131_072, 131_072),
        (10**30, 1, 131_072, 131_072),
        (50, 128, None, 50 * 128),
        (50, -5, None, 50),
        (None, 10**3, 16_384, 16_384 * 10**3),
    ],
)
async def test_a_hostile_limit_on_tokens_is_held_at_what_is_sent(
    open_accounts: OpenAccounts, max_tokens: int | None, choices: int, cap: int | None, output_tokens: int
) -> None:
    """Absent, negative and absurd limits are replaced by a limit that goes upstream, and that limit is held."""
    accounts = await open_accounts(budget(10**15))
    hold = await accounts.admit(facts("r", max_tokens=max_tokens, choices=choices))
    assert hold is not None
    assert (hold.caps.output_tokens, hold.nano_usd) == (cap, 1016 + 10 * output_tokens)


async def test_calls_of_the_vendors_own_tools_are_held(open_accounts: OpenAccounts) -> None:
    """Those that the caller limited at its limits, the others at the configured one; with all that the model reads anew."""
    accounts = await open_accounts(budget(10**15), default_tool_calls=2)
    for name, calls, unlimited, sent in (
        ("none", 0, 0, None),
        ("said", 3, 0, 2),
        ("unsaid", 0, 1, 2),
        ("both", 1, 1, 2),
    ):
        tools = OwnTools(calls=calls, unlimited=unlimited, result_tokens=1000)
        hold = await accounts.admit(facts(name, tools=tools))
        assert hold is not None
        runs = calls + 2 * unlimited
        reads = 1016 * (runs + 1) + 100 * runs + 1000 * sum(range(runs + 1))
        assert (hold.nano_usd, hold.caps.tool_calls) == (reads + 1000, sent)


async def test_more_than_any_request_may_cost_is_refused(open_accounts: OpenAccounts) -> None:
    """A million million choices overflow nothing: they are refused."""
    accounts = await open_accounts(budget(10**17))
    with pytest.raises(PolicyError) as caught:
        await accounts.admit(facts("r", choices=10**12))
    assert caught.value.error_type is ErrorType.BUDGET_EXCEEDED


async def test_an_absurd_usage_does_not_block_the_ledger(open_accounts: OpenAccounts) -> None:
    """A provider that reports 10^40 or negative tokens is charged within bounds, and later charges are written."""
    accounts = await open_accounts(budget(10**15, enforcement="soft"))
    for name, count in (("huge", 10**40), ("negative", -5)):
        cost, usage = accounts.price(
            facts(name), Ending.COMPLETE, Usage(input_tokens=count, output_tokens=1), at_ns=NOON_NS
        )
        accounts.settle(None, facts(name), cost, usage, started_ns=NOON_NS)
    await accounts.flush()
    assert await entries(accounts) == [
        ("huge", 10**12 + 10, Basis.PROVIDER_USAGE),
        ("negative", 10, Basis.PROVIDER_USAGE),
    ]
    assert accounts.stats().lost == 0


async def test_no_budget_no_hold_but_a_line(open_accounts: OpenAccounts) -> None:
    """Without budgets nothing is held, and every attempt still leaves its line."""
    accounts = await open_accounts()
    assert await accounts.admit(facts("r")) is None
    settle(accounts, None, facts("r"))
    await accounts.flush()
    assert await entries(accounts) == [("r", 150, Basis.PROVIDER_USAGE)]


async def test_retries_and_fallbacks_are_each_charged(open_accounts: OpenAccounts) -> None:
    """Three attempts of one request are three lines, each with its own hold."""
    accounts = await open_accounts(budget(HELD))
    for attempt, how in ((1, Ending.NOT_SENT), (2, Ending.PROVIDER_ERROR), (3, Ending.COMPLETE)):
        what = facts("r", attempt=attempt)
        hold = await accounts.admit(what)
        reported = Usage(input_tokens=100, output_tokens=5) if how is Ending.COMPLETE else None
        cost, usage = accounts.price(what, how, reported, at_ns=NOON_NS)
        accounts.settle(hold, what, cost, usage, started_ns=NOON_NS)
    assert await balance(accounts) == (150, 0)
    assert await entries(accounts) == [
        ("r", 0, Basis.NOT_SENT),
        ("r", 0, Basis.PROVIDER_ERROR),
        ("r", 150, Basis.PROVIDER_USAGE),
    ]


async def test_shutdown_with_500_charges_waiting_loses_none(open_accounts: OpenAccounts) -> None:
    """SIGTERM's path: close at once after 500 settles, and all 500 are in the ledger, once."""
    accounts = await open_accounts(budget(10**9, enforcement="soft"))
    for i in range(500):
        settle(accounts, None, facts(f"r{i}"))
    assert await accounts.close() == 0
    again = await open_accounts(budget(10**9, enforcement="soft"))
    assert await balance(again) == (500 * 150, 0)
    assert len(await entries(again)) == 500
    with pytest.raises(ServiceError):
        await accounts.admit(facts("late"))


async def test_a_flush_that_is_cancelled_at_any_step_loses_nothing(open_accounts: OpenAccounts) -> None:
    """Whoever waits for the ledger may stop waiting, after any step of its loop: what was settled is written, once."""
    for steps in range(12):
        accounts = await open_accounts(budget(10**9, enforcement="soft"), node=f"n{steps}")
        for i in range(10):
            settle(accounts, None, facts(f"r{steps}-{i}"))
        for waiting in (accounts.flush(), accounts.close()):
            task = asyncio.ensure_future(waiting)
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await accounts.close() == 0
    again = await open_accounts(budget(10**9, enforcement="soft"))
    assert await balance(again) == (12 * 10 * 150, 0)
    assert len(await entries(again)) == 12 * 10


async def embed(accounts: Accounts, batch: int) -> None:
    """Charge a thousand embeddings of one token, a nano-dollar each."""
    usage = Usage(input_tokens=1)
    for i in range(1_000):
        what = facts(f"r{batch}-{i}", operation=Operation.EMBEDDINGS)
        cost, billed = accounts.price(what, Ending.COMPLETE, usage, at_ns=NOON_NS)
        accounts.settle(None, what, cost, billed, started_ns=NOON_NS)
    await accounts.flush()


async def test_one_token_embeddings_sum_exactly(open_accounts: OpenAccounts) -> None:
    """3,000 charges of a nano-dollar are 3,000 nano-dollars, in the lines and in the budget."""
    accounts = await open_accounts(budget(10**9, enforcement="soft"))
    for batch in range(3):
        await embed(accounts, batch)
    assert await balance(accounts) == (3_000, 0)
    assert sum(nano or 0 for _, nano, _ in await entries(accounts)) == 3_000


@pytest.mark.prove(share=2)
@pytest.mark.timeout(0)
async def test_a_million_one_token_embeddings_sum_exactly(open_accounts: OpenAccounts, proof: Proof) -> None:
    """The same with a million."""
    accounts = await open_accounts(budget(10**9, enforcement="soft"))
    count = 0
    for batch in proof.rounds(1_000):
        await embed(accounts, batch)
        count += 1_000
    assert await balance(accounts) == (count, 0)
    spent = await accounts.call(lambda store: sum(entry.nano_usd or 0 for entry in store.entries()))
    assert spent == count
    proof.found(charges=count, difference_nano_usd=spent - count)


async def test_a_cancelled_admission_gives_its_hold_back(open_accounts: OpenAccounts) -> None:
    """A caller who leaves while the hold is written, at whatever moment, leaves nothing held."""
    accounts = await open_accounts(budget(1000 * HELD))
    for steps in range(20):
        task = asyncio.ensure_future(accounts.admit(facts(f"r{steps}")))
        for _ in range(steps):
            await asyncio.sleep(0)
        if not task.cancel():
            hold = await task
            accounts.release(hold)
            continue
        await asyncio.wait([task])
        if not task.cancelled():
            accounts.release(task.result())
    await accounts.flush()
    assert await balance(accounts) == (0, 0)
    assert await entries(accounts) == []


class Gate:
    """A store whose commits wait until they are let through, or fail as told."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self.open = threading.Event()
        self.open.set()
        self.failures: list[StoreError] = []
        self.after_commit = False

    def commit(self, ops: list[Op]) -> Committed:
        self.open.wait(20)
        if self.failures and not self.after_commit:
            raise self.failures.pop()
        done = self._store.commit(ops)
        if self.failures:
            raise self.failures.pop()
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def gated(open_accounts: OpenAccounts, limit: int) -> tuple[Accounts, Gate]:
    """Accounts over a gate."""
    gates: list[Gate] = []

    def wrap(store: LedgerStore) -> LedgerStore:
        gates.append(Gate(store))
        return gates[0]  # type: ignore[return-value]

    return await open_accounts(budget(limit), wrap=wrap), gates[0]


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_commit_that_fails_loses_and_doubles_nothing(
    open_accounts: OpenAccounts, after_commit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Charges whose commit failed, before or after it took effect, are tried again and counted once; the log says why."""
    accounts, gate = await gated(open_accounts, 10 * HELD)
    holds = [await accounts.admit(facts(f"r{i}")) for i in range(5)]
    gate.after_commit = after_commit
    gate.failures = [StoreError("the disk is full", ambiguous=after_commit) for _ in range(3)]
    for i, hold in enumerate(holds):
        settle(accounts, hold, facts(f"r{i}"))
    while accounts.stats().failed_commits < 3 or accounts.stats().pending:
        await accounts.flush()
    assert await balance(accounts) == (5 * 150, 0)
    assert len(await entries(accounts)) == 5
    told = ["the ledger takes no commits: the disk is full", "the ledger takes commits again"]
    assert [record.getMessage() for record in caplog.records if record.name == "gateway.store.writer"] == told


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_hold_that_could_not_be_written_is_no_leave(open_accounts: OpenAccounts, after_commit: bool) -> None:
    """When the ledger fails, a hard budget refuses with `ledger_unavailable`, and nothing stays held."""
    accounts, gate = await gated(open_accounts, 10 * HELD)
    gate.after_commit = after_commit
    gate.failures = [StoreError("the connection broke", ambiguous=after_commit)]
    with pytest.raises(ServiceError) as caught:
        await accounts.admit(facts("r"))
    assert caught.value.error_type is ErrorType.LEDGER_UNAVAILABLE
    await accounts.flush()
    assert await balance(accounts) == (0, 0)


async def test_a_ledger_that_hangs_refuses_in_time_and_catches_up(
    open_accounts: OpenAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen ledger refuses hard-budgeted requests after a bounded wait; when it thaws, their holds are given back."""
    monkeypatch.setattr("gateway.spend.holds.HOLD_TIMEOUT_S", 0.02)
    accounts, gate = await gated(open_accounts, 10 * HELD)
    gate.open.clear()
    with pytest.raises(ServiceError):
        await accounts.admit(facts("r"))
    gate.open.set()
    await accounts.flush()
    assert await balance(accounts) == (0, 0)


async def test_a_full_queue_refuses_new_requests_but_takes_charges(open_accounts: OpenAccounts) -> None:
    """The queue is bounded at admission; a request that was admitted is charged however full it is."""
    clock = SetClock()
    gates: list[Gate] = []

    def wrap(store: LedgerStore) -> LedgerStore:
        gates.append(Gate(store))
        return gates[0]  # type: ignore[return-value]

    accounts = await open_accounts(clock=clock, wrap=wrap, max_pending=3)
    gates[0].open.clear()
    for i in range(6):
        settle(accounts, None, facts(f"r{i}"))
    with pytest.raises(ServiceError):
        await accounts.admit(facts("s"))
    gates[0].open.set()
    await accounts.flush()
    assert len(await entries(accounts)) == 6
    assert await accounts.admit(facts("s")) is None


async def test_a_charge_after_its_window_closed_hits_its_window(open_accounts: OpenAccounts) -> None:
    """A request that began before midnight is charged to that day, and the new day starts at zero."""
    clock = SetClock()
    accounts = await open_accounts(budget(10 * HELD, window="day"), clock=clock)
    what = facts("r")
    hold = await accounts.admit(what)
    clock.ns += 24 * HOUR_NS
    settle(accounts, hold, what)
    assert await balance(accounts) == (0, 0)
    clock.ns -= 24 * HOUR_NS
    assert await balance(accounts) == (150, 0)


@pytest.mark.parametrize("jump_ns", [-HOUR_NS, 24 * HOUR_NS, 40 * 24 * HOUR_NS])
async def test_a_clock_that_jumps_breaks_no_balance(open_accounts: OpenAccounts, jump_ns: int) -> None:
    """Whatever the wall clock does between a hold and its charge, spent is the sum of the lines and nothing stays held."""
    clock = SetClock()
    accounts = await open_accounts(budget(10 * HELD, window="day"), clock=clock)
    holds = [await accounts.admit(facts(f"r{i}")) for i in range(3)]
    clock.ns += jump_ns
    holds.append(await accounts.admit(facts("r3")))
    for i, hold in enumerate(holds):
        settle(accounts, hold, facts(f"r{i}"))
    await accounts.flush()
    rows = await accounts.call(lambda store: store.counters())
    assert sum(row.spent_nano_usd for row in rows) == 4 * 150
    assert sum(row.held_nano_usd for row in rows) == 0
    assert await accounts.call(lambda store: store.rebuild()) == 0


async def test_every_scope_holds_at_once(open_accounts: OpenAccounts) -> None:
    """Global, team, key, route, provider and model budgets all count one request, and the tightest one decides."""
    scopes = [{}, {"team": "red"}, {"key": "k1"}, {"route": "chat"}, {"provider": "openai"}, {"model": "m"}]
    others = [budget(10 * HELD, name=f"b{i}", scope=scope) for i, scope in enumerate(scopes)]
    accounts = await open_accounts(*others, budget(HELD, name="tight", scope={"team": "red", "model": "m"}))
    what = facts("r")
    hold = await accounts.admit(what)
    with pytest.raises(PolicyError, match="'tight'"):
        await accounts.admit(facts("s"))
    settle(accounts, hold, what)
    await accounts.flush()
    assert {(state.spent_nano_usd, state.held_nano_usd) for state in accounts.budget_states()} == {(150, 0)}
    assert len(accounts.budget_states()) == 7


async def test_each_value_of_a_starred_scope_has_its_own_room(open_accounts: OpenAccounts) -> None:
    """A budget for every team gives each team its amount; another team's spend is not in its way."""
    accounts = await open_accounts(budget(HELD, scope={"team": "*"}))
    blue = type(PAYER)(team="blue", key_id="", route="chat", provider="openai", model="m")
    await accounts.admit(facts("a"))
    await accounts.admit(facts("b", payer=blue))
    for payer in (PAYER, blue):
        with pytest.raises(PolicyError):
            await accounts.admit(facts("c", payer=payer))
    assert {state.scope for state in accounts.budget_states()} == {"team=red", "team=blue"}
    await accounts.close()
    again = await open_accounts(budget(HELD, scope={"team": "*"}))
    assert {state.scope for state in again.budget_states()} == {"team=red", "team=blue"}


async def test_a_reload_keeps_what_was_spent_and_uses_the_new_limit(open_accounts: OpenAccounts) -> None:
    """Budgets that change under way: spend stays, a new budget counts the past, a request in flight is charged to both."""
    accounts = await open_accounts(budget(10 * HELD))
    hold = await accounts.admit(facts("r"))
    settle(accounts, None, facts("x"))
    await accounts.reload(BudgetBook([budget(HELD + 150), budget(HELD, name="team", scope={"team": "red"})]))
    settle(accounts, hold, facts("r"))
    await accounts.flush()
    assert [(s.budget, s.spent_nano_usd, s.held_nano_usd) for s in accounts.budget_states()] == [
        ("b", 300, 0),
        ("team", 300, 0),
    ]
    with pytest.raises(PolicyError, match="'b'"):
        await accounts.admit(facts("s"))
    assert await accounts.call(lambda store: store.rebuild()) == 0


async def test_a_charge_keeps_the_prices_of_its_hold(open_accounts: OpenAccounts) -> None:
    """Dearer prices, or none, that come while a request is in flight can not overshoot its budget."""
    accounts = await open_accounts(budget(10 * HELD))
    cheap = PriceFile(model="m", input_usd_per_mtok=Decimal("0.001"), output_usd_per_mtok=Decimal("0.01"))
    dear = PriceFile(model="m", input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1))
    accounts.prices = PriceBook(PriceData(providers={}, version="none", as_of=date(2026, 11, 1)))
    for name, later in (("dearer", [dear]), ("none", [])):
        accounts.prices.override([cheap])
        hold = await accounts.admit(facts(name))
        accounts.prices.override(later)
        assert settle(accounts, hold, facts(name)) == 150
    assert await balance(accounts) == (300, 0)


class Slow:
    """A store that, when told to, takes its time between making new counters and saying so."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self.made = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def ensure(self, counters: Sequence[Counter]) -> None:
        self._store.ensure(counters)
        self.made.set()
        self.go_on.wait(20)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def test_no_charge_slips_between_old_and_new_budgets(open_accounts: OpenAccounts) -> None:
    """What is charged while a reload makes new counters is counted in them, and leaves none of the old ones behind."""
    slow: list[Slow] = []

    def wrap(store: LedgerStore) -> LedgerStore:
        slow.append(Slow(store))
        return slow[0]  # type: ignore[return-value]

    accounts = await open_accounts(budget(10**9), wrap=wrap)
    settle(accounts, None, facts("before"))
    slow[0].made.clear()
    slow[0].go_on.clear()
    reloading = asyncio.ensure_future(accounts.reload(BudgetBook([budget(10**9, window="day")])))
    await asyncio.to_thread(slow[0].made.wait, 20)
    settle(accounts, None, facts("during"))
    slow[0].go_on.set()
    await reloading
    assert await balance(accounts) == (300, 0)
    assert [row.family for row in await accounts.call(lambda store: store.counters())] == ["global day UTC"]


async def test_a_soft_budget_counts_and_never_refuses(open_accounts: OpenAccounts) -> None:
    """A soft budget at ten times its amount still lets requests pass, and its state says so."""
    accounts = await open_accounts(budget(150, enforcement="soft"))
    for i in range(10):
        what = facts(f"r{i}")
        settle(accounts, await accounts.admit(what), what)
    assert await balance(accounts) == (1500, 0)
    assert accounts.budget_states()[0].limit_nano_usd == 150


async def test_embeddings_hold_no_output(open_accounts: OpenAccounts) -> None:
    """An operation that generates nothing is held at its input alone, and its missing output count is no gap."""
    accounts = await open_accounts(budget(10**9))
    what = facts("r", operation=Operation.EMBEDDINGS, max_tokens=None)
    hold = await accounts.admit(what)
    assert hold is not None
    assert (hold.nano_usd, hold.caps.output_tokens) == (1016, None)
    cost, _ = accounts.price(what, Ending.COMPLETE, Usage(input_tokens=7), at_ns=NOON_NS)
    assert (cost.nano_usd, cost.basis) == (7, Basis.PROVIDER_USAGE)
    accounts.release(hold)


@POSTGRES
async def test_two_nodes_share_one_budget(open_accounts: OpenAccounts) -> None:
    """Two nodes on one PostgreSQL ledger admit together exactly what fits, and each sees the other's spend."""
    a = await open_accounts(budget(9 * HELD), node="a")
    b = await open_accounts(budget(9 * HELD), node="b")
    results = await asyncio.gather(
        *((a if i % 2 else b).admit(facts(f"r{i}")) for i in range(100)), return_exceptions=True
    )
    assert sum(isinstance(result, Hold) for result in results) == 9
    await a.refresh()
    assert await balance(a) == (0, 9 * HELD)


async def test_amounts_are_exact_decimals() -> None:
    """0.1 + 0.2 dollars in the configuration are 300 million nano-dollars, not a float next to it."""
    from gateway.spend.budgets import nano_usd, usd_text

    assert nano_usd(Decimal("0.1")) + nano_usd(Decimal("0.2")) == 300_000_000
    assert [usd_text(n) for n in (0, 1, 1_500_000_000, -20)] == ["0.00", "0.000000001", "1.50", "-0.00000002"]
