"""The sample traffic that the boards are looked at with covers the whole catalogue."""

import random

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dashboards.sample import Traffic, exposition
from gateway.telemetry.names import CATALOGUE


def test_every_family_has_values() -> None:
    """After ten minutes each family of the catalogue has samples, in OpenMetrics that the client's parser accepts."""
    traffic = Traffic(random.Random(1), fault_at=1_800_000_300.0)
    for step in range(20):
        traffic.advance(1_800_000_000.0 + 30 * step, 30)
    families = {family.name: family for family in text_string_to_metric_families(exposition(traffic))}
    for metric in CATALOGUE:
        assert families[metric.name.removesuffix("_total")].samples, metric.name


def test_the_same_seed_makes_the_same_traffic() -> None:
    """Two simulations with the same arguments agree in every number."""
    first, second = (Traffic(random.Random(3), fault_at=0.0) for _ in range(2))
    for traffic in (first, second):
        traffic.advance(1_800_000_000.0, 30)
    assert first.numbers == second.numbers
