"""Accounts over a real ledger, with a clock that tests set and prices that are easy to add up."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from gateway.config.money import BudgetFile, LedgerFile, PriceFile
from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts
from gateway.spend.prices import PriceBook, PriceData
from gateway.spend.settle import ChargeFacts
from gateway.store.spec import LedgerStore, Payer
from gateway.types.route import Operation
from gateway.types.secret import Secret
from tests.store.stores import OpenStore

NOON_NS = int(datetime.fromisoformat("2026-11-23T12:00:00+00:00").timestamp()) * 10**9
PAYER = Payer(team="red", key_id="k1", route="chat", provider="openai", model="m")
FREE = Payer(team="red", key_id="k1", route="chat", provider="openai", model="free")
UNPRICED = Payer(team="red", key_id="k1", route="chat", provider="openai", model="unpriced")


class SetClock:
    """Wall time that a test sets; monotonic time that is real."""

    def __init__(self, now_ns: int = NOON_NS) -> None:
        self.ns = now_ns

    def now_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture(scope="session")
def prices() -> PriceBook:
    """Model `m` costs 1 nano-dollar an input token and 10 an output token; `free` costs 0; nothing else is priced."""
    return PriceBook(
        PriceData(providers={}, version="none", as_of=date(2026, 11, 1)),
        (
            PriceFile(model="m", input_usd_per_mtok=Decimal("0.001"), output_usd_per_mtok=Decimal("0.01")),
            PriceFile(model="free", input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0)),
        ),
    )


def facts(name: str, *, payer: Payer = PAYER, **more: Any) -> ChargeFacts:
    """A chat request of 936 bytes that may generate 100 tokens: with `m`, it is held at 1016 + 1000 nano-dollars."""
    given: dict[str, Any] = {"attempt": 1, "input_bytes": 936, "max_tokens": 100, "operation": Operation.CHAT} | more
    return ChargeFacts(request_id=name, payer=payer, **given)


HELD = 936 + 16 + 64 + 100 * 10
"""What `facts` are held at."""


def budget(nano_usd: int, **more: Any) -> BudgetFile:
    """A budget, its amount in nano-dollars, the rest as in the configuration's YAML."""
    given = {"name": "b", "amount_usd": Decimal(nano_usd) / 10**9} | more
    return msgspec.convert(given, BudgetFile, dec_hook=lambda type_, value: Secret(value))


OpenAccounts = Callable[..., Awaitable[Accounts]]


@pytest.fixture
async def open_accounts(open_store: OpenStore, prices: PriceBook) -> AsyncIterator[OpenAccounts]:
    """Opens accounts on the test's ledger; closes what the test left open."""
    opened: list[Accounts] = []

    async def open_one(
        *budgets: BudgetFile,
        clock: SetClock | None = None,
        node: str = "a",
        wrap: Callable[[LedgerStore], LedgerStore] = lambda store: store,
        **config: Any,
    ) -> Accounts:
        accounts = Accounts(
            lambda: wrap(open_store(node)),
            prices,
            BudgetBook(budgets),
            LedgerFile(**config),
            clock or SetClock(),
        )
        await accounts.start()
        opened.append(accounts)
        return accounts

    yield open_one
    for accounts in opened:
        await accounts.close()
