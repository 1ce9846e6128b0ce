"""opentelemetry-instrumentation-httpx on one client: the spans of exchanges that are not the hot path's own."""

import os
from typing import Any

from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider


def instrument_client(client: Any, provider: TracerProvider) -> None:
    """Put the instrumentation on an `httpx.AsyncClient` (the global switch misses custom transports)."""
    # The stable HTTP conventions, as everywhere here; the instrumentation reads its choice once, and only from there.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    HTTPXClientInstrumentor.instrument_client(client, tracer_provider=provider)
