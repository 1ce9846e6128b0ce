"""What one commit has read and decided so far: arithmetic on rows that are locked, without a database."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.store.spec import LEASE, Balance, Counter, HoldOp, LeaseOp, OpenHold, Refusal

AttemptId = tuple[str, int]
CounterKey = tuple[str, str]


class Work(Struct):
    """The state of one commit. `holds` are those that it may touch, `balances` the counters as they will be."""

    node: str
    epoch: int
    balances: dict[CounterKey, tuple[int, int]]
    holds: dict[AttemptId, OpenHold]
    inserted: list[bool]
    """Whether each charge was new, the last one first."""
    spent: dict[CounterKey, int] = {}
    held: dict[CounterKey, int] = {}
    closed: list[AttemptId] = []
    opened: dict[AttemptId, HoldOp] = {}
    resized: dict[AttemptId, int] = {}
    grants: dict[str, int] = {}
    refused: dict[CounterKey, Refusal] = {}
    leases: dict[str, OpenHold] | None = None
    """The leases of all nodes as stored, once a refusal has asked for them."""
    recalled: set[str] = set()
    fired: set[tuple[str, str, str, str]] = set()
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

    def shortfall(self, op: HoldOp) -> Refusal | None:
        """The first hard budget without room for a hold."""
        for counter in op.counters:
            spent, held = self.balances[counter.key]
            for watch in counter.watches:
                # What costs nothing is never refused: an explicit price of 0 works after exhaustion too.
                if watch.hard and op.nano_usd and spent + held + op.nano_usd > watch.limit_nano_usd:
                    return Refusal(counter=counter, watch=watch, balance=Balance(spent, held))
        return None

    def room(self, counters: Sequence[Counter]) -> int:
        """What is left in the tightest hard budget of these counters; 0 when none of them has one."""
        return min(
            (
                watch.limit_nano_usd - sum(self.balances[counter.key])
                for counter in counters
                for watch in counter.watches
                if watch.hard
            ),
            default=0,
        )

    def open(self, op: HoldOp) -> None:
        """Hold money for an attempt, or for a lease; the caller has seen that there is room."""
        attempt = (op.request_id, op.attempt)
        for counter in op.counters:
            self.add(counter.key, 0, op.nano_usd)
        self.opened[attempt] = op
        self.holds[attempt] = OpenHold(
            request_id=op.request_id,
            attempt=op.attempt,
            owner=self.node,
            epoch=self.epoch,
            at_ns=op.at_ns,
            nano_usd=op.nano_usd,
            payer=op.payer,
            price_version=op.price_version,
            counters=tuple(counter.key for counter in op.counters),
        )

    def lease(self, op: LeaseOp) -> None:
        """Grant a slice of what is left, or nothing."""
        stored = self.holds.get((op.lease, LEASE))
        if stored is None and op.renewed:
            return
        granted = min(op.nano_usd, self.room(op.counters) // op.share)
        self.grants[op.lease] = granted = granted if granted >= op.least_nano_usd else 0
        if granted and stored is not None:
            self.resize(stored, granted)
        elif granted:
            self.open(
                HoldOp(
                    request_id=op.lease,
                    attempt=LEASE,
                    at_ns=op.at_ns,
                    nano_usd=granted,
                    payer=op.payer,
                    counters=op.counters,
                    price_version=op.price_version,
                )
            )

    def resize(self, hold: OpenHold, change: int) -> None:
        """Make a lease that is stored bigger or smaller."""
        attempt = (hold.request_id, hold.attempt)
        for key in hold.counters:
            self.add(key, 0, change)
        self.holds[attempt] = msgspec.structs.replace(hold, nano_usd=hold.nano_usd + change)
        self.resized[attempt] = self.resized.get(attempt, 0) + change

    def close(self, attempt: AttemptId) -> OpenHold | None:
        """End a hold; None when there is none."""
        hold = self.holds.pop(attempt, None)
        if hold is None:
            return None
        for key in hold.counters:
            self.add(key, 0, -hold.nano_usd)
        if self.opened.pop(attempt, None) is None:
            self.closed.append(attempt)
        return hold
