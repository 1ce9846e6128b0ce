"""What a metric family is: its kind, labels and buckets, how workers' figures are joined, and how stable it is."""

from enum import StrEnum

from msgspec import Struct

from gateway.config.schema import Semconv


class Kind(StrEnum):
    """A Prometheus metric type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Stability(StrEnum):
    """What a user may rely on: stable names change only with a major version."""

    STABLE = "stable"
    EXPERIMENTAL = "experimental"


DEFAULT_MAX_SERIES = 2_000


class Across(StrEnum):
    """How one figure is made of several workers' gauges. Counters and histograms are always summed."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Metric(Struct, frozen=True, kw_only=True):
    """One metric family. `name` is as scraped, unit last; `buckets` are upper bounds of histograms."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    stability: Stability = Stability.STABLE
    across: Across = Across.SUM
    semconv: Semconv | None = None
    """The one generation of the GenAI conventions that has this family; None for the gateway's own."""
    exemplars: bool = False
    """Whether samples carry the trace id of a request that they count (OpenMetrics only)."""
    max_series: int = DEFAULT_MAX_SERIES
    """Label combinations kept apart; what comes after is counted under `_other`."""


DURATION_BUCKETS_S = tuple(round(0.01 * 2**i, 2) for i in range(16))
"""The convention's 14 (0.01 to 81.92), and two more for reasoning models."""
FIRST_CHUNK_BUCKETS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.01, 1.5, 2.5, 5.01, 7.5, 10.01, 20.01, 40.01,
)  # fmt: skip
"""Dense from 0.1 to 0.5 s, where p50 lives; no integer bounds, since Prometheus 3 rewrites those."""
CHUNK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.3, 0.75, 2.5)
OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.01)
TOKEN_BUCKETS = tuple(float(4**i) + 0.5 for i in range(14))
