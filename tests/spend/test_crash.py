"""kill -9 of a ledger's writer, and many processes on one budget: nothing lost, nothing doubled, never above the limit.

`make test` kills a few dozen times; with GAUGEWAY_PROVE=1 (`make prove`) ten thousand times.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.types.secret import Secret
from tests.store.postgres_server import PostgresServer

PROVE = os.environ.get("GAUGEWAY_PROVE") == "1"
KILLS = 10_000 if PROVE else 28
CALLERS = 250 if PROVE else 60
MUST_BE_ZERO = ("lost", "doubled", "mispriced", "invented", "overspent", "wrong_counters", "difference", "held")


def harness(*arguments: str) -> dict[str, Any]:
    """Run the harness; what it found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.spend.crash_harness", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=7000,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(7200)
def test_killing_the_sqlite_writer_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After kills at every labelled point and at random moments, each request served is charged once, within the limit."""
    found = harness(f"sqlite://{tmp_path}/ledger.db", "--kills", str(KILLS))
    assert {name: found[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert found["kills"] > KILLS // 4
    assert found["served"] > KILLS
    assert found["orphans"] > 0


@pytest.mark.stack
@pytest.mark.timeout(7200)
def test_killing_a_postgres_node_loses_and_doubles_nothing(postgres: PostgresServer) -> None:
    """The same on PostgreSQL, where the server rolls back what a dead node left open."""
    conninfo: Secret = postgres.new_database()
    found = harness(conninfo.reveal(), "--kills", str(KILLS // 2))
    assert {name: found[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert found["orphans"] > 0


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_four_processes_on_one_budget_overshoot_by_nothing(postgres: PostgresServer) -> None:
    """Callers in 4 processes share one PostgreSQL budget with too little room: the overshoot is exactly 0."""
    found = harness(postgres.new_database().reveal(), "--processes", "4", "--callers", str(CALLERS))
    assert {name: found[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert found["failed_processes"] == 0
    assert found["served"] >= 4 * CALLERS // 3
