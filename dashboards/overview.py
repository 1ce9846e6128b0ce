"""Overview: the board to open first. Is it well, what is wrong, who is slow, who spends, when does a budget end."""

from itertools import cycle

from dashboards import board as boards
from dashboards import spending, thresholds
from dashboards.board import Board, Row
from dashboards.panels import (
    GREEN,
    ORANGE,
    OUTCOME_COLOURS,
    RED,
    YELLOW,
    Column,
    Link,
    Panel,
    Query,
    Unit,
    bars,
    rows,
    single,
    steps,
    time_series,
)
from dashboards.phases import PARTS, TOTAL
from dashboards.promql import (
    ALERTS,
    ALERTS_SINCE,
    PROCESS_START,
    RANGE,
    Source,
    is_,
    is_not,
    known,
    one_of,
    ratio,
    share,
)
from gateway.telemetry import names
from gateway.types.errors import ErrorType, Outcome

_TONES = ("", "light-", "dark-", "super-light-", "semi-dark-")
ERROR_COLOURS = {
    f"{outcome}: {error}": f"{tone}{colour}"
    for outcome, colour in OUTCOME_COLOURS.items()
    for error, tone in zip((error for error in ErrorType if error.outcome == outcome), cycle(_TONES), strict=False)
}
"""Tones of the colour of who is at fault, so that a provider's failures never look like callers' mistakes."""
VARIABLES = (boards.JOB, boards.INSTANCE, boards.ROUTE, boards.TEAM)
OF = boards.source(VARIABLES)

_VALID = one_of("outcome", thresholds.VALID)
_FAILED = one_of("outcome", thresholds.FAILED)
_FIRING = Source().select(ALERTS, is_("alertstate", "firing"), is_("service", "gaugeway"))
_OVERHEAD_P99 = OF.quantile(0.99, names.OVERHEAD, PARTS, by=("phase",))
_PROVIDER_FAULT = one_of("error_type", thresholds.PROVIDER_FAULTS)


def _failed_share(window: str) -> str:
    return share(
        OF.increase(names.REQUESTS, _FAILED, window=window), OF.increase(names.REQUESTS, _VALID, window=window)
    )


def _health() -> tuple[Panel, ...]:
    burn = f"({_failed_share('1h')}) / {1 - thresholds.AVAILABILITY:g} or {OF.zero()}"
    page = thresholds.BURN_WINDOWS[0].factor
    slow_burn = thresholds.BURN_WINDOWS[1].factor
    return (
        single(
            "Availability",
            f"Share of requests that neither a provider nor the gateway failed, in the shown range; callers' mistakes "
            f"and policy refusals do not count. The objective is {thresholds.AVAILABILITY:.1%}. Below it: see who "
            "fails in Requests by outcome, and why in Errors by cause.",
            Query(expr=f"1 - ({_failed_share(RANGE)})", instant=True),
            unit=Unit.SHARE,
            decimals=2,
            thresholds=steps((None, RED), (thresholds.AVAILABILITY, GREEN)),
        ),
        single(
            "Burn rate, 1 h",
            "How many times faster than allowed the 30-day error budget is being spent. Above "
            f"{slow_burn:g} somebody is called, above {page:g} at once: find the failing provider in Providers.",
            Query(expr=burn),
            unit=Unit.BURN,
            decimals=1,
            thresholds=steps((None, GREEN), (1, YELLOW), (slow_burn, ORANGE), (page, RED)),
        ),
        single(
            "Requests",
            "Caller requests a second now. A sudden drop with healthy errors means that callers cannot reach the "
            "gateway: look at what stands before it.",
            Query(expr=OF.rate(names.REQUESTS)),
            unit=Unit.PER_SECOND,
        ),
        single(
            "First chunk p95",
            f"95 of 100 streams show their first chunk within this time; the objective is {thresholds.FIRST_CHUNK_S:g} "
            "s. Above it: the Providers table shows whose.",
            Query(expr=OF.quantile(0.95, names.TIME_TO_FIRST_CHUNK), exemplar=True),
            unit=Unit.SECONDS,
            thresholds=steps((None, GREEN), (thresholds.FIRST_CHUNK_S, RED)),
        ),
        single(
            "Overhead p99",
            "What the gateway itself adds to one request in a hundred, in its slowest phase. Green while others are red: "
            "it is a provider, and the table Providers says which. Red is the alert's threshold: open Gateway.",
            Query(expr=f"max({_OVERHEAD_P99})"),
            unit=Unit.SECONDS,
            thresholds=steps((None, GREEN), (thresholds.OVERHEAD_P99_S, RED)),
        ),
        single(
            "Spend today",
            "Our price book times the usage of requests since midnight (UTC, as budgets count). Tokens without a price "
            "are missing from it: the Spend board counts those.",
            Query(expr=spending.today(OF), instant=True),
            unit=Unit.USD,
        ),
        single(
            "Fullest budget",
            "The budget nearest to its end, as a share of its limit. At 100% a hard budget refuses requests: raise "
            "it, or tell the team. The table Budgets says which one, and when.",
            Query(expr=f"max({spending.spent_share(OF)})"),
            unit=Unit.SHARE,
            decimals=0,
            no_value="none",
            thresholds=steps((None, GREEN), (thresholds.BUDGET_NOTICE, ORANGE), (thresholds.BUDGET_EXHAUSTED, RED)),
        ),
        single(
            "Alerts firing",
            "Gaugeway alerts that fire now; each has a runbook. What changed, below, names them; the red marks in the "
            "graphs show when they began.",
            Query(expr=f"count({_FIRING}) or {OF.zero()}"),
            unit=Unit.COUNT,
            thresholds=steps((None, GREEN), (1, RED)),
        ),
    )


