"""The metrics sink: one pass over a finished record feeds every family of the catalogue that requests feed.

Children are cached by their label values, since finding one costs more than counting. Each family has a cap of label
combinations; what comes after goes to one overflow child and is counted.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from gateway.telemetry import names
from gateway.types.errors import Outcome
from gateway.types.records import OTHER, AttemptKind, AttemptRecord, Basis, RequestRecord
from gateway.types.route import Route
from gateway.types.usage import UsageSource

_M = TypeVar("_M", bound=MetricWrapperBase)


class Family:
    """One metric family of the catalogue, with its children cached and capped."""

    def __init__(self, metric: names.Metric, registry: CollectorRegistry, on_overflow: Callable[[str], None]) -> None:
        self.metric = metric
        self._on_overflow = on_overflow
        self._children: dict[tuple[str, ...], MetricWrapperBase] = {}
        self._wrapped = _make(metric, registry)

    def child(self, *values: str) -> "MetricWrapperBase":
        """The child for these label values, in the catalogue's order."""
        child = self._children.get(values)
        return child if child is not None else self._add(values)

    def _add(self, values: tuple[str, ...]) -> MetricWrapperBase:
        if not self.metric.labels:
            child = self._wrapped
        elif len(self._children) < self.metric.max_series:
            child = self._wrapped.labels(*values)
        else:
            self._on_overflow(self.metric.name)
            # Not cached under `values`: a flood of values must not fill this table either.
            return self._wrapped.labels(*(OTHER for _ in values))
        self._children[values] = child
        return child


def _make(metric: names.Metric, registry: CollectorRegistry) -> MetricWrapperBase:
    match metric.kind:
        case names.Kind.COUNTER:
            return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry)
        case names.Kind.GAUGE:
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)
        case names.Kind.HISTOGRAM:
            return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


