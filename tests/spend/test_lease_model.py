"""Two nodes that lease slices of the same budgets, in any order of events: no overspend, and no charge is lost.

The nodes' own leases and queues are the real ones, over one real ledger; commits fail before and after they take
effect, nodes die, and live ones are taken for dead. `make test` takes short walks, `make prove` long ones.
"""

import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec import Struct

from gateway.spend.budgets import BudgetBook
from gateway.spend.leases import Lease, Leases, LeaseTicket
from gateway.store.spec import LEASE, Committed, Entry, HoldOp, LedgerStore, Op, Payer, ReleaseOp, SettleOp, StoreError
from gateway.store.sqlite import open_sqlite
from gateway.store.writer import Waiting, Writer
from gateway.types.records import Basis
from tests.proving import Proof
from tests.spend.accounts import NOON_NS, budget
from tests.spend.test_model import MEMORY, machine_settings

LIMITS = {"global": 20_000, "team=red": 9_000, "team=blue": 15_000}
BUDGETS = [
    budget(20_000, name="all", window="none"),
    budget(9_000, name="red", scope={"team": "red"}, window="none"),
    budget(15_000, name="blue", scope={"team": "blue"}, window="none"),
    budget(100, name="soft", scope={"model": "m"}, window="hour", enforcement="soft"),
]
OUTCOMES = ("done", "done", "done", "failed", "ambiguous")


class Attempt(Struct):
    """One attempt that a node has sent, or may have."""

    op: HoldOp
    lease: Lease | None


class Node:
    """One gateway: its leases and its queue, whose thread is this one."""

    def __init__(self, model: "Model", name: str) -> None:
        self.model = model
        self.name = name
        self.epoch = 0
        self.start()

    def start(self) -> None:
        """A process of its own, that knows nothing of the one before."""
        self.epoch += 1
        self.writer = Writer(lambda: self.model.store, self, self.model)
        self.leases = Leases(self.writer.put, self.model, f"{self.name}-{self.epoch}")
        self.open: dict[str, Attempt] = {}

    def committed(self, waited: Sequence[Waiting], committed: Committed | None, seconds: float | None) -> None:
        """See `gateway.store.writer.WriterEvents`."""
        for ticket in waited:
            if isinstance(ticket, LeaseTicket):
                self.leases.answered(ticket, committed)

    def lost(self, op: Op, error: StoreError) -> None:
        """See `gateway.store.writer.WriterEvents`."""
        raise AssertionError(f"{op} was lost: {error}")

    def commit(self, outcome: str) -> None:
        """One group, which ends well, fails, or takes effect and seems to fail."""
        sql = self.model.store._sql  # type: ignore[attr-defined]
        sql.node, sql.epoch = self.name, self.epoch
        if self.writer._queue:
            self.writer._group(Flaky(self.model.store, outcome))  # type: ignore[arg-type]

    def commit_all(self) -> None:
        """Everything that is queued, and what that queues."""
        while self.writer._queue:
            self.commit("done")


class Flaky:
    """A store whose commit ends as told."""

    def __init__(self, store: LedgerStore, outcome: str) -> None:
        self._store = store
        self._outcome = outcome

    def commit(self, ops: Sequence[Op]) -> Committed:
        if self._outcome == "failed":
            raise StoreError("the server is away")
        done = self._store.commit(ops)
        if self._outcome == "ambiguous":
            raise StoreError("the connection broke", ambiguous=True)
        return done


