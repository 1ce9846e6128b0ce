"""The SDK's exporters of OTLP, over HTTP or over gRPC where its package is installed, as the OTEL_* variables ask."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export import SpanExporter

from gateway.telemetry.transport import BoundedTransport
from gateway.telemetry.variables import Signal, VariableError, check_http_endpoint, compression, export_timeout_s

if TYPE_CHECKING:
    # Most gateways push neither, and importing them takes a tenth of a start.
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter


class OtlpProtocol(StrEnum):
    """How OTLP is carried."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


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


def transport(signal: Signal, environment: Mapping[str, str]) -> BoundedTransport | None:
    """Our transport for a signal over HTTP; None where a credential provider brings its own."""
    provider = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_{}CREDENTIAL_PROVIDER"
    if any(environment.get(provider.format(of)) for of in ("", f"{signal.upper()}_")):
        return None
    return BoundedTransport.by_variables(signal, environment)


def http_options(signal: Signal, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the SDK's exporters over HTTP are made with. Raises VariableError."""
    compression(signal, environment)
    check_http_endpoint(signal, environment)
    ours = transport(signal, environment)
    return {"timeout": export_timeout_s(signal, environment)} | ({} if ours is None else {"_transport": ours})


def grpc_options(signal: Signal, environment: Mapping[str, str]) -> dict[str, Any]:
    """The same over gRPC. Raises VariableError."""
    from grpc import Compression  # type: ignore[import-untyped]

    # Its exporters do not know the standard's "none".
    known = {"none": Compression.NoCompression, "gzip": Compression.Gzip, "deflate": Compression.Deflate}
    return {
        "timeout": export_timeout_s(signal, environment),
        "compression": known[compression(signal, environment)],
    }


def span_exporter(environment: Mapping[str, str]) -> SpanExporter:
    """The SDK's OTLP exporter of spans. Raises VariableError."""
    if protocol(Signal.TRACES, environment) is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter

        return GrpcSpanExporter(**grpc_options(Signal.TRACES, environment))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(**http_options(Signal.TRACES, environment))


def metric_exporter(environment: Mapping[str, str]) -> "MetricExporter":
    """The SDK's OTLP exporter of metrics. Raises VariableError."""
    if protocol(Signal.METRICS, environment) is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter

        return GrpcMetricExporter(**grpc_options(Signal.METRICS, environment))
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(**http_options(Signal.METRICS, environment))


def log_exporter(environment: Mapping[str, str]) -> "tuple[LogRecordExporter, BoundedTransport | None]":
    """The SDK's OTLP exporter of logs, and its transport where that is ours. Raises VariableError."""
    if protocol(Signal.LOGS, environment) is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter

        return GrpcLogExporter(**grpc_options(Signal.LOGS, environment)), None
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    options = http_options(Signal.LOGS, environment)
    return OTLPLogExporter(**options), options.get("_transport")
