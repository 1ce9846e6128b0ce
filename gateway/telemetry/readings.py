"""What a scrape or an export reads from blocks, and how the readings of several workers become one.

Counters and histograms are summed, and those of ended workers stay: no figure goes back when a worker dies. Gauges are
joined as the catalogue says (`Across`), and only those of workers that live count.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gateway.telemetry.cells import EXEMPLAR_SLOTS, Block, Exemplar
from gateway.telemetry.names import EVERY_FAMILY, Across, Kind, Metric

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in EVERY_FAMILY}


class Series(Struct):
    """One series as read: a counter's or gauge's value, or a histogram's sum and its counts by bound."""

    values: list[float]
    exemplars: Sequence[Exemplar | None] = ()
    """One a bucket, or one for a counter; empty for families that keep none."""


Reading = dict[str, dict[tuple[str, ...], Series]]
"""Series by family name and label values."""


def read(block: Block) -> Reading:
    """All series of one block that are to be seen."""
    numbers = block.numbers
    reading: Reading = {}
    for definition in block.definitions():
        first = definition.slot
        if math.isnan(numbers[first]):
            # A gauge that was cleared.
            continue
        begin = first + definition.values
        reading.setdefault(definition.family, {})[definition.labels] = Series(
            list(numbers[first:begin]),
            tuple(block.exemplar(begin + n * EXEMPLAR_SLOTS) for n in range(definition.exemplars)),
        )
    return reading


def without_gauges(reading: Reading) -> Reading:
    """What of an ended worker still counts."""
    return {name: family for name, family in reading.items() if BY_NAME[name].kind is not Kind.GAUGE}


def join(readings: Iterable[Reading]) -> Reading:
    """One reading of several."""
    joined: Reading = {}
    for reading in readings:
        for name, family in reading.items():
            metric = BY_NAME[name]
            into = joined.setdefault(name, {})
            for labels, series in family.items():
                there = into.get(labels)
                into[labels] = (
                    Series(list(series.values), series.exemplars) if there is None else _joined(metric, there, series)
                )
    return joined


def _joined(metric: Metric, a: Series, b: Series) -> Series:
    if metric.kind is Kind.GAUGE and metric.across is not Across.SUM:
        pick = max if metric.across is Across.MAX else min
        return Series([pick(x, y) for x, y in zip(a.values, b.values, strict=True)])
    return Series(
        [x + y for x, y in zip(a.values, b.values, strict=True)],
        [_newer(x, y) for x, y in zip(a.exemplars, b.exemplars, strict=True)],
    )


def _newer(a: Exemplar | None, b: Exemplar | None) -> Exemplar | None:
    if a is None or b is None:
        return a or b
    return a if a.timestamp >= b.timestamp else b
