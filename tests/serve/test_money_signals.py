"""The money path's metrics tell what the accounts know: budgets from the start, none that are gone."""

from collections.abc import Mapping

from gateway.serve.money_signals import MoneySignals
from gateway.spend.alerts import AlertSender
from gateway.spend.budgets import BudgetBook
from gateway.spend.keys import make_key, revoked
from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.metric import Metric
from gateway.telemetry.metrics import Metrics
from tests.spend.accounts import NOON_NS, OpenAccounts, SetClock, budget, facts
from tests.spend.test_ledger import settle

TEAMS = ("red", "blue", "old")
HOOK = {"url": "https://alerts.test/hook", "secret": "s3cret"}


class Answers:
    """A webhook's other end that answers with the given statuses."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        return self._statuses.pop(0)


def shown(metrics: Metrics, metric: Metric) -> dict[tuple[str, ...], float]:
    """The series of a family that a scrape sees."""
    return {labels: series.values[0] for labels, series in metrics.read().get(metric.name, {}).items()}


async def test_budgets_are_shown_from_the_start_and_vanish_with_a_reload(open_accounts: OpenAccounts) -> None:
    """A budget shows 0 before its first request; after a reload without it none of its series is left."""
    clock = SetClock()
    kept, dropped = budget(1000, name="kept"), budget(500, name="dropped", window="day")
    accounts = await open_accounts(kept, dropped, clock=clock)
    metrics = Metrics(Block.private())
    signals = MoneySignals(accounts, AlertSender(accounts, Answers().post, clock), metrics, clock)
    signals.update()
    families = (names.BUDGET_LIMIT, names.BUDGET_SPENT, names.BUDGET_HELD, names.BUDGET_RESETS)
    of_kept, of_dropped = ("kept", "global", "month"), ("dropped", "global", "day")
    assert shown(metrics, names.BUDGET_SPENT) == {of_kept: 0.0, of_dropped: 0.0}
    for family in families:
        assert set(shown(metrics, family)) == {of_kept, of_dropped}
    settle(accounts, None, facts("r1"))
    await accounts.flush()
    await accounts.reload(BudgetBook([kept]))
    await accounts.flush()
    signals.update()
    assert shown(metrics, names.BUDGET_SPENT) == {of_kept: 150 / 1e9}
    for family in families:
        assert set(shown(metrics, family)) == {of_kept}
    await accounts.reload(BudgetBook([kept, dropped]))
    await accounts.flush()
    signals.update()
    assert shown(metrics, names.BUDGET_SPENT) == {of_kept: 150 / 1e9, of_dropped: 150 / 1e9}


async def test_deliveries_of_alerts_are_counted_by_result(open_accounts: OpenAccounts) -> None:
    """A webhook that fails once and then takes the alert counts one of each; both start at 0."""
    clock = SetClock()
    accounts = await open_accounts(budget(100, enforcement="soft", thresholds=[1], webhooks=[HOOK]), clock=clock)
    metrics = Metrics(Block.private())
    alerts = AlertSender(accounts, Answers(503, 200).post, clock)
    signals = MoneySignals(accounts, alerts, metrics, clock)
    signals.update()
    assert shown(metrics, names.ALERT_DELIVERIES) == {("delivered",): 0.0, ("failed",): 0.0}
    settle(accounts, None, facts("r1"))
    await accounts.flush()
    await alerts.deliver_due()
    clock.ns += 61 * 10**9
    await alerts.deliver_due()
    for _ in range(2):
        signals.update()
    assert shown(metrics, names.ALERT_DELIVERIES) == {("delivered",): 1.0, ("failed",): 1.0}


async def test_refused_prices_are_counted(open_accounts: OpenAccounts) -> None:
    """The counter starts at 0 and follows what the price book refused."""
    clock = SetClock()
    accounts = await open_accounts(clock=clock)
    before = accounts.prices.refused_updates
    metrics = Metrics(Block.private())
    signals = MoneySignals(accounts, AlertSender(accounts, Answers().post, clock), metrics, clock)
    signals.update()
    assert shown(metrics, names.PRICE_UPDATES_REFUSED) == {(): before}
    accounts.prices.refused_updates += 1
    for _ in range(2):
        signals.update()
    assert shown(metrics, names.PRICE_UPDATES_REFUSED) == {(): before + 1}
    accounts.prices.refused_updates = before


async def test_a_budget_of_each_team_is_shown_before_its_first_request(open_accounts: OpenAccounts) -> None:
    """Keys say which teams there are: each has its budget's gauges at 0, a revoked key's team has none."""
    clock = SetClock()
    accounts = await open_accounts(
        budget(1000, name="teams", scope={"team": "*"}),
        budget(500, name="keys of red", scope={"team": "red", "key": "*"}),
        budget(100, name="models", scope={"team": "*", "model": "*"}),
        clock=clock,
    )
    red, blue, old = (
        make_key(lambda size: team.encode()[:1] * size, NOON_NS, team=team).row  # noqa: B023 - called at once
        for team in TEAMS
    )
    accounts.budgets.foresee([red, blue, revoked(old, NOON_NS)])
    metrics = Metrics(Block.private())
    MoneySignals(accounts, AlertSender(accounts, Answers().post, clock), metrics, clock).update()
    assert shown(metrics, names.BUDGET_SPENT) == {
        ("teams", "team=red", "month"): 0.0,
        ("teams", "team=blue", "month"): 0.0,
        ("keys of red", f"team=red,key={red.id}", "month"): 0.0,
    }
