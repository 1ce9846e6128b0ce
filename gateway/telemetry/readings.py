"""What a scrape or an export reads from blocks, and how the readings of several workers become one.

Counters and histograms are summed, and those of ended workers stay: no figure goes back when a worker dies. Gauges are
joined as the catalogue says (`Across`), and only those of workers that live count.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from gateway.telemetry.cells import EXEMPLAR_SLOTS, Block, Definition, Exemplar
from gateway.telemetry.metric import Across, Kind, Metric
from gateway.telemetry.names import EVERY_FAMILY

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in EVERY_FAMILY}


class Series(Struct):
    """One series as read: a counter's or gauge's value, or a histogram's sum and its counts by bound."""

    values: list[float]
    exemplars: Sequence[Exemplar | None] = ()
    """One a bucket, or one for a counter; empty for families that keep none."""


Reading = dict[str, dict[tuple[str, ...], Series]]
"""Series by family name and label values."""


Families = Iterator[tuple[Metric, Iterable[tuple[tuple[str, ...], Series]]]]
"""Families with their series, in the catalogue's order."""


def read(block: Block) -> Reading:
    """All series of one block that are to be seen."""
    reading: Reading = {}
    for definition in block.definitions():
        if _is_seen(block, definition):
            reading.setdefault(definition.family, {})[definition.labels] = _series(block, definition)
    return reading


def read_lazily(block: Block) -> Families:
    """The same, each series read when it is asked for: whoever reads many can let others work in between."""
    block.definitions()
    for metric in EVERY_FAMILY:
        # Series that come meanwhile are the next reader's.
        definitions = tuple(block.family(metric.name))
        if any(_is_seen(block, definition) for definition in definitions):
            yield (
                metric,
                ((each.labels, _series(block, each)) for each in definitions if _is_seen(block, each)),
            )


def families_of(reading: Reading) -> Families:
    """A reading in the catalogue's order."""
    for metric in EVERY_FAMILY:
        family = reading.get(metric.name)
        if family:
            yield metric, family.items()


def _is_seen(block: Block, definition: Definition) -> bool:
    # A gauge that was cleared is not.
    return not math.isnan(block.numbers[definition.slot])


def _series(block: Block, definition: Definition) -> Series:
    begin = definition.slot + definition.values
    return Series(
        list(block.numbers[definition.slot : begin]),
        tuple(block.exemplar(begin + n * EXEMPLAR_SLOTS) for n in range(definition.exemplars)),
    )


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
