"""A ledger for whole gateways, in either store: as the objects that a gateway is made of, and as its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.spend.opening import Ledgers
from gateway.store.spec import Entry
from gateway.store.sqlite import open_sqlite, read_sqlite
from tests.store.postgres_server import PostgresServer

BOTH = (pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.stack))
"""The stores, for tests that choose which of their cases run on both."""


@dataclass(frozen=True)
class JourneyLedger:
    """One ledger over restarts. `section` is the configuration's `ledger:` for gateways that are processes."""

    ledgers: Ledgers
    section: Mapping[str, object]

    def entries(self) -> list[Entry]:
        """Its lines, read beside whoever owns it."""
        store = self.ledgers.read()
        try:
            return list(store.entries())
        finally:
            store.close()

    def owed(self) -> int:
        """What is spent, and what dead processes have left held, in nano-dollars."""
        store = self.ledgers.read()
        try:
            spent = sum(row.nano_usd for row in store.sums(0, 2**62, ()))
            return spent + sum(hold.nano_usd for hold in store.holds())
        finally:
            store.close()


def sqlite_ledger(path: Path) -> JourneyLedger:
    """A ledger in a file."""
    ledgers = Ledgers(write=lambda: open_sqlite(path), read=lambda: read_sqlite(path))
    return JourneyLedger(ledgers, {"path": str(path)})


def postgres_ledger(server: PostgresServer) -> JourneyLedger:
    """A ledger in a database of its own."""
    from gateway.store.postgres import open_postgres, read_postgres

    conninfo = server.new_database()
    ledgers = Ledgers(write=lambda: open_postgres(conninfo, "gateway"), read=lambda: read_postgres(conninfo))
    return JourneyLedger(ledgers, {"postgres": conninfo.reveal()})
