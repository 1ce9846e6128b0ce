"""What the ledger's SQL needs of a database connection, whichever database it is."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]


class Sql(Protocol):
    """One connection to a database. Statements use `?`; `lock` is what a SELECT ends with to lock its rows.

    `shared` says that several nodes write.
    """

    lock: str
    shared: bool
    node: str
    epoch: int

    def transaction(self, *, durable: bool, snapshot: bool = False) -> AbstractContextManager[None]:
        """One transaction; any failure inside rolls it back and raises StoreError.

        In a `snapshot` all statements read the same state.
        """
        ...

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """One statement and its rows."""
        ...

    def each(self, statement: str, rows: Sequence[Sequence[Any]]) -> list[list[Row]]:
        """One statement for each of `rows`, and what each returned."""
        ...

    def insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        """One `INSERT ... ON CONFLICT DO NOTHING` for each of `rows`, and which of them were new."""
        ...

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """One statement for each of `rows`, nothing returned."""
        ...

    def stream(self, statement: str, values: Sequence[Any]) -> Iterator[Row]:
        """The rows of one SELECT, without holding them all."""
        ...

    def is_gone(self, owner: str, epoch: int) -> bool:
        """Whether the process that took a hold under this name and epoch has ended."""
        ...

    def tend(self) -> None:
        """Housekeeping between transactions."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def columns(names: Sequence[str]) -> str:
    """Column names as SQL lists them."""
    return ", ".join(names)


def marks(names: Sequence[str]) -> str:
    """A place for each column's value."""
    return ", ".join("?" for _ in names)
