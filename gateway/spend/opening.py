"""Where the ledger of a configuration is, and how it is opened."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from gateway.config.money import LedgerFile
from gateway.store.spec import LedgerStore, StoreError


def ledger_path(config: LedgerFile, config_path: Path, environment: Mapping[str, str]) -> Path:
    """The SQLite file of a configuration: `ledger.path` (from the configuration's folder), else beside the file.

    Where that folder cannot be written, the user's state folder takes its place.
    """
    if config.path is not None:
        return (config_path.parent / Path(config.path).expanduser()).resolve()
    beside = config_path.resolve().with_suffix(".ledger.db")
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    state = environment.get("XDG_STATE_HOME") or os.path.join(environment.get("HOME", "/tmp"), ".local", "state")  # noqa: PTH118, S108 - a last resort where there is no home
    digest = hashlib.sha256(str(config_path.resolve()).encode()).hexdigest()[:8]
    return Path(state) / "gaugeway" / f"{config_path.stem}-{digest}.ledger.db"


def open_ledger(config: LedgerFile, config_path: Path, environment: Mapping[str, str]) -> LedgerStore:
    """Open a configuration's ledger to write; raises StoreError, StoreInUseError."""
    if config.postgres is None:
        from gateway.store.sqlite import open_sqlite

        return open_sqlite(ledger_path(config, config_path, environment), config.node)
    _require_psycopg()
    from gateway.store.postgres import open_postgres

    return open_postgres(config.postgres, config.node)


def read_ledger(config: LedgerFile, config_path: Path, environment: Mapping[str, str]) -> LedgerStore:
    """Open a configuration's ledger to read, beside whoever writes it; raises StoreError."""
    if config.postgres is None:
        from gateway.store.sqlite import read_sqlite

        return read_sqlite(ledger_path(config, config_path, environment))
    _require_psycopg()
    from gateway.store.postgres import read_postgres

    return read_postgres(config.postgres)


def tool_ledger(config: LedgerFile, config_path: Path, environment: Mapping[str, str]) -> LedgerStore:
    """Open a configuration's ledger for a command that changes it.

    An SQLite ledger must not be in use (StoreInUseError); on PostgreSQL the nodes go on.
    """
    if config.postgres is None:
        return open_ledger(config, config_path, environment)
    return read_ledger(config, config_path, environment)


class Ledgers(Struct, frozen=True, kw_only=True):
    """The two ways to one ledger: `write` as its owner, `read` beside the owner. Both raise StoreError."""

    write: Callable[[], LedgerStore]
    read: Callable[[], LedgerStore]


def configured_ledgers(config: LedgerFile, config_path: Path, environment: Mapping[str, str]) -> Ledgers:
    """The ledger that a configuration means."""
    return Ledgers(
        write=lambda: open_ledger(config, config_path, environment),
        read=lambda: read_ledger(config, config_path, environment),
    )


@contextmanager
def passing_ledgers() -> Iterator[Ledgers]:
    """A ledger that ends with the block: costs are measured, and not kept."""
    from gateway.store.sqlite import open_sqlite, read_sqlite

    with tempfile.TemporaryDirectory(prefix="gaugeway-") as folder:
        path = Path(folder) / "ledger.db"
        yield Ledgers(write=lambda: open_sqlite(path), read=lambda: read_sqlite(path))


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise StoreError(
            "`ledger.postgres` needs the extra `postgres`: pip install 'gaugeway[postgres]'", retryable=False
        ) from None
