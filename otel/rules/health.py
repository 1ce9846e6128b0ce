"""Alerts about providers, about the gateway's process, and about its telemetry and ledger."""

from dashboards import thresholds
from dashboards.phases import PARTS
from dashboards.promql import UP, Match, Source, is_, ratio
from gateway.telemetry import names
from gateway.telemetry.metric import Metric
from gateway.types.errors import ErrorType, Outcome
from otel.rules.model import Alert, Group, Severity

OF = Source(window="5m")
JOB = "gaugeway"
"""The scrape job's name. Jobs such as `team-gaugeway` and `gaugeway-prod` count as well: a Helm release makes either."""
_PHASE = ("job", "instance", "phase")


def _provider_share(match: Match, window: str, limit: float) -> str:
    by = ("job", "provider")
    attempts = OF.rate(names.ATTEMPTS, by=by, window=window)
    part = OF.rate(names.ATTEMPTS, match, by=by, window=window)
    return f"{ratio(part, attempts)} > {limit:g} and {attempts} > {thresholds.MIN_REQUESTS_PER_S:g}"


def _open_circuit() -> str:
    """An open circuit leaves too few attempts for a share to mean anything; without any, nobody asks for the provider."""
    by = ("job", "provider")
    spared = OF.gauge_over("min_over_time", names.CIRCUIT_STATE, window="1m", by=by, fold="max")
    return f"{spared} > 0 and {OF.increase(names.ATTEMPTS, is_('outcome', Outcome.PROVIDER), by=by, window='10m')} > 0"


def _counted(family: Metric, window: str = "10m", by: tuple[str, ...] = ("job", "instance")) -> str:
    return f"{OF.increase(family, by=by, window=window)} > 0"


PROVIDERS = Group(
    name="gaugeway-providers",
    rules=(
        Alert(
            name="GaugewayProviderDown",
            expr=(
                f"{_provider_share(is_('outcome', Outcome.PROVIDER), '5m', thresholds.PROVIDER_DOWN_SHARE)} "
                f"or {_open_circuit()}"
            ),
            hold="3m",
            severity=Severity.CRITICAL,
            summary="Provider [[provider]] is down",
            description=(
                "Most attempts at [[provider]] end by its fault, or a circuit to it stays open. Routes with a fallback are "
                "served by the next target; the others fail."
            ),
            dashboard="gaugeway-providers",
        ),
        Alert(
            name="GaugewayProviderFailing",
            expr=_provider_share(is_("outcome", Outcome.PROVIDER), "30m", thresholds.PROVIDER_ERROR_SHARE),
            hold="10m",
            severity=Severity.WARNING,
            summary="Provider [[provider]] fails [[value:percent]] of attempts",
            description="For half an hour, [[value:percent]] of the attempts at [[provider]] ended by its fault.",
            dashboard="gaugeway-providers",
        ),
        Alert(
            name="GaugewayProviderRateLimited",
            expr=_provider_share(
                is_("error_type", ErrorType.PROVIDER_RATE_LIMITED), "15m", thresholds.RATE_LIMITED_SHARE
            ),
            hold="10m",
            severity=Severity.WARNING,
            summary="Provider [[provider]] refuses [[value:percent]] of attempts for its rate limit",
            description="[[value:percent]] of the attempts at [[provider]] got a 429 in the last 15 minutes.",
            dashboard="gaugeway-providers",
        ),
    ),
)

