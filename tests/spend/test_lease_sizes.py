"""How big leases are, and when they are asked for and returned; without a ledger."""

import pytest

from gateway.spend.leases import IDLE_S, Lease, Leases, LeaseTicket
from gateway.store.spec import Committed, Counter, HoldOp, LeaseOp, ReturnOp, Watch
from gateway.store.writer import Waiting
from tests.clocks import ManualClock
from tests.spend.accounts import NOON_NS, PAYER

COUNTERS = (
    Counter(
        scope="global",
        window_id="none",
        start_ns=0,
        end_ns=2**62,
        family="f",
        watches=(Watch(budget="b", limit_nano_usd=10**9, hard=True),),
    ),
)


class Desk:
    """Leases over a queue that a test answers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.queue: list[Waiting] = []
        self.leases = Leases(self.queue.append, self.clock, "a-1")
        self.count = 0

    def op(self, nano: int = 100) -> HoldOp:
        self.count += 1
        return HoldOp(
            request_id=f"r{self.count}", attempt=1, at_ns=NOON_NS, nano_usd=nano, payer=PAYER, counters=COUNTERS
        )

    def draw(self, nano: int = 100) -> Lease | None:
        return self.leases.draw(self.op(nano))

    def asked(self) -> LeaseTicket:
        """The slice that is asked for."""
        (ticket,) = self.queue
        self.queue.clear()
        assert isinstance(ticket, LeaseTicket)
        return ticket

    def answer(self, granted: int | None = None) -> int:
        """Grant what is asked for, or as much as told; what was asked for."""
        ticket = self.asked()
        assert isinstance(ticket.op, LeaseOp)
        wanted = ticket.op.nano_usd
        grants = {ticket.op.lease: wanted if granted is None else granted}
        self.leases.answered(ticket, Committed(refusals=(None,), balances={}, grants=grants))
        return wanted


@pytest.fixture
def desk() -> Desk:
    """A desk whose payer has just been admitted twice."""
    desk = Desk()
    for _ in range(2):
        desk.leases.admitted(desk.op())
    return desk


def test_a_busy_payer_gets_more_and_a_calm_one_less(desk: Desk) -> None:
    """Half a slice that is gone within a second doubles it; one that lasts four seconds halves it."""
    assert desk.answer() == 800
    for _ in range(5):
        assert desk.draw()
    assert desk.answer() == 1600 - 300
    desk.clock.advance(5)
    for _ in range(12):
        assert desk.draw()
    # Of 1600, 800 - 400 = 400 are left when half of the slice is used.
    assert desk.answer() == 800 - 700


def test_a_payer_who_comes_rarely_gets_no_lease() -> None:
    """One request in two seconds is not worth a slice that others cannot use."""
    desk = Desk()
    for _ in range(5):
        desk.leases.admitted(desk.op())
        desk.clock.advance(2 * IDLE_S)
    assert desk.queue == []


def test_a_refused_slice_is_forgotten(desk: Desk) -> None:
    """Near the limit nothing is granted: the next request asks the ledger, and nothing has to be returned."""
    desk.answer(0)
    assert desk.draw() is None
    assert isinstance(desk.queue[0].op, ReturnOp)


def test_a_slice_that_is_asked_back_is_not_taken_again_at_once(desk: Desk) -> None:
    """The payer's requests ask the ledger for five seconds, so that who needs the money gets it."""
    desk.answer()
    desk.leases.recall({"lease-a-1-1", "lease-b-7-1"})
    assert isinstance(desk.queue.pop().op, ReturnOp)
    for _ in range(4):
        desk.clock.advance(0.9)
        desk.leases.admitted(desk.op())
    assert desk.queue == []
    desk.clock.advance(1.5)
    for _ in range(2):
        desk.leases.admitted(desk.op())
    assert desk.answer() == 800


def test_a_node_that_closes_takes_no_lease(desk: Desk) -> None:
    """An admission that ends while the node shuts down leaves no slice behind."""
    desk.answer()
    desk.leases.close()
    desk.queue.clear()
    for _ in range(3):
        desk.leases.admitted(desk.op())
    assert desk.queue == []


def test_a_failed_commit_leaves_the_rest_of_a_slice_usable(desk: Desk) -> None:
    """While the ledger is away the slice lasts as long as it lasts; a first one that failed is ended."""
    desk.answer()
    for _ in range(5):
        desk.draw()
    desk.leases.answered(desk.asked(), None)
    assert desk.draw()
    fresh = Desk()
    for _ in range(2):
        fresh.leases.admitted(fresh.op())
    fresh.leases.answered(fresh.asked(), None)
    assert isinstance(fresh.queue[0].op, ReturnOp)
    assert fresh.leases.empty


def test_an_idle_lease_is_returned(desk: Desk) -> None:
    """A second after the last draw, and not before."""
    desk.answer()
    desk.clock.advance(IDLE_S / 2)
    assert desk.draw()
    desk.clock.advance(IDLE_S * 0.9)
    desk.leases.give_idle_back()
    assert desk.queue == []
    desk.clock.advance(IDLE_S * 0.2)
    desk.leases.give_idle_back()
    (returned,) = desk.queue
    assert isinstance(returned.op, ReturnOp)
    assert [hold.request_id for hold in returned.op.in_flight] == ["r3"]
    assert desk.draw() is None
