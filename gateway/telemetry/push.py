"""The metrics by OTLP: the same families, names and values as a scrape, pushed at an interval.

Read from the same blocks as the scrape, so that the two cannot disagree; where several workers count, their supervisor
pushes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator

from opentelemetry.sdk.metrics._internal.exemplar import Exemplar as SdkExemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as SdkMetric
from opentelemetry.sdk.resources import Resource

from gateway.telemetry.cells import Exemplar
from gateway.telemetry.metric import Kind, Metric
from gateway.telemetry.readings import BY_NAME, Reading, Series
from gateway.telemetry.spans import SCOPE

_LOG = logging.getLogger(__name__)
_CUMULATIVE = AggregationTemporality.CUMULATIVE


def metrics_data(reading: Reading, resource: Resource, start_ns: int, now_ns: int) -> MetricsData:
    """A reading in OTLP's data model; `start_ns` is when counting began."""
    metrics = [_metric(BY_NAME[name], family, start_ns, now_ns) for name, family in reading.items()]
    scope = ScopeMetrics(scope=SCOPE, metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _metric(metric: Metric, family: dict[tuple[str, ...], Series], start_ns: int, now_ns: int) -> SdkMetric:
    data: Sum | Gauge | Histogram
    labelled = [(dict(zip(metric.labels, labels, strict=True)), series) for labels, series in family.items()]
    if metric.kind is Kind.HISTOGRAM:
        data = Histogram(
            [_histogram_point(metric, labels, series, start_ns, now_ns) for labels, series in labelled], _CUMULATIVE
        )
    else:
        points = [
            NumberDataPoint(labels, start_ns, now_ns, series.values[0], list(_exemplars(series)))
            for labels, series in labelled
        ]
        data = Sum(points, _CUMULATIVE, is_monotonic=True) if metric.kind is Kind.COUNTER else Gauge(points)
    # No unit: a receiver would append it to names that already end in theirs.
    return SdkMetric(metric.name, metric.help, "", data)


def _histogram_point(
    metric: Metric, labels: dict[str, str], series: Series, start_ns: int, now_ns: int
) -> HistogramDataPoint:
    counts = [int(count) for count in series.values[1:]]
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=start_ns,
        time_unix_nano=now_ns,
        count=sum(counts),
        sum=series.values[0],
        bucket_counts=counts,
        explicit_bounds=metric.buckets,
        # Not known, and optional on the wire.
        min=None,  # type: ignore[arg-type]
        max=None,  # type: ignore[arg-type]
        exemplars=list(_exemplars(series)),
    )


def _exemplars(series: Series) -> Iterator[SdkExemplar]:
    for exemplar in series.exemplars:
        if exemplar is not None:
            yield _exemplar(exemplar)


def _exemplar(exemplar: Exemplar) -> SdkExemplar:
    # The encoder takes a trace id only together with a span id; 0 means that there is none.
    return SdkExemplar({}, exemplar.value, int(exemplar.timestamp * 1e9), span_id=0, trace_id=exemplar.trace_id)


class MetricsPush:
    """Exports a reading every `interval_s` seconds and once at the end, on its own thread.

    Args:
        read: the reading of the moment.
        on_error: told of each export that failed.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        exporter: MetricExporter,
        resource: Resource,
        interval_s: float,
        on_error: Callable[[], None],
    ) -> None:
        self._read = read
        self._exporter = exporter
        self._resource = resource
        self._interval_s = interval_s
        self._on_error = on_error
        self._start_ns = time.time_ns()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            data = metrics_data(self._read(), self._resource, self._start_ns, time.time_ns())
            if self._exporter.export(data) is not MetricExportResult.SUCCESS:
                self._on_error()
        except Exception:  # noqa: BLE001 - whatever a push does, the next one is made
            _LOG.warning("the metrics could not be exported", exc_info=True)
            self._on_error()

    def close(self, timeout_s: float) -> None:
        """Export once more, for at most `timeout_s` seconds."""
        self._ended.set()
        self._thread.join(timeout_s)
        # An export that still waits to be tried again gives up.
        self._exporter.shutdown()
