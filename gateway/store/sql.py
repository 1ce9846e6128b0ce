"""The ledger's transactions, written once for every SQL database.

A commit takes its locks in one order (holds, then counters, each sorted), so that nodes that share a database never
wait for each other in a circle. What is granted is decided here, on rows that are locked, from what they hold.
"""

# ruff: noqa: S608 - statements are joined from the constants of gateway.store.schema; every value is a parameter

import hashlib
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from gateway.store import schema
from gateway.store.connection import Sql, columns, marks
from gateway.store.queries import Queries
from gateway.store.rows import (
    alert_row,
    entry_row,
    hold_of,
    hold_row,
    match_text,
)
from gateway.store.spec import (
    REFUSED,
    Alert,
    Balance,
    Committed,
    Counter,
    Entry,
    EntryKind,
    HoldOp,
    Op,
    OpenHold,
    Refusal,
    ReleaseOp,
    SettleOp,
    Watch,
)
from gateway.types.records import Basis

AttemptId = tuple[str, int]
CounterKey = tuple[str, str]

_MAX_FIRED = 50_000


_INSERT_ENTRY = (
    f"INSERT INTO entries ({columns(schema.ENTRY_COLUMNS)}) VALUES ({marks(schema.ENTRY_COLUMNS)}) "
    "ON CONFLICT DO NOTHING RETURNING attempt"
)
_INSERT_HOLD = f"INSERT INTO holds ({columns(schema.HOLD_COLUMNS)}) VALUES ({marks(schema.HOLD_COLUMNS)})"
_SELECT_HOLD = f"SELECT {columns(schema.HOLD_COLUMNS)} FROM holds WHERE request_id = ? AND attempt = ?"
_INSERT_ALERT = (
    f"INSERT INTO outbox ({columns(schema.ALERT_COLUMNS)}, due_ns, delivered_ns) "
    f"VALUES ({marks(schema.ALERT_COLUMNS)}, ?, ?) ON CONFLICT DO NOTHING RETURNING id"
)


class _Work(Struct):
    """What one commit has read and decided so far."""

    balances: dict[CounterKey, tuple[int, int]]
    holds: dict[AttemptId, OpenHold]
    inserted: list[bool]
    spent: dict[CounterKey, int]
    held: dict[CounterKey, int]
    closed: list[AttemptId]
    opened: dict[AttemptId, HoldOp]
    refused: dict[CounterKey, Refusal]
    fired: set[tuple[str, str, str, str]]
    now_ns: int = 0
    duplicates: int = 0

    def add(self, key: CounterKey, spent: int, held: int) -> None:
        """Change a counter, if it exists: one that does not is made from entries when it is next needed."""
        if key not in self.balances:
            return
        before = self.balances[key]
        self.balances[key] = (before[0] + spent, before[1] + held)
        self.spent[key] = self.spent.get(key, 0) + spent
        self.held[key] = self.held.get(key, 0) + held


