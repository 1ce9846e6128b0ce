"""Accounts that lease slices of hard budgets from a ledger that several nodes share."""

import asyncio

import pytest

from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts, Hold
from gateway.store.spec import LEASE, OpenHold
from gateway.types.errors import PolicyError
from tests.spend.accounts import HELD, OpenAccounts, SetClock, budget, facts
from tests.spend.test_ledger import HOUR_NS, balance, entries, settle
from tests.store.stores import POSTGRES


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a second makes no lease idle."""
    monkeypatch.setattr("gateway.spend.leases.IDLE_S", 60.0)


async def leases_of(accounts: Accounts) -> list[OpenHold]:
    """The leases in the ledger."""
    return [hold for hold in await accounts.call(lambda store: store.holds()) if hold.attempt == LEASE]


async def lease(accounts: Accounts, prefix: str = "") -> None:
    """Have two requests charged, after which their payer has a lease."""
    for name in ("first", "second"):
        what = facts(prefix + name)
        settle(accounts, await accounts.admit(what), what)
    await accounts.flush()
    assert await leases_of(accounts)


async def from_lease(accounts: Accounts, name: str) -> Hold:
    """An attempt that is admitted from a lease."""
    hold = await accounts.admit(facts(name))
    assert hold is not None
    assert hold.lease is not None
    return hold


@POSTGRES
async def test_a_lease_admits_without_a_word_to_the_ledger(open_accounts: OpenAccounts) -> None:
    """The second request of a second gets its payer a slice of eight; those after it are admitted at once."""
    accounts = await open_accounts(budget(1000 * HELD))
    await lease(accounts)
    before = accounts.stats().pending
    admission = accounts.admit(facts("r"))
    with pytest.raises(StopIteration) as stopped:
        admission.send(None)
    hold: Hold = stopped.value.value
    assert accounts.stats().pending == before
    assert (hold.nano_usd, hold.durable) == (HELD, True)
    settle(accounts, hold, facts("r"))
    assert await balance(accounts) == (450, 0)


async def test_a_ledger_of_one_process_has_no_leases(open_accounts: OpenAccounts, tmp_path: object) -> None:
    """Where a commit is no journey nothing is set aside: SQLite's holds are exact."""
    accounts = await open_accounts(budget(1000 * HELD))
    shared = await accounts.call(lambda store: store.shared)
    for i in range(20):
        settle(accounts, await accounts.admit(facts(f"r{i}")), facts(f"r{i}"))
    assert bool(await leases_of(accounts)) is shared


@POSTGRES
async def test_a_small_budget_is_not_leased(open_accounts: OpenAccounts) -> None:
    """Where a sixteenth of what is left is less than four requests, each one asks the ledger."""
    accounts = await open_accounts(budget(63 * HELD))
    for i in range(10):
        hold = await accounts.admit(facts(f"r{i}"))
        assert hold is not None
        assert hold.lease is None
    assert await leases_of(accounts) == []


@POSTGRES
async def test_an_idle_lease_goes_back_by_itself(open_accounts: OpenAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice that nobody draws from is everybody's again after a second; what is in flight stays held."""
    accounts = await open_accounts(budget(1000 * HELD))
    await lease(accounts)
    hold = await from_lease(accounts, "r")
    monkeypatch.setattr("gateway.spend.leases.IDLE_S", 0.1)
    while await leases_of(accounts):
        pass
    assert accounts.budget_states()[0].held_nano_usd == HELD
    settle(accounts, hold, facts("r"))
    assert await balance(accounts) == (450, 0)


@POSTGRES
async def test_nobody_is_refused_for_what_others_have_leased(open_accounts: OpenAccounts) -> None:
    """A request that needs all that is left gets it, though two other nodes lease parts: they are asked back."""
    a, b, c = [await open_accounts(budget(1000 * HELD), node=node, max_output_tokens=10**6) for node in "abc"]
    await lease(a, "a")
    await lease(b, "b")
    assert len(await leases_of(c)) == 2
    used = 4 * 150
    left = 1000 * HELD - used
    # 1016 for the input, 10 a token.
    hold = await c.admit(facts("all", max_tokens=(left - 1016) // 10))
    assert hold is not None
    assert hold.nano_usd > left - 10
    assert await leases_of(c) == []
    with pytest.raises(PolicyError):
        await a.admit(facts("one too many"))


@POSTGRES
async def test_two_leasing_nodes_admit_exactly_what_fits(open_accounts: OpenAccounts) -> None:
    """Callers of two nodes that ask again and again, and never end, get all of the room and not one request more."""
    room = 300
    nodes = [await open_accounts(budget(room * HELD), node=node) for node in "ab"]
    leased = refused = 0

    async def caller(number: int) -> int:
        nonlocal leased, refused
        admitted = 0
        try:
            while True:
                hold = await nodes[number % 2].admit(facts(f"r{number}-{admitted}"))
                leased += hold is not None and hold.lease is not None
                admitted += 1
                await asyncio.sleep(0)
        except PolicyError:
            refused += 1
        return admitted

    assert sum(await asyncio.gather(*(caller(number) for number in range(20)))) == room
    assert refused == 20
    assert leased > 0
    await nodes[0].refresh()
    assert await balance(nodes[0]) == (0, room * HELD)


@POSTGRES
async def test_a_node_that_ends_leaves_no_lease(open_accounts: OpenAccounts) -> None:
    """A shutdown returns the slices: the next start finds no orphan, and all of the rest may be spent."""
    accounts = await open_accounts(budget(1000 * HELD))
    await lease(accounts)
    hold = await from_lease(accounts, "r")
    settle(accounts, hold, facts("r"))
    assert await accounts.close() == 0
    again = await open_accounts(budget(1000 * HELD))
    assert again.stats().orphans == 0
    assert await balance(again) == (450, 0)


@POSTGRES
async def test_a_reload_returns_leases(open_accounts: OpenAccounts) -> None:
    """New limits hold for the next request: nothing is admitted from a slice of the old ones."""
    accounts = await open_accounts(budget(1000 * HELD))
    await lease(accounts)
    hold = await from_lease(accounts, "r")
    await accounts.reload(BudgetBook([budget(HELD + 300)]))
    assert await leases_of(accounts) == []
    with pytest.raises(PolicyError):
        await accounts.admit(facts("s"))
    accounts.release(hold)
    assert await balance(accounts) == (300, 0)
    accounts.release(await accounts.admit(facts("t")))


@POSTGRES
async def test_a_lease_ends_with_its_window(open_accounts: OpenAccounts) -> None:
    """What a slice of yesterday's budget has left is no leave to spend today's."""
    clock = SetClock()
    accounts = await open_accounts(budget(1000 * HELD, window="day"), clock=clock)
    await lease(accounts)
    clock.ns += 24 * HOUR_NS
    hold = await accounts.admit(facts("r"))
    assert hold is not None
    assert hold.lease is None
    assert {window for one in await leases_of(accounts) for _, window in one.counters} <= {"day/2026-11-24/UTC"}
    accounts.release(hold)
    assert await balance(accounts) == (0, 0)


@POSTGRES
async def test_what_was_not_sent_costs_nothing(open_accounts: OpenAccounts) -> None:
    """A drawn attempt that is released leaves no line, whether its lease is still there or not."""
    accounts = await open_accounts(budget(1000 * HELD))
    await lease(accounts)
    first, second = [await from_lease(accounts, name) for name in "rs"]
    accounts.release(first)
    await accounts.return_leases()
    accounts.release(second)
    assert await balance(accounts) == (300, 0)
    assert len(await entries(accounts)) == 2
