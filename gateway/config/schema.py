"""What a configuration file may say. These Structs mirror the YAML; `gateway.config.load` makes Settings of them."""

from enum import StrEnum
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from gateway.config.money import AdminFile, BudgetFile, KeyFile, LedgerFile, PriceFile
from gateway.types.route import Timeouts


class HttpSpans(StrEnum):
    """Who makes the span of an attempt's HTTP exchange."""

    LIGHT = "light"
    INSTRUMENTED = "instrumented"
    OFF = "off"


class Semconv(StrEnum):
    """Which generation of the GenAI semantic conventions names spans and metrics."""

    V1_41 = "v1.41"
    LATEST = "latest"
    BOTH = "both"


class TelemetryFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`telemetry:`, what the gateway tells beyond the standard OTEL_* environment variables."""

    service_name: str = "gaugeway"
    http_spans: HttpSpans = HttpSpans.LIGHT
    semconv: Semconv = Semconv.V1_41
    trust_inbound_trace: bool = False
    """Continue the trace of callers who send a traceparent; otherwise theirs is linked."""
    log_requests: bool = True


class ModelFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model:` of a route: one provider and one of its models."""

    provider: str | None = None
    name: str | None = None
    config: dict[str, Any] | None = None
    timeouts: Timeouts | None = None
    propagate_trace: bool = False


class TargetFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of a route's `targets:`: a model with its share of the traffic, and its place in the fallback order."""

    provider: str | None = None
    name: str | None = None
    config: dict[str, Any] | None = None
    weight: float = 1.0
    tier: int = 0
    timeouts: Timeouts | None = None
    propagate_trace: bool = False


class RouteFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `routes:` or of `endpoints:`."""

    name: str
    route_type: str | UnsetType = UNSET
    endpoint_type: str | UnsetType = UNSET
    model: dict[str, Any] | UnsetType = UNSET
    targets: list[dict[str, Any]] | UnsetType = UNSET
    retries: int = 0
    timeouts: Timeouts | None = None


class ConfigFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    routes: list[dict[str, Any]] | UnsetType = UNSET
    endpoints: list[dict[str, Any]] | UnsetType = UNSET
    telemetry: TelemetryFile = TelemetryFile()
    prices: tuple[PriceFile, ...] = ()
    budgets: tuple[BudgetFile, ...] = ()
    keys: tuple[KeyFile, ...] = ()
    ledger: LedgerFile = LedgerFile()
    admin: AdminFile = AdminFile()
