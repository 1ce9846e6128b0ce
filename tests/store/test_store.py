"""The ledger's transactions, on SQLite and on PostgreSQL alike."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.store.spec import (
    Balance,
    EntryKind,
    KeyRow,
    LedgerStore,
    ReleaseOp,
    StoreError,
    StoreInUseError,
)
from gateway.store.sqlite import open_sqlite
from gateway.types.records import Basis
from gateway.types.usage import Usage, UsageSource
from tests.store.facts import AT, HOUR, RED, counter, entry, hold, settle, watch
from tests.store.stores import OpenStore

KEY = ("global", "month/2026-11/UTC")


def test_exactly_as_many_holds_as_fit(store: LedgerStore) -> None:
    """200 holds in one batch on a counter that did not exist: room for 7 admits 7, and the rest hear what is left."""
    budget = counter(watch(70))
    done = store.commit([hold(f"r{i}", 10, budget) for i in range(200)])
    assert [refusal is None for refusal in done.refusals] == [True] * 7 + [False] * 193
    assert done.balances[KEY] == Balance(0, 70)
    refusal = done.refusals[-1]
    assert refusal is not None
    assert (refusal.left_nano_usd, refusal.watch.budget) == (0, "b")


def test_a_refused_hold_takes_nothing_anywhere(store: LedgerStore) -> None:
    """All scopes or none: room in one budget is not used up by a refusal in the other."""
    wide, narrow = counter(watch(1000)), counter(watch(5), scope="team=red", match=(("team", "red"),))
    done = store.commit([hold("r", 10, wide, narrow)])
    assert done.refusals[0] is not None
    assert done.refusals[0].counter.scope == "team=red"
    assert store.holds() == []
    assert [(c.spent_nano_usd, c.held_nano_usd) for c in store.counters()] == [(0, 0), (0, 0)]


def test_a_part_of_what_is_asked_is_not_granted(store: LedgerStore) -> None:
    """With 9 left, a hold of 10 is refused and one of 9 granted."""
    budget = counter(watch(9))
    done = store.commit([hold("a", 10, budget), hold("b", 9, budget)])
    assert done.refusals[0] is not None
    assert done.refusals[0].left_nano_usd == 9
    assert done.refusals[1] is None


def test_a_charge_replaces_its_hold(store: LedgerStore) -> None:
    """After the charge nothing is held, and what was not used may be spent by others."""
    budget = counter(watch(100))
    store.commit([hold("r", 100, budget)])
    done = store.commit([settle(entry("r", 30), budget)])
    assert done.balances[KEY] == Balance(30, 0)
    assert store.holds() == []
    assert store.commit([hold("s", 70, budget)]).refusals == (None,)


def test_what_costs_nothing_is_admitted_after_exhaustion(store: LedgerStore) -> None:
    """A model with an explicit price of 0 works when the budget is used up, even overdrawn."""
    budget = counter(watch(100))
    store.commit([hold("r", 100, budget)])
    store.commit([settle(entry("r", 150), budget)])
    assert store.commit([hold("free", 0, budget)]).refusals == (None,)
    assert store.commit([hold("paid", 1, budget)]).refusals != (None,)


def test_a_charge_happens_once_however_often_it_is_told(store: LedgerStore) -> None:
    """The same charge again, in the same batch or later, changes nothing: no dollar is doubled."""
    budget = counter(watch(100))
    store.commit([hold("r", 50, budget)])
    charge = settle(entry("r", 30), budget)
    assert store.commit([charge, charge]).duplicates == 1
    done = store.commit([charge])
    assert (done.duplicates, done.balances[KEY]) == (1, Balance(30, 0))
    assert [e.nano_usd for e in store.entries()] == [30]


def test_a_release_frees_the_hold_without_an_entry(store: LedgerStore) -> None:
    """A hold whose attempt was never sent goes back, once."""
    budget = counter(watch(100))
    store.commit([hold("r", 50, budget)])
    release = ReleaseOp(request_id="r", attempt=1)
    store.commit([release, release])
    store.commit([release])
    assert store.balances(AT)[KEY] == Balance(0, 0)
    assert list(store.entries()) == []


def test_each_attempt_is_its_own_line(store: LedgerStore) -> None:
    """A retry and a fallback stand beside the first attempt, under one request id."""
    budget = counter(watch(100))
    store.commit([hold("r", 10, budget), hold("r", 20, budget, attempt=2)])
    store.commit([settle(entry("r", 0, basis=Basis.PROVIDER_ERROR), budget), settle(entry("r", 15, attempt=2), budget)])
    assert [(e.attempt, e.nano_usd) for e in store.entries()] == [(1, 0), (2, 15)]
    assert store.balances(AT)[KEY] == Balance(15, 0)


def test_an_unknown_price_is_kept_as_unknown(store: LedgerStore) -> None:
    """An entry without a price is a line without an amount, not one of 0."""
    store.commit([settle(entry("r", None), held=False)])
    assert [e.nano_usd for e in store.entries()] == [None]


def test_a_reader_may_stop_early(open_store: OpenStore) -> None:
    """Whoever reads the first of many lines and closes the ledger, as `| head` does, is told nothing more."""
    store = open_store()
    store.commit([settle(entry(f"r{number}", 1), held=False) for number in range(3)])
    lines = store.entries()
    next(lines)
    store.close()
    lines.close()


def test_entries_come_back_as_they_were_written(store: LedgerStore) -> None:
    """Every count of a usage survives, and an unknown count stays unknown."""
    usage = Usage(
        input_tokens=10,
        output_tokens=0,
        cache_read_tokens=3,
        reasoning_tokens=0,
        input_audio_tokens=1,
        cache_write_1h_tokens=2,
        web_searches=4,
        file_searches=5,
        other_tool_calls=6,
        service_tier="priority",
        source=UsageSource.ESTIMATED,
    )
    charge = entry("r", 30, usage=usage)
    store.commit([settle(charge, held=False)])
    assert list(store.entries()) == [charge]
    assert list(store.entries(AT, AT + 1)) == [charge]
    assert list(store.entries(AT + 1)) == []
    # The years 1 and 9999, in nanoseconds: more than 64 bits.
    assert list(store.entries(-(2**66), 2**68)) == [charge]


def test_a_new_budget_begins_with_what_was_spent_already(store: LedgerStore) -> None:
    """A budget that is configured in the middle of its window counts the window's earlier entries, and only its scope's."""
    blue = type(RED)(team="blue", key_id="", route="chat", provider="openai", model="gpt-4o")
    store.commit(
        [
            settle(entry("a", 30), held=False),
            settle(entry("b", 7, payer=blue), held=False),
            settle(entry("c", 500, at_ns=AT - 2 * HOUR), held=False),
        ]
    )
    team = counter(watch(100), scope="team=red", match=(("team", "red"),))
    done = store.commit([settle(entry("d", 5), team, held=False)])
    assert done.balances[team.key] == Balance(35, 0)


def test_a_charge_hits_the_window_of_its_hold(store: LedgerStore) -> None:
    """A charge that comes after its window closed changes that window, not the new one."""
    november = counter(watch(100))
    december = counter(watch(100), window="month/2026-12/UTC")
    store.commit([hold("r", 50, november)])
    store.commit([hold("s", 10, december)])
    store.commit([settle(entry("r", 40), november)])
    assert {c.window_id: (c.spent_nano_usd, c.held_nano_usd) for c in store.counters()} == {
        "month/2026-11/UTC": (40, 0),
        "month/2026-12/UTC": (0, 10),
    }


def test_the_holds_of_a_dead_process_are_charged_at_the_next_start(open_store: OpenStore) -> None:
    """A crash after dispatch is never free: the hold becomes a charge with basis orphan, once."""
    budget = counter(watch(100))
    first = open_store("a")
    first.commit([hold("r", 50, budget)])
    first.close()
    second = open_store("a")
    assert second.sweep(AT + 9) == 1
    assert second.sweep(AT + 9) == 0
    assert [(e.basis, e.nano_usd, e.at_ns) for e in second.entries()] == [(Basis.ORPHAN, 50, AT)]
    assert second.balances(AT)[KEY] == Balance(50, 0)


def test_an_orphan_counts_in_budgets_that_are_younger_than_it(open_store: OpenStore) -> None:
    """A budget that a reload added while the request was in flight counts the charge of its crash as well."""
    old, young = counter(), counter(scope="team=red", match=(("team", "red"),))
    others = counter(scope="team=blue", match=(("team", "blue"),)), counter(window="past", family="past")
    first = open_store("a")
    first.commit([hold("r1", 300, old)])
    first.ensure([young, *others])
    first.close()
    again = open_store("a")
    assert again.sweep(AT + 1) == 1
    assert {row.scope: row.spent_nano_usd for row in again.counters() if row.window_id != "past"} == {
        "global": 300, "team=red": 300, "team=blue": 0,
    }  # fmt: skip
    assert again.wrong_counters() == []


def test_its_own_holds_are_no_orphans(store: LedgerStore) -> None:
    """Sweeping spares what the living process holds."""
    store.commit([hold("r", 50, counter(watch(100)))])
    assert store.sweep(AT) == 0
    assert len(store.holds()) == 1


def test_an_orphan_that_turns_up_is_corrected(open_store: OpenStore) -> None:
    """A charge that arrives for a swept hold becomes an adjustment: the sum is exact and nothing is charged twice."""
    budget = counter(watch(100))
    first = open_store("a")
    first.commit([hold("r", 50, budget)])
    first.close()
    second = open_store("a")
    second.sweep(AT + 9)
    late = settle(entry("r", 30), budget)
    second.commit([late])
    second.commit([late])
    assert [(e.kind, e.nano_usd) for e in second.entries()] == [(EntryKind.ADJUST, -20), (EntryKind.SETTLE, 50)]
    assert second.balances(AT)[KEY] == Balance(30, 0)


def test_a_restart_never_overwrites_what_was_spent(open_store: OpenStore) -> None:
    """Opening the ledger again leaves every balance as it was."""
    budget = counter(watch(100))
    first = open_store("a")
    first.commit([hold("r", 50, budget)])
    first.commit([settle(entry("r", 30), budget)])
    first.close()
    second = open_store("a")
    second.keep_families(frozenset({"global"}))
    assert second.balances(AT)[KEY] == Balance(30, 0)
    assert second.commit([hold("s", 71, budget)]).refusals != (None,)


def test_a_budget_that_was_taken_out_and_put_back_is_right(store: LedgerStore) -> None:
    """What was spent while a budget was not configured counts once it is configured again."""
    budget = counter(watch(100))
    store.commit([hold("r", 50, budget)])
    store.keep_families(frozenset())
    assert store.counters() == []
    store.commit([settle(entry("x", 7), held=False)])
    done = store.commit([settle(entry("y", 2), budget, held=False)])
    assert done.balances[KEY] == Balance(9, 50)
    store.commit([settle(entry("r", 30), budget)])
    assert store.balances(AT)[KEY] == Balance(39, 0)


def test_windows_that_have_ended_are_kept_and_left_alone(store: LedgerStore) -> None:
    """Only the present window is read for balances and searched for budgets that are gone, until a reload looks at all."""
    present, past = counter(), msgspec.structs.replace(counter(window="past"), start_ns=AT - 3 * HOUR, end_ns=AT - HOUR)
    store.ensure([present, past])
    assert [row.window_id for row in store.counters(AT)] == [present.window_id]
    assert [row.window_id for row in store.counters(AT - HOUR)] == [present.window_id]
    assert [row.window_id for row in store.counters(AT - 2 * HOUR)] == ["past"]
    store.ensure([msgspec.structs.replace(past, family="gone", scope="team=red", match=(("team", "red"),))])
    store.keep_families(frozenset({present.family}), open_ns=AT)
    assert len(store.counters()) == 3
    store.keep_families(frozenset({present.family}))
    assert [(row.scope, row.window_id) for row in store.counters()] == [KEY, ("global", "past")]


def test_counters_that_are_made_together_each_count_their_own(store: LedgerStore) -> None:
    """Budgets for each key, each team's keys and all, added in the middle of a window, begin with what it already has."""
    payers = [
        msgspec.structs.replace(RED, team=team, key_id=key) for team in ("red", "blue") for key in ("k1", "k2", "k3")
    ]
    by_key = {f"key={key}": counter(scope=f"key={key}", match=(("key_id", key),)) for key in ("k1", "k2", "k9")}
    by_both = counter(scope="team=blue,key=k2", match=(("team", "blue"), ("key_id", "k2")))
    held = msgspec.structs.replace(hold("held", 500, by_key["key=k1"]), payer=payers[0])
    store.commit([held])
    store.keep_families(frozenset())
    charges = [settle(entry(f"r{i}", 10**i, payer=payer), held=False) for i, payer in enumerate(payers)]
    late = entry("late", 7, at_ns=AT + HOUR)
    store.commit([*charges, settle(late, held=False), settle(entry("unpriced", None), held=False)])
    store.ensure([*by_key.values(), by_both, counter()])
    assert {row.scope: (row.spent_nano_usd, row.held_nano_usd) for row in store.counters()} == {
        "key=k1": (1_001, 500),
        "key=k2": (10_010, 0),
        "key=k9": (0, 0),
        "team=blue,key=k2": (10_000, 0),
        "global": (111_111, 0),
    }
    assert store.wrong_counters() == []


