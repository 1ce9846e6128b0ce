"""PostgreSQL stopped, frozen, and back: hard budgets admit from leases, then refuse, and no charge is lost."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.config.money import LedgerFile
from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts
from gateway.spend.prices import PriceBook
from gateway.store.postgres import open_postgres
from gateway.store.spec import LedgerStore, StoreError
from gateway.types.errors import ErrorType, ServiceError
from gateway.types.records import Basis
from tests.spend.accounts import HELD, NOON_NS, SetClock, budget, facts
from tests.spend.test_leases import lease, unhurried
from tests.spend.test_ledger import balance, entries, settle
from tests.store.postgres_server import PostgresServer

__all__ = ["unhurried"]
pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop, and starts again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def accounts(server: PostgresServer, prices: PriceBook) -> AsyncIterator[Accounts]:
    """Accounts with a hard budget on that server, too small for leases."""
    conninfo = server.new_database()
    accounts = Accounts(
        lambda: open_postgres(conninfo), prices, BudgetBook([budget(60 * HELD)]), LedgerFile(), SetClock()
    )
    await accounts.start()
    yield accounts
    await accounts.close()


async def test_a_stopped_server_refuses_and_forgets_nothing(accounts: Accounts, server: PostgresServer) -> None:
    """While the server is down a hard budget refuses with 503; what ended meanwhile is charged when it is back, once."""
    holds = [await accounts.admit(facts(f"r{i}")) for i in range(5)]
    server.stop()
    for i, hold in enumerate(holds):
        settle(accounts, hold, facts(f"r{i}"))
    with pytest.raises(ServiceError) as caught:
        await accounts.admit(facts("s"))
    assert caught.value.error_type is ErrorType.LEDGER_UNAVAILABLE
    assert accounts.stats().pending >= 5
    server.start()
    assert await balance(accounts) == (5 * 150, 0)
    assert len(await entries(accounts)) == 5
    assert accounts.stats().lost == 0
    assert accounts.stats().failed_commits > 0
    accounts.release(await accounts.admit(facts("t")))


async def test_a_frozen_server_refuses_in_time_and_catches_up(
    accounts: Accounts, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and never answers does not hang requests; when it thaws, nothing stays held."""
    monkeypatch.setattr("gateway.spend.holds.HOLD_TIMEOUT_S", 0.1)
    hold = await accounts.admit(facts("r"))
    server.signal_all(signal.SIGSTOP)
    try:
        settle(accounts, hold, facts("r"))
        with pytest.raises(ServiceError):
            await accounts.admit(facts("s"))
    finally:
        server.signal_all(signal.SIGCONT)
    assert await balance(accounts) == (150, 0)
    assert len(await entries(accounts)) == 1


@pytest.mark.parametrize("outage", ["frozen", "stopped"])
async def test_a_lease_admits_while_the_server_is_away(
    server: PostgresServer, prices: PriceBook, monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    """Requests go on, at no round trip, for as long as the slice lasts; all of them are charged when the server is back."""
    conninfo = server.new_database()
    accounts = Accounts(
        lambda: open_postgres(conninfo), prices, BudgetBook([budget(1000 * HELD)]), LedgerFile(), SetClock()
    )
    await accounts.start()
    await lease(accounts)
    monkeypatch.setattr("gateway.spend.holds.HOLD_TIMEOUT_S", 0.1)
    if outage == "frozen":
        server.signal_all(signal.SIGSTOP)
    else:
        server.stop()
    admitted = 0
    try:
        with pytest.raises(ServiceError):
            while True:
                hold = await accounts.admit(facts(f"r{admitted}"))
                settle(accounts, hold, facts(f"r{admitted}"))
                admitted += 1
    finally:
        if outage == "frozen":
            server.signal_all(signal.SIGCONT)
        else:
            server.start()
    # Each costs 150 of a slice of eight holds, whose last part is too small for a hold.
    assert admitted == (8 * HELD - HELD) // 150 + 1
    assert await balance(accounts) == ((2 + admitted) * 150, 0)
    assert len(await entries(accounts)) == 2 + admitted
    assert await accounts.call(lambda store: store.wrong_counters()) == []
    assert await accounts.close() == 0


async def test_a_restarted_server_takes_a_living_node_for_dead_and_is_corrected(
    server: PostgresServer, prices: PriceBook
) -> None:
    """A lease that another node charges while its own is cut off ends as what was spent from it, to the nano-dollar."""
    conninfo = server.new_database()
    a, b = (
        Accounts(
            lambda node=node: open_postgres(conninfo, node),  # type: ignore[misc]
            prices,
            BudgetBook([budget(1000 * HELD)]),
            LedgerFile(),
            SetClock(),
        )
        for node in "ab"
    )
    await a.start()
    await b.start()
    await lease(a)
    early, late = [await a.admit(facts(name)) for name in ("early", "late")]
    assert early is not None
    assert early.lease is not None
    cut_off = threading.Event()
    waiting = asyncio.ensure_future(a.call(lambda store: cut_off.wait(20)))
    server.stop()
    server.start()
    # The other node is the first to come back, and finds the lock of this one free.
    while not await orphans(b):
        pass
    assert await orphans(b) == [8 * HELD]
    cut_off.set()
    await waiting
    settle(a, early, facts("early"))
    await a.flush()
    await b.refresh()
    assert await balance(b) == (300 + 8 * HELD, 0)
    await a.return_leases()
    await b.refresh()
    assert await balance(b) == (3 * 150, HELD)
    settle(a, late, facts("late"))
    await a.flush()
    await b.refresh()
    assert await balance(b) == (4 * 150, 0)
    for accounts in (a, b):
        assert await accounts.close() == 0


async def orphans(accounts: Accounts) -> list[int | None]:
    """What was charged for nodes that are gone, after looking for such."""

    def look(store: LedgerStore) -> list[int | None]:
        with contextlib.suppress(StoreError):
            store.sweep(NOON_NS)
            return [line.nano_usd for line in store.entries() if line.basis is Basis.ORPHAN]
        return []

    return await accounts.call(look)
