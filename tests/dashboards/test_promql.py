"""The expression builder refuses what the catalogue does not have."""

import promql_parser
import pytest

from dashboards.promql import JOB, MODEL, CatalogueError, Source, is_, known, ratio, share
from gateway.telemetry import names

PLAIN = Source(window="5m")


def test_filters_fit_each_familys_labels() -> None:
    """One variable selects by whichever of its labels a family has, and is left out where it has none."""
    source = Source(filters=(JOB, MODEL))
    assert source.select(names.ATTEMPTS) == 'gateway_attempts_total{job=~"$job", model=~"$model"}'
    assert 'gen_ai_request_model=~"$model"' in source.select(names.OPERATION_DURATION, suffix="_count")
    assert source.select(names.REQUESTS) == 'gateway_requests_total{job=~"$job"}'


@pytest.mark.parametrize(
    "build",
    [
        lambda: PLAIN.rate(names.REQUESTS, by=("model",)),
        lambda: PLAIN.select(names.REQUESTS, is_("model", "x")),
        lambda: PLAIN.gauge(names.REQUESTS_IN_FLIGHT, by=("team",)),
        lambda: PLAIN.rate(names.REQUESTS_IN_FLIGHT),
        lambda: PLAIN.rate(names.OVERHEAD),
        lambda: PLAIN.gauge(names.REQUESTS),
        lambda: PLAIN.quantile(0.5, names.REQUESTS),
        lambda: PLAIN.above(2.4, names.TIME_TO_FIRST_CHUNK),
    ],
)
def test_what_the_catalogue_lacks_cannot_be_written(build: object) -> None:
    """A label, a part or a bucket bound that a family does not have is refused when the expression is made."""
    assert callable(build)
    with pytest.raises(CatalogueError):
        build()


def test_every_shape_is_promql() -> None:
    """What each builder writes is accepted by a PromQL parser."""
    for expr in (
        PLAIN.rate(names.REQUESTS, is_("outcome", "ok"), by=("route",)),
        PLAIN.increase(names.COST, window="1h", offset="1w"),
        PLAIN.quantile(0.99, names.OVERHEAD, by=("phase",)),
        PLAIN.mean(names.OVERHEAD),
        PLAIN.above(2.5, names.TIME_TO_FIRST_CHUNK),
        PLAIN.gauge(names.BUDGET_LIMIT, by=("budget",), fold="max", offset="2m"),
        PLAIN.gauge_over("delta", names.BUDGET_SPENT, window="6h"),
        known(ratio(PLAIN.rate(names.COST), PLAIN.rate(names.ATTEMPTS))),
        share(PLAIN.rate(names.REQUESTS, is_("outcome", "gateway")), PLAIN.rate(names.REQUESTS)),
    ):
        promql_parser.parse(expr)