def _signals() -> tuple[Panel, ...]:
    return (
        time_series(
            "Requests by outcome",
            "Who decided how requests ended: ok; caller (a bad request); policy (key, limit or budget refused); "
            "provider; gateway. Orange growing: open Providers. Red growing: open Gateway.",
            [Query(expr=OF.rate(names.REQUESTS, by=("outcome",)), legend="{{outcome}}")],
            unit=Unit.PER_SECOND,
            stacked=True,
            colours=OUTCOME_COLOURS,
        ),
        time_series(
            "Errors by cause",
            "The reason of each request that did not end ok, with who is at fault. The same words stand in the "
            "reply, the log line and the span.",
            [
                Query(
                    expr=OF.rate(names.REQUESTS, is_not("outcome", Outcome.OK), by=("outcome", "error_type")),
                    legend="{{outcome}}: {{error_type}}",
                )
            ],
            unit=Unit.PER_SECOND,
            stacked=True,
            colours=ERROR_COLOURS,
            no_value="none in this range",
        ),
        time_series(
            "Latency",
            "From a request's arrival to its last byte. A dot is one request: click it for its trace. p99 far from "
            "p50 is a slow model or a retry, seen in Latency by route.",
            [
                Query(expr=OF.quantile(q, names.REQUEST_DURATION), legend=f"p{q * 100:g}", exemplar=True)
                for q in (0.5, 0.95, 0.99)
            ],
            unit=Unit.SECONDS,
        ),
        time_series(
            "Time to first chunk",
            "What a person waits before text appears, of streamed attempts. The dashed line is the objective for "
            f"{thresholds.FIRST_CHUNK_SHARE:.0%} of them. Above it: see which provider in the table below.",
            [
                Query(expr=OF.quantile(q, names.TIME_TO_FIRST_CHUNK), legend=f"p{q * 100:g}", exemplar=True)
                for q in (0.5, 0.95, 0.99)
            ],
            unit=Unit.SECONDS,
            limit=thresholds.FIRST_CHUNK_S,
        ),
        time_series(
            "Time per output token",
            "How fast text flows once it has begun. A step up with steady traffic is a provider's capacity: think "
            "of weights or a fallback.",
            [Query(expr=OF.quantile(q, names.TIME_PER_OUTPUT_CHUNK), legend=f"p{q * 100:g}") for q in (0.5, 0.95)],
            unit=Unit.SECONDS,
        ),
        time_series(
            "Tokens",
            "Input and output tokens a second; cached and reasoning tokens are parts of these. Output that grows "
            "faster than requests makes latency and cost grow.",
            [Query(expr=OF.rate(names.TOKENS, one_of("type", ("input", "output")), by=("type",)), legend="{{type}}")],
            unit=Unit.TOKENS_PER_SECOND,
        ),
    )


