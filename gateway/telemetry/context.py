"""The attempt as OpenTelemetry's current span, for instrumentations that make their own spans below it."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from gateway.telemetry.attempt_observation import AttemptObservation


@contextmanager
def active_attempt(attempt: AttemptObservation, *, enabled: bool) -> Iterator[None]:
    """Make `attempt` the current span while the block runs; nothing at all when not `enabled`."""
    if not enabled:
        yield
        return
    request = attempt.trace
    flags = TraceFlags(TraceFlags.SAMPLED if request.sampled else TraceFlags.DEFAULT)
    span = NonRecordingSpan(SpanContext(request.trace_id, attempt.span_id, is_remote=False, trace_flags=flags))
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)