PROCESS = Group(
    name="gaugeway-process",
    rules=(
        Alert(
            name="GaugewayDown",
            expr=f"{OF.select(UP, Match('job', '=~', f'(.+-)?{JOB}(-.+)?'))} == 0",
            hold="2m",
            severity=Severity.CRITICAL,
            summary="[[instance]] cannot be scraped",
            description="Prometheus has not reached the metrics of [[instance]] ([[job]]) for two minutes.",
            dashboard="gaugeway-gateway",
        ),
        Alert(
            name="GaugewayReloadFailed",
            expr=f"{OF.gauge(names.CONFIG_RELOAD_SUCCESSFUL, by=('job', 'instance'))} == 0",
            hold="2m",
            severity=Severity.WARNING,
            summary="[[instance]] refused its new configuration",
            description="[[instance]] serves the previous configuration, since the new one was refused.",
            dashboard="gaugeway-gateway",
        ),
        Alert(
            # By phase and not in all: the pieces of a stream add up, so a long one has much without being slow.
            name="GaugewayOverheadHigh",
            expr=(
                f"{OF.quantile(0.99, names.OVERHEAD, PARTS, by=_PHASE)} > {thresholds.OVERHEAD_P99_S:g} and "
                f"{OF.rate(names.OVERHEAD, PARTS, by=_PHASE, suffix='_count')} > {thresholds.MIN_REQUESTS_PER_S:g}"
            ),
            hold="10m",
            severity=Severity.WARNING,
            summary="[[instance]] takes [[value:duration]] to [[phase]] (p99)",
            description="One in a hundred requests waits more than [[value:duration]] for the gateway to [[phase]] it.",
            dashboard="gaugeway-gateway",
        ),
        Alert(
            name="GaugewayEventLoopLag",
            expr=(
                f"{OF.quantile(0.99, names.EVENT_LOOP_LAG, by=('job', 'instance'))} "
                f"> {thresholds.EVENT_LOOP_LAG_P99_S:g}"
            ),
            hold="10m",
            severity=Severity.WARNING,
            summary="The event loop of [[instance]] runs [[value:duration]] late (p99)",
            description="Timers of [[instance]] run [[value:duration]] late: streams stutter and time-outs fire late.",
            dashboard="gaugeway-gateway",
        ),
        Alert(
            name="GaugewayTelemetryLost",
            expr=" or ".join(
                f'label_replace({_counted(family)}, "signal", "{signal}", "", "")'
                for family, signal in (
                    (names.SPANS_DROPPED, "spans"),
                    (names.LOG_LINES_DROPPED, "log lines"),
                    (names.SINK_ERRORS, "records"),
                    (names.EXPORT_ERRORS, "batches"),
                    (names.MESSAGES_DROPPED, "messages"),
                )
            ),
            hold="5m",
            severity=Severity.WARNING,
            summary="[[instance]] loses [[signal]]",
            description="[[instance]] has lost [[value:count]] [[signal]] in ten minutes. Metrics and spend are complete.",
            dashboard="gaugeway-gateway",
        ),
        Alert(
            name="GaugewayLabelOverflow",
            expr=_counted(names.LABEL_OVERFLOW, "1h", ("job", "family")),
            hold="0s",
            severity=Severity.INFO,
            summary="[[family]] has more label combinations than its cap",
            description="New label combinations of [[family]] are counted under _other since it reached its cap.",
            dashboard="gaugeway-gateway",
        ),
    ),
)

LEDGER = Group(
    name="gaugeway-ledger",
    rules=(
        Alert(
            name="GaugewayLedgerErrors",
            expr=_counted(names.LEDGER_ERRORS),
            hold="2m",
            severity=Severity.CRITICAL,
            summary="The ledger of [[instance]] cannot commit",
            description=(
                "[[value:count]] ledger commits of [[instance]] failed in ten minutes. They are tried again and nothing is "
                "lost yet; under a hard budget requests are refused meanwhile."
            ),
            dashboard="gaugeway-gateway",
        ),
        Alert(
            name="GaugewayLedgerBehind",
            expr=(
                f"{OF.gauge(names.LEDGER_PENDING, by=('job', 'instance'))} > {thresholds.LEDGER_PENDING:g} or "
                f"{OF.quantile(0.99, names.LEDGER_COMMIT, by=('job', 'instance'))} > {thresholds.LEDGER_COMMIT_P99_S:g}"
            ),
            hold="5m",
            severity=Severity.WARNING,
            summary="The ledger of [[instance]] is behind",
            description=(
                f"One commit in a hundred of [[instance]] takes more than {thresholds.LEDGER_COMMIT_P99_S:g} s, or more than "
                f"{thresholds.LEDGER_PENDING:g} entries wait for theirs."
            ),
            dashboard="gaugeway-gateway",
        ),
        Alert(
            name="GaugewayLedgerOrphans",
            expr=_counted(names.LEDGER_ORPHANS, "1h"),
            hold="0s",
            severity=Severity.INFO,
            summary="[[instance]] charged [[value:count]] requests of a crashed process",
            description="[[instance]] found [[value:count]] holds that a crashed process left, and charged them.",
            dashboard="gaugeway-gateway",
        ),
    ),
)
