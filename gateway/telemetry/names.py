"""The catalogue: every metric that the gateway emits, with its kind, unit, labels, buckets, help and stability.

The registry is built from this table, docs/instrumentation.md is generated from it, and dashboards and rules may only
name what stands here. Label values are configured names or enums: nothing that a caller sends becomes one.

Names ending in `_total` are counters. `gen_ai_*` follow the OpenTelemetry GenAI semantic conventions.
"""

from gateway.config.schema import Semconv
from gateway.telemetry.metric import (
    CHUNK_BUCKETS_S,
    DURATION_BUCKETS_S,
    FIRST_CHUNK_BUCKETS_S,
    OVERHEAD_BUCKETS_S,
    TOKEN_BUCKETS,
    Across,
    Kind,
    Metric,
    Stability,
)

_GEN_AI_LABELS = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "server_address",
    "server_port",
    "error_type",
    "route",
)

REQUESTS = Metric(
    name="gateway_requests_total",
    kind=Kind.COUNTER,
    help="Caller requests that ended, refusals included.",
    labels=("route", "route_type", "team", "outcome", "error_type"),
)
REQUEST_DURATION = Metric(
    name="gateway_request_duration_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="From a request's arrival to its last byte, for every outcome.",
    labels=("route", "route_type", "outcome"),
    buckets=(0.0025, 0.005, *DURATION_BUCKETS_S),
    exemplars=True,
)
REQUESTS_IN_FLIGHT = Metric(
    name="gateway_requests_in_flight",
    kind=Kind.GAUGE,
    help="Caller requests being served now.",
    labels=("route",),
)
OVERHEAD = Metric(
    name="gateway_overhead_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="What the gateway itself added to a request, by phase; waiting for the provider, a retry's time and the caller excluded.",
    labels=("route", "phase"),
    buckets=OVERHEAD_BUCKETS_S,
)
CALLER_WAIT = Metric(
    name="gateway_caller_wait_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="How long a request waited for its caller: to send the body, and to take the reply. Slow readers show here.",
    labels=("route",),
    buckets=OVERHEAD_BUCKETS_S,
)
ATTEMPT_PHASE = Metric(
    name="gateway_attempt_phase_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Where an attempt's time went: connect (name, TCP and TLS; new connections only), first_byte (until the "
    "reply's headers), first_chunk (from there to a stream's first chunk), stream (from the first chunk to the last).",
    labels=("route", "provider", "model", "phase"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, *DURATION_BUCKETS_S),
)
OPERATION_DURATION = Metric(
    name="gen_ai_client_operation_duration_seconds",
    semconv=Semconv.V1_41,
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Duration of one attempt at a provider, streams to their last chunk.",
    labels=_GEN_AI_LABELS,
    buckets=DURATION_BUCKETS_S,
    exemplars=True,
)
TIME_TO_FIRST_CHUNK = Metric(
    name="gen_ai_client_operation_time_to_first_chunk_seconds",
    semconv=Semconv.V1_41,
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="From the start of a streamed attempt to its first chunk of generated output.",
    labels=_GEN_AI_LABELS,
    buckets=FIRST_CHUNK_BUCKETS_S,
    exemplars=True,
)
TIME_PER_OUTPUT_CHUNK = Metric(
    name="gen_ai_client_operation_time_per_output_chunk_seconds",
    semconv=Semconv.V1_41,
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Mean time between output tokens of a stream: (last chunk - first chunk) / (output tokens - 1).",
    labels=_GEN_AI_LABELS,
    buckets=CHUNK_BUCKETS_S,
)
TOKEN_USAGE = Metric(
    name="gen_ai_client_token_usage",
    semconv=Semconv.V1_41,
    kind=Kind.HISTOGRAM,
    unit="tokens",
    help="Tokens of one attempt by type; for percentiles, use gateway_tokens_total for sums.",
    labels=(*_GEN_AI_LABELS, "gen_ai_token_type"),
    buckets=TOKEN_BUCKETS,
)
ATTEMPTS = Metric(
    name="gateway_attempts_total",
    kind=Kind.COUNTER,
    help="Attempts at providers that ended: first tries, retries and fallbacks.",
    labels=("route", "provider", "model", "kind", "outcome", "error_type"),
)
TOKENS = Metric(
    name="gateway_tokens_total",
    kind=Kind.COUNTER,
    unit="tokens",
    help="Tokens by type; cache_read, cache_write and reasoning are parts of input and output: do not add them.",
    labels=("route", "team", "provider", "model", "type", "source"),
)
COST = Metric(
    name="gateway_cost_usd_total",
    kind=Kind.COUNTER,
    unit="usd",
    help="Cost of ended attempts in US dollars: our price book times reported usage; basis says how sure.",
    labels=("route", "team", "provider", "model", "basis"),
    exemplars=True,
)
CACHE_SAVED = Metric(
    name="gateway_cache_saved_usd_total",
    kind=Kind.COUNTER,
    unit="usd",
    help="What reading from providers' prompt caches saved: cached input tokens at the uncached price minus at the "
    "cached one. Subtract gateway_cache_surcharge_usd_total for the net.",
    labels=("route", "team", "provider", "model"),
)
CACHE_SURCHARGE = Metric(
    name="gateway_cache_surcharge_usd_total",
    kind=Kind.COUNTER,
    unit="usd",
    help="What writing to providers' prompt caches cost above plain input, where a provider charges more for it. It is "
    "a part of gateway_cost_usd_total.",
    labels=("route", "team", "provider", "model"),
)
UNPRICED_TOKENS = Metric(
    name="gateway_unpriced_tokens_total",
    kind=Kind.COUNTER,
    unit="tokens",
    help="Tokens of attempts whose price is not known. They are missing from gateway_cost_usd_total.",
    labels=("provider", "model"),
)
UNPRICED_PARTS = Metric(
    name="gateway_unpriced_parts_total",
    kind=Kind.COUNTER,
    help="Attempts whose cost lacks a part that nobody prices, by part: web_search, file_search and other_tool (calls of "
    "the vendor's own tools, left out), cache_write_1h and service_tier (charged at the standard price).",
    labels=("provider", "model", "part"),
)
PRICE_TABLE_AGE = Metric(
    name="gateway_price_table_age_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    help="Age of the price data in use.",
    across=Across.MAX,
)
PRICE_UPDATES_REFUSED = Metric(
    name="gateway_price_updates_refused_total",
    kind=Kind.COUNTER,
    help="Price data of `prices_file` that were refused: unreadable, most models gone, or older. The old prices stay.",
)
ALERT_DELIVERIES = Metric(
    name="gateway_alert_deliveries_total",
    kind=Kind.COUNTER,
    help="Tries to deliver a budget alert to its webhook, by result (delivered, failed). A failed one is tried again.",
    labels=("result",),
)
BUDGET_LIMIT = Metric(
    name="gateway_budget_limit_usd",
    kind=Kind.GAUGE,
    unit="usd",
    help="A budget's limit in its present window.",
    labels=("budget", "scope", "window"),
    across=Across.MAX,
)
BUDGET_SPENT = Metric(
    name="gateway_budget_spent_usd",
    kind=Kind.GAUGE,
    unit="usd",
    help="Committed spend of a budget in its present window.",
    labels=("budget", "scope", "window"),
    across=Across.MAX,
)
BUDGET_HELD = Metric(
    name="gateway_budget_held_usd",
    kind=Kind.GAUGE,
    unit="usd",
    help="Money reserved under a budget: for requests in flight, and in slices that nodes hold for their next ones.",
    labels=("budget", "scope", "window"),
    across=Across.MAX,
)
BUDGET_RESETS = Metric(
    name="gateway_budget_resets_timestamp_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    help="When a budget's present window ends, seconds since the epoch.",
    labels=("budget", "scope", "window"),
    across=Across.MAX,
)
CIRCUIT_STATE = Metric(
    name="gateway_provider_circuit_state",
    kind=Kind.GAUGE,
    help="Circuit breaker of a target: 0 closed, 1 half open, 2 open.",
    labels=("provider", "model"),
    across=Across.MAX,
)
LIMIT_STORAGE_ERRORS = Metric(
    name="gateway_limit_storage_errors_total",
    kind=Kind.COUNTER,
    help="Calls that the limits' shared storage could not count in time; they were counted in their process alone.",
)
RATELIMIT_REMAINING = Metric(
    name="gateway_provider_ratelimit_remaining",
    kind=Kind.GAUGE,
    help="What a provider's last answer said is left of its rate limit (kind: requests, tokens, input_tokens, "
    "output_tokens). Absent where it says nothing, or has not for two minutes.",
    labels=("provider", "model", "kind"),
    across=Across.MIN,
)
LEDGER_COMMIT = Metric(
    name="gateway_ledger_commit_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Duration of one ledger commit.",
    buckets=OVERHEAD_BUCKETS_S,
)
LEDGER_PENDING = Metric(
    name="gateway_ledger_pending_entries",
    kind=Kind.GAUGE,
    help="Ledger entries that wait for their commit.",
)
LEDGER_ERRORS = Metric(
    name="gateway_ledger_errors_total",
    kind=Kind.COUNTER,
    help="Ledger commits that failed and are tried again.",
)
LEDGER_ORPHANS = Metric(
    name="gateway_ledger_orphans_total",
    kind=Kind.COUNTER,
    help="Holds of a crashed process that were charged at the next start.",
)
SPANS_DROPPED = Metric(
    name="gateway_telemetry_spans_dropped_total",
    kind=Kind.COUNTER,
    help="Spans that were not exported, by reason (queue_full, export_failed, rejected by the collector, shutdown).",
    labels=("reason",),
)
SPANS_EXPORTED = Metric(
    name="gateway_telemetry_spans_exported_total",
    kind=Kind.COUNTER,
    help="Spans that the exporter accepted.",
)
LOG_LINES_DROPPED = Metric(
    name="gateway_telemetry_log_lines_dropped_total",
    kind=Kind.COUNTER,
    help="Request log lines that were not written (sink: log) or exported (otlp_logs), by reason (queue_full, "
    "write_failed, export_failed, rejected by the collector, shutdown).",
    labels=("sink", "reason"),
)
LOG_LINES_WRITTEN = Metric(
    name="gateway_telemetry_log_lines_written_total",
    kind=Kind.COUNTER,
    help="Request log lines that were written (sink: log) or that the exporter accepted (otlp_logs).",
    labels=("sink",),
)
MESSAGES_DROPPED = Metric(
    name="gateway_telemetry_messages_dropped_total",
    kind=Kind.COUNTER,
    help="The process's own messages that could not be written to standard error.",
)
QUEUE_SIZE = Metric(
    name="gateway_telemetry_queue_size",
    kind=Kind.GAUGE,
    help="Records that wait in a telemetry queue (queue: spans or log).",
    labels=("queue",),
)
EXPORT_ERRORS = Metric(
    name="gateway_telemetry_export_errors_total",
    kind=Kind.COUNTER,
    help="Batches that a collector did not take, by signal (traces, metrics, logs).",
    labels=("signal",),
)
SINK_ERRORS = Metric(
    name="gateway_sink_errors_total",
    kind=Kind.COUNTER,
    help="Records that a sink failed to take; serving is not affected.",
    labels=("sink",),
)
LABEL_OVERFLOW = Metric(
    name="gateway_metric_label_overflow_total",
    kind=Kind.COUNTER,
    help="Observations counted under _other since a family reached its cap of label combinations.",
    labels=("family",),
)
EVENT_LOOP_LAG = Metric(
    name="gateway_event_loop_lag_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="How late the event loop ran a timer, sampled twice a second.",
    buckets=OVERHEAD_BUCKETS_S,
)
WORKERS = Metric(
    name="gateway_workers",
    kind=Kind.GAUGE,
    help="Serving processes that run now.",
)
WORKER_EXITS = Metric(
    name="gateway_worker_exits_total",
    kind=Kind.COUNTER,
    help="Serving processes that ended without being asked to, and were started again.",
)
BUILD_INFO = Metric(
    name="gateway_build_info",
    kind=Kind.GAUGE,
    help="Always 1; the labels say what runs.",
    labels=("version", "python"),
    across=Across.MAX,
)
CONFIG_RELOAD_SUCCESSFUL = Metric(
    name="gateway_config_last_reload_successful",
    kind=Kind.GAUGE,
    help="1 when the last reload of the configuration took effect, 0 when it was refused.",
    across=Across.MIN,
)
CONFIG_RELOAD_TIMESTAMP = Metric(
    name="gateway_config_last_reload_success_timestamp_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    help="When the configuration in use was loaded, seconds since the epoch.",
    across=Across.MIN,
)


