"""The ledger's transactions, written once for every SQL database.

A commit takes its locks in one order (holds, then counters, each sorted), so that nodes that share a database never
wait for each other in a circle. What is granted is decided here, on rows that are locked, from what they hold.
"""

# ruff: noqa: S608 - statements are joined from the constants of gateway.store.schema; every value is a parameter

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from gateway.store import schema
from gateway.store.connection import Sql, columns, marks
from gateway.store.lines import adjust, insert_lines, lease_was_charged, move_out_of_lease, take_back_lease
from gateway.store.queries import Queries
from gateway.store.rows import (
    alert_row,
    hold_of,
    hold_row,
    match_text,
)
from gateway.store.spec import (
    LEASE,
    REFUSED,
    Alert,
    Balance,
    Committed,
    Counter,
    Entry,
    HoldOp,
    LeaseOp,
    Op,
    OpenHold,
    Refusal,
    ReleaseOp,
    ReturnOp,
    SettleOp,
    Watch,
)
from gateway.store.work import AttemptId, CounterKey, Work
from gateway.types.records import Basis

_MAX_FIRED = 50_000


_INSERT_HOLD = f"INSERT INTO holds ({columns(schema.HOLD_COLUMNS)}) VALUES ({marks(schema.HOLD_COLUMNS)})"
_SELECT_HOLD = f"SELECT {columns(schema.HOLD_COLUMNS)} FROM holds WHERE request_id = ? AND attempt = ?"
_SELECT_LEASES = f"SELECT {columns(schema.HOLD_COLUMNS)} FROM holds WHERE attempt = {LEASE}"
_SELECT_COUNTER = "SELECT spent, held FROM counters WHERE scope = ? AND window_id = ?"
_INSERT_COUNTER = (
    f"INSERT INTO counters ({columns(schema.COUNTER_COLUMNS)}) VALUES ({marks(schema.COUNTER_COLUMNS)}) "
    "ON CONFLICT DO NOTHING"
)
_INSERT_ALERT = (
    f"INSERT INTO outbox ({columns(schema.ALERT_COLUMNS)}, due_ns, delivered_ns) "
    f"VALUES ({marks(schema.ALERT_COLUMNS)}, ?, ?) ON CONFLICT DO NOTHING"
)


