"""A reading as Prometheus text: OpenMetrics 1.0 with exemplars, or the older text format, which has none.

Rendered in pieces, so that a scrape of many thousand series can let requests go on between two of them.

Source: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from collections.abc import Iterator
from itertools import accumulate

from gateway.telemetry.cells import Exemplar
from gateway.telemetry.metric import Kind, Metric
from gateway.telemetry.readings import Families, Series

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_PIECE_LINES = 50


def render(families: Families, *, openmetrics: bool) -> Iterator[str]:
    """The families' text, in pieces of some hundred lines, without an end mark."""
    lines: list[str] = []
    for metric, family in families:
        lines.append(_header(metric, openmetrics=openmetrics))
        for labels, series in family:
            lines += _lines(metric, labels, series, openmetrics=openmetrics)
            if len(lines) >= _PIECE_LINES:
                yield "".join(lines)
                lines.clear()
    yield "".join(lines)


def number(value: float) -> str:
    """A sample's value as both formats spell it."""
    if value == float("inf"):
        return "+Inf"
    return repr(value)


def _header(metric: Metric, *, openmetrics: bool) -> str:
    # OpenMetrics names a counter's family without the suffix of its sample.
    name = metric.name.removesuffix("_total") if openmetrics and metric.kind is Kind.COUNTER else metric.name
    unit = f"# UNIT {name} {metric.unit}\n" if openmetrics and metric.unit and name.endswith(f"_{metric.unit}") else ""
    return f"# HELP {name} {metric.help.translate(_HELP_ESCAPES)}\n# TYPE {name} {metric.kind}\n{unit}"


def _lines(metric: Metric, labels: tuple[str, ...], series: Series, *, openmetrics: bool) -> list[str]:
    pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(metric.labels, labels, strict=True)]
    inside = ",".join(pairs)
    braces = f"{{{inside}}}" if inside else ""
    exemplars = series.exemplars if openmetrics else ()
    if metric.kind is not Kind.HISTOGRAM:
        return [f"{metric.name}{braces} {number(series.values[0])}{_exemplar(exemplars[0] if exemplars else None)}\n"]
    begin = f'{metric.name}_bucket{{{inside}{"," if inside else ""}le="'
    counts = list(accumulate(series.values[1:]))
    bounds = [*map(str, metric.buckets), "+Inf"]
    if any(exemplars):
        ends = [_exemplar(exemplar) for exemplar in exemplars]
        lines = [f'{begin}{bound}"}} {count}{end}\n' for bound, count, end in zip(bounds, counts, ends, strict=True)]
    else:
        lines = [f'{begin}{bound}"}} {count}\n' for bound, count in zip(bounds, counts, strict=True)]
    lines.append(f"{metric.name}_count{braces} {counts[-1]}\n")
    lines.append(f"{metric.name}_sum{braces} {number(series.values[0])}\n")
    return lines


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    return f' # {{trace_id="{exemplar.trace_id:032x}"}} {number(exemplar.value)} {exemplar.timestamp:.3f}'
