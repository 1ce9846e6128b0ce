"""The catalogue's families on a prometheus_client registry, beside its collectors of the process and of Python."""

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as PrometheusFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PrometheusExemplar

from gateway.telemetry.cells import Exemplar
from gateway.telemetry.metric import Kind, Metric
from gateway.telemetry.readings import Families, Series


class CatalogueCollector(Collector):
    """Gives prometheus_client what `read` reads."""

    def __init__(self, read: Callable[[], Families]) -> None:
        self._read = read

    def collect(self) -> Iterator[PrometheusFamily]:
        """The families that have series."""
        for metric, found in self._read():
            name = metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name
            family = PrometheusFamily(name, metric.help, metric.kind.value)
            for labels, series in found:
                _add(family, metric, dict(zip(metric.labels, labels, strict=True)), series)
            yield family

    def describe(self) -> Iterator[PrometheusFamily]:
        """Nothing: the registry need not look for clashes in a catalogue of unique names."""
        return iter(())


def _add(family: PrometheusFamily, metric: Metric, labels: dict[str, str], series: Series) -> None:
    exemplars = [_exemplar(exemplar) for exemplar in series.exemplars]
    if metric.kind is not Kind.HISTOGRAM:
        family.add_sample(metric.name, labels, series.values[0], exemplar=exemplars[0] if exemplars else None)
        return
    total = 0.0
    counts = accumulate(series.values[1:])
    for index, (bound, total) in enumerate(zip([*map(str, metric.buckets), "+Inf"], counts, strict=True)):
        family.add_sample(
            f"{metric.name}_bucket", {**labels, "le": bound}, total, exemplar=exemplars[index] if exemplars else None
        )
    family.add_sample(f"{metric.name}_count", labels, total)
    family.add_sample(f"{metric.name}_sum", labels, series.values[0])


def _exemplar(exemplar: Exemplar | None) -> PrometheusExemplar | None:
    if exemplar is None:
        return None
    return PrometheusExemplar({"trace_id": f"{exemplar.trace_id:032x}"}, exemplar.value, exemplar.timestamp)


def process_registry() -> CollectorRegistry:
    """A registry of this process's own figures: process_*, python_info, python_gc_*."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
