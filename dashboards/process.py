"""Gateway: the process itself, its telemetry and its ledger. The board for whoever runs it."""

from dashboards import board as boards
from dashboards import promql, thresholds
from dashboards.board import Board, Row
from dashboards.panels import GREEN, ORANGE, RED, Column, Panel, Query, Unit, rows, single, steps, time_series
from dashboards.phases import PARTS
from dashboards.promql import is_
from gateway.telemetry import names

VARIABLES = (boards.JOB, boards.INSTANCE)
OF = boards.source(VARIABLES)
_EACH = ("instance",)


def _now() -> tuple[Panel, ...]:
    return (
        single(
            "Up",
            "Instances that Prometheus can scrape. Fewer than planned: the missing one's log tells why.",
            Query(expr=f"{OF.gauge(names.BUILD_INFO, fold='count')} or vector(0)"),
            unit=Unit.COUNT,
            thresholds=steps((None, RED), (1, GREEN)),
        ),
        single(
            "Running for",
            "Since the youngest process started. Small without a deploy: it crashed, see its log.",
            Query(expr=f"time() - {OF.gauge(promql.PROCESS_START, fold='max')}"),
            unit=Unit.SECONDS,
        ),
        single(
            "Workers",
            "Serving processes that run now. Fewer than configured: they crash faster than they are started.",
            Query(expr=f"{OF.gauge(names.WORKERS)} or {OF.gauge(names.BUILD_INFO, fold='count')}"),
            unit=Unit.COUNT,
        ),
        single(
            "In flight",
            "Requests being served now. More than usual with the same traffic: a provider is slow, see Latency.",
            Query(expr=OF.gauge(names.REQUESTS_IN_FLIGHT)),
            unit=Unit.COUNT,
        ),
        single(
            "Loop lag p99",
            "How late the event loop runs. Above the threshold a CPU is full or something blocks: py-spy dump the "
            "process, or add workers.",
            Query(expr=OF.quantile(0.99, names.EVENT_LOOP_LAG)),
            unit=Unit.SECONDS,
            thresholds=steps((None, GREEN), (thresholds.EVENT_LOOP_LAG_P99_S, RED)),
        ),
        single(
            "Spans lost",
            "Spans not exported in the range. Above 0: the collector is slow or away. Metrics and spend are complete "
            "all the same.",
            Query(expr=OF.increase(names.SPANS_DROPPED), instant=True),
            unit=Unit.COUNT,
            decimals=0,
            thresholds=steps((None, GREEN), (1, ORANGE)),
        ),
        single(
            "Reload worked",
            "Whether the last change of the configuration took effect. Refused: the old one still serves, and the log "
            "names the field that is wrong.",
            Query(expr=OF.gauge(names.CONFIG_RELOAD_SUCCESSFUL)),
            unit="bool_yes_no",
            thresholds=steps((None, RED), (1, GREEN)),
        ),
        single(
            "Configured for",
            "Since the configuration in use was loaded. A time that nobody expects: somebody changed the file.",
            Query(expr=f"time() - {OF.gauge(names.CONFIG_RELOAD_TIMESTAMP, fold='max')}"),
            unit=Unit.SECONDS,
        ),
    )


