"""The embedded ledger: one SQLite file, owned by one process.

The owner's connection is the only writer and the only checkpointer (SQLite before 3.51.3 can lose a WAL when two
connections reset it at once). A lock file beside the ledger says who the owner is; a second one is refused. Readers
open the file read-only and never write, so reports can run beside a server.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.store.connection import Row
from gateway.store.schema import SCHEMA_VERSION, TABLES
from gateway.store.spec import LedgerStore, StoreError, StoreInUseError
from gateway.store.sql import SqlLedgerStore

_TRIGGERS = tuple(
    f"CREATE TRIGGER IF NOT EXISTS entries_no_{verb.lower()} BEFORE {verb} ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
)
_CHECKPOINT_EVERY = 1_000
"""Commits between checkpoints: the WAL stays below some 50 MB at 1,600 charges a second. A checkpoint writes the file
itself and waits for the disk, 100 ms at worst, and holds wait for it: it must be rarer than one admission in a hundred."""


def open_sqlite(path: Path, node: str = "gateway") -> LedgerStore:
    """Open, or make, the ledger at `path` as its only owner.

    One thread at a time may use the store.

    Raises:
        StoreInUseError: another process owns it.
        StoreError: the file cannot be used.
    """
    return SqlLedgerStore(_Sqlite(path, node))


def read_sqlite(path: Path) -> LedgerStore:
    """Open the ledger at `path` to read it, beside its owner if need be. What would write fails."""
    return SqlLedgerStore(_ReadOnlySqlite(path))


def _lock(path: Path) -> int:
    """Become the owner: an advisory lock that dies with the process, with its id inside for whoever is refused."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the ledger's lock {lock_path} cannot be opened: {error.strerror}", retryable=False) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise StoreInUseError(
            f"the ledger {path} is in use by process {owner}. One process at a time may write an SQLite ledger: stop "
            "that one, give this one another `ledger.path`, or share a PostgreSQL ledger (`ledger.postgres`)"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


class _Connection:
    """What reading and writing connections have in common."""

    lock = ""
    shared = False

    def __init__(self, connection: sqlite3.Connection, node: str) -> None:
        self._connection = connection
        self.node = node
        self.epoch = 0

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    def each(self, statement: str, rows: Sequence[Sequence[Any]]) -> list[list[Row]]:
        execute = self._connection.execute
        return [execute(statement, row).fetchall() for row in rows]

    def insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        # One cursor for all, and no RETURNING: together they cost as much as the row itself.
        cursor = self._connection.cursor()
        return [cursor.execute(statement, row).rowcount == 1 for row in rows]

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(statement, rows)

    def stream(self, statement: str, values: Sequence[Any]) -> Iterator[Row]:
        try:
            # Not from the cursor itself: a reader who stops early would close it, after its connection perhaps.
            yield from iter(self._connection.execute(statement, values).fetchone, None)
        except sqlite3.Error as error:
            raise _store_error(error) from error

    def is_gone(self, owner: str, epoch: int) -> bool:
        # Only one process at a time owns the file, and it is this one.
        return (owner, epoch) != (self.node, self.epoch)

    def close(self) -> None:
        self._connection.close()


class _ReadOnlySqlite(_Connection):
    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise StoreError(f"there is no ledger at {path}", retryable=False)
        try:
            connection = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10, check_same_thread=False
            )
            super().__init__(connection, "")
            _check_version(self)
        except sqlite3.Error as error:
            raise _store_error(error) from None

    @contextmanager
    def transaction(self, *, durable: bool, snapshot: bool = False) -> Iterator[None]:
        del durable, snapshot
        try:
            self._connection.execute("BEGIN")
            yield
        except sqlite3.Error as error:
            raise _store_error(error) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")

    def tend(self) -> None:
        pass


class _Sqlite(_Connection):
    def __init__(self, path: Path, node: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be made: {error.strerror}", retryable=False) from None
        self._owner = _lock(path)
        try:
            super().__init__(sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False), node)
            self._prepare()
        except (sqlite3.Error, StoreError) as error:
            os.close(self._owner)
            raise error if isinstance(error, StoreError) else _store_error(error) from None
        path.chmod(0o600)
        self._full = False
        self._commits = 0

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0", "temp_store = MEMORY"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in (*TABLES, *_TRIGGERS):
            self._connection.execute(statement)
        self._connection.execute(
            "INSERT INTO meta VALUES ('schema_version', ?) ON CONFLICT DO NOTHING", (str(SCHEMA_VERSION),)
        )
        _check_version(self)
        self.epoch = next_epoch(self)
        self._connection.execute("COMMIT")

    @contextmanager
    def transaction(self, *, durable: bool, snapshot: bool = False) -> Iterator[None]:
        del snapshot  # Every transaction here is one.
        try:
            if durable != self._full:
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._full = durable
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OverflowError):
                raise _store_error(error) from error
            raise
        self._commits += 1

    def tend(self) -> None:
        if self._commits < _CHECKPOINT_EVERY:
            return
        self._commits = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise _store_error(error) from error

    def close(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            # A reader holds it back, or the disk is gone: the WAL keeps what the file does not have yet.
            pass
        finally:
            super().close()
            owner, self._owner = self._owner, -1
            if owner >= 0:
                os.close(owner)


def next_epoch(sql: Any) -> int:
    """Count this start of this node; holds of earlier starts are orphans."""
    rows = sql.run(
        "INSERT INTO owners VALUES (?, 1) ON CONFLICT (node) DO UPDATE SET epoch = owners.epoch + 1 RETURNING epoch",
        (sql.node,),
    )
    return int(rows[0][0])


def _check_version(sql: Any) -> None:
    found = sql.run("SELECT value FROM meta WHERE name = 'schema_version'")[0][0]
    if found != str(SCHEMA_VERSION):
        raise StoreError(
            f"the ledger's format is {found}, this program reads {SCHEMA_VERSION}: use the matching version",
            retryable=False,
        )


def _store_error(error: Exception) -> StoreError:
    # Wrong data fail again however often they are tried; disks and locks may recover.
    retryable = isinstance(error, sqlite3.OperationalError)
    return StoreError(f"the SQLite ledger failed: {error}", retryable=retryable)
