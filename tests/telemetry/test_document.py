"""The page about the signals is made of the signals' own catalogues."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.telemetry import document
from gateway.telemetry.names import EVERY_FAMILY
from gateway.types.errors import ErrorType

PAGE = Path(__file__).parents[2] / document.PATH


def test_the_page_is_up_to_date() -> None:
    """docs/instrumentation.md is what `python -m gateway.telemetry.document` writes."""
    assert PAGE.read_text(encoding="utf-8") == document.document()


def test_every_name_stands_in_the_page() -> None:
    """Each family with its meaning, and each error type, can be looked up."""
    text = document.document()
    assert [metric.name for metric in EVERY_FAMILY if f"`{metric.name}` | {metric.kind} |" not in text] == []
    assert [error_type for error_type in ErrorType if f"| `{error_type}` | {error_type.outcome} |" not in text] == []


def test_a_stale_page_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` fails for an old page and says what to run; without it the page is written."""
    page = tmp_path / "page.md"
    page.write_text("old")
    assert document.main(["--check", "--out", str(page)]) == 1
    assert "python -m gateway.telemetry.document" in capsys.readouterr().err
    assert document.main(["--out", str(page)]) == 0
    assert document.main(["--check", "--out", str(page)]) == 0


def test_families_are_named_by_the_rules() -> None:
    """Counters end in _total, names carry their unit last, help is a sentence, and no bound is an integer."""
    for metric in EVERY_FAMILY:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.help.endswith("."), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert list(metric.buckets) == sorted(metric.buckets), metric.name
        # Prometheus 3 writes an integer bound in another way than it is scraped, and rules would miss it.
        assert not [bound for bound in metric.buckets if float(bound).is_integer()], metric.name
        assert metric.name.startswith(("gateway_", "gen_ai_")), metric.name
