"""Expressions about money and budgets that several boards and the alert rules share."""

from dashboards.promql import Source
from gateway.telemetry import names

WINDOW = ("job", "budget", "scope", "window")
"""The labels of one budget."""


def spent_share(of: Source, by: tuple[str, ...] = WINDOW) -> str:
    """Committed spend of each budget over its limit, 0 to 1 and above."""
    limit = of.gauge(names.BUDGET_LIMIT, by=by)
    return f"{of.gauge(names.BUDGET_SPENT, by=by)} / ({limit} > 0)"


def left(of: Source, by: tuple[str, ...] = WINDOW) -> str:
    """US dollars that a budget may still spend: limit - spent - held."""
    limit = of.gauge(names.BUDGET_LIMIT, by=by)
    spent = of.gauge(names.BUDGET_SPENT, by=by)
    return f"{limit} - {spent} - {of.gauge(names.BUDGET_HELD, by=by)}"


def pace(of: Source, window: str, by: tuple[str, ...] = WINDOW) -> str:
    """US dollars a second that a budget spends, from the last `window`.

    Within `window` after a reset the difference is negative, and this is 0: a forecast then waits for data.
    """
    spent = of.gauge_over("delta", names.BUDGET_SPENT, window=window, by=by)
    return f"clamp_min({spent}, 0) / {_seconds(window)}"


def forecast_share(of: Source, window: str, by: tuple[str, ...] = WINDOW) -> str:
    """What will have been spent at the end of the budget's window at the present pace, over its limit."""
    spent = of.gauge(names.BUDGET_SPENT, by=by)
    resets = of.gauge(names.BUDGET_RESETS, by=by)
    limit = of.gauge(names.BUDGET_LIMIT, by=by)
    return f"({spent} + {pace(of, window, by)} * clamp_min({resets} - time(), 0)) / ({limit} > 0)"


def runs_out(of: Source, window: str, by: tuple[str, ...] = WINDOW) -> str:
    """When a budget ends at the present pace, in seconds since the epoch; only where that is before its reset."""
    resets = of.gauge(names.BUDGET_RESETS, by=by)
    return f"(time() + clamp_min({left(of, by)}, 0) / ({pace(of, window, by)} > 0)) < {resets}"


def _seconds(window: str) -> int:
    return int(window[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[window[-1]]
