"""The standard OTEL_* variables: what each does here, and what is asked for in vain.

A variable that is set and has no effect is told of at the start, so that nobody relies on it.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from gateway.telemetry.queue import Batching
from gateway.types.address import is_http_address

EXPORT_TIMEOUT_S = 10.0
_SUSPICIOUS_S = 0.1
_COMPRESSIONS = ("none", "gzip", "deflate")


class VariableError(ValueError):
    """An OTEL_* variable asks for what cannot be; the text names it and the remedy."""


class Signal(StrEnum):
    """What can be exported."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


OTLP_VARIABLES: Mapping[str, str] = {
    "ENDPOINT": "Where the collector is. Setting it, for all signals or for traces, turns the export of spans on.",
    "PROTOCOL": "`http/protobuf` (default), or `grpc` where the extra `gaugeway[grpc]` is installed.",
    "HEADERS": "Headers of each export, `name=value,name=value`.",
    "TIMEOUT": "How long one export may take with all its retries, in milliseconds as the specification has it "
    "(OpenTelemetry's own Python exporters take it as seconds). Default 10000.",
    "COMPRESSION": "`gzip`, `deflate` or `none` (default).",
    "CERTIFICATE": "A file of certificate authorities to trust.",
    "CLIENT_CERTIFICATE": "A client certificate's file, for mutual TLS.",
    "CLIENT_KEY": "Its private key's file.",
    "INSECURE": "With `grpc` and an endpoint without a scheme: `true` for no TLS.",
}
"""By what follows OTEL_EXPORTER_OTLP_; each also as OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_..., which wins."""

HONOURED: Mapping[str, str] = {
    "OTEL_SDK_DISABLED": "`true`: nothing is exported. Metrics can still be scraped, and the request log is written.",
    "OTEL_SERVICE_NAME": "Wins over `telemetry.service_name`.",
    "OTEL_RESOURCE_ATTRIBUTES": "Stand in every exported signal.",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "Which of the SDK's detectors add to the resource: `process`, `os`, `host`.",
    "OTEL_TRACES_EXPORTER": "`otlp`, `console` (standard error) or `none`. Default: `otlp` where an endpoint is set. "
    "`--traces` wins.",
    "OTEL_METRICS_EXPORTER": "`otlp`: pushed as well as scraped. `prometheus` and `none` (default): scraped.",
    "OTEL_LOGS_EXPORTER": "`otlp`: the request log is exported as well as written. `none` (default).",
    "OTEL_METRIC_EXPORT_INTERVAL": "Milliseconds between exports of metrics. Default 60000.",
    "OTEL_METRIC_EXPORT_TIMEOUT": "Shortens the timeout of an export of metrics, in milliseconds.",
    "OTEL_TRACES_SAMPLER": "Which requests are traced. Parent-based ones ask their root's sampler each time: "
    "a caller's flag never decides.",
    "OTEL_TRACES_SAMPLER_ARG": "The ratio of `traceidratio` and `parentbased_traceidratio`.",
    "OTEL_PROPAGATORS": "`tracecontext` (default; `baggage` is never read or sent). A list without it, such as `none`, "
    "makes every request's trace a new one.",
    "OTEL_BSP_MAX_QUEUE_SIZE": "How many requests may wait for the export of their spans. Default 8192.",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "Requests whose spans go into one export. Default 64: small ones delay no request.",
    "OTEL_BSP_SCHEDULE_DELAY": "How long they wait for company, in milliseconds. Default 200.",
    "OTEL_BSP_EXPORT_TIMEOUT": "Shortens the timeout of an export of spans, in milliseconds.",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "The same for log records, of which a request is one.",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "Likewise.",
    "OTEL_BLRP_SCHEDULE_DELAY": "Likewise.",
    "OTEL_BLRP_EXPORT_TIMEOUT": "Likewise.",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "An entry point that makes the session of exports over http; "
    "also by signal. Such a session brings its own transport, without the bounds on answers.",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": "The same for `grpc`.",
}

IGNORED: Mapping[str, str] = {
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "metrics are cumulative, as they are scraped",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "buckets are those of docs/instrumentation.md",
    "OTEL_METRICS_EXEMPLAR_FILTER": "exemplars stand where docs/instrumentation.md says",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "attributes are bounded by the catalogue, content by the route's `capture`",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "attributes are bounded by the catalogue",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "attributes are bounded by the catalogue, content by the route's `capture`",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "attributes are bounded by the catalogue",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "spans have no events",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "a span has one link at most",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "`telemetry.semconv` chooses; HTTP's conventions are the stable ones",
    "OTEL_LOG_LEVEL": "the gateway's own messages begin at INFO",
    "OTEL_CONFIG_FILE": "the gateway has a configuration of its own",
}
"""Standard variables without effect, and why."""


