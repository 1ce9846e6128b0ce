"""kill -9 of a ledger's writer, and many processes on one budget: nothing lost, nothing doubled, never above the limit.

`make test` kills a dozen times, `make prove` ten thousand times or as often as its minutes allow.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.types.secret import Secret
from tests.proving import Proof
from tests.store.postgres_server import PostgresServer

MUST_BE_ZERO = ("lost", "doubled", "mispriced", "invented", "overspent", "wrong_counters", "difference", "held")


def harness(*arguments: str, proof: Proof | None = None) -> dict[str, Any]:
    """Run the harness; what it found. Within a proof its progress goes to whoever waits."""
    within = ["--seconds", str(proof.seconds)] if proof is not None else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.spend.crash_harness", *arguments, *within],
        stdout=subprocess.PIPE,
        stderr=None if proof is not None else subprocess.PIPE,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, (done.stderr or "")[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any]) -> None:
    """Nothing is lost, doubled or beyond the limit, and there were kills enough to tell."""
    assert {name: found[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert found["kills"] > found["rounds"] // 4
    assert found["orphans"] > 0


def tell(proof: Proof, found: dict[str, Any]) -> None:
    """The figures of kills."""
    names = ("kills", "served", "orphans", "leases_charged", "covered", *MUST_BE_ZERO)
    proof.found(**{name: found[name] for name in names})


@pytest.mark.timeout(300)
def test_killing_the_sqlite_writer_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After kills at every labelled point and at random moments, each request served is charged once, within the limit."""
    found = harness(f"sqlite://{tmp_path}/ledger.db", "--kills", "14")
    check(found)
    assert found["served"] > 14


@pytest.mark.prove(share=3)
@pytest.mark.timeout(0)
def test_10_000_kills_of_the_sqlite_writer(tmp_path: Path, proof: Proof) -> None:
    """The same, ten thousand times."""
    found = harness(f"sqlite://{tmp_path}/ledger.db", "--kills", "10000", proof=proof)
    check(found)
    tell(proof, found)


@pytest.mark.stack
@pytest.mark.timeout(300)
def test_killing_a_postgres_node_loses_and_doubles_nothing(postgres: PostgresServer) -> None:
    """The same on PostgreSQL, where the server rolls back what a dead node left open."""
    conninfo: Secret = postgres.new_database()
    found = harness(conninfo.reveal(), "--kills", "14")
    check(found)
    assert found["leases_charged"] > 0


@pytest.mark.stack
@pytest.mark.prove(share=3)
@pytest.mark.timeout(0)
def test_10_000_kills_of_a_postgres_node(postgres: PostgresServer, proof: Proof) -> None:
    """The same on PostgreSQL, ten thousand times."""
    found = harness(postgres.new_database().reveal(), "--kills", "10000", proof=proof)
    check(found)
    tell(proof, found)


def share_one_budget(postgres: PostgresServer, callers: int, each: int = 1, *more: str) -> dict[str, Any]:
    """Callers in 4 processes on one budget with room for a third of what they ask for."""
    asked = ("--processes", "4", "--callers", str(callers), "--each", str(each), *more)
    found = harness(postgres.new_database().reveal(), *asked)
    assert {name: found[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert found["failed_processes"] == 0
    assert found["leases_charged"] == 0, "a process ended well, and left a lease behind"
    return found


@pytest.mark.stack
@pytest.mark.timeout(300)
def test_four_processes_on_one_budget_overshoot_by_nothing(postgres: PostgresServer) -> None:
    """Callers in 4 processes share one PostgreSQL budget with too little room: the overshoot is exactly 0."""
    found = share_one_budget(postgres, 60)
    assert found["served"] >= found["room"]


@pytest.mark.stack
@pytest.mark.timeout(300)
def test_four_leasing_processes_admit_exactly_what_fits(postgres: PostgresServer) -> None:
    """Callers who ask one after the other, from leases for the most part, and never end: all of the room, and no more."""
    found = share_one_budget(postgres, 10, 20, "--keep-open")
    assert found["served"] == found["room"]
    assert found["drawn"] > 0


@pytest.mark.stack
@pytest.mark.prove(share=1)
@pytest.mark.timeout(0)
def test_a_thousand_callers_in_four_processes_on_one_budget(postgres: PostgresServer, proof: Proof) -> None:
    """The same with 1,000 callers at once, who ask once or ten times, and end or not, again and again."""
    served = runs = asked = drawn = 0
    for number in proof.rounds(20):
        each = (1, 10)[number % 2]
        open_ends = number % 4 >= 2
        found = share_one_budget(postgres, 250, each, *(["--keep-open"] if open_ends else []))
        assert found["served"] == found["room"] if open_ends else found["served"] >= found["room"]
        served, drawn = served + found["served"], drawn + found["drawn"]
        asked += 1000 * each
        runs += 1
    proof.found(runs=runs, asked=asked, admitted=served, from_leases=drawn, overspent_nano_usd=0)
