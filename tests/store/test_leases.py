"""Leases in the ledger: slices of what is left that a node spends without asking. On both stores."""

import msgspec
import pytest

from gateway.store.spec import (
    LEASE,
    Balance,
    Committed,
    Draw,
    EntryKind,
    HoldOp,
    LeaseOp,
    LedgerStore,
    ReturnOp,
    SettleOp,
)
from gateway.types.records import Basis
from tests.store.facts import AT, RED, counter, entry, hold, settle, watch
from tests.store.stores import OpenStore

KEY = ("global", "month/2026-11/UTC")
BUDGET = counter(watch(1000))


def lease(nano: int = 100, name: str = "lease-a-1-1", *, renewed: bool = False, least: int = 1) -> LeaseOp:
    """Asks for a slice, of which at most a fourth of what is left is given."""
    return LeaseOp(
        lease=name, at_ns=AT, nano_usd=nano, least_nano_usd=least, share=4, payer=RED, counters=(BUDGET,),
        renewed=renewed,
    )  # fmt: skip


def drawn(name: str, nano: int, charge: int, number: int = 1, of: str = "lease-a-1-1") -> SettleOp:
    """The charge of an attempt that was admitted from a lease at `nano`."""
    return SettleOp(entry=entry(name, charge), counters=(BUDGET,), held=True, draw=Draw(of, number, nano))


def give_back(*in_flight: HoldOp, name: str = "lease-a-1-1") -> ReturnOp:
    """The end of a lease."""
    return ReturnOp(lease=name, at_ns=AT, payer=RED, counters=(BUDGET,), returned_ns=AT + 9, in_flight=in_flight)


def patient(name: str, nano: int) -> HoldOp:
    """A hold for which leases are asked back."""
    return HoldOp(request_id=name, attempt=1, at_ns=AT, nano_usd=nano, payer=RED, counters=(BUDGET,), patient=True)


def balance(store: LedgerStore) -> Balance:
    """The budget's counter, once it is seen to be what entries and holds say."""
    assert store.wrong_counters() == []
    return store.balances(AT)[KEY]


def refused(done: Committed) -> bool:
    """Whether the only operation was refused."""
    return done.refusals != (None,)


def test_a_lease_is_held_and_shrinks_with_what_is_left(store: LedgerStore) -> None:
    """Granted is what is asked for, at most a share of what is left, and nothing when that is not worth it."""
    assert store.commit([lease()]).grants == {"lease-a-1-1": 100}
    assert store.commit([lease(900, "lease-a-1-2")]).grants == {"lease-a-1-2": 225}
    assert balance(store) == Balance(0, 325)
    store.commit([hold("r", 600, BUDGET)])
    assert store.commit([lease(900, "lease-a-1-3", least=20)]).grants == {"lease-a-1-3": 0}
    assert store.commit([lease(900, renewed=True)]).grants == {"lease-a-1-1": 18}
    assert balance(store) == Balance(0, 943)
    assert [(one.request_id, one.attempt, one.nano_usd) for one in store.holds()] == [
        ("lease-a-1-1", LEASE, 118), ("lease-a-1-2", LEASE, 225), ("r", 1, 600),
    ]  # fmt: skip


def test_a_charge_from_a_lease_is_taken_out_of_it_once(store: LedgerStore) -> None:
    """What is spent is held no more, however often the charge is told; what a hold did not use stays in the lease."""
    store.commit([lease()])
    done = store.commit([drawn("r", 40, 30), drawn("r", 40, 30)])
    assert (done.duplicates, balance(store)) == (1, Balance(30, 70))
    assert store.commit([drawn("r", 40, 30)]).duplicates == 1
    assert balance(store) == Balance(30, 70)
    assert [(one.request_id, one.nano_usd) for one in store.entries()] == [("r", 30)]


def test_a_charge_beyond_its_hold_is_kept_in_full(store: LedgerStore) -> None:
    """A provider that charged more than it was allowed to is recorded, and takes no other attempt's cover."""
    store.commit([lease()])
    store.commit([drawn("r", 40, 90), drawn("s", 30, 30, 2)])
    assert balance(store) == Balance(120, 30)


def test_a_lease_that_ends_leaves_holds_for_what_is_in_flight(store: LedgerStore) -> None:
    """The rest is everybody's at once, attempts in flight stay covered, and telling it twice does it once."""
    store.commit([lease(), drawn("r", 40, 30)])
    for _ in range(2):
        store.commit([give_back(hold("s", 25, BUDGET))])
        assert balance(store) == Balance(30, 25)
    store.commit([settle(entry("s", 20), BUDGET)])
    store.commit([give_back(hold("s", 25, BUDGET))])
    assert (balance(store), store.holds()) == (Balance(50, 0), [])
    store.commit([give_back(name="lease-a-1-never")])
    assert balance(store) == Balance(50, 0)


