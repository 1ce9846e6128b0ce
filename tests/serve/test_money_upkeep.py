"""What other nodes change about money is seen by the next look, and a ledger that is away stops nothing."""

import pytest

from gateway.config.money import KeyFile
from gateway.serve.money_upkeep import MoneyUpkeep
from gateway.spend.keys import Keyring, configured_key, make_key, revoked
from gateway.spend.ledger import Accounts
from gateway.store.spec import LedgerStore, StoreError
from gateway.types.errors import PolicyError
from gateway.types.secret import Secret
from tests.spend.accounts import NOON_NS, OpenAccounts, SetClock, budget, facts
from tests.spend.test_ledger import settle
from tests.store.stores import POSTGRES

CONFIGURED = configured_key(KeyFile(secret=Secret("gwk_file_0123456789abcdef"), team="file"))


def spent(accounts: Accounts) -> int:
    """What this node believes is spent."""
    (state,) = accounts.budget_states()
    return state.spent_nano_usd


@POSTGRES
async def test_keys_and_spend_of_another_node_are_seen(open_accounts: OpenAccounts) -> None:
    """Node a makes a key, charges, and revokes the key: each shows at b's next look; the file's keys stay."""
    limit = budget(10_000)
    a, b = await open_accounts(limit, node="a"), await open_accounts(limit, node="b")
    keyring = Keyring([CONFIGURED])
    upkeep = MoneyUpkeep(b, keyring, None)
    made = make_key(lambda size: b"\x07" * size, NOON_NS, team="blue")
    await a.call(lambda store: store.put_key(made.row))
    settle(a, None, facts("r1"))
    await a.flush()
    assert spent(b) == 0
    await upkeep.once()
    await b.flush()
    assert spent(b) == 150
    assert keyring.authenticate(made.token.reveal(), NOON_NS).team == "blue"
    assert [row.team for row in keyring.rows()] == ["file", "blue"]
    await a.call(lambda store: store.put_key(revoked(made.row, NOON_NS)))
    await upkeep.once()
    with pytest.raises(PolicyError):
        keyring.authenticate(made.token.reveal(), NOON_NS)


async def test_a_ledger_that_is_away_is_told_of_once(
    open_accounts: OpenAccounts, caplog: pytest.LogCaptureFixture
) -> None:
    """While the ledger fails, keys stay as last seen, one warning is logged, and the look after it takes up again."""
    away = False

    def failing(store: LedgerStore) -> LedgerStore:
        balances = store.balances

        def read(now_ns: int) -> object:
            if away:
                raise StoreError("the server is away", retryable=True)
            return balances(now_ns)

        store.balances = read  # type: ignore[method-assign,assignment]
        return store

    accounts = await open_accounts(budget(10_000), wrap=failing, clock=SetClock())
    keyring = Keyring([CONFIGURED])
    upkeep = MoneyUpkeep(accounts, keyring, None)
    made = make_key(lambda size: b"\x07" * size, NOON_NS, team="blue")
    await accounts.call(lambda store: store.put_key(made.row))
    away = True
    for _ in range(3):
        await upkeep.once()
    assert [record.levelname for record in caplog.records if "cannot be read" in record.message] == ["WARNING"]
    assert [row.team for row in keyring.rows()] == ["file"]
    away = False
    await upkeep.once()
    assert [row.team for row in keyring.rows()] == ["file", "blue"]
