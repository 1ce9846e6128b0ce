"""The OTEL_* variables: what each does, and that none which does nothing is taken in silence."""

from __future__ import annotations

import pytest

from gateway.telemetry.exporters import http_options
from gateway.telemetry.queue import Batching
from gateway.telemetry.variables import (
    HONOURED,
    IGNORED,
    Signal,
    VariableError,
    batching,
    compression,
    export_timeout_s,
    in_vain,
    is_honoured,
    reads_trace_context,
    wants_otlp,
)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 10.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500"}, 2.5),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "4000"}, 4.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "4000"}, 2.5),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "500"}, 0.5),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "30000"}, 10.0),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "500"}, 10.0),
    ],
)
def test_timeouts_are_milliseconds(environment: dict[str, str], expected: float) -> None:
    """The signal's own wins over the one for all; the processor's can only shorten it."""
    assert export_timeout_s(Signal.TRACES, environment) == expected


def test_queues_are_as_asked() -> None:
    """OTEL_BSP_* is for spans, OTEL_BLRP_* for log records; a batch is never more than the queue holds."""
    environment = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "10",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "7",
    }
    assert batching(Signal.TRACES, environment) == Batching(capacity=10, batch=10, interval_s=0.05)
    assert batching(Signal.LOGS, environment) == Batching(batch=7)


@pytest.mark.parametrize("value", ["0", "-1", "many", "inf", "0.5"])
def test_sizes_that_cannot_be_are_refused(value: str) -> None:
    """The refusal names the variable."""
    with pytest.raises(VariableError, match="OTEL_BSP_MAX_QUEUE_SIZE is"):
        batching(Signal.TRACES, {"OTEL_BSP_MAX_QUEUE_SIZE": value})


def test_an_exporter_that_there_is_not_is_refused() -> None:
    """A name that nothing stands behind would mean metrics or logs that never come."""
    assert wants_otlp(Signal.METRICS, {"OTEL_METRICS_EXPORTER": "prometheus, otlp"})
    assert not wants_otlp(Signal.METRICS, {"OTEL_METRICS_EXPORTER": "prometheus"})
    assert not wants_otlp(Signal.LOGS, {"OTEL_LOGS_EXPORTER": "none"})
    assert not wants_otlp(Signal.LOGS, {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"})
    with pytest.raises(VariableError, match="OTEL_LOGS_EXPORTER is 'prometheus'; it may name none, otlp"):
        wants_otlp(Signal.LOGS, {"OTEL_LOGS_EXPORTER": "prometheus"})


@pytest.mark.parametrize(
    ("value", "reads"),
    [("", True), ("tracecontext,baggage", True), ("none", False), ("b3", False), ("b3, tracecontext", True)],
)
def test_propagators(value: str, reads: bool) -> None:
    """Callers' traces are read where the variable is not set or names tracecontext."""
    assert reads_trace_context({"OTEL_PROPAGATORS": value}) is reads


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_is_ignored_is_told_of(name: str) -> None:
    """A standard variable without effect is named, with the reason."""
    assert list(in_vain({name: "1"})) == [f"{name} has no effect: {IGNORED[name]}"]


def test_only_what_is_set_in_vain_is_told_of() -> None:
    """Variables of others, empty ones, and those that do what they say are not."""
    quiet = dict.fromkeys(HONOURED, "1000") | {"OTEL_PROPAGATORS": "tracecontext,baggage", "PATH": "/bin", "OTEL_X": ""}
    quiet |= {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "500"}
    assert list(in_vain(quiet)) == []
    assert list(in_vain({"OTEL_TRACE_SAMPLER": "always_on"})) == [
        "OTEL_TRACE_SAMPLER has no effect: the gateway does not know it"
    ]
    assert list(in_vain({"OTEL_EXPORTER_OTLP_TIMEOUT": "10"})) == [
        "OTEL_EXPORTER_OTLP_TIMEOUT is 10 milliseconds: few collectors answer that fast"
    ]
    assert list(in_vain({"OTEL_PROPAGATORS": "b3,jaeger"})) == [
        "OTEL_PROPAGATORS names b3, jaeger, which the gateway does not speak"
    ]


def test_of_each_signal_and_of_all() -> None:
    """OTLP's variables are known with and without a signal, and nothing else that looks like them."""
    assert is_honoured("OTEL_EXPORTER_OTLP_HEADERS")
    assert is_honoured("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE")
    assert is_honoured("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER")
    assert not is_honoured("OTEL_EXPORTER_OTLP_METRICS_FLAVOUR")
    assert not is_honoured("OTEL_EXPORTER_ZIPKIN_ENDPOINT")
    assert not is_honoured("ENDPOINT")


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://collector:4317", "http://collector:99999", "a b"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    """An endpoint without its scheme, the usual mistake, would lose every export; the signal's own wins."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": endpoint}
    assert http_options(Signal.TRACES, environment)
    with pytest.raises(VariableError, match="OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is no address"):
        http_options(Signal.LOGS, environment)


def test_a_compression_that_there_is_not_is_refused() -> None:
    """The signal's own wins; what nobody can pack is refused instead of sent as it is."""
    environment = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "none"}
    assert compression(Signal.TRACES, environment) == "gzip"
    assert compression(Signal.LOGS, environment) == "none"
    assert compression(Signal.LOGS, {}) == "none"
    with pytest.raises(VariableError, match="OTEL_EXPORTER_OTLP_COMPRESSION is 'zstd'"):
        compression(Signal.METRICS, {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"})
