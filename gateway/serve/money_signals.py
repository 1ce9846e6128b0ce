"""The money path's own state as metrics: budgets, ledger, prices, alerts. Read from the accounts, once a second."""

from copy import copy

from gateway.spend.alerts import AlertSender, AlertStats
from gateway.spend.ledger import Accounts, LedgerStats
from gateway.telemetry import names
from gateway.telemetry.metrics import Metrics
from gateway.types.clock import Clock

_NANO = 1e9
_OF_BUDGETS = (names.BUDGET_LIMIT, names.BUDGET_SPENT, names.BUDGET_HELD, names.BUDGET_RESETS)


class MoneySignals:
    """Copies what the accounts know into the metrics; the accounts stay the only source of truth."""

    def __init__(self, accounts: Accounts, alerts: AlertSender, metrics: Metrics, clock: Clock) -> None:
        self._accounts = accounts
        self._alerts = alerts
        self._metrics = metrics
        self._clock = clock
        self._told = LedgerStats(pending=0, failed_commits=0, lost=0, orphans=0, duplicates=0)
        self._told_alerts = AlertStats()
        self._told_refused = 0
        self._shown: set[tuple[str, str, str]] = set()

    def update(self) -> None:
        """Bring every gauge and counter up to date."""
        self._update_budgets()
        self._update_alerts()
        metrics, accounts = self._metrics, self._accounts
        stats, told = accounts.stats(), self._told
        metrics.gauge(names.LEDGER_PENDING).set(stats.pending)
        metrics.counter(names.LEDGER_ERRORS).inc(stats.failed_commits + stats.lost - told.failed_commits - told.lost)
        metrics.counter(names.LEDGER_ORPHANS).inc(stats.orphans - told.orphans)
        metrics.gauge(names.PRICE_TABLE_AGE).set(accounts.prices.age_s(self._clock.now_ns()))
        refused = accounts.prices.refused_updates
        metrics.counter(names.PRICE_UPDATES_REFUSED).inc(refused - self._told_refused)
        self._told, self._told_refused = stats, refused

    def _update_budgets(self) -> None:
        metrics = self._metrics
        shown: set[tuple[str, str, str]] = set()
        for state in self._accounts.budget_states():
            labels = (state.budget, state.scope, state.window)
            shown.add(labels)
            metrics.gauge(names.BUDGET_LIMIT, *labels).set(state.limit_nano_usd / _NANO)
            metrics.gauge(names.BUDGET_SPENT, *labels).set(state.spent_nano_usd / _NANO)
            metrics.gauge(names.BUDGET_HELD, *labels).set(state.held_nano_usd / _NANO)
            if state.resets_ns is not None:
                metrics.gauge(names.BUDGET_RESETS, *labels).set(state.resets_ns / _NANO)
        # A budget that a reload took away must not go on to look full, or to fire alerts.
        for labels in self._shown - shown:
            for metric in _OF_BUDGETS:
                metrics.gauge(metric, *labels).clear()
        self._shown = shown

    def _update_alerts(self) -> None:
        stats, told = self._alerts.stats, self._told_alerts
        deliveries = self._metrics.counter
        deliveries(names.ALERT_DELIVERIES, "delivered").inc(stats.delivered - told.delivered)
        deliveries(names.ALERT_DELIVERIES, "failed").inc(stats.failed - told.failed)
        self._told_alerts = copy(stats)
