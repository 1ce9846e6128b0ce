"""PromQL made from the catalogue: a metric or a label that the gateway does not emit cannot be written down.

`Source` turns catalogue families into expressions. Dashboards use one with template variables as matchers, rules use
one without. What the catalogue does not own (Prometheus's and Alertmanager's own series) is listed in `FOREIGN`.
"""

from collections.abc import Iterable

from msgspec import Struct

from gateway.telemetry.metric import Kind, Metric
from gateway.telemetry.names import BUILD_INFO

RATE_INTERVAL = "$__rate_interval"
RANGE = "$__range"
TARGET_LABELS = ("job", "instance")
"""What Prometheus adds to every scraped series."""


class CatalogueError(ValueError):
    """An expression names a label, or uses a family, in a way that the catalogue does not allow."""


class Match(Struct, frozen=True):
    """One label matcher. `op` is one of `=`, `!=`, `=~`, `!~`."""

    label: str
    op: str
    value: str

    def __str__(self) -> str:
        return f'{self.label}{self.op}"{self.value}"'


def is_(label: str, value: str) -> Match:
    """The label has exactly this value."""
    return Match(label, "=", value)


def is_not(label: str, value: str) -> Match:
    """The label has another value than this."""
    return Match(label, "!=", value)


def one_of(label: str, values: Iterable[str]) -> Match:
    """The label has one of these values, none of which may hold regular expression syntax."""
    return Match(label, "=~", "|".join(values))


class Filter(Struct, frozen=True):
    """A template variable, and the labels it selects by: the first one that a family has."""

    variable: str
    labels: tuple[str, ...]


JOB = Filter("job", ("job",))
INSTANCE = Filter("instance", ("instance",))
ROUTE = Filter("route", ("route",))
TEAM = Filter("team", ("team",))
PROVIDER = Filter("provider", ("provider",))
GEN_AI_PROVIDER = Filter("gen_ai_provider", ("gen_ai_provider_name",))
"""Another variable than PROVIDER: the conventions' names differ from the configured ones (mistral_ai, mistral)."""
MODEL = Filter("model", ("model", "gen_ai_request_model"))
BUDGET = Filter("budget", ("budget",))


class Foreign(Struct, frozen=True):
    """A series that others than the gateway emit, with the labels that may be used of it.

    `of_targets` says that every scraped target has it, not the gateway alone: then only gateways are looked at.
    """

    name: str
    labels: tuple[str, ...] = ()
    of_targets: bool = True


_OF_ALERTS = ("alertname", "severity", "service", "team", "route", "provider", "budget")
ALERTS = Foreign("ALERTS", ("alertstate", *_OF_ALERTS), of_targets=False)
ALERTS_SINCE = Foreign("ALERTS_FOR_STATE", _OF_ALERTS, of_targets=False)
"""When each alert that is pending or fires became active, in seconds since the epoch."""
UP = Foreign("up")
SAMPLES_SCRAPED = Foreign("scrape_samples_scraped")
PROCESS_CPU = Foreign("process_cpu_seconds_total")
PROCESS_MEMORY = Foreign("process_resident_memory_bytes")
PROCESS_OPEN_FDS = Foreign("process_open_fds")
PROCESS_MAX_FDS = Foreign("process_max_fds")
PROCESS_START = Foreign("process_start_time_seconds")
FOREIGN = (
    ALERTS, ALERTS_SINCE, UP, SAMPLES_SCRAPED, PROCESS_CPU, PROCESS_MEMORY, PROCESS_OPEN_FDS, PROCESS_MAX_FDS, PROCESS_START,
)  # fmt: skip
Family = Metric | Foreign


