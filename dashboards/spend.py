"""Spend: who spends what on which model, how long budgets last, and how sure the numbers are."""

from dashboards import board as boards
from dashboards import spending, thresholds
from dashboards.board import Board, Row
from dashboards.panels import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
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
from dashboards.promql import RANGE, is_, is_not, one_of, ratio, share
from gateway.telemetry import names
from gateway.types.records import Basis

VARIABLES = (boards.JOB, boards.INSTANCE, boards.TEAM, boards.ROUTE, boards.PROVIDER, boards.MODEL, boards.BUDGET)
OF = boards.source(VARIABLES)
_TOTALS = one_of("type", ("input", "output"))
BASIS_COLOURS = {
    Basis.PROVIDER_USAGE.value: GREEN,
    Basis.DRAINED.value: BLUE,
    Basis.ESTIMATED.value: YELLOW,
    Basis.PARTIAL.value: ORANGE,
    Basis.UNKNOWN.value: RED,
    Basis.ORPHAN.value: PURPLE,
}
_BUDGET = ("budget", "scope", "window")
_BUDGET_STEPS = steps((None, GREEN), (thresholds.BUDGET_NOTICE, ORANGE), (thresholds.BUDGET_EXHAUSTED, RED))


def _unpriced_share(window: str) -> str:
    return share(OF.increase(names.UNPRICED_TOKENS, window=window), OF.increase(names.TOKENS, _TOTALS, window=window))


def _spent(title: str, description: str, expr: str) -> Panel:
    return single(title, description, Query(expr=expr, instant=True), unit=Unit.USD)


def _saved() -> str:
    saved = OF.increase(names.CACHE_SAVED)
    return f"{saved} - ({OF.increase(names.CACHE_SURCHARGE)} or 0 * {saved})"


def _saved_per_hour() -> str:
    saved = OF.rate(names.CACHE_SAVED, by=("model",))
    return f"3600 * ({saved} - ({OF.rate(names.CACHE_SURCHARGE, by=('model',))} or 0 * {saved}))"


def _now() -> tuple[Panel, ...]:
    unsure = OF.increase(names.COST, is_not("basis", Basis.PROVIDER_USAGE))
    cached = OF.increase(names.TOKENS, is_("type", "cache_read"))
    return (
        _spent(
            "In this range",
            "Our price book times the usage of requests in the shown range. Higher than expected: By team says whose.",
            f"{OF.increase(names.COST)} or {OF.zero()}",
        ),
        _spent(
            "Today",
            "Since midnight (UTC). `gateway ledger report --window day` has the same to the nano-dollar, and of any zone.",
            spending.today(OF),
        ),
        _spent(
            "Month to date",
            "Since the first of the month (UTC); Prometheus has to keep 31 days. For an invoice take `gateway ledger "
            "report --window month`, which is exact.",
            spending.this_month(OF),
        ),
        single(
            "A request",
            "Mean cost of a request in the range, refused ones left out. A step up is a dearer model or longer text.",
            Query(expr=ratio(OF.increase(names.COST), OF.increase(names.ATTEMPTS, is_("outcome", "ok"))), instant=True),
            unit=Unit.USD,
        ),
        single(
            "1,000 tokens",
            "Mean cost of 1,000 input and output tokens in the range: the mix of models in one number.",
            Query(expr=f"1000 * {OF.increase(names.COST)} / ({OF.increase(names.TOKENS, _TOTALS)} > 0)", instant=True),
            unit=Unit.USD,
        ),
        single(
            "Cached input",
            "Share of input tokens that providers read from their prompt cache, which costs a fraction. Low with long "
            "repeated prompts: put what repeats first.",
            Query(expr=share(cached, OF.increase(names.TOKENS, is_("type", "input"))), instant=True),
            unit=Unit.SHARE,
            decimals=0,
        ),
        single(
            "Cache saved",
            "What reading from providers' prompt caches saved in the range, less what writing to them cost. Below zero: "
            "prompts are written to a cache and not read again, so turn caching off for them.",
            Query(expr=f"{_saved()} or {OF.zero()}", instant=True),
            unit=Unit.USD,
            thresholds=steps((None, RED), (0, GREEN)),
        ),
        single(
            "Inexact",
            "Share of the spend that does not rest on usage reported by a provider: estimated, cut short, or charged "
            f"after a crash. Above {thresholds.ESTIMATED_SHARE:.0%}: How sure shows the kind.",
            Query(expr=share(unsure, OF.increase(names.COST)), instant=True),
            unit=Unit.SHARE,
            decimals=1,
            thresholds=steps((None, GREEN), (thresholds.ESTIMATED_SHARE, ORANGE)),
        ),
    )


