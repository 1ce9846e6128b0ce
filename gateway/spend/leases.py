"""Leases: slices of hard budgets that this node may spend without asking the ledger each time.

A slice is held in the ledger before anything is admitted from it, for one payer and in all of its budgets. What is left
of a lease in the ledger is always at least its `slack` here, and what its attempts in flight and their charges that
are not committed yet may cost: so nothing is overspent whatever becomes of this process, and if it dies the
ledger charges the lease as a whole. One thread uses this; nothing here waits.
"""

from collections.abc import Callable, Collection

from msgspec import Struct

from gateway.store.spec import (
    Committed,
    Counter,
    Draw,
    HoldOp,
    LeaseOp,
    Payer,
    ReleaseOp,
    ReturnOp,
    SettleOp,
)
from gateway.store.writer import Waiting
from gateway.types.clock import Clock

SHARE = 16
"""A lease may take one part in so many of what is left: near the limit leases shrink, and then there are none."""
_FIRST = 8
"""A first slice is for so many attempts like the one that asked for it, and half of that is the least worth having."""
_BUSY_S = 1.0
"""Half a slice that is used up sooner than this asks for twice as much; one that lasts four times as long for half."""
IDLE_S = 1.0
"""A lease that nothing was admitted from for so long goes back."""
_COOL_S = 5.0
"""How long a payer whose lease was asked back gets none."""
_MAX_PAYERS = 10_000


class Lease(Struct, eq=False, kw_only=True):
    """A slice of one payer's budgets. `slack` may still be admitted from it."""

    id: str
    at_ns: int
    payer: Payer
    counters: tuple[Counter, ...]
    slack: int = 0
    target: int = 0
    """What `slack` is filled up to."""
    draws: int = 0
    in_flight: dict[tuple[str, int], tuple[int, HoldOp]] = {}
    """The number and the hold of each attempt that has no charge yet."""
    drawn_s: float = 0.0
    asked_s: float = 0.0
    asking: bool = False
    stored: bool = False
    open: bool = True


class LeaseTicket(Waiting, eq=False, kw_only=True):
    """A slice that is asked for; the answer is for `Leases.answered`."""

    lease: Lease
    wanted: int


