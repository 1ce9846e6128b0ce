"""The money path's own state as metrics: budgets, ledger, prices. Read from the accounts, once a second."""

from gateway.spend.ledger import Accounts, LedgerStats
from gateway.telemetry import names
from gateway.telemetry.metrics import Metrics
from gateway.types.clock import Clock

_NANO = 1e9


class MoneySignals:
    """Copies what the accounts know into the metrics; the accounts stay the only source of truth."""

    def __init__(self, accounts: Accounts, metrics: Metrics, clock: Clock) -> None:
        self._accounts = accounts
        self._metrics = metrics
        self._clock = clock
        self._told = LedgerStats(pending=0, failed_commits=0, lost=0, orphans=0, duplicates=0)

    def update(self) -> None:
        """Bring every gauge and counter up to date."""
        metrics, accounts = self._metrics, self._accounts
        for state in accounts.budget_states():
            labels = (state.budget, state.scope, state.window)
            metrics.gauge(names.BUDGET_LIMIT, *labels).set(state.limit_nano_usd / _NANO)
            metrics.gauge(names.BUDGET_SPENT, *labels).set(state.spent_nano_usd / _NANO)
            metrics.gauge(names.BUDGET_HELD, *labels).set(state.held_nano_usd / _NANO)
            if state.resets_ns is not None:
                metrics.gauge(names.BUDGET_RESETS, *labels).set(state.resets_ns / _NANO)
        stats, told = accounts.stats(), self._told
        metrics.gauge(names.LEDGER_PENDING).set(stats.pending)
        metrics.counter(names.LEDGER_ERRORS).inc(stats.failed_commits + stats.lost - told.failed_commits - told.lost)
        metrics.counter(names.LEDGER_ORPHANS).inc(stats.orphans - told.orphans)
        metrics.gauge(names.PRICE_TABLE_AGE).set(accounts.prices.age_s(self._clock.now_ns()))
        self._told = stats
