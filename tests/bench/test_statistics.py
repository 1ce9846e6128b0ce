"""What the benchmark says of its rounds."""

from __future__ import annotations

import pytest

from bench.statistics import median, paired_difference, paired_ratio, percentile, spread_ratio


def test_percentile_is_linear_between_ranks() -> None:
    """Between two ranks the percentile moves in proportion, whatever the order of the sample."""
    assert percentile([40.0, 10.0, 30.0, 20.0], 0.5) == 25.0
    assert percentile([40.0, 10.0, 30.0, 20.0], 0.99) == pytest.approx(39.7)
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.01), ([1.0], -0.1)])
def test_percentile_refuses_what_has_none(values: list[float], share: float) -> None:
    """An empty sample and a share outside 0..1 are errors."""
    with pytest.raises(ValueError, match=r"nothing|outside"):
        percentile(values, share)


def test_spread_is_the_range_over_the_median() -> None:
    """The spread relates the distance of the extreme rounds to the middle one."""
    assert spread_ratio([90.0, 100.0, 120.0]) == pytest.approx(0.3)
    assert spread_ratio([5.0]) == 0.0


def test_pairing_cancels_a_machine_that_slows_down() -> None:
    """A variant that is always a tenth dearer shows as 1.1, though the rounds drift by far more."""
    base = [100.0, 150.0, 300.0]
    assert paired_ratio([value * 1.1 for value in base], base) == pytest.approx(1.1)
    assert median(base) == 150.0


def test_pairing_refuses_unequal_rounds() -> None:
    """Rounds that have no partner cannot be paired."""
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="zero"):
        paired_ratio([1.0], [0.0])


def test_differences_are_of_the_same_round() -> None:
    """Rounds are compared with those measured next to them; of unequal numbers there is no comparison."""
    assert paired_difference([5.0, 9.0], [4.0, 6.0]) == [1.0, 3.0]
    with pytest.raises(ValueError, match="longer"):
        paired_difference([5.0], [4.0, 6.0])
