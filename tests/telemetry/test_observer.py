"""The seam: ids, trust, clocks, and sinks that may fail."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext

import pytest
from msgspec import structs

from gateway.telemetry.attempt_observation import AttemptFacts
from gateway.telemetry.observer import Observer
from gateway.telemetry.request_observation import RequestObservation, observe_request
from gateway.telemetry.trust import trusting
from gateway.types.errors import ErrorType, GatewayError, Outcome, RequestError, UpstreamError
from gateway.types.records import AttemptKind, RequestRecord
from gateway.types.route import Operation
from tests.clocks import ManualClock

THEIR_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
THEIR_SPAN = "00f067aa0ba902b7"


class Kept:
    """A sink that keeps records, or fails."""

    name = "kept"

    def __init__(self, *, fails: bool = False) -> None:
        self.records: list[RequestRecord] = []
        self._fails = fails

    def record(self, record: RequestRecord) -> None:
        if self._fails:
            raise RuntimeError("sink on fire")
        self.records.append(record)


class InFlight:
    """Counts by route."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}

    def enter(self, route: str) -> None:
        self.now[route] = self.now.get(route, 0) + 1

    def leave(self, route: str) -> None:
        self.now[route] -= 1


class Watched:
    """An observer over one keeping sink, with all that it was given in reach."""

    def __init__(self, *sinks: Kept, trust: bool = False, sampled: bool = True, http_spans: bool = True) -> None:
        self.kept = Kept()
        self.clock = ManualClock()
        self.in_flight = InFlight()
        self.failed_sinks: list[str] = []
        self.asked: list[tuple[int, str]] = []
        self.observer = Observer(
            sinks=(*sinks, self.kept),
            clock=self.clock,
            rng=random.Random(1),
            sample=lambda trace_id, path: bool(self.asked.append((trace_id, path))) or sampled,
            in_flight=self.in_flight,
            on_answer=lambda provider, model, headers: None,
            on_sink_error=self.failed_sinks.append,
            trusts=trusting(trust),
            http_spans=http_spans,
        )

    def request(self, traceparent: str | None = None) -> RequestObservation:
        return observe_request(
            self.observer, method="POST", path_template="/x", scheme="http", server=("h", 1), traceparent=traceparent
        )

    @property
    def record(self) -> RequestRecord:
        [record] = self.kept.records
        return record


ATTEMPT = AttemptFacts(
    kind=AttemptKind.FIRST,
    operation=Operation.CHAT,
    provider="openai",
    gen_ai_provider="openai",
    request_model="m",
    server_address="h",
    server_port=1,
    stream=False,
)


def test_a_trusted_callers_trace_is_continued() -> None:
    """With trust, the caller's span is the parent; whether it is kept is still decided here."""
    watched = Watched(trust=True, sampled=False)
    with watched.request(f"00-{THEIR_TRACE}-{THEIR_SPAN}-01"):
        pass
    trace = watched.record.trace
    assert (trace.trace_id_hex, f"{trace.parent_span_id:016x}") == (THEIR_TRACE, THEIR_SPAN)
    assert trace.link_trace_id is None
    assert not trace.sampled
    assert watched.asked == [(int(THEIR_TRACE, 16), "/x")]


def test_anyone_elses_trace_is_a_link() -> None:
    """Without trust there is a new root, linked to the caller's span."""
    watched = Watched()
    with watched.request(f"00-{THEIR_TRACE}-{THEIR_SPAN}-00"):
        pass
    trace = watched.record.trace
    assert trace.trace_id_hex != THEIR_TRACE
    assert trace.parent_span_id is None
    assert (trace.link_trace_id, trace.link_span_id) == (int(THEIR_TRACE, 16), int(THEIR_SPAN, 16))
    assert trace.sampled


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"00-{THEIR_TRACE}-{THEIR_SPAN}",
        f"01-{THEIR_TRACE}-{THEIR_SPAN}-01",
        f"00-{THEIR_TRACE.upper()}-{THEIR_SPAN}-01",
        f"00-{'0' * 32}-{THEIR_SPAN}-01",
        f"00-{THEIR_TRACE}-{'0' * 16}-01",
        f"00-{THEIR_TRACE}-{THEIR_SPAN}-01-extra",
    ],
)
@pytest.mark.parametrize("trust", [True, False])
def test_a_wrong_traceparent_is_as_good_as_none(header: str, *, trust: bool) -> None:
    """Malformed or all-zero ids give a new root without a parent."""
    watched = Watched(trust=trust)
    with watched.request(header):
        pass
    trace = watched.record.trace
    assert trace.parent_span_id is None
    assert trace.link_trace_id is None or trace.link_span_id is None
    assert trace.trace_id not in {0, int(THEIR_TRACE, 16)}


