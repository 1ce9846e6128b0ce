"""Latency: where the time goes, from the caller's request down to the provider's tokens and the gateway's own work."""

from dashboards import board as boards
from dashboards import thresholds
from dashboards.board import Board, Row
from dashboards.panels import Panel, Query, Unit, buckets, time_series
from dashboards.phases import PARTS, TOTAL
from dashboards.promql import is_, is_not, known, ratio
from gateway.telemetry import names
from gateway.telemetry.metric import Metric

VARIABLES = (boards.JOB, boards.INSTANCE, boards.ROUTE, boards.GEN_AI_PROVIDER, boards.MODEL)
OF = boards.source(VARIABLES)
_PERCENTILES = (0.5, 0.95, 0.99)


def _percentiles(family: Metric) -> list[Query]:
    return [Query(expr=OF.quantile(q, family), legend=f"p{q * 100:g}", exemplar=True) for q in _PERCENTILES]


def _heat(title: str, description: str, family: Metric) -> Panel:
    expr = OF.increase(family, by=("le",), suffix="_bucket", window="$__rate_interval")
    query = Query(expr=expr, legend="{{le}}", exemplar=True)
    return buckets(title, description, query, unit=Unit.SECONDS, width=8)


def _by(family: Metric, label: str, title: str, description: str, limit: float | None = None) -> Panel:
    return time_series(
        title,
        description,
        [Query(expr=known(OF.quantile(0.95, family, by=(label,))), legend=f"{{{{{label}}}}}", exemplar=True)],
        unit=Unit.SECONDS,
        height=8,
        limit=limit,
    )


def _requests() -> tuple[Panel, ...]:
    return (
        time_series(
            "Request duration",
            "From a request's arrival to its last byte, every outcome. A dot is one request: click it for its trace. "
            "When only p99 rises, look for retries in Providers; when p50 rises too, a whole provider is slow.",
            _percentiles(names.REQUEST_DURATION),
            unit=Unit.SECONDS,
            height=8,
        ),
        _heat(
            "Request duration, distribution",
            "Every request by its duration. Two bands mean two kinds of requests (short and long replies, or a slow "
            "provider beside a fast one): choose a route or a provider above to part them.",
            names.REQUEST_DURATION,
        ),
        _by(
            names.REQUEST_DURATION,
            "route",
            "Request duration p95 by route",
            "Which route is slow. Its targets' weights and fallbacks are in the configuration.",
        ),
    )


def _first_chunk() -> tuple[Panel, ...]:
    return (
        time_series(
            "Time to first chunk",
            "What a person waits before text appears, of streamed attempts. The dashed line is the objective. Above "
            "it: the graphs on the right say whose.",
            _percentiles(names.TIME_TO_FIRST_CHUNK),
            unit=Unit.SECONDS,
            height=8,
            limit=thresholds.FIRST_CHUNK_S,
        ),
        _heat(
            "Time to first chunk, distribution",
            "Every streamed attempt by the wait for its first chunk. A second band far above the first is a provider "
            "that queues.",
            names.TIME_TO_FIRST_CHUNK,
        ),
        _by(
            names.TIME_TO_FIRST_CHUNK,
            "gen_ai_request_model",
            "Time to first chunk p95 by model",
            "Which model keeps people waiting. The dashed line is the objective: move weight to another target, or "
            "shorten prompts (long inputs take longer to read).",
            limit=thresholds.FIRST_CHUNK_S,
        ),
    )


def _tokens() -> tuple[Panel, ...]:
    return (
        time_series(
            "Time per output token",
            "How fast text flows once it has begun: (last chunk - first chunk) / (tokens - 1). Above 0.1 s people "
            "read faster than it comes.",
            _percentiles(names.TIME_PER_OUTPUT_CHUNK),
            unit=Unit.SECONDS,
            height=8,
        ),
        _by(
            names.TIME_PER_OUTPUT_CHUNK,
            "gen_ai_request_model",
            "Time per output token p95 by model",
            "Which model flows slowly. A step up at the same traffic is its provider's capacity.",
        ),
        time_series(
            "Output tokens of one reply",
            "How long replies are. Longer replies take longer with every provider: when duration rises and this "
            "rises with it, look at prompts and max_tokens, not at providers.",
            [
                Query(
                    expr=OF.quantile(q, names.TOKEN_USAGE, is_("gen_ai_token_type", "output")),
                    legend=f"p{q * 100:g}",
                )
                for q in _PERCENTILES
            ],
            unit=Unit.TOKENS,
            height=8,
        ),
    )


