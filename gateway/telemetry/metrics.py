"""The metrics sink: one pass over a finished record feeds every family of the catalogue that requests feed.

Finding a series costs more than counting in it, so the series of one kind of request, and of one kind of attempt, are
found together and kept. Each family has a cap of label combinations; what comes after goes to one overflow series and
is counted.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from gateway.config.schema import Semconv
from gateway.telemetry import names
from gateway.telemetry.cells import Block, Counter, Gauge, Histogram
from gateway.telemetry.families import Family
from gateway.telemetry.gen_ai_metrics import GENERATIONS, GenAiSeries, Generation
from gateway.telemetry.metric import Metric
from gateway.telemetry.readings import Families, Reading, read, read_lazily
from gateway.types.errors import Outcome
from gateway.types.records import OTHER, AttemptKind, AttemptRecord, Basis, Cost, RequestRecord
from gateway.types.route import Route
from gateway.types.usage import Usage, UsageSource

RESPONSE_MODELS = 16
"""How many names a target's replies may give its model before the next one is `_other`: providers choose them."""
_KEPT_KINDS = 8192

_S = TypeVar("_S")


class _RequestSeries:
    """The series that every request of one kind feeds."""

    __slots__ = ("admit", "caller_wait", "duration", "encode", "overhead", "requests", "settle")

    def __init__(self, families: Mapping[str, Family], record: RequestRecord) -> None:
        route, outcome = record.route, record.outcome
        self.requests = families[names.REQUESTS.name].counter(
            route, record.route_type, record.caller.team, outcome, record.error_type or ""
        )
        self.duration = families[names.REQUEST_DURATION.name].histogram(route, record.route_type, outcome)
        self.caller_wait = families[names.CALLER_WAIT.name].histogram(route)
        if record.attempts:
            overhead = families[names.OVERHEAD.name].histogram
            self.overhead, self.admit = overhead(route, "total"), overhead(route, "admit")
            self.encode, self.settle = overhead(route, "encode"), overhead(route, "settle")


class _AttemptSeries:
    """The series that every attempt of one kind feeds. What only some of them feed is found when first needed."""

    __slots__ = (
        "_caching", "_costs", "_families", "_phases", "_place", "_target", "_tokens", "_unpriced", "attempts", "gen_ai",
    )  # fmt: skip

    def __init__(
        self,
        families: Mapping[str, Family],
        generations: tuple[Generation, ...],
        record: RequestRecord,
        attempt: AttemptRecord,
        response_model: str,
    ) -> None:
        route, provider, model = record.route, attempt.provider, attempt.request_model
        error_type = attempt.error_type or ""
        self._families = families
        labels = (
            attempt.operation.gen_ai_name,
            attempt.gen_ai_provider,
            model,
            response_model,
            attempt.server_address,
            str(attempt.server_port),
            error_type,
            route,
        )
        self.gen_ai = tuple(GenAiSeries(generation, families, labels) for generation in generations)
        self._target = (route, provider, model)
        self._place = (route, record.caller.team, provider, model)
        self.attempts = families[names.ATTEMPTS.name].counter(
            route, provider, model, attempt.kind, attempt.outcome, error_type
        )
        self._phases: dict[str, Histogram] = {}
        self._unpriced: Counter | None = None
        self._tokens: dict[tuple[str, UsageSource], Counter] = {}
        self._costs: dict[Basis, Counter] = {}
        self._caching: dict[str, Counter] = {}

    def add_phase(self, phase: str, seconds: float) -> None:
        """Observe one of the attempt's phases."""
        histogram = self._phases.get(phase)
        if histogram is None:
            histogram = self._families[names.ATTEMPT_PHASE.name].histogram(*self._target, phase)
            self._phases[phase] = histogram
        histogram.observe(seconds)

    def add_tokens(self, kind: str, source: UsageSource, tokens: int) -> None:
        """Count tokens of one kind."""
        counter = self._tokens.get((kind, source))
        if counter is None:
            counter = self._families[names.TOKENS.name].counter(*self._place, kind, source)
            self._tokens[kind, source] = counter
        counter.inc(tokens)

    def record_cost(self, cost: Cost, usage: Usage | None, trace_id: int) -> None:
        """Count money, or the tokens that have no price."""
        if cost.nano_usd is None:
            if self._unpriced is None:
                _, provider, model = self._target
                self._unpriced = self._families[names.UNPRICED_TOKENS.name].counter(provider, model)
            self._unpriced.inc((usage.total_tokens if usage is not None else None) or 0)
        elif cost.basis is not Basis.NOT_SENT:
            counter = self._costs.get(cost.basis)
            if counter is None:
                counter = self._families[names.COST.name].counter(*self._place, cost.basis)
                self._costs[cost.basis] = counter
            counter.inc(cost.nano_usd / 1e9, trace_id)
            if cost.cache_saved_nano_usd:
                self._cache(names.CACHE_SAVED, cost.cache_saved_nano_usd)
            if cost.cache_surcharge_nano_usd:
                self._cache(names.CACHE_SURCHARGE, cost.cache_surcharge_nano_usd)
            for part in cost.unpriced:
                self._families[names.UNPRICED_PARTS.name].counter(*self._target[1:], part).inc()

    def _cache(self, metric: Metric, nano_usd: int) -> None:
        counter = self._caching.get(metric.name)
        if counter is None:
            counter = self._caching[metric.name] = self._families[metric.name].counter(*self._place)
        counter.inc(nano_usd / 1e9)