class Leases:
    """The leases of one node.

    Args:
        put: queues an operation for the ledger; what is put first is committed first.
        clock: wall and monotonic time.
        owner: names this start of this node among all; leases are named after it.
    """

    def __init__(
        self,
        put: Callable[[Waiting], None],
        clock: Clock,
        owner: str,
    ) -> None:
        self._put = put
        self._clock = clock
        self._owner = owner
        self._count = 0
        self._leases: dict[Payer, Lease] = {}
        # When a payer was last admitted by the ledger itself; in the future while it shall get no lease.
        self._asked_s: dict[Payer, float] = {}
        self._closed = False

    @property
    def empty(self) -> bool:
        """Whether this node has no lease."""
        return not self._leases

    def draw(self, op: HoldOp) -> Lease | None:
        """Admit an attempt from its payer's lease; None when the ledger has to be asked."""
        lease = self._leases.get(op.payer)
        if lease is None:
            return None
        if lease.counters is not op.counters and lease.counters != op.counters:
            # Another window, or other budgets.
            self.give_back(lease)
            return None
        if op.nano_usd > lease.slack:
            self._ask(lease, op)
            return None
        lease.slack -= op.nano_usd
        lease.draws += 1
        lease.in_flight[op.request_id, op.attempt] = (lease.draws, op)
        lease.drawn_s = self._clock.monotonic()
        if lease.slack * 2 < lease.target:
            self._ask(lease, op)
        return lease

    def admitted(self, op: HoldOp) -> None:
        """The ledger admitted an attempt itself. A payer for whom that happens often gets a lease."""
        if op.payer in self._leases or self._closed:
            return
        now_s = self._clock.monotonic()
        last_s = self._asked_s.get(op.payer)
        if last_s is not None and last_s > now_s:
            return
        if len(self._asked_s) >= _MAX_PAYERS:
            self._asked_s.clear()
        self._asked_s[op.payer] = now_s
        if last_s is None or now_s - last_s > IDLE_S:
            return
        self._count += 1
        lease = Lease(id=f"lease-{self._owner}-{self._count}", at_ns=op.at_ns, payer=op.payer, counters=op.counters)
        lease.drawn_s = now_s
        self._leases[op.payer] = lease
        self._ask(lease, op)

    def _ask(self, lease: Lease, op: HoldOp) -> None:
        if lease.asking:
            return
        now_s = self._clock.monotonic()
        if lease.stored and now_s - lease.asked_s < _BUSY_S:
            lease.target *= 2
        elif lease.stored and now_s - lease.asked_s > 4 * _BUSY_S:
            lease.target //= 2
        lease.target = max(lease.target, _FIRST * op.nano_usd)
        lease.asking, lease.asked_s = True, now_s
        wanted = lease.target - lease.slack
        self._put(
            LeaseTicket(
                op=LeaseOp(
                    lease=lease.id,
                    at_ns=lease.at_ns,
                    nano_usd=wanted,
                    least_nano_usd=min(wanted, _FIRST * op.nano_usd // 2),
                    share=SHARE,
                    payer=lease.payer,
                    counters=lease.counters,
                    price_version=op.price_version,
                    renewed=lease.stored,
                ),
                waited=True,
                lease=lease,
                wanted=wanted,
            )
        )

    def answered(self, ticket: LeaseTicket, committed: Committed | None) -> None:
        """What the ledger said to a slice that was asked for; None when it failed."""
        lease = ticket.lease
        lease.asking = False
        if not lease.open or (committed is None and lease.stored):
            # Ended meanwhile; or the ledger is away, and what is left of the slice goes on.
            return
        granted = None if committed is None else committed.grants.get(lease.id)
        if granted is None or not (granted or lease.stored):
            # It may be in the ledger, or be charged there by a node that took this one for dead.
            self.give_back(lease)
            return
        lease.stored = True
        lease.slack += granted
        if granted < ticket.wanted:
            # Nothing is asked for again before half of the rest is gone.
            lease.target = lease.slack

    def settle(self, lease: Lease, op: SettleOp) -> SettleOp:
        """The charge of an attempt that was admitted from a lease, as the ledger has to take it."""
        drawn = lease.in_flight.pop((op.entry.request_id, op.entry.attempt), None)
        if drawn is None:
            return op
        number, hold = drawn
        lease.slack += hold.nano_usd - min(op.entry.nano_usd or 0, hold.nano_usd)
        return SettleOp(entry=op.entry, counters=op.counters, held=True, draw=Draw(lease.id, number, hold.nano_usd))

    def release(self, lease: Lease, op: ReleaseOp) -> bool:
        """Give back what an attempt drew that was not sent; False when it has a hold in the ledger by now."""
        drawn = lease.in_flight.pop((op.request_id, op.attempt), None)
        if drawn is None:
            return False
        lease.slack += drawn[1].nano_usd
        return True

    def give_back(self, lease: Lease) -> None:
        """End a lease. What is in flight from it gets holds of its own in the ledger."""
        if not lease.open:
            return
        lease.open = False
        if self._leases.get(lease.payer) is lease:
            del self._leases[lease.payer]
        in_flight = tuple(hold for _, hold in lease.in_flight.values())
        lease.in_flight.clear()
        self._put(
            Waiting(
                ReturnOp(
                    lease=lease.id,
                    at_ns=lease.at_ns,
                    payer=lease.payer,
                    counters=lease.counters,
                    returned_ns=self._clock.now_ns(),
                    in_flight=in_flight,
                )
            )
        )

    def give_all_back(self) -> None:
        """End every lease."""
        for lease in list(self._leases.values()):
            self.give_back(lease)

    def close(self) -> None:
        """End every lease, and take no more."""
        self._closed = True
        self.give_all_back()

    def give_idle_back(self) -> None:
        """End the leases that nothing was admitted from for a while."""
        now_s = self._clock.monotonic()
        for lease in list(self._leases.values()):
            if now_s - lease.drawn_s >= IDLE_S:
                self.give_back(lease)

    def recall(self, asked_back: Collection[str]) -> None:
        """End the leases that another node needs, and take no new ones in their place for some seconds."""
        for lease in list(self._leases.values()):
            if lease.id in asked_back:
                self._asked_s[lease.payer] = self._clock.monotonic() + _COOL_S
                self.give_back(lease)