class Model:
    """What the ledger must hold, kept in the simplest way; also the clock."""

    def __init__(self, folder: Path) -> None:
        self.store: LedgerStore = open_sqlite(folder / "ledger.db")
        self.gone: set[tuple[str, int]] = set()
        self.store._sql.is_gone = lambda owner, epoch: (owner, epoch) in self.gone  # type: ignore[attr-defined]
        self.book = BudgetBook(BUDGETS)
        self.seconds = 0.0
        self.count = 0
        self.drawn = 0
        """Attempts that a lease admitted."""
        self.due: dict[str, int] = {}
        """The least that the ledger must charge or hold for each attempt."""
        self.given_back: list[str] = []
        self.excess = 0
        """What the ledger charged for the leases of dead nodes beyond that."""
        self.nodes = [Node(self, "a"), Node(self, "b")]

    def now_ns(self) -> int:
        return NOON_NS + int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    def request(self, node: Node, team: str, nano: int) -> bool:
        """Admit an attempt: from the lease, or by a hold in the ledger that this waits for."""
        self.count += 1
        payer = Payer(team=team, key_id="", route="chat", provider="openai", model="m")
        op = HoldOp(
            request_id=f"r{self.count}",
            attempt=1,
            at_ns=self.now_ns(),
            nano_usd=nano,
            payer=payer,
            counters=self.book.applied(payer, self.now_ns()).counters,
            patient=True,
        )
        lease = node.leases.draw(op)
        if lease is None:
            ticket = Waiting(op, waited=True)
            node.writer.put(ticket)
            node.commit_all()
            if ticket.refusal is not None:
                return False
            node.leases.admitted(op)
        self.drawn += lease is not None
        node.open[op.request_id] = Attempt(op, lease)
        self.due[op.request_id] = nano
        return True

    def end(self, node: Node, which: int, share: float) -> None:
        """Charge an open attempt, or give it back when `share` is negative."""
        if not node.open:
            return
        name = list(node.open)[which % len(node.open)]
        attempt = node.open.pop(name)
        op = attempt.op
        if share < 0:
            release = ReleaseOp(request_id=name, attempt=1)
            if attempt.lease is None or not node.leases.release(attempt.lease, release):
                node.writer.put(Waiting(release))
            self.due[name] = 0
            self.given_back.append(name)
            return
        cost = int(op.nano_usd * share)
        entry = Entry(
            request_id=name,
            attempt=1,
            at_ns=op.at_ns,
            settled_ns=self.now_ns(),
            payer=op.payer,
            basis=Basis.PROVIDER_USAGE,
            nano_usd=cost,
        )
        settle = SettleOp(entry=entry, counters=self.book.applied(op.payer, op.at_ns).counters, held=True)
        if attempt.lease is not None:
            settle = node.leases.settle(attempt.lease, settle)
        node.writer.put(Waiting(settle))
        self.due[name] = cost

    def sweep(self, node: Node) -> None:
        """Charge what a node has held, as a third one does that takes it for gone."""
        sql = self.store._sql  # type: ignore[attr-defined]
        sql.node, sql.epoch = "c", 1
        self.gone.add((node.name, node.epoch))
        self.store.sweep(self.now_ns())
        self.gone.clear()

    def die(self, node: Node) -> None:
        """Kill a node with all that it has in memory; what it held, and what it was charged for, stays charged."""
        at_most = sum(hold.nano_usd for hold in self.store.holds() if hold.owner == node.name)
        mine = f"lease-{node.name}-{node.epoch}-"
        # Charges that die in the queue can no more correct those that were made while the node seemed dead.
        queued = [getattr(waiting, "op", None) for waiting in node.writer._queue]
        unsaid = {op.entry.request_id for op in queued if isinstance(op, SettleOp)}
        at_most += sum(
            entry.nano_usd or 0
            for entry in self.store.entries()
            if entry.request_id.startswith(mine) or entry.request_id in unsaid
        )
        self.sweep(node)
        node.start()
        self.settle_down()
        excess = self.booked() - sum(self.due.values())
        assert self.excess <= excess <= self.excess + at_most
        self.excess = excess

    def settle_down(self) -> None:
        """Return every lease and commit everything."""
        for node in self.nodes:
            node.leases.give_all_back()
            node.commit_all()
        lines = {entry.request_id: entry.nano_usd or 0 for entry in self.store.entries()}
        for name in self.given_back:
            # Its hold may have been charged while its node seemed dead: nobody can tell that it was not sent.
            self.due[name] = lines.get(name, 0)
        self.given_back.clear()

    def booked(self) -> int:
        """What is charged or held."""
        held = sum(hold.nano_usd for hold in self.store.holds())
        return held + sum(entry.nano_usd or 0 for entry in self.store.entries())

    def check(self) -> None:
        """At any time: within the limits, counters right, and nothing lost."""
        assert self.store.wrong_counters() == []
        for row in self.store.counters():
            if row.scope in LIMITS:
                assert row.spent_nano_usd + row.held_nano_usd <= LIMITS[row.scope]
        assert self.booked() >= sum(self.due.values()) + self.excess
        for node in self.nodes:
            for lease in node.leases._leases.values():
                self.check_covered(node, lease)

    def check_covered(self, node: Node, lease: Lease) -> None:
        """The ledger has at least as much for a lease as its node may still spend from it."""
        entries = list(self.store.entries())
        lines = {entry.request_id for entry in entries}
        needed = lease.slack + sum(hold.nano_usd for _, hold in lease.in_flight.values())
        for waiting in node.writer._queue:
            op = getattr(waiting, "op", None)
            if isinstance(op, SettleOp) and op.draw is not None and op.draw.lease == lease.id:
                needed += 0 if op.entry.request_id in lines else op.entry.nano_usd or 0
        has = sum(hold.nano_usd for hold in self.store.holds() if hold.request_id == lease.id)
        has += sum(entry.nano_usd or 0 for entry in entries if entry.request_id == lease.id)
        assert has >= needed

    def check_quiet(self) -> None:
        """When nothing is under way: exact to the nano-dollar, and all that is left is to be had."""
        self.settle_down()
        self.check()
        assert self.booked() == sum(self.due.values()) + self.excess
        assert not [hold for hold in self.store.holds() if hold.attempt == LEASE]
        assert self.store.recalled() == frozenset()
        node = self.nodes[0]
        used = {row.scope: row.spent_nano_usd + row.held_nano_usd for row in self.store.counters()}
        left = min(LIMITS[scope] - used.get(scope, 0) for scope in ("global", "team=red"))
        assert self.request(node, "red", left)
        assert not self.request(node, "red", 1)
        self.end(node, len(node.open) - 1, -1)