def test_a_copy_that_is_taken_beside_its_writer_is_a_whole_ledger(tmp_path: Path) -> None:
    """SQLite's own backup of a ledger in use balances, and has what is open in it charged when it is served from."""
    budget = counter(watch(1000))
    served = open_sqlite(tmp_path / "ledger.db")
    served.commit([hold("open", 50, budget), hold("done", 60, budget)])
    served.commit([settle(entry("done", 30), budget)])
    with (
        closing(sqlite3.connect(f"file:{tmp_path / 'ledger.db'}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(tmp_path / "copy.db")) as target,
    ):
        source.backup(target)
    served.commit([settle(entry("open", 40), budget)])
    copy = open_sqlite(tmp_path / "copy.db")
    assert copy.sweep(AT + 9) == 1
    assert copy.balances(AT)[KEY] == Balance(80, 0)
    assert served.balances(AT)[KEY] == Balance(70, 0)
    assert copy.wrong_counters() == served.wrong_counters() == []
    copy.close()
    served.close()


def test_each_threshold_alerts_once(open_store: OpenStore) -> None:
    """Crossing 50 % and 80 % writes one alert each, however many charges and restarts follow."""
    budget = counter(watch(100, thresholds=("0.5", "0.8"), webhooks=("w1", "w2")))
    first = open_store("a")
    assert first.commit([settle(entry("a", 49), budget, held=False)]).alerts == 0
    assert first.commit([settle(entry("b", 1), budget, held=False)]).alerts == 1
    assert first.commit([settle(entry("c", 1), budget, held=False)]).alerts == 0
    first.close()
    second = open_store("a")
    assert second.commit([settle(entry("d", 1), budget, held=False)]).alerts == 0
    assert second.commit([settle(entry("e", 40), budget, held=False)]).alerts == 1
    due = second.claim_alerts(AT + HOUR, AT + 2 * HOUR, 10)
    assert sorted((a.threshold, a.webhook) for a in due) == [("0.5", "w1"), ("0.5", "w2"), ("0.8", "w1"), ("0.8", "w2")]
    assert len({a.id for a in due}) == 4


def test_a_refusal_alerts_once(store: LedgerStore) -> None:
    """The first request that a hard budget refuses is an alert of its own: 100 % may never be reached."""
    budget = counter(watch(5, thresholds=("1",), webhooks=("w",)))
    for name in ("a", "b"):
        store.commit([hold(name, 10, budget)])
    assert [(a.threshold, a.webhook) for a in store.claim_alerts(AT, AT + 1, 9)] == [("refused", "w")]


def test_an_alert_is_claimed_until_it_is_due_again(store: LedgerStore) -> None:
    """A claimed alert is nobody else's until its time; a delivered one never comes back."""
    budget = counter(watch(100, thresholds=("0.5",), webhooks=("w",)))
    store.commit([settle(entry("a", 60), budget, held=False)])
    (alert,) = store.claim_alerts(AT + 9, AT + 100, 10)
    assert alert.spent_nano_usd == 60
    assert store.claim_alerts(AT + 99, AT + 200, 10) == []
    (again,) = store.claim_alerts(AT + 100, AT + 200, 10)
    assert (again.id, again.tries) == (alert.id, 1)
    store.finish_alert(alert.id, AT + 101)
    assert store.claim_alerts(AT + HOUR, AT + 2 * HOUR, 10) == []


def test_entries_cannot_be_changed(store: LedgerStore) -> None:
    """The database itself refuses to update or delete a line of the ledger."""
    store.commit([settle(entry("a", 60), held=False)])
    sql = store._sql  # type: ignore[attr-defined]
    for statement in ("UPDATE entries SET nano_usd = 0", "DELETE FROM entries"):
        with pytest.raises(StoreError, match="append-only"), sql.transaction(durable=False):
            sql.run(statement)
    assert [e.nano_usd for e in store.entries()] == [60]


def test_a_batch_with_wrong_data_changes_nothing(store: LedgerStore) -> None:
    """A batch happens whole or not at all, and says that trying again is of no use."""
    with pytest.raises(StoreError) as caught:
        store.commit([settle(entry("a", 1), held=False), settle(entry("b", 2**70), held=False)])
    assert not caught.value.retryable
    assert list(store.entries()) == []
    store.commit([settle(entry("a", 1), held=False)])


def test_rebuild_mends_a_counter(store: LedgerStore) -> None:
    """Counters are derived: rebuilding sets them to what entries and holds say."""
    budget = counter(watch(100))
    store.commit([hold("r", 50, budget)])
    store.commit([settle(entry("a", 5), budget, held=False)])
    sql = store._sql  # type: ignore[attr-defined]
    with sql.transaction(durable=True):
        sql.run("UPDATE counters SET spent = 99, held = 1")
    assert store.rebuild() == 1
    assert store.rebuild() == 0
    assert store.balances(AT)[KEY] == Balance(5, 50)


def test_keys_are_kept(store: LedgerStore) -> None:
    """A key comes back as it was put, and a revocation replaces it."""
    key = KeyRow(id="k", secret_hash="ab", team="red", routes=("chat",), created_ns=AT, expires_ns=AT + 1)
    store.put_key(key)
    assert store.stored_keys() == [key]
    revoked = KeyRow(id="k", secret_hash="ab", team="red", routes=("chat",), created_ns=AT, revoked_ns=AT + 2)
    store.put_key(revoked)
    assert store.stored_keys() == [revoked]


def test_a_second_owner_is_refused(open_store: OpenStore) -> None:
    """Two processes under one name would sweep each other's holds: the second is told what to do instead."""
    open_store("a")
    with pytest.raises(StoreInUseError, match=r"ledger\.(path|node)"):
        open_store("a")