def _attempts() -> tuple[Panel, ...]:
    ok = is_("error_type", "")
    return (
        _by(
            names.OPERATION_DURATION,
            "gen_ai_provider_name",
            "Attempt duration p95 by provider",
            "One try at a provider, failures included. A flat line at a round number is a timeout.",
        ),
        _by(
            names.TIME_TO_FIRST_CHUNK,
            "gen_ai_provider_name",
            "Time to first chunk p95 by provider",
            "Providers side by side, the fairest comparison: it does not depend on the length of replies.",
            limit=thresholds.FIRST_CHUNK_S,
        ),
        time_series(
            "Phases of an attempt p95",
            "connect is DNS, TCP and TLS of new connections: high means the network, or connections that do not live "
            "long. first_byte is the provider until its headers, first_chunk until a stream's first chunk: high means that "
            "it is slow to begin. stream is the reply flowing.",
            [Query(expr=OF.quantile(0.95, names.ATTEMPT_PHASE, by=("phase",)), legend="{{phase}}")],
            unit=Unit.SECONDS,
            height=8,
        ),
        time_series(
            "Waiting for failures",
            "Mean duration of attempts that failed, against those that ended well. Failing slowly is worse than "
            "failing fast: when failed is above ok, shorten the provider's timeouts.",
            [
                Query(expr=OF.mean(names.OPERATION_DURATION, ok), legend="ok"),
                Query(expr=OF.mean(names.OPERATION_DURATION, is_not("error_type", "")), legend="failed"),
            ],
            unit=Unit.SECONDS,
            width=12,
            colours={"failed": "red", "ok": "green"},
        ),
        _callers(),
    )


def _callers() -> Panel:
    return time_series(
        "Waiting for callers",
        "How long requests waited for their caller: to send the body, and to take the reply. High p99 with well "
        "providers: slow readers, or a proxy in front that buffers.",
        [Query(expr=OF.quantile(q, names.CALLER_WAIT), legend=f"p{q * 100:g}") for q in _PERCENTILES],
        unit=Unit.SECONDS,
        width=12,
    )


def _gateway() -> tuple[Panel, ...]:
    overhead = OF.rate(names.OVERHEAD, TOTAL, suffix="_sum")
    return (
        time_series(
            "Gateway overhead",
            "What the gateway itself adds to a request in all. A stream's pieces add up, about a third of a millisecond "
            "each, so long streams have more of it. Growing with the same traffic: CPU and loop lag in Gateway.",
            [Query(expr=OF.quantile(q, names.OVERHEAD, TOTAL), legend=f"p{q * 100:g}") for q in _PERCENTILES],
            unit=Unit.SECONDS,
            height=8,
        ),
        time_series(
            "Overhead by phase, mean",
            "Where the gateway's own time goes: admit (key, limits, budget), encode, settle (cost, ledger, signals). "
            "Settle growing is the ledger: see Gateway.",
            [Query(expr=OF.mean(names.OVERHEAD, PARTS, by=("phase",)), legend="{{phase}}")],
            unit=Unit.SECONDS,
            height=8,
            stacked=True,
        ),
        time_series(
            "Share of time in the gateway",
            "Overhead over the whole duration of requests; the rest is waiting for providers and callers. It belongs "
            "below a few percent; above, open Gateway.",
            [
                Query(
                    expr=ratio(overhead, OF.rate(names.REQUEST_DURATION, suffix="_sum")),
                    legend="gateway",
                )
            ],
            unit=Unit.SHARE,
            height=8,
        ),
    )


LATENCY = Board(
    uid="gaugeway-latency",
    name="latency",
    title="Gaugeway / Latency",
    description="Where the time goes: requests, first chunks, tokens, providers, and the gateway's own share.",
    variables=VARIABLES,
    rows=(
        Row("", _requests()),
        Row("Time to first chunk", _first_chunk()),
        Row("Time per output token", _tokens()),
        Row("Providers", _attempts()),
        Row("The gateway's own time", _gateway()),
    ),
)
