"""What counts as good, and when somebody is called: one set of numbers for the dashboards and for the alert rules."""

from msgspec import Struct

from gateway.types.errors import ErrorType, Outcome


class BurnWindow(Struct, frozen=True):
    """One line of a multi-window burn-rate alert.

    `factor` is how many times faster than allowed the error budget is spent; both windows must agree, so that the
    alert is quick to come and quick to go. Source: The Site Reliability Workbook, chapter 5.
    """

    factor: float
    long: str
    short: str
    severity: str
    hold: str


AVAILABILITY = 0.995
"""Share of requests that must not fail by the gateway's or a provider's fault, over 30 days."""
FIRST_CHUNK_S = 2.5
FIRST_CHUNK_SHARE = 0.95
"""Share of streams whose first chunk must come within FIRST_CHUNK_S, over 30 days."""
BURN_WINDOWS = (
    BurnWindow(14.4, "1h", "5m", "critical", "2m"),
    BurnWindow(6.0, "6h", "30m", "critical", "15m"),
    BurnWindow(1.0, "3d", "6h", "warning", "1h"),
)
MIN_REQUESTS_PER_S = 0.01
"""Below this traffic (36 requests an hour) one failure would burn days of budget: a ratio says nothing."""

VALID = (Outcome.OK, Outcome.PROVIDER, Outcome.GATEWAY)
"""Outcomes that count for availability: a caller's mistakes and policy refusals are not failures."""
FAILED = (Outcome.PROVIDER, Outcome.GATEWAY)
PROVIDER_FAULTS = tuple(error for error in ErrorType if error.outcome is Outcome.PROVIDER)

OVERHEAD_P99_S = 0.025
EVENT_LOOP_LAG_P99_S = 0.1
PROVIDER_ERROR_SHARE = 0.1
PROBED_WITHIN = "5m"
"""Longer than an open circuit waits for its next probe: in a shorter window a provider that is down has no attempts."""
PROVIDER_DOWN_SHARE = 0.5
RETRY_SHARE = 0.1
RATE_LIMITED_SHARE = 0.05

BUDGET_NOTICE = 0.8
BUDGET_EXHAUSTED = 1.0
BUDGET_PACE = 1.0
"""A forecast, in limits, at the end of the window: above 1 the budget ends before its window does."""
ANOMALY_FACTOR = 3.0
ANOMALY_FLOOR_USD_PER_H = 5.0
PRICE_TABLE_OLD_S = 30 * 86_400.0
UNPRICED_SHARE = 0.01
ESTIMATED_SHARE = 0.05

LEDGER_COMMIT_P99_S = 0.1
LEDGER_PENDING = 1_000.0
TELEMETRY_QUEUE = 1_500.0
OPEN_FDS_SHARE = 0.8
CPU_CORES = 0.9
"""One worker is one process with one event loop: a full core is its end."""