def test_the_lease_of_a_dead_process_is_charged_once(open_store: OpenStore) -> None:
    """Nobody else knows what was sent from it, so all that is left of it is charged, to whom it was for."""
    first = open_store("a")
    first.commit([lease(), drawn("r", 40, 30)])
    first.close()
    second = open_store("a")
    assert second.sweep(AT + 9) == 1
    assert second.sweep(AT + 9) == 0
    lines = [(one.request_id, one.attempt, one.nano_usd, one.basis, one.payer) for one in second.entries()]
    assert lines == [
        ("lease-a-1-1", LEASE, 70, Basis.ORPHAN, RED),
        ("r", 1, 30, Basis.PROVIDER_USAGE, RED),
    ]
    assert balance(second) == Balance(100, 0)


def charged_though_alive(store: LedgerStore) -> None:
    """Charge the holds of a node that another one takes for dead."""
    sql = store._sql  # type: ignore[attr-defined]
    sql.epoch += 1
    assert store.sweep(AT + 9) > 0
    sql.epoch -= 1


def test_a_lease_that_was_charged_though_its_node_lives_is_corrected(store: LedgerStore) -> None:
    """What is sent from it comes out of its charge line by line, its end corrects the rest, and all of that once."""
    store.commit([lease(), drawn("r", 40, 30)])
    charged_though_alive(store)
    assert balance(store) == Balance(100, 0)
    assert store.commit([lease(renewed=True)]).grants == {}
    for _ in range(2):
        store.commit([drawn("s", 25, 20, 2)])
        assert balance(store) == Balance(100, 0)
    for _ in range(2):
        store.commit([give_back(hold("t", 25, BUDGET))])
        assert balance(store) == Balance(50, 25)
    store.commit([settle(entry("t", 1), BUDGET)])
    assert balance(store) == Balance(51, 0)
    lines = [(one.request_id, one.attempt, one.kind, one.nano_usd) for one in store.entries()]
    assert lines == [
        ("lease-a-1-1", 0, EntryKind.ADJUST, -50),
        ("lease-a-1-1", 0, EntryKind.SETTLE, 70),
        ("lease-a-1-1", 2, EntryKind.ADJUST, -20),
        ("r", 1, EntryKind.SETTLE, 30),
        ("s", 1, EntryKind.SETTLE, 20),
        ("t", 1, EntryKind.SETTLE, 1),
    ]


def test_a_correction_reaches_budgets_that_are_younger_than_the_lease(store: LedgerStore) -> None:
    """A budget that was added after the lease counted its charge, and counts its correction too."""
    young = counter(scope="team=red", match=(("team", "red"),))
    store.commit([lease()])
    charged_though_alive(store)
    store.ensure([young])
    store.commit([give_back()])
    assert balance(store) == Balance(0, 0)
    assert store.balances(AT)[young.key] == Balance(0, 0)


def test_leases_in_the_way_are_asked_back(store: LedgerStore) -> None:
    """A request that has room but for leases is told so, no alert goes out, and they are marked until they end."""
    store.commit([lease(100), lease(100, "lease-b-1-1"), hold("r", 700, BUDGET)])
    refusal = store.commit([patient("s", 250)]).refusals[0]
    assert refusal is not None
    assert refusal.recalled
    assert store.recalled() == {"lease-a-1-1", "lease-b-1-1"}
    assert store.alerts() == []
    store.commit([give_back(), give_back(name="lease-b-1-1")])
    assert store.recalled() == frozenset()
    assert not refused(store.commit([patient("s", 250)]))


def test_a_request_without_room_even_then_is_refused_at_once(store: LedgerStore) -> None:
    """Leases that would not help are not asked back, and the refusal counts as one."""
    store.commit([lease(100), hold("r", 700, BUDGET)])
    refusal = store.commit([patient("s", 301)]).refusals[0]
    assert refusal is not None
    assert not refusal.recalled
    assert store.recalled() == frozenset()
    assert [one.threshold for one in store.alerts()] == ["refused"]


def test_a_lease_is_seen_as_it_is_in_the_middle_of_a_commit(store: LedgerStore) -> None:
    """A lease that shrinks or ends in the same batch is asked back for what is left of it then, or not at all."""
    store.commit([lease(100), hold("r", 800, BUDGET)])
    done = store.commit([drawn("s", 60, 60), patient("t", 101), patient("u", 141)])
    assert [one.recalled for one in done.refusals if one is not None] == [True, False]
    done = store.commit([give_back(), patient("v", 140), patient("w", 1)])
    assert [one and one.recalled for one in done.refusals] == [None, None, False]


@pytest.mark.parametrize("change", [{}, {"counters": ()}])
def test_a_lease_without_a_hard_budget_is_nothing(store: LedgerStore, change: dict[str, object]) -> None:
    """Only what limits can be leased."""
    soft = msgspec.structs.replace(lease(), counters=(counter(watch(1000, hard=False)),))
    assert store.commit([msgspec.structs.replace(soft, **change)]).grants == {"lease-a-1-1": 0}
    assert store.holds() == []