class Metrics:
    """The families of the catalogue over one block, and the sink that feeds them from records."""

    name = "metrics"

    def __init__(self, block: Block, semconv: Semconv = Semconv.V1_41) -> None:
        self.block = block
        self._generations = GENERATIONS[semconv]
        self._families = {metric.name: Family(metric, block, self._overflowed) for metric in names.EVERY_FAMILY}
        self._in_flight = self._families[names.REQUESTS_IN_FLIGHT.name]
        self._requests: dict[tuple[object, ...], _RequestSeries] = {}
        self._attempts: dict[tuple[object, ...], _AttemptSeries] = {}
        self._response_models: dict[tuple[str, str], set[str]] = {}
        self._watched: list[Callable[[], None]] = []

    def counter(self, metric: Metric, *values: str) -> Counter:
        """A counter, for those who watch something else than requests. Any thread may count."""
        return self._families[metric.name].counter(*values)

    def gauge(self, metric: Metric, *values: str) -> Gauge:
        """A gauge."""
        return self._families[metric.name].gauge(*values)

    def histogram(self, metric: Metric, *values: str) -> Histogram:
        """A histogram; one thread observes one series."""
        return self._families[metric.name].histogram(*values)

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Ask `value` for the gauge's value at every refresh."""
        self.on_refresh(lambda: gauge.set(value()))

    def on_refresh(self, update: Callable[[], None]) -> None:
        """Call `update` at every refresh."""
        self._watched.append(update)

    def refresh(self) -> None:
        """Bring the watched gauges up to date, before a scrape and twice a second for those who read the block."""
        for update in self._watched:
            update()

    def read(self) -> Reading:
        """All series as they are now."""
        self.refresh()
        return read(self.block)

    def families(self) -> Families:
        """The same, read bit by bit."""
        self.refresh()
        return read_lazily(self.block)

    def _overflowed(self, family: str) -> None:
        self.counter(names.LABEL_OVERFLOW, family).inc()

    def prepare(self, routes: Mapping[str, Route]) -> None:
        """Start at 0 what matters: `increase()` cannot see the first sample of a new series."""
        families = self._families
        for route in routes.values():
            self._in_flight.gauge(route.name)
            for outcome in Outcome:
                families[names.REQUEST_DURATION.name].histogram(route.name, route.route_type, outcome)
            self.counter(names.REQUESTS, route.name, route.route_type, "default", Outcome.OK, "")
            for target in route.targets:
                place = (route.name, target.provider, target.model)
                self.gauge(names.CIRCUIT_STATE, target.provider, target.model)
                self.counter(names.ATTEMPTS, *place, AttemptKind.FIRST, Outcome.OK, "")
                for kind in ("input", "output"):
                    self.counter(
                        names.TOKENS, route.name, "default", target.provider, target.model, kind, UsageSource.PROVIDER
                    )
        for reason in ("queue_full", "export_failed", "shutdown"):
            self.counter(names.SPANS_DROPPED, reason)
        for reason in ("queue_full", "write_failed", "shutdown"):
            self.counter(names.LOG_LINES_DROPPED, "log", reason)

    # --- the in-flight gauge

    def enter(self, route: str) -> None:
        """A request of this route began."""
        self._in_flight.gauge(route).inc()

    def leave(self, route: str) -> None:
        """A request of this route ended."""
        self._in_flight.gauge(route).dec()

    # --- the sink

    def record(self, record: RequestRecord) -> None:
        """Count one finished request and its attempts."""
        # Families of requests need no more than this to know their series, and most requests are alike in it.
        kind = (
            record.route, record.route_type, record.caller.team, record.error_type, record.outcome, not record.attempts
        )  # fmt: skip
        series = self._requests.get(kind)
        if series is None:
            series = _kept(self._requests, kind, _RequestSeries(self._families, record))
        trace_id = record.trace.trace_id if record.trace.sampled else 0
        now = record.end_ns / 1e9
        phases = record.phases
        series.requests.inc()
        series.duration.observe(record.duration_s, trace_id, now)
        series.caller_wait.observe(phases.caller_s)
        if record.attempts:
            series.overhead.observe(record.overhead_s)
            series.admit.observe(phases.admit_s)
            series.encode.observe(phases.encode_s)
            series.settle.observe(phases.settle_s)
            for attempt in record.attempts:
                self._record_attempt(record, attempt, trace_id, now)

    def _record_attempt(self, record: RequestRecord, attempt: AttemptRecord, trace_id: int, now: float) -> None:
        response_model = self._response_model(attempt)
        kind = (
            record.route, record.caller.team, attempt.provider, attempt.request_model, response_model,
            attempt.server_address, attempt.server_port, attempt.kind, attempt.operation, attempt.error_type,
        )  # fmt: skip
        series = self._attempts.get(kind)
        if series is None:
            made = _AttemptSeries(self._families, self._generations, record, attempt, response_model)
            series = _kept(self._attempts, kind, made)
        series.attempts.inc()
        for gen_ai in series.gen_ai:
            gen_ai.record(attempt, trace_id, now)
        if attempt.connect_s is not None:
            series.add_phase("connect", attempt.connect_s)
        if attempt.first_byte_s is not None:
            series.add_phase("first_byte", attempt.first_byte_s)
            if attempt.first_chunk_s is not None:
                series.add_phase("first_chunk", attempt.first_chunk_s - attempt.first_byte_s)
        if attempt.first_chunk_s is not None and attempt.last_chunk_s is not None:
            series.add_phase("stream", attempt.last_chunk_s - attempt.first_chunk_s)
        usage = attempt.usage
        if usage is not None:
            for name, tokens in (
                ("input", usage.input_tokens),
                ("output", usage.output_tokens),
                ("cache_read", usage.cache_read_tokens),
                ("cache_write", usage.cache_write_tokens),
                ("reasoning", usage.reasoning_tokens),
            ):
                if tokens:
                    series.add_tokens(name, usage.source, tokens)
        if attempt.cost is not None:
            series.record_cost(attempt.cost, usage, trace_id)

    def _response_model(self, attempt: AttemptRecord) -> str:
        model = attempt.response_model
        if not model:
            return ""
        target = (attempt.provider, attempt.request_model)
        known = self._response_models.get(target)
        if known is None:
            known = self._response_models[target] = set()
        if model in known:
            return model
        if len(known) >= RESPONSE_MODELS:
            return OTHER
        known.add(model)
        return model


def _kept(table: dict[tuple[object, ...], _S], kind: tuple[object, ...], series: _S) -> _S:
    if len(table) >= _KEPT_KINDS:
        table.clear()
    table[kind] = series
    return series
