"""What the benchmark says of accounting is measured on a real ledger."""

from pathlib import Path

import pytest

from bench import accounting
from bench.report import ACCOUNTING_COLUMNS, paired, table
from bench.rounds import Figure


@pytest.mark.parametrize("kind", accounting.BUDGETS)
async def test_each_kind_of_budget_is_measured(tmp_path: Path, kind: str) -> None:
    """All requests of a short run are admitted and charged, and every figure is one of the table."""
    found = await accounting.measure(kind, tmp_path, seconds=0.1)
    assert 0 <= found.admit_p50_ms <= found.admit_p99_ms
    assert found.sync_p99_ms > 0
    assert [measure for measure, _, _ in ACCOUNTING_COLUMNS] == list(found.__struct_fields__)
    assert (tmp_path / f"{kind}.db").stat().st_size > 0


def test_a_budgets_latency_is_told_in_milliseconds() -> None:
    """What a variant adds to the slowest requests is a difference: a share of a base that is nearly 0 says nothing."""
    figures = [Figure("hard", "p99_ms_low_rate", [4.5]), Figure("none", "p99_ms_low_rate", [1.25])]
    assert paired(figures, "hard", "none") == "- p99 ms at 20/s: +3.25 ms"


def test_accounting_has_a_table_of_its_own() -> None:
    """Its columns are kinds of budget, its rows what accounting costs."""
    lines = table([Figure("no budget", "cpu_us", [40.0])], ACCOUNTING_COLUMNS).splitlines()
    assert lines[0] == "| | no budget |"
    assert lines[2] == "| CPU us/request at 1,600/s | 40 |"
