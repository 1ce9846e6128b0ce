"""Both stores, for the same tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.store.spec import LedgerStore
from tests.store.postgres_server import PostgresServer

OpenStore = Callable[[str], LedgerStore]


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The run's one PostgreSQL server; a test's databases go with it."""
    yield postgres_server
    postgres_server.drop_databases()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.stack)])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same ledger again and again, as a node of a given name; both stores take part."""
    opened: list[LedgerStore] = []
    if request.param == "sqlite":
        from gateway.store.sqlite import open_sqlite

        def make(node: str) -> LedgerStore:
            return open_sqlite(tmp_path / "ledger.db", node)

    else:
        from gateway.store.postgres import open_postgres

        conninfo = request.getfixturevalue("postgres").new_database()

        def make(node: str) -> LedgerStore:
            return open_postgres(conninfo, node)

    def open_one(node: str = "a") -> LedgerStore:
        store = make(node)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> LedgerStore:
    """An empty ledger."""
    return open_store("a")


POSTGRES = pytest.mark.parametrize("open_store", [pytest.param("postgres", marks=pytest.mark.stack)], indirect=True)
"""For what only several nodes can do. SQLite is for one process; that it refuses a second one is tested."""
