"""Everything about a ledger but its commits: reading it, checking it, its outbox and its keys."""

# ruff: noqa: S608 - statements are joined from the constants of gateway.store.schema; every value is a parameter

from collections.abc import Iterable, Iterator, Sequence

from gateway.store import schema
from gateway.store.connection import Row, Sql, columns, marks
from gateway.store.rows import alert_of, counter_of, entry_of, hold_of, key_of, key_row
from gateway.store.spec import (
    Alert,
    Balance,
    Counter,
    CounterRow,
    Entry,
    EntryKind,
    KeyRow,
    OpenHold,
    Payer,
    StoreError,
    Sums,
    WrongCounter,
)

_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1
"""What a database can compare: the years 1677 to 2262. Whoever asks beyond them means all."""
_SELECT_COUNTERS = f"SELECT {columns(schema.COUNTER_COLUMNS)} FROM counters"
_PRESENT = " WHERE start_ns <= ? AND end_ns > ?"
_IN_ORDER = " ORDER BY scope, window_id"


def _total(what: str) -> str:
    # PostgreSQL's own sum is a decimal.
    return f"CAST(COALESCE(SUM({what}), 0) AS BIGINT)"


_NANO_USD = _total("nano_usd")
_SUMS = columns(
    (
        "COUNT(*)",
        _total(f"CASE WHEN kind = '{EntryKind.SETTLE}' THEN 1 END"),
        _total("input_tokens"),
        _total("output_tokens"),
        _NANO_USD,
        _total(f"CASE WHEN kind = '{EntryKind.SETTLE}' AND nano_usd IS NULL THEN 1 END"),
    )
)
"""What `Sums` holds, in its order."""