class Source(Struct, frozen=True):
    """Writes expressions over catalogue families, each narrowed by the filters that fit its labels.

    `window` is the range of rates: `$__rate_interval` on dashboards, a fixed one such as `5m` in rules.
    """

    filters: tuple[Filter, ...] = ()
    window: str = RATE_INTERVAL

    def select(self, family: Family, *where: Match, suffix: str = "") -> str:
        """A vector selector, such as `gateway_requests_total{job=~"$job", outcome="ok"}`.

        Raises:
            CatalogueError: when `where` names a label that the family does not have.
        """
        labels = _labels(family, suffix)
        for match in where:
            _check_label(family, labels, match.label)
        matchers = [*self._filters(labels), *where]
        inner = ", ".join(str(match) for match in matchers)
        return f"{family.name}{suffix}{{{inner}}}" if inner else f"{family.name}{suffix}"

    def rate(self, family: Family, *where: Match, by: tuple[str, ...] = (), suffix: str = "", window: str = "") -> str:
        """Events a second, summed by labels. `suffix` is `_count`, `_sum` or `_bucket` for a histogram.

        Raises:
            CatalogueError: for a gauge, or for a label that the family does not have.
        """
        _check_counts(family, suffix)
        inner = self._over("rate", family, where, suffix, window or self.window)
        return _sum(self._of_gateways(family, inner), family, by, suffix)

    def increase(
        self,
        family: Family,
        *where: Match,
        by: tuple[str, ...] = (),
        suffix: str = "",
        window: str = RANGE,
        offset: str = "",
    ) -> str:
        """Events within a window (the shown time range by default) that ended `offset` ago, summed by labels.

        Raises:
            CatalogueError: for a gauge, or for a label that the family does not have.
        """
        _check_counts(family, suffix)
        return _sum(self._over("increase", family, where, suffix, window, offset), family, by, suffix)

    def quantile(self, q: float, family: Metric, *where: Match, by: tuple[str, ...] = (), window: str = "") -> str:
        """The q-quantile (0 to 1) of a histogram, in the family's unit.

        Raises:
            CatalogueError: for a family that is no histogram, or for a label that it does not have.
        """
        buckets = self.rate(family, *where, by=("le", *by), suffix="_bucket", window=window)
        return f"histogram_quantile({q:g}, {buckets})"

    def mean(self, family: Metric, *where: Match, by: tuple[str, ...] = ()) -> str:
        """The mean of a histogram's observations, in the family's unit; absent where there are none."""
        total = self.rate(family, *where, by=by, suffix="_sum")
        return f"{total} / ({self.rate(family, *where, by=by, suffix='_count')} > 0)"

    def above(self, bound: float, family: Metric, *where: Match, by: tuple[str, ...] = (), window: str = "") -> str:
        """The share (0 to 1) of a histogram's observations that are above one of its bucket bounds.

        Raises:
            CatalogueError: when the bound is no bucket bound of the family.
        """
        if bound not in family.buckets:
            raise CatalogueError(f"{family.name} has no bucket {bound:g}")
        below = self.rate(family, *where, is_("le", f"{bound}"), by=by, suffix="_bucket", window=window)
        return f"1 - {below} / ({self.rate(family, *where, by=by, suffix='_count', window=window)} > 0)"

    def gauge(self, family: Family, *where: Match, by: tuple[str, ...] = (), fold: str = "", offset: str = "") -> str:
        """A gauge now (or `offset` ago), folded by labels: as the catalogue says, unless `fold` says otherwise.

        Raises:
            CatalogueError: for a counter or histogram, or for a label that the family does not have.
        """
        _check_gauge(family, by)
        then = f" offset {offset}" if offset else ""
        inner = self._of_gateways(family, f"{self.select(family, *where)}{then}")
        return f"{fold or _fold(family)}{_by(by)} ({inner})"

    def gauge_over(
        self, function: str, family: Family, *where: Match, window: str, by: tuple[str, ...] = (), fold: str = ""
    ) -> str:
        """A gauge's history in a window by a range function such as `delta` or `changes`, folded by labels.

        Raises:
            CatalogueError: for a counter or histogram, or for a label that the family does not have.
        """
        _check_gauge(family, by)
        return f"{fold or _fold(family)}{_by(by)} ({self._over(function, family, where, '', window)})"

    def first_seen(self, family: Family, *where: Match, window: str, by: tuple[str, ...] = ()) -> str:
        """When a gauge's oldest sample in a window was taken, to the minute, in seconds since the epoch.

        Raises:
            CatalogueError: for a counter or histogram, or for a label that the family does not have.
        """
        _check_gauge(family, by)
        return f"min{_by(by)} (min_over_time(timestamp({self.select(family, *where)})[{window}:1m]))"

    def zero(self) -> str:
        """0 as long as a gateway is scraped, for what has no series before it first happens."""
        return f"0 * {self.gauge(BUILD_INFO, fold='count')}"

    def _over(
        self, function: str, family: Family, where: tuple[Match, ...], suffix: str, window: str, offset: str = ""
    ) -> str:
        then = f" offset {offset}" if offset else ""
        return f"{function}({self.select(family, *where, suffix=suffix)}[{window}]{then})"

    def _of_gateways(self, family: Family, inner: str) -> str:
        if isinstance(family, Metric) or not family.of_targets:
            return inner
        return f"{inner} and on (job, instance) {self.select(BUILD_INFO)}"

    def _filters(self, labels: tuple[str, ...]) -> list[Match]:
        found = [(one, next((label for label in one.labels if label in labels), None)) for one in self.filters]
        return [Match(label, "=~", f"${one.variable}") for one, label in found if label is not None]


def ratio(part: str, whole: str) -> str:
    """`part / whole`, absent (rather than NaN) where the whole is zero."""
    return f"{part} / ({whole} > 0)"


def share(part: str, whole: str) -> str:
    """`part / whole` where a part without series is truly zero as long as the whole is not: counters of refusals and
    failures appear with their first event.
    """
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def known(expr: str) -> str:
    """The expression without the NaN of an empty histogram; for values that are never negative."""
    return f"({expr}) >= 0"


def _by(by: tuple[str, ...]) -> str:
    return f" by ({', '.join(by)})" if by else ""


def _sum(inner: str, family: Family, by: tuple[str, ...], suffix: str) -> str:
    labels = _labels(family, suffix)
    for label in by:
        _check_label(family, labels, label)
    return f"sum{_by(by)} ({inner})"


def _labels(family: Family, suffix: str) -> tuple[str, ...]:
    extra = ("le",) if suffix == "_bucket" else ()
    return (*family.labels, *TARGET_LABELS, *extra)


def _check_label(family: Family, labels: tuple[str, ...], label: str) -> None:
    if label not in labels:
        raise CatalogueError(f"{family.name} has no label {label!r}; it has {', '.join(labels)}")


def _fold(family: Family) -> str:
    return family.across.value if isinstance(family, Metric) else "sum"


def _check_gauge(family: Family, by: tuple[str, ...]) -> None:
    if isinstance(family, Metric) and family.kind is not Kind.GAUGE:
        raise CatalogueError(f"{family.name} is a {family.kind.value}, not a gauge")
    for label in by:
        _check_label(family, _labels(family, ""), label)


def _check_counts(family: Family, suffix: str) -> None:
    if isinstance(family, Foreign):
        return
    suffixes = {Kind.COUNTER: ("",), Kind.HISTOGRAM: ("_bucket", "_count", "_sum"), Kind.GAUGE: ()}[family.kind]
    if suffix not in suffixes:
        raise CatalogueError(f"{family.name}{suffix}: a rate is not defined for this part of a {family.kind.value}")
