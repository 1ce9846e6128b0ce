"""What the boards and alerts say of money, evaluated by Prometheus itself on series whose answer is known."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import spending
from dashboards.promql import Source
from tests.servers import require

OF = Source()
UP = 'gateway_build_info{job="gaugeway",instance="i",version="1",python="3"}'
COST = 'gateway_cost_usd_total{job="gaugeway",instance="i",route="r",team="t",provider="p",model="m",basis="b"}'
LABELS = 'job="gaugeway",budget="b",scope="global",window="day"'
BUDGET = ("budget",)


def _budget(spent: str, resets: int, limit: int = 100) -> dict[str, str]:
    return {
        f"gateway_budget_spent_usd{{{LABELS}}}": spent,
        f"gateway_budget_held_usd{{{LABELS}}}": "0x3000",
        f"gateway_budget_limit_usd{{{LABELS}}}": f"{limit}x3000",
        f"gateway_budget_resets_timestamp_seconds{{{LABELS}}}": f"{resets}x3000",
    }


HOUR, DAY = 3_600, 86_400
CASES = [
    pytest.param(
        spending.today(OF), {UP: "1x3000", COST: "0+1x3000"}, "26h", 120, id="today is two hours old: a dollar a minute"
    ),
    pytest.param(
        spending.today(OF),
        {UP: "1x3000", COST: "0+1x3000"},
        "24h1m45s",
        1.75,
        id="neither yesterday nor up to the minute",
    ),
    pytest.param(spending.today(OF), {UP: "1x3000", COST: "5x3000"}, "26h", 0, id="nothing was spent today"),
    pytest.param(spending.today(OF), {UP: "1x3000"}, "1m", 0, id="no request yet: zero, not nothing"),
    pytest.param(
        spending.this_month(OF), {UP: "1x3000", COST: "0+1x3000"}, "26h", 26 * 60, id="the month is 26 hours old"
    ),
    pytest.param(
        spending.this_month(OF), {UP: "1x3000", COST: "0+1x3000"}, "14m", 14, id="a month is never less than its day"
    ),
    pytest.param(
        f"{HOUR} * {spending.pace(OF, '6h', BUDGET)}",
        _budget("0+0.1x3000", 2 * DAY),
        "10h",
        6,
        id="ten cents a minute are six dollars an hour",
    ),
    pytest.param(
        f"{HOUR} * {spending.pace(OF, '6h', BUDGET)}",
        _budget("0+0.1x719 0+0.1x2000", 2 * DAY),
        "14h",
        6,
        id="a reset two hours ago is no refund",
    ),
    pytest.param(
        f"{HOUR} * {spending.pace(OF, '6h', BUDGET)}",
        _budget("_x600 0+0.1x3000", 2 * DAY),
        "11h",
        1,
        id="an alert spreads one hour of history over its six",
    ),
    pytest.param(
        f"{HOUR} * {spending.pace(OF, '6h', BUDGET, young=True)}",
        _budget("_x600 0+0.1x3000", 2 * DAY),
        "11h",
        6,
        id="a board goes by the hour that there is",
    ),
    pytest.param(
        f"({spending.runs_out(OF, '6h', BUDGET)}) - time()",
        _budget("0+0.1x3000", 2 * DAY),
        "10h",
        40 / 6 * HOUR,
        id="40 dollars at 6 an hour",
    ),
    pytest.param(
        spending.runs_out(OF, "6h", BUDGET), _budget("0+0.1x3000", 12 * HOUR), "10h", None, id="it resets before"
    ),
    pytest.param(
        spending.forecast_share(OF, "6h", BUDGET),
        _budget("0+0.1x3000", 20 * HOUR),
        "10h",
        1.2,
        id="60 spent, and ten hours at 6, of 100",
    ),
]


@pytest.mark.parametrize(("expr", "series", "at", "expected"), CASES)
def test_spending(expr: str, series: dict[str, str], at: str, expected: float | None, tmp_path: Path) -> None:
    """Prometheus computes the number, to one in twenty, that a person computes."""
    wanted = [] if expected is None else [{"labels": "{}", "value": 1}]
    close = (
        expr
        if expected is None
        else f"(sum ({expr}) >= bool {expected * 0.95 - 1e-9:.9f}) * on () (sum ({expr}) <= bool {expected * 1.05 + 1e-9:.9f})"
    )
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": close, "eval_time": at, "exp_samples": wanted}],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run(
        [require("promtool"), "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
