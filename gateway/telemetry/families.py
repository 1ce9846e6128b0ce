"""The families of the catalogue over a block: series found once, and capped."""

from collections.abc import Callable

from gateway.telemetry.cells import Block, Counter, Gauge, Histogram
from gateway.telemetry.metric import Kind, Metric
from gateway.types.records import OTHER


class Family:
    """One family of the catalogue, with its series found once and capped."""

    def __init__(self, metric: Metric, block: Block, on_overflow: Callable[[str], None]) -> None:
        self.metric = metric
        self._block = block
        self._on_overflow = on_overflow
        self._series: dict[tuple[str, ...], Counter | Gauge | Histogram] = {}
        self._overflow: Counter | Gauge | Histogram | None = None

    def counter(self, *values: str) -> Counter:
        """The counter for these label values, in the catalogue's order."""
        series = self._find(values)
        assert isinstance(series, Counter), self.metric.name
        return series

    def gauge(self, *values: str) -> Gauge:
        """The gauge for these label values."""
        series = self._find(values)
        assert isinstance(series, Gauge), self.metric.name
        return series

    def histogram(self, *values: str) -> Histogram:
        """The histogram for these label values."""
        series = self._find(values)
        assert isinstance(series, Histogram), self.metric.name
        return series

    def _find(self, values: tuple[str, ...]) -> Counter | Gauge | Histogram:
        found = self._series.get(values)
        if found is not None:
            return found
        # An enum's member equals its text; what is kept and read by others is the text.
        labels = tuple(map(str, values))
        if len(labels) != len(self.metric.labels):
            raise ValueError(f"{self.metric.name} has the labels {self.metric.labels}, not {len(labels)} of them")
        made = self._make(labels) if len(self._series) < self.metric.max_series else None
        if made is not None:
            self._series[labels] = made
            return made
        self._on_overflow(self.metric.name)
        # Not kept under `values`: a flood of values must not fill this table either.
        if self._overflow is None:
            # Where even the block is full, what is counted here is not shown; the overflow counter tells of it.
            self._overflow = self._make((OTHER,) * len(labels)) or _cell(self.metric, Block.private(), 0)
        return self._overflow

    def _make(self, labels: tuple[str, ...]) -> Counter | Gauge | Histogram | None:
        metric = self.metric
        width = len(metric.buckets) + 2 if metric.kind is Kind.HISTOGRAM else 1
        exemplars = max(1, width - 1) if metric.exemplars else 0
        slot = self._block.define(metric.name, labels, width, exemplars)
        return None if slot is None else _cell(metric, self._block, slot)


def _cell(metric: Metric, block: Block, slot: int) -> Counter | Gauge | Histogram:
    match metric.kind:
        case Kind.COUNTER:
            return Counter(block, slot)
        case Kind.GAUGE:
            return Gauge(block, slot)
        case Kind.HISTOGRAM:
            return Histogram(block, slot, metric.buckets)