class LeaseMachine(RuleBasedStateMachine):
    """Hypothesis drives the model."""

    checked = drawn = 0
    """Steps of all machines, and what their leases admitted."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.model = Model(Path(self._folder.name))

    nodes = st.integers(0, 1)

    @rule(node=nodes, team=st.sampled_from(["red", "blue"]), nano=st.integers(1, 120), times=st.integers(1, 12))
    def request(self, node: int, team: str, nano: int, times: int) -> None:
        for _ in range(times):
            self.model.request(self.model.nodes[node], team, nano)

    @rule(node=nodes, which=st.integers(0, 50), share=st.floats(-0.2, 1), times=st.integers(1, 12))
    def end(self, node: int, which: int, share: float, times: int) -> None:
        for _ in range(times):
            self.model.end(self.model.nodes[node], which, share)

    @rule(node=nodes, outcome=st.sampled_from(OUTCOMES))
    def commit(self, node: int, outcome: str) -> None:
        self.model.nodes[node].commit(outcome)

    @rule(seconds=st.sampled_from([0.1, 0.7, 2.0, 5.0, 1800.0]))
    def time(self, seconds: float) -> None:
        self.model.seconds += seconds
        for node in self.model.nodes:
            node.leases.give_idle_back()

    @rule(node=nodes)
    def recall(self, node: int) -> None:
        self.model.nodes[node].leases.recall(self.model.store.recalled())

    @rule(node=nodes)
    def reload(self, node: int) -> None:
        self.model.nodes[node].leases.give_all_back()

    @rule(node=nodes)
    def mistake(self, node: int) -> None:
        self.model.sweep(self.model.nodes[node])

    @rule(node=nodes)
    def die(self, node: int) -> None:
        self.model.die(self.model.nodes[node])

    @rule()
    def quiet(self) -> None:
        self.model.check_quiet()

    @invariant()
    def right(self) -> None:
        LeaseMachine.checked += 1
        self.model.check()

    def teardown(self) -> None:
        self.model.check_quiet()
        LeaseMachine.drawn += self.model.drawn
        self.model.store.close()
        self._folder.cleanup()


LeaseMachine.TestCase.settings = machine_settings(10, 25)
TestLeaseMachine = LeaseMachine.TestCase


@pytest.mark.prove(share=2)
@pytest.mark.timeout(0)
def test_no_order_of_events_makes_leases_overspend_or_lose_a_charge(proof: Proof) -> None:
    """Hypothesis looks for one, with commits that fail, nodes that die and nodes that are taken for dead."""
    LeaseMachine.checked = LeaseMachine.drawn = 0
    for _ in proof.rounds(400):
        run_state_machine_as_test(LeaseMachine, settings=machine_settings(25, 50))  # type: ignore[no-untyped-call]
    proof.found(steps=LeaseMachine.checked, from_leases=LeaseMachine.drawn, difference_nano_usd=0)


def walk(folder: Path, seeds: Iterable[int]) -> tuple[int, int]:
    """Random walks of 150 steps; how many attempts there were, and how many of them leases admitted."""
    attempts = drawn = 0
    for seed in seeds:
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory(dir=folder) as where:
            model = Model(Path(where))
            for number in range(150):
                step(model, rng)
                if number % 5 == 0:
                    model.check()
            model.check_quiet()
            model.store.close()
        attempts, drawn = attempts + model.count, drawn + model.drawn
    return attempts, drawn


def step(model: Model, rng: random.Random) -> None:
    """One event, most of them requests and their ends."""
    node, what = rng.choice(model.nodes), rng.random()
    if what < 0.35:
        nano, team = rng.randrange(1, 120), rng.choice(("red", "blue"))
        for _ in range(rng.randrange(1, 8)):
            model.request(node, team, nano)
    elif what < 0.7:
        for _ in range(rng.randrange(1, 8)):
            model.end(node, rng.randrange(50), rng.uniform(-0.1, 0.5))
    elif what < 0.85:
        node.commit(rng.choice(OUTCOMES))
    elif what < 0.93:
        model.seconds += rng.choice((0.1, 0.1, 0.7, 1.5, 1800.0))
        node.leases.give_idle_back()
    elif what < 0.97:
        node.leases.recall(model.store.recalled())
    elif what < 0.985:
        model.sweep(node)
    elif what < 0.99:
        model.die(node)
    else:
        model.check_quiet()


def test_random_walks_of_two_leasing_nodes_balance() -> None:
    """After 6 walks of 150 events, checked again and again, there is no difference of one nano-dollar."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        attempts, drawn = walk(Path(folder), range(6))
    assert drawn > attempts // 4 > 100


@pytest.mark.prove(share=2)
@pytest.mark.timeout(0)
def test_long_walks_of_two_leasing_nodes_balance(proof: Proof) -> None:
    """The same in thousands of walks."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        attempts, drawn = walk(Path(folder), proof.rounds(5_000))
    proof.found(attempts=attempts, from_leases=drawn, difference_nano_usd=0)
