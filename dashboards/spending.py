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


def pace(of: Source, window: str, by: tuple[str, ...] = WINDOW, *, young: bool = False) -> str:
    """US dollars a second that a budget spends, from the last `window`; a budget's reset inside it is no refund.

    Where there is less than `window` of history, that is spread over all of it, so that alerts wait for facts; with
    `young` the pace is that of the history there is, so that a board says what is known.
    """
    gained = of.gauge_over("delta", names.BUDGET_SPENT, window=window, by=by)
    resets = of.gauge_over("resets", names.BUDGET_SPENT, window=window, by=by)
    before = of.gauge_over("max_over_time", names.BUDGET_SPENT, window=window, by=by)
    spent = f"clamp_min({gained} + {resets} * {before}, 0)"
    if not young:
        return f"{spent} / {_seconds(window)}"
    age = f"time() - {of.first_seen(names.BUDGET_SPENT, window=window, by=by)}"
    return f"{spent} / clamp({age}, 60, {_seconds(window)})"


def forecast_share(of: Source, window: str, by: tuple[str, ...] = WINDOW, *, young: bool = False) -> str:
    """What will have been spent at the end of the budget's window at the present pace, over its limit."""
    spent = of.gauge(names.BUDGET_SPENT, by=by)
    resets = of.gauge(names.BUDGET_RESETS, by=by)
    limit = of.gauge(names.BUDGET_LIMIT, by=by)
    rate = pace(of, window, by, young=young)
    return f"({spent} + {rate} * clamp_min({resets} - time(), 0)) / ({limit} > 0)"


def runs_out(of: Source, window: str, by: tuple[str, ...] = WINDOW) -> str:
    """When a budget ends at the present pace, in seconds since the epoch; only where that is before its reset."""
    resets = of.gauge(names.BUDGET_RESETS, by=by)
    rate = pace(of, window, by, young=True)
    return f"(time() + clamp_min({left(of, by)}, 0) / ({rate} > 0)) < {resets}"


def today(of: Source) -> str:
    """US dollars since midnight (UTC); 0 before the first one."""
    return _since("day", "day_of_month", of)


def this_month(of: Source) -> str:
    """US dollars since the first of the month (UTC), and never less than today's."""
    return f"({_since('month', 'month', of)}) > ({today(of)}) or ({today(of)})"


def _since(calendar: str, function: str, of: Source) -> str:
    length, window, step = _STEPS[calendar]
    # Each step's spend gets as a label the number of the day in which it began; those of the present day are added up,
    # and what came since the last whole step is taken from the present rate.
    began = f'count_values("{calendar}", {function}(vector(time() - {_seconds(step)})))'
    spent = f"{of.increase(names.COST, window=window)} / {_seconds(window) // _seconds(step)}"
    now = f'count_values("{calendar}", {function}())'
    steps = f"sum (sum_over_time(({spent} * on () group_right () {began})[{length}:{step}]) and on ({calendar}) {now})"
    rest = f"{of.increase(names.COST, window=window)} * (time() % {_seconds(step)}) / {_seconds(window)}"
    return f"({steps} or {of.zero()}) + ({rest} or {of.zero()})"


_STEPS = {"day": ("1d", "2m", "1m"), "month": ("31d", "15m", "15m")}
"""The longest a day or a month can be, and how a step's spend is taken: the window of the increase, and the step."""


def _seconds(window: str) -> int:
    return int(window[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[window[-1]]