class Metrics:
    """The families of the catalogue on one registry, and the sink that feeds them from records."""

    name = "metrics"

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._families = {metric.name: Family(metric, registry, self._overflowed) for metric in names.CATALOGUE}
        f = self._families
        self._requests = f[names.REQUESTS.name]
        self._duration = f[names.REQUEST_DURATION.name]
        self._overhead = f[names.OVERHEAD.name]
        self._in_flight = f[names.REQUESTS_IN_FLIGHT.name]
        self._operation = f[names.OPERATION_DURATION.name]
        self._first_chunk = f[names.TIME_TO_FIRST_CHUNK.name]
        self._per_chunk = f[names.TIME_PER_OUTPUT_CHUNK.name]
        self._token_usage = f[names.TOKEN_USAGE.name]
        self._attempts = f[names.ATTEMPTS.name]
        self._tokens = f[names.TOKENS.name]
        self._cost = f[names.COST.name]
        self._unpriced = f[names.UNPRICED_TOKENS.name]

    def counter(self, metric: names.Metric, *values: str) -> Counter:
        """A counter's child, for those who watch something else than requests."""
        return _typed(self._families[metric.name].child(*values), Counter)

    def gauge(self, metric: names.Metric, *values: str) -> Gauge:
        """A gauge's child."""
        return _typed(self._families[metric.name].child(*values), Gauge)

    def histogram(self, metric: names.Metric, *values: str) -> Histogram:
        """A histogram's child."""
        return _typed(self._families[metric.name].child(*values), Histogram)

    def _overflowed(self, family: str) -> None:
        self.counter(names.LABEL_OVERFLOW, family).inc()

    def prepare(self, routes: Mapping[str, Route]) -> None:
        """Start at 0 what matters: `increase()` cannot see the first sample of a new series."""
        for route in routes.values():
            self._in_flight.child(route.name)
            for outcome in Outcome:
                self._duration.child(route.name, route.route_type, outcome)
            self._requests.child(route.name, route.route_type, "default", Outcome.OK, "")
            for target in route.targets:
                self.gauge(names.CIRCUIT_STATE, target.provider, target.model)
                self._attempts.child(route.name, target.provider, target.model, AttemptKind.FIRST, Outcome.OK, "")
                for kind in ("input", "output"):
                    self._tokens.child(route.name, "default", target.provider, target.model, kind, UsageSource.PROVIDER)
        for reason in ("queue_full", "export_failed", "shutdown"):
            self.counter(names.SPANS_DROPPED, reason)
        for reason in ("queue_full", "write_failed", "shutdown"):
            self.counter(names.LOG_LINES_DROPPED, reason)

    # --- the in-flight gauge

    def enter(self, route: str) -> None:
        """A request of this route began."""
        self._in_flight.child(route).inc()  # type: ignore[attr-defined]

    def leave(self, route: str) -> None:
        """A request of this route ended."""
        self._in_flight.child(route).dec()  # type: ignore[attr-defined]

    # --- the sink

    def record(self, record: RequestRecord) -> None:
        """Count one finished request and its attempts."""
        route, route_type, outcome = record.route, record.route_type, record.outcome
        exemplar = {"trace_id": record.trace.trace_id_hex} if record.trace.sampled else None
        self._requests.child(route, route_type, record.caller.team, outcome, record.error_type or "").inc()  # type: ignore[attr-defined]
        self._duration.child(route, route_type, outcome).observe(record.duration_s, exemplar)  # type: ignore[attr-defined]
        if record.attempts:
            phases = record.phases
            overhead = self._overhead
            overhead.child(route, "total").observe(record.overhead_s)  # type: ignore[attr-defined]
            overhead.child(route, "admit").observe(phases.admit_s)  # type: ignore[attr-defined]
            overhead.child(route, "encode").observe(phases.encode_s)  # type: ignore[attr-defined]
            overhead.child(route, "settle").observe(phases.settle_s)  # type: ignore[attr-defined]
            for attempt in record.attempts:
                self._record_attempt(record, attempt, exemplar)

    def _record_attempt(self, record: RequestRecord, attempt: AttemptRecord, exemplar: dict[str, str] | None) -> None:
        route, provider, model = record.route, attempt.provider, attempt.request_model
        error_type = attempt.error_type or ""
        self._attempts.child(route, provider, model, attempt.kind, attempt.outcome, error_type).inc()  # type: ignore[attr-defined]
        labels = (
            attempt.operation.gen_ai_name,
            attempt.gen_ai_provider,
            model,
            attempt.response_model or "",
            attempt.server_address,
            error_type,
            route,
        )
        self._operation.child(*labels).observe(attempt.duration_s, exemplar)  # type: ignore[attr-defined]
        if attempt.first_chunk_s is not None:
            self._first_chunk.child(*labels).observe(attempt.first_chunk_s, exemplar)  # type: ignore[attr-defined]
            per_token_s = attempt.time_per_output_token_s
            if per_token_s is not None:
                self._per_chunk.child(*labels).observe(per_token_s)  # type: ignore[attr-defined]
        if attempt.usage is not None:
            self._record_usage(record, attempt, labels)
        self._record_cost(record, attempt, exemplar)

    def _record_usage(self, record: RequestRecord, attempt: AttemptRecord, labels: tuple[str, ...]) -> None:
        usage = attempt.usage
        assert usage is not None
        place = (record.route, record.caller.team, attempt.provider, attempt.request_model)
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if not tokens:
                continue
            self._tokens.child(*place, kind, usage.source).inc(tokens)  # type: ignore[attr-defined]
            if kind in ("input", "output") and usage.source is UsageSource.PROVIDER:
                self._token_usage.child(*labels, kind).observe(tokens)  # type: ignore[attr-defined]

    def _record_cost(self, record: RequestRecord, attempt: AttemptRecord, exemplar: dict[str, str] | None) -> None:
        cost = attempt.cost
        if cost is None:
            return
        if cost.nano_usd is None:
            tokens = attempt.usage.total_tokens if attempt.usage is not None else None
            self._unpriced.child(attempt.provider, attempt.request_model).inc(tokens or 0)  # type: ignore[attr-defined]
        elif cost.basis is not Basis.NOT_SENT:
            place = (record.route, record.caller.team, attempt.provider, attempt.request_model)
            self._cost.child(*place, cost.basis).inc(cost.nano_usd / 1e9, exemplar)  # type: ignore[attr-defined]


def _typed(child: MetricWrapperBase, kind: type[_M]) -> _M:
    if not isinstance(child, kind):
        raise TypeError(f"{child!r} is no {kind.__name__}")
    return child