class Queries:
    """The part of `gateway.store.spec.LedgerStore` that takes no charge."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def wrong_counters(self) -> list[WrongCounter]:
        with self._sql.transaction(durable=False, snapshot=True):
            return self._wrong_counters("")

    def rebuild(self) -> int:
        with self._sql.transaction(durable=True):
            wrong = self._wrong_counters(self._sql.lock)
            if wrong:
                self._sql.many(
                    "UPDATE counters SET spent = ?, held = ? WHERE scope = ? AND window_id = ?",
                    [
                        (one.true_spent_nano_usd, one.true_held_nano_usd, one.counter.scope, one.counter.window_id)
                        for one in wrong
                    ],
                )
        return len(wrong)

    def _wrong_counters(self, lock: str) -> list[WrongCounter]:
        # Counters are locked before holds and entries are read, so that no commit falls in between.
        rows = self._sql.run(_SELECT_COUNTERS + _IN_ORDER + lock)
        counters = [counter_of(row) for row in rows]
        truths = self._truths(counters)
        wrong = []
        for counter in counters:
            truth = truths[counter.scope, counter.window_id]
            if truth != Balance(counter.spent_nano_usd, counter.held_nano_usd):
                wrong.append(
                    WrongCounter(
                        counter=counter,
                        true_spent_nano_usd=truth.spent_nano_usd,
                        true_held_nano_usd=truth.held_nano_usd,
                    )
                )
        return wrong

    def balances(self, now_ns: int) -> dict[tuple[str, str], Balance]:
        with self._sql.transaction(durable=False):
            rows = self._sql.run("SELECT scope, window_id, spent, held FROM counters" + _PRESENT, (now_ns, now_ns))
        return {(row[0], row[1]): Balance(row[2], row[3]) for row in rows}

    def counters(self, at_ns: int | None = None) -> list[CounterRow]:
        where, values = ("", ()) if at_ns is None else (_PRESENT, (at_ns, at_ns))
        with self._sql.transaction(durable=False):
            rows = self._sql.run(_SELECT_COUNTERS + where + _IN_ORDER, values)
        return [counter_of(row) for row in rows]

    def holds(self) -> list[OpenHold]:
        with self._sql.transaction(durable=False):
            return self._select_holds()

    def _select_holds(self) -> list[OpenHold]:
        rows = self._sql.run(f"SELECT {columns(schema.HOLD_COLUMNS)} FROM holds ORDER BY request_id, attempt")
        return [hold_of(row) for row in rows]

    def entries(self, start_ns: int = 0, end_ns: int = 2**62) -> Iterator[Entry]:
        statement = (
            f"SELECT {columns(schema.ENTRY_COLUMNS)} FROM entries WHERE at_ns >= ? AND at_ns < ? "
            "ORDER BY at_ns, request_id, attempt, kind"
        )
        for row in self._sql.stream(statement, (_storable(start_ns), _storable(end_ns))):
            yield entry_of(row)

    def first_ns(self, from_ns: int) -> int | None:
        with self._sql.transaction(durable=False):
            ((first,),) = self._sql.run("SELECT MIN(at_ns) FROM entries WHERE at_ns >= ?", (_storable(from_ns),))
        return None if first is None else int(first)

    def sums(self, start_ns: int, end_ns: int, by: Sequence[str]) -> list[Sums]:
        with self._sql.transaction(durable=False):
            rows = self._summed(_SUMS, _storable(start_ns), _storable(end_ns), by)
        # No columns at all have a row even where there are no entries.
        return [Sums(row[: len(by)], *row[len(by) :]) for row in rows if row[len(by)]]

    def claim_alerts(self, now_ns: int, until_ns: int, limit: int) -> list[Alert]:
        with self._sql.transaction(durable=True):
            rows = self._sql.run(
                f"SELECT {columns(schema.ALERT_COLUMNS)} FROM outbox "
                "WHERE delivered_ns IS NULL AND due_ns <= ? ORDER BY due_ns, id LIMIT ?" + self._sql.lock,
                (now_ns, limit),
            )
            self._sql.many(
                "UPDATE outbox SET due_ns = ?, tries = tries + 1 WHERE id = ?", [(until_ns, row[0]) for row in rows]
            )
        return [alert_of(row) for row in rows]

    def finish_alert(self, alert_id: str, now_ns: int) -> None:
        with self._sql.transaction(durable=True):
            self._sql.run("UPDATE outbox SET delivered_ns = ? WHERE id = ?", (now_ns, alert_id))

    def alerts(self) -> list[Alert]:
        with self._sql.transaction(durable=False):
            rows = self._sql.run(f"SELECT {columns(schema.ALERT_COLUMNS)} FROM outbox ORDER BY created_ns, id")
        return [alert_of(row) for row in rows]

    def put_key(self, key: KeyRow) -> None:
        changes = ", ".join(f"{name} = excluded.{name}" for name in schema.KEY_COLUMNS[1:])
        with self._sql.transaction(durable=True):
            self._sql.run(
                f"INSERT INTO keys ({columns(schema.KEY_COLUMNS)}) VALUES ({marks(schema.KEY_COLUMNS)}) "
                f"ON CONFLICT (id) DO UPDATE SET {changes}",
                key_row(key),
            )

    def stored_keys(self) -> list[KeyRow]:
        with self._sql.transaction(durable=False):
            rows = self._sql.run(f"SELECT {columns(schema.KEY_COLUMNS)} FROM keys ORDER BY created_ns, id")
        return [key_of(row) for row in rows]

    def tend(self) -> None:
        self._sql.tend()

    def close(self) -> None:
        self._sql.close()

    def _covering(self, at_ns: int, payer: Payer) -> tuple[Counter, ...]:
        """The stored counters that a charge falls under, those of budgets that are younger than its hold included."""
        rows = self._sql.run(_SELECT_COUNTERS + _PRESENT, (at_ns, at_ns))
        return tuple(
            Counter(
                scope=row.scope,
                window_id=row.window_id,
                start_ns=row.start_ns,
                end_ns=row.end_ns,
                family=row.family,
                match=row.match,
            )
            for row in map(counter_of, rows)
            if all(getattr(payer, column) == value for column, value in row.match)
        )

    def _truths(self, counters: Iterable[Counter | CounterRow]) -> dict[tuple[str, str], Balance]:
        """What entries and holds say of counters.

        A window's entries are read once for all of its counters that match on the same columns: there are millions of
        the former, and thousands of the latter where each key has a budget.
        """
        alike: dict[tuple[int, int, tuple[str, ...]], list[Counter | CounterRow]] = {}
        for counter in counters:
            by = tuple(column for column, _ in counter.match)
            alike.setdefault((counter.start_ns, counter.end_ns, by), []).append(counter)
        held: dict[tuple[str, str], int] = {}
        for hold in self._select_holds():
            for key in hold.counters:
                held[key] = held.get(key, 0) + hold.nano_usd
        truths = {}
        for (start_ns, end_ns, by), group in alike.items():
            only = group[0].match if len(group) == 1 else ()
            rows = self._summed(_NANO_USD, start_ns, end_ns, by, only)
            spent = {tuple(zip(by, row, strict=False)): int(row[-1]) for row in rows}
            for counter in group:
                key = (counter.scope, counter.window_id)
                truths[key] = Balance(spent.get(counter.match, 0), held.get(key, 0))
        return truths

    def _summed(
        self, what: str, start_ns: int, end_ns: int, by: Sequence[str], only: Sequence[tuple[str, str]] = ()
    ) -> list[Row]:
        """Sums of a stretch's entries by the values of some columns, which come first; `only` of some of these."""
        if not set(by) <= {*schema.PAYER_COLUMNS, "basis"}:
            raise StoreError(f"entries are not summed up by {columns(by)}", retryable=False)
        conditions = "".join(f" AND {column} = ?" for column, _ in only)
        return self._sql.run(
            f"SELECT {columns((*by, what))} FROM entries WHERE at_ns >= ? AND at_ns < ?{conditions}"
            + (f" GROUP BY {columns(by)}" if by else ""),
            (start_ns, end_ns, *(value for _, value in only)),
        )


def _storable(at_ns: int) -> int:
    return min(max(at_ns, _FIRST_NS), _LAST_NS)
