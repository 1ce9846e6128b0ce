"""Which ledger a configuration means, and how it is opened."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.config.money import Money
from gateway.store.postgres import open_postgres
from gateway.store.spec import LedgerStore
from gateway.store.sqlite import open_sqlite


def ledger_path(money: Money, config_path: Path) -> Path:
    """Where the SQLite ledger is: as configured, else beside the configuration file."""
    return Path(money.ledger.path) if money.ledger.path is not None else config_path.with_suffix(".ledger.sqlite")


def ledger_opener(money: Money, config_path: Path) -> Callable[[], LedgerStore]:
    """Opens the ledger as its owner when called; what it raises is a StoreError."""
    ledger = money.ledger
    postgres = ledger.postgres
    if postgres is not None:
        return lambda: open_postgres(postgres, ledger.node)
    path = ledger_path(money, config_path)
    return lambda: open_sqlite(path, ledger.node)


@contextmanager
def passing_ledger() -> Iterator[Callable[[], LedgerStore]]:
    """A ledger that ends with the block: costs are measured, and not kept."""
    with tempfile.TemporaryDirectory(prefix="gaugeway-") as folder:
        yield lambda: open_sqlite(Path(folder) / "ledger.sqlite")
