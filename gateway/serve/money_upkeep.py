"""What others change about money: spend and keys in a ledger that other nodes share, and the file of prices."""

import asyncio
import logging

from gateway.spend.keys import Keyring
from gateway.spend.ledger import Accounts
from gateway.spend.price_file import PriceFileWatch
from gateway.store.spec import StoreError

UPKEEP_S = 15.0
"""How long a key that another node made, or revoked, may stay unseen here."""
_LOG = logging.getLogger(__name__)


class MoneyUpkeep:
    """Looks at all of it on a slow timer.

    Args:
        price_file: None where the configuration names none.
    """

    def __init__(self, accounts: Accounts, keyring: Keyring, price_file: PriceFileWatch | None) -> None:
        self._accounts = accounts
        self._keyring = keyring
        self._price_file = price_file
        self._failing = False

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            await self.once()

    async def once(self) -> None:
        """Look once. A ledger that is away is told of once, and asked again with the next look."""
        if self._price_file is not None:
            await self._price_file.look()
        try:
            await self._accounts.refresh()
            self._keyring.take(await self._accounts.call(lambda store: store.stored_keys()))
        except StoreError as error:
            if not self._failing:
                _LOG.warning("the ledger cannot be read; keys and budgets stay as last seen: %s", error)
            self._failing = True
        else:
            self._failing = False
        self._accounts.budgets.foresee(self._keyring.rows())
