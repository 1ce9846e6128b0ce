"""Order statistics for rounds and latencies. Pure; every function refuses an empty sample."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the sample lies, linear between ranks. ValueError when empty."""
    if not values:
        raise ValueError("a percentile of nothing")
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} is outside 0..1")
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def median(values: Sequence[float]) -> float:
    """The middle of the sample."""
    return percentile(values, 0.5)


def spread_ratio(values: Sequence[float]) -> float:
    """(max - min) / median: how far rounds of one variant lie apart. Zero for a sample of one."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def paired_difference(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """The distances value - base, round by round. ValueError unless both have the same number of rounds."""
    return [value - other for value, other in zip(values, base, strict=True)]


def paired_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of value / base taken round by round, so that the machine's drift cancels.

    ValueError unless both have the same number of rounds and no base is zero.
    """
    if len(values) != len(base):
        raise ValueError(f"{len(values)} rounds cannot be paired with {len(base)}")
    if not all(base):
        raise ValueError("a base of zero has no ratio")
    return median([value / other for value, other in zip(values, base, strict=True)])