def is_disabled(environment: Mapping[str, str]) -> bool:
    """Whether OTEL_SDK_DISABLED turns everything off."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def wants_otlp(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether OTEL_METRICS_EXPORTER or OTEL_LOGS_EXPORTER (a list) names otlp. They default to none here.

    Raises VariableError for an exporter that there is not.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    known = {"otlp", "none", "prometheus"} if signal is Signal.METRICS else {"otlp", "none"}
    chosen = set(_list(environment.get(variable, "")))
    if not chosen <= known:
        raise VariableError(f"{variable} is '{environment[variable]}'; it may name {', '.join(sorted(known))}")
    return not is_disabled(environment) and "otlp" in chosen


def reads_trace_context(environment: Mapping[str, str]) -> bool:
    """Whether callers' traceparent is read, by OTEL_PROPAGATORS."""
    chosen = _list(environment.get("OTEL_PROPAGATORS", ""))
    return not chosen or "tracecontext" in chosen


def metric_interval_s(environment: Mapping[str, str]) -> float:
    """Seconds between exports of metrics, by OTEL_METRIC_EXPORT_INTERVAL. Raises VariableError."""
    return _seconds("OTEL_METRIC_EXPORT_INTERVAL", environment, 60.0)


def export_timeout_s(signal: Signal, environment: Mapping[str, str]) -> float:
    """How long one export may take. Raises VariableError."""
    everywhere = _seconds("OTEL_EXPORTER_OTLP_TIMEOUT", environment, EXPORT_TIMEOUT_S)
    timeout_s = _seconds(f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT", environment, everywhere)
    processor = {
        Signal.TRACES: "OTEL_BSP_EXPORT_TIMEOUT",
        Signal.METRICS: "OTEL_METRIC_EXPORT_TIMEOUT",
        Signal.LOGS: "OTEL_BLRP_EXPORT_TIMEOUT",
    }[signal]
    return min(timeout_s, _seconds(processor, environment, timeout_s))


def check_http_endpoint(signal: Signal, environment: Mapping[str, str]) -> None:
    """Raises VariableError for an endpoint that no export over HTTP can reach."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        endpoint = environment.get(name)
        if endpoint:
            if not is_http_address(endpoint):
                # It may hold a password.
                raise VariableError(f"{name} is no address; give it as http://localhost:4318")
            return


def compression(signal: Signal, environment: Mapping[str, str]) -> str:
    """How exports are packed: none, gzip or deflate. Raises VariableError."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"):
        value = environment.get(name, "").strip().lower()
        if value in _COMPRESSIONS:
            return value
        if value:
            raise VariableError(f"{name} is '{value}'; it must be one of {', '.join(_COMPRESSIONS)}")
    return "none"


def batching(signal: Signal, environment: Mapping[str, str]) -> Batching:
    """How spans and log records wait and leave, by OTEL_BSP_* and OTEL_BLRP_*. Raises VariableError."""
    prefix = "OTEL_BSP" if signal is Signal.TRACES else "OTEL_BLRP"
    default = Batching()
    capacity = int(_above_zero(f"{prefix}_MAX_QUEUE_SIZE", environment, default.capacity))
    batch = int(_above_zero(f"{prefix}_MAX_EXPORT_BATCH_SIZE", environment, default.batch))
    return Batching(
        capacity=capacity,
        # What never fits would be waited for forever.
        batch=min(batch, capacity),
        interval_s=_seconds(f"{prefix}_SCHEDULE_DELAY", environment, default.interval_s),
    )


def in_vain(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each OTEL_* variable that is set and has no effect, or hardly the meant one. Raises VariableError."""
    for name in sorted(environment):
        value = environment[name]
        if not name.startswith("OTEL_") or not value:
            continue
        if name in IGNORED:
            yield f"{name} has no effect: {IGNORED[name]}"
        elif not is_honoured(name):
            yield f"{name} has no effect: the gateway does not know it"
        elif name.endswith("_TIMEOUT") and _seconds(name, environment, 1.0) < _SUSPICIOUS_S:
            yield f"{name} is {value} milliseconds: few collectors answer that fast"
    unknown = set(_list(environment.get("OTEL_PROPAGATORS", ""))) - {"tracecontext", "baggage", "none"}
    if unknown:
        yield f"OTEL_PROPAGATORS names {', '.join(sorted(unknown))}, which the gateway does not speak"


def is_honoured(name: str) -> bool:
    """Whether a variable has an effect."""
    if name in HONOURED:
        return True
    for signal in Signal:
        own = f"_{signal.upper()}_CREDENTIAL_PROVIDER"
        if name.endswith(own):
            return name.replace(own, "_CREDENTIAL_PROVIDER") in HONOURED
        name = name.replace(f"OTEL_EXPORTER_OTLP_{signal.upper()}_", "OTEL_EXPORTER_OTLP_")
    of_all, prefix, what = name.partition("OTEL_EXPORTER_OTLP_")
    return bool(prefix) and not of_all and what in OTLP_VARIABLES


def _list(value: str) -> Sequence[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _seconds(name: str, environment: Mapping[str, str], default_s: float) -> float:
    return _above_zero(name, environment, default_s * 1000, "milliseconds ") / 1000


def _above_zero(name: str, environment: Mapping[str, str], default: float, unit: str = "") -> float:
    value = environment.get(name)
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf") or (not unit and number < 1):
        raise VariableError(f"{name} is '{value}'; it must be a number {f'of {unit}' if unit else ''}above 0")
    return number