def _per_hour(label: str, title: str, description: str) -> Panel:
    return time_series(
        title,
        description,
        [Query(expr=f"3600 * {OF.rate(names.COST, by=(label,))}", legend=f"{{{{{label}}}}}", exemplar=True)],
        unit=Unit.USD_PER_HOUR,
        height=7,
        stacked=True,
    )


def _where() -> tuple[Panel, ...]:
    return (
        _per_hour(
            "team",
            "By team",
            "US dollars an hour, by who pays. A dot is one request: click it for its trace. A new slope: ask the team, "
            "or set a budget.",
        ),
        _per_hour("model", "By model", "US dollars an hour, by the model that was asked. Dear and growing: try a "
                  "smaller one for that route."),
        _per_hour("route", "By route", "US dollars an hour, by the route that apps call."),
    )  # fmt: skip


def _budgets() -> tuple[Panel, ...]:
    forecast = spending.forecast_share(OF, "6h", _BUDGET, young=True)
    return (
        rows(
            "Budgets",
            "Every budget in its present window. Forecast is what will be spent when it resets, at the pace of the "
            "last 6 hours, over the limit. Above 100%: raise the limit, or tell the team before Runs out.",
            {"budget": "Budget", "scope": "Pays", "window": "Window"},
            [
                Column(title="Used", expr=spending.spent_share(OF, _BUDGET), unit=Unit.SHARE, decimals=0, gauge=True,
                       thresholds=_BUDGET_STEPS),
                Column(title="Left", expr=spending.left(OF, _BUDGET), unit=Unit.USD),
                Column(title="Forecast", expr=forecast, unit=Unit.SHARE, decimals=0,
                       thresholds=steps((None, GREEN), (thresholds.BUDGET_PACE, RED))),
                Column(title="Runs out", expr=f"1000 * ({spending.runs_out(OF, '6h', _BUDGET)})", unit=Unit.MOMENT),
                Column(title="Resets", expr=f"1000 * {OF.gauge(names.BUDGET_RESETS, by=_BUDGET)}",
                       unit=Unit.MOMENT),
            ],
            width=24,
            height=6,
            sort_by="Used",
        ),
        time_series(
            "Budget left",
            "The burn-down: the share of its limit that each budget may still spend, less what is held for requests in "
            "flight. At 0 a hard budget refuses; a jump up is a new window.",
            [
                Query(
                    expr=f"({spending.left(OF, ('budget', 'scope'))}) / ({OF.gauge(names.BUDGET_LIMIT, by=('budget', 'scope'))} > 0)",
                    legend="{{budget}} · {{scope}}",
                )
            ],
            unit=Unit.SHARE,
            width=12,
            height=7,
            maximum=1,
        ),
        time_series(
            "Forecast for the end of the window",
            "What each budget will have spent when it resets, at the pace of the 6 hours before, over its limit. Above "
            "the dashed line it ends before its window does: who and what is in Largest spenders.",
            [
                Query(
                    expr=spending.forecast_share(OF, "6h", ("budget", "scope"), young=True),
                    legend="{{budget}} · {{scope}}",
                )
            ],
            unit=Unit.SHARE,
            width=12,
            height=7,
            limit=thresholds.BUDGET_PACE,
        ),
    )  # fmt: skip


def _who() -> tuple[Panel, ...]:
    payer = ("team", "model")
    present = OF.increase(names.COST, by=payer)
    before = OF.increase(names.COST, by=payer, offset="1w")
    # A team or a model without a last week, or without a present, has moved by all that it spent.
    change = f"({present} or 0 * {before}) - ({before} or 0 * {present})"
    return (
        bars(
            "Largest spenders",
            "Team and model, US dollars in the shown range; the ten largest. One that should not be there: see its "
            "routes above, and its requests in the dots of By team.",
            [
                Query(
                    expr=f"sort_desc(topk(10, {present}))",
                    legend="{{team}} · {{model}}",
                    instant=True,
                )
            ],
            unit=Unit.USD,
            height=8,
        ),
        rows(
            "Top movers",
            "Team and model whose spend in the shown range differs most from the same time a week ago; new ones moved by "
            "all they spent. Up without a reason: look for a loop or a new prompt.",
            {"team": "Team", "model": "Model"},
            [
                Column(title="Change", expr=change, unit=Unit.USD,
                       thresholds=steps((None, GREEN), (thresholds.ANOMALY_FLOOR_USD_PER_H, RED))),
                Column(title="A week ago", expr=f"{before} or 0 * {present}", unit=Unit.USD),
            ],
            sort_by="Change",
            width=9,
            wide=("Model",),
            links=[Link("Spend of this team", "gaugeway-spend", "team")],
        ),
        time_series(
            "Cost of a request, by route",
            "Mean cost of an attempt that ended well. A step up after a deploy: a longer prompt or another model.",
            [
                Query(
                    expr=ratio(
                        OF.rate(names.COST, by=("route",)),
                        OF.rate(names.ATTEMPTS, is_("outcome", "ok"), by=("route",)),
                    ),
                    legend="{{route}}",
                )
            ],
            unit=Unit.USD,
            width=7,
            height=8,
        ),
    )  # fmt: skip