class SqlLedgerStore(Queries):
    """A ledger in an SQL database; see `gateway.store.spec.LedgerStore`. One thread at a time may use it."""

    def __init__(self, sql: Sql) -> None:
        super().__init__(sql)
        # Alerts that are known to be written: most charges then cost no statement here.
        self._fired: set[tuple[str, str, str, str]] = set()

    def commit(self, ops: Sequence[Op]) -> Committed:
        durable = any(isinstance(op, HoldOp) or (isinstance(op, SettleOp) and op.held) for op in ops)
        with self._sql.transaction(durable=durable):
            work, alerts, refusals = self._apply(ops)
        if len(self._fired) > _MAX_FIRED:
            self._fired.clear()
        self._fired |= work.fired
        return Committed(
            refusals=refusals,
            balances={key: Balance(*value) for key, value in work.balances.items()},
            alerts=alerts,
            duplicates=work.duplicates,
        )

    def _apply(self, ops: Sequence[Op]) -> tuple[_Work, int, tuple[Refusal | None, ...]]:
        holds = self._load_holds(sorted({_id(op) for op in ops if not isinstance(op, SettleOp) or op.held}))
        counters = _counters(ops)
        balances = self._load_counters(counters, {key for hold in holds.values() for key in hold.counters})
        settles = [op for op in ops if isinstance(op, SettleOp)]
        written = self._sql.each(_INSERT_ENTRY, [entry_row(op.entry) for op in settles]) if settles else []
        work = _Work(
            balances=balances,
            holds=holds,
            inserted=[bool(rows) for rows in reversed(written)],
            spent={},
            held={},
            closed=[],
            opened={},
            refused={},
            fired=set(),
        )
        refusals = tuple(self._one(op, work) for op in ops)
        self._write(work)
        return work, self._raise_alerts(counters.values(), work), refusals

    def _one(self, op: Op, work: _Work) -> Refusal | None:
        if isinstance(op, HoldOp):
            return self._grant(op, work)
        if isinstance(op, ReleaseOp):
            self._close(_id(op), work)
            return None
        self._settle(op, work)
        return None

    def _grant(self, op: HoldOp, work: _Work) -> Refusal | None:
        if _id(op) in work.holds:
            return None
        work.now_ns = max(work.now_ns, op.at_ns)
        for counter in op.counters:
            spent, held = work.balances[counter.key]
            for watch in counter.watches:
                # What costs nothing is never refused: an explicit price of 0 works after exhaustion too.
                if watch.hard and op.nano_usd and spent + held + op.nano_usd > watch.limit_nano_usd:
                    refusal = Refusal(counter=counter, watch=watch, balance=Balance(spent, held))
                    work.refused.setdefault(counter.key, refusal)
                    return refusal
        for counter in op.counters:
            work.add(counter.key, 0, op.nano_usd)
        work.opened[_id(op)] = op
        work.holds[_id(op)] = _as_open(op, self._sql.node, self._sql.epoch)
        return None

    def _close(self, attempt: AttemptId, work: _Work) -> OpenHold | None:
        hold = work.holds.pop(attempt, None)
        if hold is None:
            return None
        for key in hold.counters:
            work.add(key, 0, -hold.nano_usd)
        if work.opened.pop(attempt, None) is None:
            work.closed.append(attempt)
        return hold

    def _settle(self, op: SettleOp, work: _Work) -> None:
        work.now_ns = max(work.now_ns, op.entry.settled_ns)
        hold = self._close(_id(op), work)
        keys = {counter.key for counter in op.counters}
        if hold is not None:
            keys.update(hold.counters)
        if work.inserted.pop():
            charge = op.entry.nano_usd or 0
        else:
            work.duplicates += 1
            charge = self._adjust(op.entry, work)
        if charge:
            for key in sorted(keys):
                work.add(key, charge, 0)

    def _adjust(self, entry: Entry, work: _Work) -> int:
        """Correct an attempt that was charged as an orphan while its process lived on; the difference."""
        rows = self._sql.run(
            "SELECT basis, nano_usd, at_ns FROM entries WHERE request_id = ? AND attempt = ? AND kind = ?",
            (entry.request_id, entry.attempt, EntryKind.SETTLE.value),
        )
        basis, charged, at_ns = rows[0]
        if basis != Basis.ORPHAN or entry.basis is Basis.ORPHAN or entry.nano_usd is None:
            return 0
        difference = entry.nano_usd - (charged or 0)
        correction = msgspec.structs.replace(entry, kind=EntryKind.ADJUST, nano_usd=difference, at_ns=at_ns)
        if not self._sql.each(_INSERT_ENTRY, [entry_row(correction)])[0]:
            return 0
        return difference

    def _load_holds(self, attempts: Sequence[AttemptId]) -> dict[AttemptId, OpenHold]:
        if not attempts:
            return {}
        found = self._sql.each(_SELECT_HOLD + self._sql.lock, attempts)
        return {(rows[0][0], rows[0][1]): hold_of(rows[0]) for rows in found if rows}

    def _load_counters(
        self, counters: dict[CounterKey, Counter], also: Iterable[CounterKey]
    ) -> dict[CounterKey, tuple[int, int]]:
        keys = sorted(set(counters) | set(also))
        if not keys:
            return {}
        select = "SELECT spent, held FROM counters WHERE scope = ? AND window_id = ?" + self._sql.lock
        balances: dict[CounterKey, tuple[int, int]] = {}
        for key, rows in zip(keys, self._sql.each(select, keys), strict=True):
            if rows:
                balances[key] = (rows[0][0], rows[0][1])
            elif key in counters:
                balances[key] = self._make_counter(counters[key])
        return balances

    def _make_counter(self, counter: Counter) -> tuple[int, int]:
        """A counter's first row: what the ledger already holds for its scope and window."""
        made = self._sql.run(
            f"INSERT INTO counters ({columns(schema.COUNTER_COLUMNS)}) "
            f"VALUES ({marks(schema.COUNTER_COLUMNS)}) ON CONFLICT DO NOTHING RETURNING spent",
            (*counter.key, counter.start_ns, counter.end_ns, counter.family, match_text(counter.match), 0, 0),
        )
        if made:
            spent = self._sum(counter.start_ns, counter.end_ns, counter.match)
            held = sum(hold.nano_usd for hold in self._select_holds() if counter.key in hold.counters)
            if spent or held:
                self._sql.run(
                    "UPDATE counters SET spent = ?, held = ? WHERE scope = ? AND window_id = ?",
                    (spent, held, *counter.key),
                )
            return spent, held
        # Another node made it in between; its row is there now.
        rows = self._sql.run(
            "SELECT spent, held FROM counters WHERE scope = ? AND window_id = ?" + self._sql.lock, counter.key
        )
        return rows[0][0], rows[0][1]

    def _write(self, work: _Work) -> None:
        if work.opened:
            self._sql.many(_INSERT_HOLD, [hold_row(op, self._sql.node, self._sql.epoch) for op in work.opened.values()])
        if work.closed:
            self._sql.many("DELETE FROM holds WHERE request_id = ? AND attempt = ?", work.closed)
        changes = [
            (work.spent[key], work.held[key], *key) for key in sorted(work.spent) if work.spent[key] or work.held[key]
        ]
        if changes:
            self._sql.many(
                "UPDATE counters SET spent = spent + ?, held = held + ? WHERE scope = ? AND window_id = ?", changes
            )

    def _raise_alerts(self, counters: Iterable[Counter], work: _Work) -> int:
        raised = 0
        for counter in counters:
            spent = work.balances[counter.key][0]
            for watch in counter.watches:
                for threshold, bound in watch.alerts:
                    if spent >= bound:
                        raised += self._raise(counter, watch, threshold, spent, work)
        for refusal in work.refused.values():
            spent = refusal.balance.spent_nano_usd
            raised += self._raise(refusal.counter, refusal.watch, REFUSED, spent, work)
        return raised

    def _raise(self, counter: Counter, watch: Watch, threshold: str, spent: int, work: _Work) -> int:
        name = (watch.budget, counter.scope, counter.window_id, threshold)
        if name in self._fired or name in work.fired:
            return 0
        work.fired.add(name)
        rows = [
            alert_row(
                Alert(
                    id=hashlib.sha256("\0".join((*name, webhook)).encode()).hexdigest()[:32],
                    budget=watch.budget,
                    scope=counter.scope,
                    window_id=counter.window_id,
                    threshold=threshold,
                    webhook=webhook,
                    spent_nano_usd=spent,
                    limit_nano_usd=watch.limit_nano_usd,
                    created_ns=work.now_ns,
                ),
                # The record of the crossing itself needs no delivery.
                delivered_ns=None if webhook else work.now_ns,
            )
            for webhook in ("", *watch.webhooks)
        ]
        written = self._sql.each(_INSERT_ALERT, rows)
        return 1 if written[0] else 0

    def sweep(self, now_ns: int) -> int:
        swept = 0
        for hold in self.holds():
            if hold.owner == self._sql.node and hold.epoch == self._sql.epoch:
                continue
            if self._sql.is_gone(hold.owner, hold.epoch):
                self._charge_orphan(hold, now_ns)
                swept += 1
        return swept

    def _charge_orphan(self, hold: OpenHold, now_ns: int) -> None:
        entry = Entry(
            request_id=hold.request_id,
            attempt=hold.attempt,
            at_ns=hold.at_ns,
            settled_ns=now_ns,
            payer=hold.payer,
            basis=Basis.ORPHAN,
            nano_usd=hold.nano_usd,
            price_version=hold.price_version,
        )
        with self._sql.transaction(durable=True):
            # Its own process may have come back and settled it, or another node may sweep it too.
            if self._load_holds([(hold.request_id, hold.attempt)]):
                self._apply([SettleOp(entry=entry, counters=self._covering(hold.at_ns, hold.payer), held=True)])

    def keep_families(self, families: frozenset[str]) -> None:
        with self._sql.transaction(durable=False):
            known = {row[0] for row in self._sql.run("SELECT DISTINCT family FROM counters")}
            gone = [(family,) for family in sorted(known - families)]
            if gone:
                self._sql.many("DELETE FROM counters WHERE family = ?", gone)

    def ensure(self, counters: Sequence[Counter]) -> None:
        with self._sql.transaction(durable=False):
            self._load_counters({counter.key: counter for counter in counters}, ())


def _id(op: Op) -> AttemptId:
    if isinstance(op, SettleOp):
        return (op.entry.request_id, op.entry.attempt)
    return (op.request_id, op.attempt)


def _counters(ops: Sequence[Op]) -> dict[CounterKey, Counter]:
    return {counter.key: counter for op in ops if not isinstance(op, ReleaseOp) for counter in op.counters}


def _as_open(op: HoldOp, node: str, epoch: int) -> OpenHold:
    return OpenHold(
        request_id=op.request_id,
        attempt=op.attempt,
        owner=node,
        epoch=epoch,
        at_ns=op.at_ns,
        nano_usd=op.nano_usd,
        payer=op.payer,
        price_version=op.price_version,
        counters=tuple(counter.key for counter in op.counters),
    )
