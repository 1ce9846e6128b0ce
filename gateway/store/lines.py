"""The ledger's lines: each is written once, and what a line has charged wrongly is corrected by another.

A process that was taken for dead has had its holds and leases charged in full. Where it lives on, or comes back with what
was really used, the difference is an `ADJUST` line of the same payer and instant.
"""

# ruff: noqa: S608 - statements are joined from the constants of gateway.store.schema; every value is a parameter

from collections.abc import Sequence

from msgspec import structs

from gateway.store import schema
from gateway.store.connection import Sql, columns, marks
from gateway.store.rows import entry_row
from gateway.store.spec import LEASE, Draw, Entry, EntryKind, ReturnOp
from gateway.types.records import Basis

_INSERT = (
    f"INSERT INTO entries ({columns(schema.ENTRY_COLUMNS)}) VALUES ({marks(schema.ENTRY_COLUMNS)}) "
    "ON CONFLICT DO NOTHING"
)


def insert_lines(sql: Sql, entries: Sequence[Entry]) -> list[bool]:
    """Write lines; whether each is new."""
    return sql.insert(_INSERT, [entry_row(entry) for entry in entries]) if entries else []


def lease_was_charged(sql: Sql, lease: str) -> bool:
    """Whether a lease was charged as that of a dead process."""
    found = sql.run(
        "SELECT 1 FROM entries WHERE request_id = ? AND attempt = ? AND kind = ?",
        (lease, LEASE, EntryKind.SETTLE.value),
    )
    return bool(found)


def move_out_of_lease(sql: Sql, draw: Draw, entry: Entry, nano_usd: int) -> None:
    """What one attempt of a lease cost was charged with the lease already: take it out there.

    No counter changes: the two lines have the same payer and instant.
    """
    correction = structs.replace(
        entry,
        request_id=draw.lease,
        attempt=draw.number,
        kind=EntryKind.ADJUST,
        basis=Basis.ORPHAN,
        nano_usd=-nano_usd,
        usage=None,
    )
    insert_lines(sql, [correction])


def take_back_lease(sql: Sql, op: ReturnOp) -> int | None:
    """Take back what is left of a lease's charge, in nano-dollars; None when it was not charged, or this is done already."""
    charged, lines = sql.run(
        "SELECT CAST(COALESCE(SUM(nano_usd), 0) AS BIGINT), COUNT(*) FROM entries WHERE request_id = ?", (op.lease,)
    )[0]
    correction = Entry(
        request_id=op.lease,
        attempt=LEASE,
        kind=EntryKind.ADJUST,
        at_ns=op.at_ns,
        settled_ns=op.returned_ns,
        payer=op.payer,
        basis=Basis.ORPHAN,
        nano_usd=-charged,
    )
    return int(charged) if lines and insert_lines(sql, [correction])[0] else None


def adjust(sql: Sql, entry: Entry) -> int:
    """Correct an attempt that was charged as an orphan while its process lived on; the difference in nano-dollars."""
    basis, charged, at_ns = sql.run(
        "SELECT basis, nano_usd, at_ns FROM entries WHERE request_id = ? AND attempt = ? AND kind = ?",
        (entry.request_id, entry.attempt, EntryKind.SETTLE.value),
    )[0]
    if basis != Basis.ORPHAN or entry.basis is Basis.ORPHAN or entry.nano_usd is None:
        return 0
    difference = entry.nano_usd - (charged or 0)
    correction = structs.replace(entry, kind=EntryKind.ADJUST, nano_usd=difference, at_ns=at_ns)
    return difference if insert_lines(sql, [correction])[0] else 0