_SLOW = steps((None, GREEN), (thresholds.FIRST_CHUNK_S, RED))


def _who() -> tuple[Panel, ...]:
    by = ("gen_ai_provider_name",)
    tried = OF.increase(names.OPERATION_DURATION, by=by, suffix="_count", window=thresholds.PROBED_WITHIN)
    faults = OF.increase(
        names.OPERATION_DURATION, _PROVIDER_FAULT, by=by, suffix="_count", window=thresholds.PROBED_WITHIN
    )
    return (
        rows(
            "Providers",
            f"Each provider now, and what failed in {thresholds.PROBED_WITHIN}, the worst on top. First chunk and duration "
            "are p95; red is above the alert's threshold. Open Providers for its retries, limits and circuit.",
            {"gen_ai_provider_name": "Provider"},
            [
                Column(
                    title="First chunk",
                    expr=known(OF.quantile(0.95, names.TIME_TO_FIRST_CHUNK, by=by)),
                    unit=Unit.SECONDS,
                    thresholds=_SLOW,
                ),
                Column(
                    title="Duration",
                    expr=known(OF.quantile(0.95, names.OPERATION_DURATION, by=by)),
                    unit=Unit.SECONDS,
                ),
                Column(
                    title="Failing",
                    expr=share(faults, tried),
                    unit=Unit.SHARE,
                    decimals=1,
                    thresholds=steps(
                        (None, GREEN),
                        (thresholds.PROVIDER_ERROR_SHARE, ORANGE),
                        (thresholds.PROVIDER_DOWN_SHARE, RED),
                    ),
                ),
                Column(
                    title="Attempts",
                    expr=OF.rate(names.OPERATION_DURATION, by=by, suffix="_count"),
                    unit=Unit.PER_SECOND,
                ),
            ],
            links=[Link("Latency of this provider", "gaugeway-latency", "gen_ai_provider")],
            sort_by="Failing",
            width=9,
            height=7,
        ),
        _routes(),
        bars(
            "Spend by team",
            "US dollars in the shown range, by who pays; the largest first. Somebody new on top: look at Spend for "
            "the model and the route.",
            [Query(expr=f"sort_desc({OF.increase(names.COST, by=('team',))})", legend="{{team}}", instant=True)],
            unit=Unit.USD,
            width=6,
            link=Link("Spend of this team", "gaugeway-spend", "team", "${__field.labels.team}"),
        ),
    )


def _routes() -> Panel:
    by = ("route",)
    failed, valid = OF.rate(names.REQUESTS, _FAILED, by=by), OF.rate(names.REQUESTS, _VALID, by=by)
    return rows(
        "Routes",
        "Who is affected: each route as its callers see it, after retries and fallbacks. Failing above the objective "
        "while a provider fails: the route needs another target.",
        {"route": "Route"},
        [
            Column(
                title="First chunk",
                expr=known(OF.quantile(0.95, names.TIME_TO_FIRST_CHUNK, by=by)),
                unit=Unit.SECONDS,
                thresholds=_SLOW,
            ),
            Column(title="Duration", expr=known(OF.quantile(0.95, names.REQUEST_DURATION, by=by)), unit=Unit.SECONDS),
            Column(
                title="Failing",
                expr=share(failed, valid),
                unit=Unit.SHARE,
                decimals=1,
                thresholds=steps((None, GREEN), (1 - thresholds.AVAILABILITY, RED)),
            ),
            Column(title="Requests", expr=f"{OF.rate(names.REQUESTS, by=by)} > 0", unit=Unit.PER_SECOND),
        ],
        links=[Link("Latency of this route", "gaugeway-latency", "route")],
        sort_by="Failing",
        width=9,
        height=7,
    )