class SqlLedgerStore(Queries):
    """A ledger in an SQL database; see `gateway.store.spec.LedgerStore`. One thread at a time may use it."""

    def __init__(self, sql: Sql) -> None:
        super().__init__(sql)
        # Alerts that are known to be written: most charges then cost no statement here.
        self._fired: set[tuple[str, str, str, str]] = set()

    def commit(self, ops: Sequence[Op]) -> Committed:
        durable = any(not isinstance(op, SettleOp) or op.held for op in ops)
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
            grants=work.grants,
        )

    def _apply(self, ops: Sequence[Op]) -> tuple[Work, int, tuple[Refusal | None, ...]]:
        holds = self._load_holds(sorted({id_ for op in ops if (id_ := _hold_of(op)) is not None}))
        counters = self._counters_of_charged_leases(ops, holds) | _counters(ops)
        balances = self._load_counters(counters, {key for hold in holds.values() for key in hold.counters})
        settles = [op for op in ops if isinstance(op, SettleOp)]
        inserted = insert_lines(self._sql, [op.entry for op in settles])
        work = Work(
            node=self._sql.node,
            epoch=self._sql.epoch,
            balances=balances,
            holds=holds,
            inserted=inserted[::-1],
        )
        refusals = tuple(self._one(op, work) for op in ops)
        self._write(work)
        return work, self._raise_alerts(counters.values(), work), refusals

    def _one(self, op: Op, work: Work) -> Refusal | None:
        match op:
            case HoldOp():
                return self._grant(op, work)
            case ReleaseOp():
                work.close((op.request_id, op.attempt))
            case SettleOp():
                self._settle(op, work)
            case LeaseOp():
                work.lease(op)
            case ReturnOp():
                self._return(op, work)
        return None

    def _grant(self, op: HoldOp, work: Work) -> Refusal | None:
        if (op.request_id, op.attempt) in work.holds:
            return None
        work.now_ns = max(work.now_ns, op.at_ns)
        refusal = work.shortfall(op)
        if refusal is None:
            work.open(op)
            return None
        if op.patient:
            leases = [lease for lease in self._leases(work) if refusal.counter.key in lease.counters]
            missing = op.nano_usd + sum(work.balances[refusal.counter.key]) - refusal.watch.limit_nano_usd
            if sum(lease.nano_usd for lease in leases) >= missing:
                work.recalled.update(lease.request_id for lease in leases)
                return msgspec.structs.replace(refusal, recalled=True)
        work.refused.setdefault(refusal.counter.key, refusal)
        return refusal

    def _leases(self, work: Work) -> list[OpenHold]:
        """All leases, as they are in the middle of this commit. Whoever changes one has its counters locked."""
        if work.leases is None:
            work.leases = {hold.request_id: hold for hold in map(hold_of, self._sql.run(_SELECT_LEASES))}
        leases = work.leases | {lease: hold for (lease, attempt), hold in work.holds.items() if attempt == LEASE}
        return [hold for lease, hold in leases.items() if (lease, LEASE) not in work.closed]

    def _settle(self, op: SettleOp, work: Work) -> None:
        work.now_ns = max(work.now_ns, op.entry.settled_ns)
        keys = {counter.key for counter in op.counters}
        inserted = work.inserted.pop()
        charge = op.entry.nano_usd or 0
        if op.draw is None:
            hold = work.close((op.entry.request_id, op.entry.attempt))
            if hold is not None:
                keys.update(hold.counters)
        elif inserted:
            lease = work.holds.get((op.draw.lease, LEASE))
            covered = min(charge, op.draw.nano_usd)
            if lease is not None:
                keys.update(lease.counters)
                # Never below what is left of it, so that no charge can fail here.
                work.resize(lease, -min(covered, lease.nano_usd))
            elif lease_was_charged(self._sql, op.draw.lease):
                move_out_of_lease(self._sql, op.draw, op.entry, covered)
                charge -= covered
        if not inserted:
            work.duplicates += 1
            charge = adjust(self._sql, op.entry)
        if charge:
            for key in sorted(keys):
                work.add(key, charge, 0)

    def _return(self, op: ReturnOp, work: Work) -> None:
        if work.close((op.lease, LEASE)) is None:
            charged = take_back_lease(self._sql, op)
            if charged is None:
                return
            for key in self._counters_of_charged_leases([op], {}) | _counters([op]):
                work.add(key, -charged, 0)
        for hold in op.in_flight:
            work.open(hold)

    def _counters_of_charged_leases(
        self, ops: Sequence[Op], holds: dict[AttemptId, OpenHold]
    ) -> dict[CounterKey, Counter]:
        """What the charge of a lease that is to be corrected counts in, budgets that are younger than it included."""
        return {
            counter.key: counter
            for op in ops
            if isinstance(op, ReturnOp) and (op.lease, LEASE) not in holds
            for counter in self._covering(op.at_ns, op.payer)
        }

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
        found = self._sql.each(_SELECT_COUNTER + self._sql.lock, keys)
        balances = {key: (rows[0][0], rows[0][1]) for key, rows in zip(keys, found, strict=True) if rows}
        missing = [counters[key] for key in keys if key not in balances and key in counters]
        return balances | self._make_counters(missing) if missing else balances

    def _make_counters(self, counters: Sequence[Counter]) -> dict[CounterKey, tuple[int, int]]:
        """The first rows of counters: what the ledger already holds for their scopes and windows."""
        inserted = self._sql.insert(
            _INSERT_COUNTER,
            [
                (*counter.key, counter.start_ns, counter.end_ns, counter.family, match_text(counter.match), 0, 0)
                for counter in counters
            ],
        )
        made = [counter for counter, is_new in zip(counters, inserted, strict=True) if is_new]
        truths = self._truths(made)
        balances = {key: (truth.spent_nano_usd, truth.held_nano_usd) for key, truth in truths.items()}
        changes = [(*balance, *key) for key, balance in balances.items() if any(balance)]
        if changes:
            self._sql.many("UPDATE counters SET spent = ?, held = ? WHERE scope = ? AND window_id = ?", changes)
        # Other nodes made the rest in between; their rows are there now.
        others = [counter.key for counter in counters if counter.key not in balances]
        for key, rows in zip(others, self._sql.each(_SELECT_COUNTER + self._sql.lock, others), strict=True):
            balances[key] = (rows[0][0], rows[0][1])
        return balances

    def _write(self, work: Work) -> None:
        if work.opened:
            self._sql.many(_INSERT_HOLD, [hold_row(op, self._sql.node, self._sql.epoch) for op in work.opened.values()])
        resized = [(change, *attempt_id) for attempt_id, change in work.resized.items() if change]
        if resized:
            self._sql.many("UPDATE holds SET nano_usd = nano_usd + ? WHERE request_id = ? AND attempt = ?", resized)
        if work.closed:
            self._sql.many("DELETE FROM holds WHERE request_id = ? AND attempt = ?", work.closed)
        changes = [
            (work.spent[key], work.held[key], *key) for key in sorted(work.spent) if work.spent[key] or work.held[key]
        ]
        if changes:
            self._sql.many(
                "UPDATE counters SET spent = spent + ?, held = held + ? WHERE scope = ? AND window_id = ?", changes
            )
        ended = [(lease,) for lease, attempt in work.closed if attempt == LEASE]
        if ended:
            self._sql.many("DELETE FROM recalls WHERE lease = ?", ended)
        if work.recalled:
            self._sql.many(
                "INSERT INTO recalls VALUES (?) ON CONFLICT DO NOTHING", [(lease,) for lease in sorted(work.recalled)]
            )

    def _raise_alerts(self, counters: Iterable[Counter], work: Work) -> int:
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

    def _raise(self, counter: Counter, watch: Watch, threshold: str, spent: int, work: Work) -> int:
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
        return int(self._sql.insert(_INSERT_ALERT, rows)[0])

    @property
    def owner(self) -> str:
        return f"{self._sql.node}-{self._sql.epoch}"

    @property
    def shared(self) -> bool:
        return self._sql.shared

    def recalled(self) -> frozenset[str]:
        with self._sql.transaction(durable=False):
            return frozenset(row[0] for row in self._sql.run("SELECT lease FROM recalls"))

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

    def keep_families(self, families: frozenset[str], open_ns: int | None = None) -> None:
        with self._sql.transaction(durable=False):
            where, values = ("", ()) if open_ns is None else (" WHERE end_ns > ?", (open_ns,))
            known = {row[0] for row in self._sql.run("SELECT DISTINCT family FROM counters" + where, values)}
            gone = [(family,) for family in sorted(known - families)]
            if gone:
                self._sql.many("DELETE FROM counters WHERE family = ?", gone)

    def ensure(self, counters: Sequence[Counter]) -> None:
        with self._sql.transaction(durable=False):
            self._load_counters({counter.key: counter for counter in counters}, ())


def _hold_of(op: Op) -> AttemptId | None:
    """The hold, or the lease, that an operation is about."""
    match op:
        case LeaseOp() | ReturnOp():
            return (op.lease, LEASE)
        case SettleOp():
            if op.draw is not None:
                return (op.draw.lease, LEASE)
            return (op.entry.request_id, op.entry.attempt) if op.held else None
    return (op.request_id, op.attempt)


def _counters(ops: Sequence[Op]) -> dict[CounterKey, Counter]:
    return {counter.key: counter for op in ops if not isinstance(op, ReleaseOp) for counter in op.counters}
