"""Alerts about money. Budgets are read from their gauges, so a changed limit needs no changed rule."""

from dashboards import spending, thresholds
from dashboards.promql import Source, is_, one_of, ratio
from gateway.telemetry import names
from otel.rules.model import Alert, Group, Severity

OF = Source()
ENDS_WITHIN_S = 4 * 3_600


def _with_team(expr: str) -> str:
    """A budget's series with the label `team` where its scope names one, so that alerts can be routed to who pays."""
    return f'label_replace({expr}, "team", "$1", "scope", "(?:.*,)?team=([^,]+)(?:,.*)?")'


def _ends_soon(window: str) -> str:
    pace = f"({spending.pace(OF, window)} > 0)"
    return f"(({spending.left(OF)}) / {pace} < {ENDS_WITHIN_S})"


def _resets_later() -> str:
    return f"({OF.gauge(names.BUDGET_RESETS, by=spending.WINDOW)} - time() > {ENDS_WITHIN_S})"


_BUDGET = "budget [[budget]] ([[scope]], [[window]])"
_HOUR = OF.increase(names.COST, by=("job", "team"), window="1h")
_HOUR_LAST_WEEK = OF.increase(names.COST, by=("job", "team"), window="1h", offset="1w")
_TOKENS = OF.rate(names.TOKENS, one_of("type", ("input", "output")), by=("job", "provider", "model"), window="1h")
_INSTANCE = ("job", "instance")
_UNDELIVERED = OF.increase(names.ALERT_DELIVERIES, is_("result", "failed"), by=_INSTANCE, window="15m")
_REFUSED = OF.increase(names.PRICE_UPDATES_REFUSED, by=_INSTANCE, window="1d")
_UNPRICED = OF.rate(names.UNPRICED_TOKENS, by=("job", "provider", "model"), window="1h")

MONEY = Group(
    name="gaugeway-money",
    rules=(
        Alert(
            name="GaugewayBudgetNotice",
            expr=_with_team(f"{spending.spent_share(OF)} >= {thresholds.BUDGET_NOTICE:g}"),
            hold="0s",
            severity=Severity.WARNING,
            summary="Budget [[budget]] of [[scope]] is at [[value:percent]]",
            description=f"The {_BUDGET} has spent [[value:percent]] of its limit: $[[query:spent]] of $[[query:limit]].",
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayBudgetExhausted",
            expr=_with_team(f"{spending.spent_share(OF)} >= {thresholds.BUDGET_EXHAUSTED:g}"),
            hold="0s",
            severity=Severity.CRITICAL,
            summary="Budget [[budget]] of [[scope]] is used up",
            description=(
                f"The {_BUDGET} has spent [[value:percent]] of its limit: $[[query:spent]] of $[[query:limit]]. A hard "
                "budget refuses requests until its window ends or its limit is raised."
            ),
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayBudgetEndsSoon",
            expr=_with_team(f"{_ends_soon('1h')} and {_ends_soon('15m')} and {_resets_later()}"),
            hold="5m",
            severity=Severity.CRITICAL,
            summary="Budget [[budget]] of [[scope]] ends in [[value:duration]]",
            description=(
                f"At the pace of the last hour and of the last 15 minutes, the {_BUDGET} is used up in "
                "[[value:duration]], before its window ends."
            ),
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayBudgetForecast",
            expr=_with_team(
                f"({spending.forecast_share(OF, '6h')} > {thresholds.BUDGET_PACE:g}) and "
                f"({spending.forecast_share(OF, '1h')} > {thresholds.BUDGET_PACE:g})"
            ),
            hold="1h",
            severity=Severity.WARNING,
            summary="Budget [[budget]] of [[scope]] will not last",
            description=(
                f"At the pace of the last 6 hours and of the last hour, the {_BUDGET} will have spent [[value:percent]] "
                "of its limit when its window ends."
            ),
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewaySpendAnomaly",
            expr=(
                f"{_HOUR} > {thresholds.ANOMALY_FACTOR:g} * {_HOUR_LAST_WEEK} "
                f"and {_HOUR} > {thresholds.ANOMALY_FLOOR_USD_PER_H:g}"
            ),
            hold="15m",
            severity=Severity.WARNING,
            summary="Team [[team]] spends $[[value:usd]] an hour, far more than a week ago",
            description=(
                f"Team [[team]] spent $[[value:usd]] in the last hour, more than {thresholds.ANOMALY_FACTOR:g} times what it "
                "spent in the same hour a week ago."
            ),
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayUnpricedModel",
            expr=f"{ratio(_UNPRICED, _TOKENS)} > {thresholds.UNPRICED_SHARE:g}",
            hold="15m",
            severity=Severity.WARNING,
            summary="[[provider]] [[model]] has no price",
            description=(
                "[[value:percent]] of the tokens of [[provider]] [[model]] have no price: they are missing from spend "
                "and from budgets."
            ),
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayPriceTableOld",
            expr=f"{OF.gauge(names.PRICE_TABLE_AGE, by=('job',))} > {thresholds.PRICE_TABLE_OLD_S:g}",
            hold="1h",
            severity=Severity.WARNING,
            summary="The prices in use are [[value:duration]] old",
            description="Costs are computed with prices that are [[value:duration]] old; vendors change theirs monthly.",
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayPricesRefused",
            expr=f"{_REFUSED} > 0",
            hold="0s",
            severity=Severity.WARNING,
            summary="[[instance]] refused new prices",
            description="[[instance]] refused the price data of its `prices_file`; costs are computed with the old prices.",
            dashboard="gaugeway-spend",
        ),
        Alert(
            name="GaugewayAlertsUndelivered",
            # One failure is a webhook that restarts; every alert is tried once a minute.
            expr=f"{_UNDELIVERED} > 5",
            hold="0s",
            severity=Severity.WARNING,
            summary="[[instance]] cannot deliver budget alerts",
            description=(
                "[[value:count]] deliveries of budget alerts by [[instance]] failed in 15 minutes. They are tried again until "
                "their webhook takes them; whoever waits for them does not know yet."
            ),
            dashboard="gaugeway-spend",
        ),
    ),
)
