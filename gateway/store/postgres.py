"""The shared ledger: PostgreSQL 14 or newer, for several gateway nodes.

Each node has one connection for its commits, and holds an advisory lock on its name as long as that connection lives:
a node whose lock can be taken is gone, and its open holds are charged. No clock and no heartbeat decide that.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from gateway.store.connection import Row
from gateway.store.schema import SCHEMA_VERSION, TABLES
from gateway.store.spec import LedgerStore, StoreError, StoreInUseError
from gateway.store.sql import SqlLedgerStore
from gateway.types.secret import Secret

_APPEND_ONLY = (
    """CREATE OR REPLACE FUNCTION gaugeway_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$""",
    """CREATE OR REPLACE TRIGGER entries_append_only BEFORE UPDATE OR DELETE ON entries
    FOR EACH ROW EXECUTE FUNCTION gaugeway_append_only()""",
)
_SCHEMA_LOCK = 0x6761756765776179


def open_postgres(conninfo: Secret, node: str = "gateway") -> LedgerStore:
    """Join the ledger in a database as the node of this name; its tables are made when they are missing.

    Raises:
        StoreInUseError: another live process uses this node name.
        StoreError: the database cannot be used.
    """
    return SqlLedgerStore(_Postgres(conninfo, node, owner=True))


def read_postgres(conninfo: Secret) -> LedgerStore:
    """Open a ledger to read it (and to `rebuild`), beside the nodes that use it."""
    return SqlLedgerStore(_Postgres(conninfo, "", owner=False))


def _lock_key(node: str) -> int:
    digest = hashlib.sha256(b"gaugeway\0" + node.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _Postgres:
    lock = " FOR UPDATE"
    shared = True

    def __init__(self, conninfo: Secret, node: str, *, owner: bool) -> None:
        self._conninfo = conninfo
        self.node = node
        self.epoch = 0
        self._owner = owner
        self._statements: dict[str, bytes] = {}
        self._connection: psycopg.Connection[Row] | None = self._connect()
        if owner:
            with self.transaction(durable=True):
                self._prepare()
        with self.transaction(durable=True):
            if owner:
                rows = self.run(
                    "INSERT INTO owners VALUES (?, 1) "
                    "ON CONFLICT (node) DO UPDATE SET epoch = owners.epoch + 1 RETURNING epoch",
                    (node,),
                )
                self.epoch = int(rows[0][0])
            found = self.run("SELECT value FROM meta WHERE name = 'schema_version'")[0][0]
        if found != str(SCHEMA_VERSION):
            self.close()
            raise StoreError(
                f"the ledger's format is {found}, this program reads {SCHEMA_VERSION}: use the matching version",
                retryable=False,
            )

    def _connect(self) -> "psycopg.Connection[Row]":
        try:
            connection = psycopg.connect(
                self._conninfo.reveal(),
                autocommit=True,
                connect_timeout=5,
                application_name=f"gaugeway {self.node}",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=20_000,
            )
            connection.execute("SET statement_timeout = '20s'")
            connection.execute("SET lock_timeout = '3s'")
            connection.execute("SET client_min_messages = warning")
        except psycopg.Error as error:
            raise _store_error(error) from None
        if self._owner:
            self._be_owner(connection)
        return connection

    def _be_owner(self, connection: "psycopg.Connection[Row]") -> None:
        try:
            # The server takes a moment to notice that a killed predecessor is gone: wait as long as lock_timeout.
            connection.execute("SELECT pg_advisory_lock(%s)", (_lock_key(self.node),))
        except psycopg.errors.LockNotAvailable:
            connection.close()
            raise StoreInUseError(
                f"another process uses this ledger as node '{self.node}': give each node its own `ledger.node`"
            ) from None

    def _prepare(self) -> None:
        # Two nodes that start on an empty database must not make its tables at once.
        self.run("SELECT pg_advisory_xact_lock(?)", (_SCHEMA_LOCK,))
        for statement in (*TABLES, *_APPEND_ONLY):
            self._live().execute(statement.encode())
        self.run("INSERT INTO meta VALUES ('schema_version', ?) ON CONFLICT DO NOTHING", (str(SCHEMA_VERSION),))

    def _live(self) -> "psycopg.Connection[Row]":
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    @contextmanager
    def transaction(self, *, durable: bool, snapshot: bool = False) -> Iterator[None]:
        committing = False
        connection = self._live()
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" if snapshot else "BEGIN")
            if not durable:
                connection.execute("SET LOCAL synchronous_commit = off")
            yield
            committing = True
            connection.execute("COMMIT")
        except psycopg.Error as error:
            self._undo(connection)
            raise _store_error(error, ambiguous=committing) from error
        except BaseException:
            self._undo(connection)
            raise

    def _undo(self, connection: "psycopg.Connection[Row]") -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
            self._connection = None

    def _text(self, statement: str) -> bytes:
        text = self._statements.get(statement)
        if text is None:
            text = self._statements[statement] = statement.replace("?", "%s").encode()
        return text

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        cursor = self._live().execute(self._text(statement), values)
        return cursor.fetchall() if cursor.description is not None else []

    def each(self, statement: str, rows: Sequence[Sequence[Any]]) -> list[list[Row]]:
        return [cursor.fetchall() for cursor in self._pipelined(statement, rows)]

    def insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        return [cursor.rowcount == 1 for cursor in self._pipelined(statement, rows)]

    def _pipelined(self, statement: str, rows: Sequence[Sequence[Any]]) -> "Iterator[psycopg.Cursor[Row]]":
        """A cursor at the result of each of `rows`: one journey for all of them."""
        if not rows:
            return
        with self._live().cursor() as cursor:
            cursor.executemany(self._text(statement), rows, returning=True)
            yield cursor
            while cursor.nextset():
                yield cursor

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._live().cursor() as cursor:
            cursor.executemany(self._text(statement), rows)

    def stream(self, statement: str, values: Sequence[Any]) -> Iterator[Row]:
        with self.transaction(durable=False), self._live().cursor("gaugeway_stream") as cursor:
            cursor.itersize = 5_000
            cursor.execute(self._text(statement), values)
            yield from cursor

    def is_gone(self, owner: str, epoch: int) -> bool:
        if owner == self.node:
            return epoch != self.epoch
        key = _lock_key(owner)
        with self.transaction(durable=False):
            return bool(self.run("SELECT pg_try_advisory_xact_lock(?)", (key,))[0][0])

    def tend(self) -> None:
        pass

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _store_error(error: psycopg.Error, *, ambiguous: bool = False) -> StoreError:
    # Wrong data fail again however often they are tried; servers, networks and deadlocks recover.
    retryable = not isinstance(error, psycopg.DataError | psycopg.IntegrityError | psycopg.ProgrammingError)
    detail = str(error).strip().splitlines()
    return StoreError(
        f"the PostgreSQL ledger failed: {detail[0] if detail else type(error).__name__}",
        retryable=retryable,
        ambiguous=ambiguous and retryable,
    )