def _inference_tokens(name: str, meaning: str, *, counter: bool) -> Metric:
    """Percentiles are of whole operations; counters are broken down by modality, as the conventions have it."""
    return Metric(
        name=f"gen_ai_client_inference_{name}",
        semconv=Semconv.LATEST,
        kind=Kind.COUNTER if counter else Kind.HISTOGRAM,
        unit="tokens",
        help=meaning,
        labels=(*_GEN_AI_LABELS, "gen_ai_token_modality") if counter else _GEN_AI_LABELS,
        buckets=() if counter else TOKEN_BUCKETS,
        stability=Stability.EXPERIMENTAL,
    )


INFERENCE_DURATION = Metric(
    name="gen_ai_client_inference_duration_seconds",
    semconv=Semconv.LATEST,
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Duration of one attempt at a provider, streams to their last chunk.",
    labels=_GEN_AI_LABELS,
    buckets=DURATION_BUCKETS_S,
    stability=Stability.EXPERIMENTAL,
    exemplars=True,
)
INFERENCE_TIME_TO_FIRST_CHUNK = Metric(
    name="gen_ai_client_inference_time_to_first_chunk_seconds",
    semconv=Semconv.LATEST,
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="From the start of a streamed attempt to its first chunk of generated output.",
    labels=_GEN_AI_LABELS,
    buckets=FIRST_CHUNK_BUCKETS_S,
    stability=Stability.EXPERIMENTAL,
    exemplars=True,
)
INFERENCE_TIME_PER_OUTPUT_CHUNK = Metric(
    name="gen_ai_client_inference_time_per_output_chunk_seconds",
    semconv=Semconv.LATEST,
    kind=Kind.HISTOGRAM,
    unit="seconds",
    help="Mean time between output tokens of a stream: (last chunk - first chunk) / (output tokens - 1).",
    labels=_GEN_AI_LABELS,
    buckets=CHUNK_BUCKETS_S,
    stability=Stability.EXPERIMENTAL,
)
INFERENCE_INPUT_TOKENS = _inference_tokens(
    "operation_input_tokens", "Input tokens of one attempt, for percentiles.", counter=False
)
INFERENCE_OUTPUT_TOKENS = _inference_tokens(
    "operation_output_tokens", "Output tokens of one attempt, for percentiles.", counter=False
)
INFERENCE_USAGE_INPUT = _inference_tokens(
    "usage_input_tokens_total", "Input tokens, cached ones included.", counter=True
)
INFERENCE_USAGE_OUTPUT = _inference_tokens(
    "usage_output_tokens_total", "Output tokens, reasoning included.", counter=True
)
INFERENCE_USAGE_CACHE_READ = _inference_tokens(
    "usage_cache_read_input_tokens_total", "Input tokens read from a provider's cache.", counter=True
)
INFERENCE_USAGE_CACHE_WRITE = _inference_tokens(
    "usage_cache_write_input_tokens_total", "Input tokens written to a provider's cache.", counter=True
)
INFERENCE_USAGE_REASONING = _inference_tokens(
    "usage_reasoning_output_tokens_total", "Output tokens spent on reasoning.", counter=True
)

EVERY_FAMILY: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All families, in the order of this file."""
CATALOGUE: tuple[Metric, ...] = tuple(metric for metric in EVERY_FAMILY if metric.semconv is not Semconv.LATEST)
"""The families of the default conventions, which dashboards and rules are made of."""