def _resources() -> tuple[Panel, ...]:
    fds = OF.gauge(promql.PROCESS_OPEN_FDS, by=_EACH, fold="max")
    return (
        time_series(
            "CPU",
            "Cores used. One worker can use one core: near the dashed line latency grows, so add workers or instances.",
            [Query(expr=OF.rate(promql.PROCESS_CPU, by=_EACH), legend="{{instance}}")],
            unit=Unit.CORES,
            limit=thresholds.CPU_CORES,
        ),
        time_series(
            "Memory",
            "Resident memory. A ramp that never comes down is a leak: note the version and restart.",
            [Query(expr=OF.gauge(promql.PROCESS_MEMORY, by=_EACH), legend="{{instance}}")],
            unit=Unit.BYTES,
        ),
        time_series(
            "Open files",
            "Sockets and files in use, as a share of the limit. Above the dashed line: raise the limit (ulimit -n).",
            [
                Query(
                    expr=promql.ratio(fds, OF.gauge(promql.PROCESS_MAX_FDS, by=_EACH, fold="max")),
                    legend="{{instance}}",
                )
            ],
            unit=Unit.SHARE,
            limit=thresholds.OPEN_FDS_SHARE,
        ),
        time_series(
            "Event loop lag",
            "How late timers run. The dashed line is where streams stutter.",
            [Query(expr=OF.quantile(q, names.EVENT_LOOP_LAG), legend=f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
            unit=Unit.SECONDS,
            limit=thresholds.EVENT_LOOP_LAG_P99_S,
        ),
        time_series(
            "In flight by instance",
            "Whether load is spread. One instance with all: the balancer keeps connections alive on it.",
            [Query(expr=OF.gauge(names.REQUESTS_IN_FLIGHT, by=_EACH), legend="{{instance}}")],
            unit=Unit.COUNT,
            stacked=True,
        ),
        time_series(
            "Worker exits",
            "Serving processes that ended without being asked to. Any: the log has the cause, often memory.",
            [
                Query(
                    expr=f"{OF.rate(names.WORKER_EXITS, by=_EACH)} or 0 * {OF.gauge(names.BUILD_INFO, by=_EACH)}",
                    legend="{{instance}}",
                )
            ],
            unit=Unit.PER_SECOND,
        ),
        time_series(
            "Overhead by phase p99",
            "The gateway's own work around an attempt. The dashed line is the alert's threshold for each phase. settle high: "
            "the ledger, below; admit high: limits, budgets, keys; encode high: large prompts.",
            [Query(expr=OF.quantile(0.99, names.OVERHEAD, PARTS, by=("phase",)), legend="{{phase}}")],
            unit=Unit.SECONDS,
            width=24,
            limit=thresholds.OVERHEAD_P99_S,
        ),
    )


def _telemetry() -> tuple[Panel, ...]:
    return (
        time_series(
            "Telemetry queues",
            "Spans and log lines that wait. Near the dashed line they begin to be dropped: look at the collector.",
            [Query(expr=OF.gauge(names.QUEUE_SIZE, by=("queue",)), legend="{{queue}}")],
            unit=Unit.COUNT,
            limit=thresholds.TELEMETRY_QUEUE,
        ),
        time_series(
            "Telemetry lost",
            "Spans, log lines and messages dropped, batches that a collector did not take, and records that a sink did not "
            "take. All zero on a good day. Metrics, limits and spend do not depend on them.",
            [
                Query(expr=OF.rate(names.SPANS_DROPPED, by=("reason",)), legend="spans: {{reason}}"),
                Query(expr=OF.rate(names.EXPORT_ERRORS, by=("signal",)), legend="export: {{signal}}"),
                Query(expr=OF.rate(names.LOG_LINES_DROPPED, by=("sink",)), legend="log lines: {{sink}}"),
                Query(expr=OF.rate(names.MESSAGES_DROPPED), legend="messages"),
                Query(expr=OF.rate(names.SINK_ERRORS, by=("sink",)), legend="sink: {{sink}}"),
            ],
            unit=Unit.PER_SECOND,
            stacked=True,
        ),
        time_series(
            "Telemetry delivered",
            "Spans that the collector took, and log lines by where they went. Zero with traffic: tracing is off, or the "
            "endpoint is wrong.",
            [
                Query(expr=OF.rate(names.SPANS_EXPORTED), legend="spans"),
                Query(expr=OF.rate(names.LOG_LINES_WRITTEN, by=("sink",)), legend="log lines: {{sink}}"),
            ],
            unit=Unit.PER_SECOND,
        ),
        time_series(
            "Series",
            "Samples in one scrape. Growing with traffic rather than with the configuration: a label has too many "
            "values, see the next panel.",
            [Query(expr=OF.gauge(promql.SAMPLES_SCRAPED, by=_EACH), legend="{{instance}}")],
            unit=Unit.COUNT,
        ),
        time_series(
            "Label overflow",
            "Observations counted under _other since a family reached its cap of label combinations. Above 0: the "
            "configuration has more routes, teams and models than the cap allows for.",
            [
                Query(expr=f"{OF.rate(names.LABEL_OVERFLOW)} or {OF.zero()}", legend="all families"),
                Query(expr=OF.rate(names.LABEL_OVERFLOW, by=("family",)), legend="{{family}}"),
            ],
            unit=Unit.PER_SECOND,
        ),
        rows(
            "Builds",
            "What runs where. Two versions for longer than a rollout: it is stuck.",
            {"version": "Version", "python": "Python"},
            [
                Column(
                    title="Instances",
                    expr=OF.gauge(names.BUILD_INFO, by=("version", "python"), fold="count"),
                    unit=Unit.COUNT,
                )
            ],
            height=6,
        ),
    )


def _ledger() -> tuple[Panel, ...]:
    return (
        time_series(
            "Ledger commit",
            "How long a commit to the ledger takes. Above the dashed line: a slow disk, which delays requests under a "
            "hard budget.",
            [Query(expr=OF.quantile(q, names.LEDGER_COMMIT), legend=f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
            unit=Unit.SECONDS,
            limit=thresholds.LEDGER_COMMIT_P99_S,
        ),
        time_series(
            "Ledger entries waiting",
            "Entries that wait for their commit. Growing: the ledger's store is slower than the traffic.",
            [Query(expr=OF.gauge(names.LEDGER_PENDING, by=_EACH), legend="{{instance}}")],
            unit=Unit.COUNT,
            limit=thresholds.LEDGER_PENDING,
        ),
        time_series(
            "What went wrong with money",
            "Failed commits (tried again, nothing is lost), holds of a crashed process that were charged at the next "
            "start, price data that were refused (the old prices stay), and budget alerts that their webhook did not "
            "take (tried again). The gateway's log has the cause of each.",
            [
                Query(expr=OF.rate(names.LEDGER_ERRORS), legend="failed commits"),
                Query(expr=OF.rate(names.LEDGER_ORPHANS), legend="orphans"),
                Query(expr=OF.rate(names.PRICE_UPDATES_REFUSED), legend="refused prices"),
                Query(expr=OF.rate(names.ALERT_DELIVERIES, is_("result", "failed")), legend="undelivered alerts"),
            ],
            unit=Unit.PER_SECOND,
        ),
    )


PROCESS = Board(
    uid="gaugeway-gateway",
    name="gateway",
    title="Gaugeway / Gateway",
    description="The gateway's own processes: resources, telemetry, ledger, configuration.",
    variables=VARIABLES,
    rows=(
        Row("", _now()),
        Row("Resources", _resources()),
        Row("Telemetry watches itself, and builds", _telemetry()),
        Row("Ledger", _ledger()),
    ),
)
