"""Fixtures of the store's tests."""

from tests.store.stores import open_store, postgres, store

__all__ = ["open_store", "postgres", "store"]
