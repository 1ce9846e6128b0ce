"""The ledger against a model of it: any order of admissions, charges, crashes, reloads and clock jumps.

The books balance to the nano-dollar, and a hard budget's charges and holds are within it. `make test` takes short
walks, `make prove` long ones.
"""

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gateway.spend.budgets import BudgetBook
from gateway.store.spec import Entry, HoldOp, LedgerStore, Payer, ReleaseOp, SettleOp
from gateway.store.sqlite import open_sqlite
from gateway.types.records import Basis
from tests.proving import Proof
from tests.spend.accounts import NOON_NS, budget

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder in memory where there is one: what a disk adds here is time."""
LIMIT = 1000
TEAMS = ["red", "blue"]
_ALL = [
    budget(LIMIT, name="all", window="none"),
    budget(600, name="team", scope={"team": "*"}, window="none"),
    budget(300, name="daily", scope={"team": "red"}, window="day", zone="Europe/Berlin"),
    budget(200, name="soft", scope={"model": "m"}, window="hour", enforcement="soft"),
]
HOUR = 3600 * 10**9


class Model:
    """What the ledger should hold, kept in the simplest way."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.store: LedgerStore = open_sqlite(self.path)
        self.book = BudgetBook(_ALL)
        self.now = NOON_NS
        self.count = 0
        self.open: dict[str, tuple[int, int, Payer]] = {}
        self.spent: dict[str, int] = {}

    def payer(self, team: str) -> Payer:
        return Payer(team=team, key_id="", route="chat", provider="openai", model="m")

    def hold(self, team: str, nano: int) -> str | None:
        self.count += 1
        name, payer = f"r{self.count}", self.payer(team)
        counters = self.book.applied(payer, self.now).counters
        op = HoldOp(request_id=name, attempt=1, at_ns=self.now, nano_usd=nano, payer=payer, counters=counters)
        if self.store.commit([op]).refusals[0] is not None:
            return None
        self.open[name] = (nano, self.now, payer)
        return name

    def settle(self, name: str, share: float, times: int) -> None:
        if name not in self.open:
            return
        nano, at_ns, payer = self.open.pop(name)
        charge = int(nano * share)
        entry = Entry(
            request_id=name, attempt=1, at_ns=at_ns, settled_ns=self.now, payer=payer,
            basis=Basis.PROVIDER_USAGE, nano_usd=charge,
        )  # fmt: skip
        counters = self.book.applied(payer, at_ns).counters
        self.store.commit([SettleOp(entry=entry, counters=counters, held=True)] * times)
        self.spent[name] = charge

    def crash(self) -> None:
        self.store.close()
        self.store = open_sqlite(self.path)
        self.store.keep_families(self.book.families)
        assert self.store.sweep(self.now) == len(self.open)
        for name, (nano, _, _) in self.open.items():
            self.spent[name] = nano
        self.open.clear()

    def check(self) -> None:
        entries = list(self.store.entries())
        holds = self.store.holds()
        assert sum(entry.nano_usd or 0 for entry in entries) == sum(self.spent.values())
        assert sum(hold.nano_usd for hold in holds) == sum(nano for nano, _, _ in self.open.values())
        assert self.store.rebuild() == 0, "a counter differs from its entries and holds"
        hard = {"global": LIMIT, "team=red": 600, "team=blue": 600}
        for row in self.store.counters():
            if row.window_id == "none" and row.scope in hard:
                assert row.spent_nano_usd + row.held_nano_usd <= hard[row.scope]
            if row.window_id.startswith("day/"):
                assert row.spent_nano_usd + row.held_nano_usd <= 300


class LedgerMachine(RuleBasedStateMachine):
    """Hypothesis drives the model."""

    requests = Bundle("requests")
    checked = 0
    """Steps of all machines."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.model = Model(Path(self._folder.name))

    @rule(target=requests, team=st.sampled_from(TEAMS), nano=st.integers(1, 400))
    def hold(self, team: str, nano: int) -> str:
        return self.model.hold(team, nano) or ""

    @rule(name=consumes(requests), share=st.floats(0, 1), times=st.integers(1, 3))
    def settle(self, name: str, share: float, times: int) -> None:
        self.model.settle(name, share, times)

    @rule(name=consumes(requests))
    def release(self, name: str) -> None:
        if self.model.open.pop(name, None) is not None:
            self.model.store.commit([ReleaseOp(request_id=name, attempt=1)] * 2)

    @rule()
    def crash(self) -> None:
        self.model.crash()

    @rule(hours=st.integers(-2, 30))
    def clock(self, hours: int) -> None:
        self.model.now += hours * HOUR

    @rule(kept=st.sets(st.sampled_from(range(4))))
    def reload(self, kept: set[int]) -> None:
        # The hard budgets that are checked stay configured; the others come and go.
        self.model.book = BudgetBook([one for i, one in enumerate(_ALL) if i in kept | {0, 1, 2}])
        self.model.store.keep_families(self.model.book.families)

    @invariant()
    def balanced(self) -> None:
        LedgerMachine.checked += 1
        self.model.check()

    def teardown(self) -> None:
        self.model.store.close()
        self._folder.cleanup()


def machine_settings(examples: int, steps: int) -> settings:
    """So many walks of so many steps."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


LedgerMachine.TestCase.settings = machine_settings(20, 20)
TestLedgerMachine = LedgerMachine.TestCase


@pytest.mark.prove(share=2)
@pytest.mark.timeout(0)
def test_no_order_of_events_unbalances_the_ledger(proof: Proof) -> None:
    """Hypothesis looks for an order of admissions, charges, crashes, reloads and clock jumps, and finds none."""
    LedgerMachine.checked = 0
    for _ in proof.rounds(400):
        run_state_machine_as_test(LedgerMachine, settings=machine_settings(25, 50))  # type: ignore[no-untyped-call]
    proof.found(steps=LedgerMachine.checked, difference_nano_usd=0)


def walk(model: Model, steps: Iterable[int]) -> int:
    """Random steps, checked after the first thousand, the next two, four and so on, and at the end; how many."""
    rng = random.Random(7)
    names: list[str] = []
    count, next_check = 0, 1_000
    for _ in steps:
        what = rng.random()
        if what < 0.45:
            # Free holds keep the walk going when the budgets that never reset are used up.
            name = model.hold(rng.choice(TEAMS), rng.choice((0, 1, rng.randrange(1, 50))))
            names.extend([name] if name else [])
        elif what < 0.93 and names:
            model.settle(names.pop(rng.randrange(len(names))), rng.random(), rng.choice((1, 1, 2)))
        elif what < 0.97:
            model.now += rng.randrange(-HOUR, 6 * HOUR)
        elif what < 0.98:
            model.crash()
            names.clear()
        count += 1
        if count == next_check:
            model.check()
            next_check *= 2
    model.check()
    model.store.close()
    return count


def test_a_random_walk_balances(tmp_path: Path) -> None:
    """After 1,500 random steps there is no difference of one nano-dollar."""
    assert walk(Model(tmp_path), range(1_500)) == 1_500


@pytest.mark.prove(share=3)
@pytest.mark.timeout(0)
def test_a_walk_of_a_million_steps_balances(proof: Proof) -> None:
    """The same after a million steps."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        model = Model(Path(folder))
        steps = walk(model, proof.rounds(1_000_000))
        proof.found(steps=steps, attempts=model.count, difference_nano_usd=0)