def _sure() -> tuple[Panel, ...]:
    return (
        time_series(
            "How sure",
            "Spend by what it rests on. provider_usage is exact; estimated and partial follow published rules; "
            "unknown and orphan are charged at their bound. Anything but provider_usage growing: see the provider.",
            [Query(expr=f"3600 * {OF.rate(names.COST, by=('basis',))}", legend="{{basis}}")],
            unit=Unit.USD_PER_HOUR,
            stacked=True,
            colours=BASIS_COLOURS,
        ),
        time_series(
            "Tokens without a price",
            "Share of tokens whose price is not known, by model: they are missing from every sum here. Above the "
            "dashed line: add the model under prices in the configuration.",
            [
                Query(
                    expr=share(
                        OF.rate(names.UNPRICED_TOKENS, by=("provider", "model")),
                        OF.rate(names.TOKENS, _TOTALS, by=("provider", "model")),
                    ),
                    legend="{{provider}} · {{model}}",
                )
            ],
            unit=Unit.SHARE,
            limit=thresholds.UNPRICED_SHARE,
        ),
        single(
            "Unpriced tokens",
            "The same over the whole range, for all models together.",
            Query(expr=_unpriced_share(RANGE), instant=True),
            unit=Unit.SHARE,
            width=4,
            height=6,
            decimals=1,
            thresholds=steps((None, GREEN), (thresholds.UNPRICED_SHARE, ORANGE)),
        ),
        single(
            "Age of the prices",
            "Old prices are kept when new ones cannot be read. Above "
            f"{thresholds.PRICE_TABLE_OLD_S / 86_400:g} days: install a newer gateway, or write prices into the configuration.",
            Query(expr=OF.gauge(names.PRICE_TABLE_AGE)),
            unit=Unit.SECONDS,
            width=4,
            height=6,
            thresholds=steps((None, GREEN), (thresholds.PRICE_TABLE_OLD_S, ORANGE)),
        ),
    )


def _cache() -> tuple[Panel, ...]:
    cached = OF.rate(names.TOKENS, is_("type", "cache_read"), by=("model",))
    return (
        time_series(
            "Input from cache, by model",
            "Share of input tokens that the provider read from its prompt cache. A fall after a deploy: the prompt's "
            "beginning changes with every request.",
            [
                Query(
                    expr=share(cached, OF.rate(names.TOKENS, is_("type", "input"), by=("model",))),
                    legend="{{model}}",
                )
            ],
            unit=Unit.SHARE,
        ),
        time_series(
            "Saved by caches, by model",
            "What cached input would have cost more without the provider's cache, less what writing to the cache cost. "
            "A fall: see whether the share beside it fell too, or the traffic.",
            [Query(expr=_saved_per_hour(), legend="{{model}}")],
            unit=Unit.USD_PER_HOUR,
            no_value="nothing was cached",
        ),
        time_series(
            "Estimated tokens, by provider",
            "Share of tokens that the provider did not report and that were counted from the text. Above the dashed "
            "line: the provider leaves usage out of its streams.",
            [
                Query(
                    expr=share(
                        OF.rate(names.TOKENS, is_("source", "estimated"), _TOTALS, by=("provider",)),
                        OF.rate(names.TOKENS, _TOTALS, by=("provider",)),
                    ),
                    legend="{{provider}}",
                )
            ],
            unit=Unit.SHARE,
            limit=thresholds.ESTIMATED_SHARE,
        ),
    )


SPEND = Board(
    uid="gaugeway-spend",
    name="spend",
    title="Gaugeway / Spend",
    description="Who spends what on which model, how long budgets last, and how sure the numbers are.",
    variables=VARIABLES,
    since="now-24h",
    rows=(
        Row("", _now()),
        Row("US dollars an hour", _where()),
        Row("Budgets", _budgets()),
        Row("Who and what", _who()),
        Row("How sure these numbers are", _sure()),
        Row("Cache and estimates", _cache()),
    ),
)
