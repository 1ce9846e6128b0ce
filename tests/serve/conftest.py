"""Fixtures of serving's tests that need accounts without a gateway."""

from tests.spend.accounts import open_accounts, prices
from tests.store.stores import open_store, postgres

__all__ = ["open_accounts", "open_store", "postgres", "prices"]
