"""Which exporters the standard OTEL_* variables ask for: OTLP over HTTP, or over gRPC where its package is installed.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter

if TYPE_CHECKING:
    # Most gateways push neither, and importing them takes a tenth of a start.
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter

DEFAULT_METRIC_INTERVAL_S = 60.0


class VariableError(ValueError):
    """An OTEL_* variable asks for what cannot be; the text names it and the remedy."""


class Signal(StrEnum):
    """What can be exported."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class OtlpProtocol(StrEnum):
    """How OTLP is carried."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


def is_disabled(environment: Mapping[str, str]) -> bool:
    """Whether OTEL_SDK_DISABLED turns everything off."""
    return environment.get("OTEL_SDK_DISABLED", "").lower() == "true"


def wants_otlp(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether OTEL_METRICS_EXPORTER or OTEL_LOGS_EXPORTER (a list) names otlp. They default to none here."""
    names = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")
    return not is_disabled(environment) and "otlp" in (name.strip() for name in names)


def protocol(signal: Signal, environment: Mapping[str, str]) -> OtlpProtocol:
    """The protocol of a signal. Raises VariableError for one that is not known, or whose package is missing."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environment.get(name)
        if not value:
            continue
        if value not in set(OtlpProtocol):
            raise VariableError(f"{name} is '{value}'; it must be one of {', '.join(OtlpProtocol)}")
        if value == OtlpProtocol.GRPC:
            try:
                import opentelemetry.exporter.otlp.proto.grpc  # noqa: F401
            except ImportError:
                raise VariableError(f"{name} is 'grpc', which needs: pip install 'gaugeway[grpc]'") from None
        return OtlpProtocol(value)
    return OtlpProtocol.HTTP


def metric_interval_s(environment: Mapping[str, str]) -> float:
    """Seconds between exports of metrics, by OTEL_METRIC_EXPORT_INTERVAL (milliseconds). Raises VariableError."""
    value = environment.get("OTEL_METRIC_EXPORT_INTERVAL")
    if not value:
        return DEFAULT_METRIC_INTERVAL_S
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = 0.0
    if not milliseconds > 0:
        raise VariableError(f"OTEL_METRIC_EXPORT_INTERVAL is '{value}'; it must be a number of milliseconds above 0")
    return milliseconds / 1000


def span_exporter(environment: Mapping[str, str]) -> SpanExporter:
    """The SDK's OTLP exporter of spans. Raises VariableError."""
    if protocol(Signal.TRACES, environment) is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter

        return GrpcSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def metric_exporter(environment: Mapping[str, str]) -> "MetricExporter":
    """The SDK's OTLP exporter of metrics. Raises VariableError."""
    if protocol(Signal.METRICS, environment) is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter

        return GrpcMetricExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()


def log_exporter(environment: Mapping[str, str]) -> "LogRecordExporter":
    """The SDK's OTLP exporter of logs. Raises VariableError."""
    if protocol(Signal.LOGS, environment) is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter

        return GrpcLogExporter()
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    return OTLPLogExporter()
