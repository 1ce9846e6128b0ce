"""PostgreSQL stopped, frozen, and back: hard budgets refuse meanwhile, and no charge is lost."""

import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.config.money import LedgerFile
from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts
from gateway.spend.prices import PriceBook
from gateway.store.postgres import open_postgres
from gateway.types.errors import ErrorType, ServiceError
from tests.spend.accounts import HELD, SetClock, budget, facts
from tests.spend.test_ledger import balance, entries, settle
from tests.store.postgres_server import PostgresServer

pytestmark = pytest.mark.stack


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def accounts(server: PostgresServer, prices: PriceBook) -> AsyncIterator[Accounts]:
    """Accounts with a hard budget on that server."""
    conninfo = server.new_database()
    accounts = Accounts(
        lambda: open_postgres(conninfo), prices, BudgetBook([budget(100 * HELD)]), LedgerFile(), SetClock()
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
    monkeypatch.setattr("gateway.spend.ledger.HOLD_TIMEOUT_S", 0.1)
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