def test_a_failing_sink_is_counted_and_disturbs_nobody() -> None:
    """The other sinks get the record, and the caller notices nothing."""
    watched = Watched(Kept(fails=True))
    with watched.request():
        pass
    assert watched.failed_sinks == ["kept"]
    assert watched.record.outcome is Outcome.OK


@pytest.mark.parametrize(
    ("told", "raised", "error_type"),
    [
        (None, None, None),
        (RequestError(ErrorType.INVALID_REQUEST, "x"), None, ErrorType.INVALID_REQUEST),
        (None, ValueError("bug"), ErrorType.INTERNAL),
        (None, asyncio.CancelledError(), ErrorType.SHUTTING_DOWN),
    ],
)
def test_requests_in_flight_end_at_zero(
    told: GatewayError | None, raised: BaseException | None, error_type: ErrorType | None
) -> None:
    """However a request ends, it is no longer in flight, and its cause is the one it was told, or what broke it."""
    watched = Watched()
    with pytest.raises(type(raised)) if raised else nullcontext(), watched.request() as request:
        request.routed("chat", "llm/v1/chat")
        assert watched.in_flight.now == {"chat": 1}
        if told is not None:
            request.failed(told)
        if raised is not None:
            raise raised
    assert watched.in_flight.now == {"chat": 0}
    assert watched.record.error_type is error_type


def test_a_request_for_no_route_is_told_of_all_the_same() -> None:
    """Its route is `_other`, and nothing is in flight for it."""
    watched = Watched()
    with watched.request() as request:
        request.failed(RequestError(ErrorType.UNKNOWN_ROUTE, "x"))
    assert (watched.record.route, watched.record.error_type) == ("_other", ErrorType.UNKNOWN_ROUTE)
    assert watched.in_flight.now == {}


def test_each_attempt_leaves_a_record_with_its_own_clock() -> None:
    """Durations, the first byte and the chunks are measured from the attempt's own start."""
    watched = Watched()
    clock = watched.clock
    with watched.request() as request:
        request.routed("chat", "llm/v1/chat")
        clock.advance(1.0)
        with request.observe_attempt(ATTEMPT) as failed:
            failed.sending("POST", "http://h:1/v1")
            clock.advance(0.5)
            failed.answered(503, {})
            failed.failed(UpstreamError(ErrorType.PROVIDER_OVERLOADED, "busy", status=503))
        with request.observe_attempt(structs.replace(ATTEMPT, kind=AttemptKind.RETRY)) as attempt:
            attempt.sending("POST", "http://h:1/v1")
            clock.advance(0.25)
            attempt.answered(200, {})
            clock.advance(0.25)
            attempt.chunk(clock.monotonic(), generated=True)
            clock.advance(1.0)
            attempt.chunk(clock.monotonic(), generated=True)
    first, second = watched.record.attempts
    assert (first.number, first.error_type, first.status_code) == (1, ErrorType.PROVIDER_OVERLOADED, 503)
    assert (second.number, second.kind, second.chunks) == (2, AttemptKind.RETRY, 2)
    assert (second.first_byte_s, second.first_chunk_s, second.last_chunk_s) == (0.25, 0.5, 1.5)
    assert (first.duration_s, second.duration_s, watched.record.duration_s) == (0.5, 1.5, 3.0)
    assert second.http is not None
    assert second.http.end_ns - second.http.start_ns == 250_000_000
    assert watched.record.end_ns - watched.record.start_ns == 3_000_000_000


def test_no_exchange_is_told_of_where_its_span_is_off() -> None:
    """With http_spans off, or made by the instrumentation, the record holds no exchange."""
    watched = Watched(http_spans=False)
    with watched.request() as request, request.observe_attempt(ATTEMPT) as attempt:
        attempt.sending("POST", "http://h:1/v1")
        attempt.answered(200, {})
    assert watched.record.attempts[0].http is None