def _budgets() -> Panel:
    budget = ("budget", "scope")
    return rows(
        "Budgets",
        "Each budget in its present window: the fullest first. Runs out is a forecast from the last 6 hours, and "
        "empty where the budget lasts until it resets. Before it comes: raise the limit or tell the team.",
        {"budget": "Budget", "scope": "For"},
        [
            Column(
                title="Used",
                expr=spending.spent_share(OF, budget),
                unit=Unit.SHARE,
                decimals=0,
                gauge=True,
                thresholds=steps((None, GREEN), (thresholds.BUDGET_NOTICE, ORANGE), (thresholds.BUDGET_EXHAUSTED, RED)),
            ),
            Column(title="Left", expr=spending.left(OF, budget), unit=Unit.USD),
            Column(title="Runs out", expr=f"1000 * ({spending.runs_out(OF, '6h', budget)})", unit=Unit.MOMENT),
            Column(title="Resets", expr=f"1000 * {OF.gauge(names.BUDGET_RESETS, by=budget)}", unit=Unit.MOMENT),
        ],
        links=[Link("This budget", "gaugeway-spend", "budget")],
        sort_by="Used",
        width=14,
        height=7,
    )


def _changed() -> Panel:
    def event(what: str, which: str, expr: str) -> str:
        named = f'label_replace({expr}, "which", "$1", "{which}", "(.*)")'
        return f'max by (what, which) (label_replace({named}, "what", "{what}", "", ""))'

    started = OF.gauge(PROCESS_START, by=("job", "instance"), fold="max")
    version = f"{started} * on (job, instance) group_left (version) {OF.select(names.BUILD_INFO)}"
    loaded = OF.gauge(names.CONFIG_RELOAD_TIMESTAMP, by=("instance",), fold="max")
    firing = f"{Source().select(ALERTS_SINCE, is_('service', 'gaugeway'))} and ignoring (alertstate) {_FIRING}"
    priced = f"time() - {OF.gauge(names.PRICE_TABLE_AGE, by=('job',))}"
    events = (
        event("Alert fires", "alertname", firing),
        event("Version started", "version", version),
        event("Config loaded", "instance", loaded),
        event("Prices dated", "job", priced),
    )
    return rows(
        "What changed",
        "The last change of each kind, the newest on top. Trouble that began soon after one of them: undo that "
        "first. Deploys, reloads and alerts are marked in every graph as well.",
        {"what": "What", "which": "Which"},
        [Column(title="When", expr=f"1000 * ({' or '.join(events)})", unit=Unit.MOMENT)],
        sort_by="When",
        wide=("Which",),
        width=10,
        height=7,
    )


def _gateway() -> tuple[Panel, ...]:
    overhead = OF.rate(names.OVERHEAD, TOTAL, suffix="_sum")
    return (
        time_series(
            "In flight",
            "Requests being served now, by route. A ramp that does not come down: a provider hangs, or callers "
            "come faster than replies.",
            [Query(expr=OF.gauge(names.REQUESTS_IN_FLIGHT, by=("route",)), legend="{{route}}")],
            unit=Unit.COUNT,
            stacked=True,
            width=8,
            height=6,
        ),
        time_series(
            "Gateway overhead p99",
            "What the gateway itself does before and after the provider, by phase. The dashed line is the alert's "
            "threshold. Above it: open Gateway, look at CPU, loop lag and the ledger.",
            [Query(expr=_OVERHEAD_P99, legend="{{phase}}")],
            unit=Unit.SECONDS,
            limit=thresholds.OVERHEAD_P99_S,
            width=8,
            height=6,
        ),
        time_series(
            "Share of time in the gateway",
            "Overhead over the whole duration of requests, with what each piece of a stream takes. It belongs below a few "
            "percent: the rest is the provider's time. Above: open Gateway.",
            [Query(expr=ratio(overhead, OF.rate(names.REQUEST_DURATION, suffix="_sum")), legend="gateway")],
            unit=Unit.SHARE,
            width=8,
            height=6,
        ),
    )


OVERVIEW = Board(
    uid="gaugeway-overview",
    name="overview",
    title="Gaugeway / Overview",
    description="Is the gateway well, what is wrong, which provider is slow, who spends, and when does a budget end.",
    variables=VARIABLES,
    rows=(
        Row("", _health()),
        Row("Who is slow, who is affected, who spends, what changed", (*_who(), _budgets(), _changed())),
        Row("Signals", _signals()),
        Row("The gateway itself", _gateway()),
    ),
)
