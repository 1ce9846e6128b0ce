"""Fixtures of the journeys."""

from pathlib import Path

import pytest

from tests.journeys.ledgers import BOTH, JourneyLedger, postgres_ledger, sqlite_ledger
from tests.store.stores import postgres

__all__ = ["postgres"]


@pytest.fixture(params=BOTH)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> JourneyLedger:
    """An empty ledger; both stores take part."""
    if request.param == "sqlite":
        return sqlite_ledger(tmp_path / "ledger.db")
    return postgres_ledger(request.getfixturevalue("postgres"))
