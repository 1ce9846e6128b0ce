"""The seam: what happens between `observe_request` and its end becomes one frozen RequestRecord for every sink.

While a request runs, an observation only stamps clocks and keeps references. At the end the record is made once and
handed to the sinks (spans, metrics, log line). A sink that fails is counted and never disturbs the request.
No provider call happens outside `observe_attempt`: upstream hits = attempt records = CLIENT spans.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from msgspec import structs

from gateway.telemetry.content import ContentMaker
from gateway.telemetry.redact import Redactor, public_url
from gateway.types.clock import Clock, Rng
from gateway.types.errors import ErrorType, GatewayError, Outcome, UpstreamError
from gateway.types.model_io import ModelRequest
from gateway.types.rate_limits import Remaining
from gateway.types.records import (
    ANONYMOUS,
    NO_PARAMETERS,
    OTHER,
    AttemptKind,
    AttemptRecord,
    Caller,
    Content,
    Cost,
    HttpExchange,
    Phases,
    RequestParameters,
    RequestRecord,
    TraceContext,
)
from gateway.types.route import CaptureTo, ContentCapture, Operation
from gateway.types.usage import Usage

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Sink(Protocol):
    """A consumer of finished records. It must not block."""

    name: str

    def record(self, record: RequestRecord) -> None:
        """Take one finished request."""
        ...


class InFlight(Protocol):
    """Counts the requests being served, by route."""

    def enter(self, route: str) -> None:
        """A request of this route began."""
        ...

    def leave(self, route: str) -> None:
        """A request of this route ended."""
        ...


class Observer:
    """Makes observations and hands their records to the sinks.

    Args:
        sample: whether the spans of a trace are exported; called once a request with the trace id and the path template.
        on_remaining: told a target's provider and model and what a reply said is left of its rate limits.
        on_sink_error: told the name of a sink that failed.
        trusts: whether the trace of a caller at an address is continued; otherwise it is linked.
        reads_traceparent: do either.
    """

    def __init__(
        self,
        *,
        sinks: Sequence[Sink],
        clock: Clock,
        rng: Rng,
        sample: Callable[[int, str], bool],
        in_flight: InFlight,
        on_remaining: Callable[[str, str, Remaining], None],
        on_sink_error: Callable[[str], None],
        trusts: Callable[[str], bool],
        reads_traceparent: bool = True,
        http_spans: bool = True,
        redactor: Redactor | None = None,
    ) -> None:
        self.sinks = tuple(sinks)
        self.clock = clock
        self.rng = rng
        self.in_flight = in_flight
        self.on_remaining = on_remaining
        self.http_spans = http_spans
        self.redactor = redactor or Redactor()
        self._contents = ContentMaker(self.redactor)
        self._sample = sample
        self._on_sink_error = on_sink_error
        self._trusts = trusts
        self._reads_traceparent = reads_traceparent

    def observe_request(
        self,
        *,
        method: str,
        path_template: str,
        scheme: str,
        server: tuple[str, int],
        traceparent: str | None = None,
        user_agent: str = "",
        address: str = "",
    ) -> "RequestObservation":
        """Begin to observe one caller request; to be used in a `with` statement."""
        trace = self._trace_context(path_template, traceparent, address)
        return RequestObservation(self, trace, method, path_template, scheme, server, user_agent, address)

    def _trace_context(self, path_template: str, traceparent: str | None, address: str) -> TraceContext:
        rng = self.rng
        span_id = rng.getrandbits(64) or 1
        inbound = _TRACEPARENT.fullmatch(traceparent) if traceparent and self._reads_traceparent else None
        if inbound is None:
            trace_id = rng.getrandbits(128) or 1
            return TraceContext(trace_id=trace_id, span_id=span_id, sampled=self._sample(trace_id, path_template))
        their_trace, their_span = int(inbound[1], 16), int(inbound[2], 16)
        if their_trace and their_span and self._trusts(address):
            # Their sampled flag is not asked: a caller must not decide what is kept here.
            sampled = self._sample(their_trace, path_template)
            return TraceContext(trace_id=their_trace, span_id=span_id, sampled=sampled, parent_span_id=their_span)
        trace_id = rng.getrandbits(128) or 1
        return TraceContext(
            trace_id=trace_id,
            span_id=span_id,
            sampled=self._sample(trace_id, path_template),
            link_trace_id=their_trace or None,
            link_span_id=their_span or None,
        )

    def content(
        self, capture: ContentCapture, request: ModelRequest, reply: bytes | Sequence[bytes] | None
    ) -> Content | None:
        """The content of an attempt, redacted; None when it cannot be made."""
        try:
            return self._contents.make(capture, request, reply)
        except Exception:  # noqa: BLE001 - whatever a body holds, the request has been served
            self._on_sink_error("content")
            return None

    def publish(self, record: RequestRecord) -> None:
        """Hand a record to every sink."""
        for sink in self.sinks:
            try:
                sink.record(record)
            except Exception:  # noqa: BLE001 - whatever a sink does, the request has been served
                self._on_sink_error(sink.name)


class RequestObservation:
    """One caller request while it runs."""

    __slots__ = (
        "_address", "_attempts", "_begun", "_method", "_observer", "_path_template", "_route", "_scheme", "_server",
        "_start", "_start_ns", "_user_agent", "admit_s", "backoff_s", "caller", "caller_s", "capture", "encode_s", "error_type", "request_id",
        "route_type", "settle_s", "status_code", "stream", "trace", "upstream_s",
    )  # fmt: skip

    def __init__(
        self,
        observer: Observer,
        trace: TraceContext,
        method: str,
        path_template: str,
        scheme: str,
        server: tuple[str, int],
        user_agent: str,
        address: str,
    ) -> None:
        self._observer = observer
        self.trace = trace
        # Not of the trace alone: callers may continue one trace over many requests, and each is charged.
        self.request_id = f"req_{trace.trace_id_hex[:8]}{trace.span_id:016x}"
        self._method = method
        self._path_template = path_template
        self._scheme = scheme
        self._server = server
        self._user_agent = user_agent
        self._address = address
        self._attempts: list[AttemptRecord] = []
        self._begun = 0
        self._route: str | None = None
        self.route_type = ""
        self.caller: Caller = ANONYMOUS
        self.stream = False
        self.error_type: ErrorType | None = None
        self.status_code = 0
        self.capture: ContentCapture | None = None
        self.admit_s = self.encode_s = self.upstream_s = self.settle_s = self.caller_s = self.backoff_s = 0.0

    def __enter__(self) -> "RequestObservation":
        clock = self._observer.clock
        self._start_ns = clock.now_ns()
        self._start = clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.error_type is None:
            # What nobody caught is a cancelled task: the process is stopping and the grace is over.
            cancelled = isinstance(error, asyncio.CancelledError)
            self.error_type = ErrorType.SHUTTING_DOWN if cancelled else ErrorType.INTERNAL
        self._finish()

    @property
    def clock(self) -> Clock:
        """The clock that this observation reads."""
        return self._observer.clock

    @property
    def cost_nano_usd(self) -> int | None:
        """The cost of the attempts that have ended; None when none of them has a known price."""
        known = [a.cost.nano_usd for a in self._attempts if a.cost is not None and a.cost.nano_usd is not None]
        return sum(known) if known else None

    @property
    def attempt_count(self) -> int:
        """How many attempts have begun."""
        return self._begun

    @property
    def own_s(self) -> float:
        """Seconds since the request began that were the gateway's own: no wait for provider, retry or caller."""
        elapsed_s = self._observer.clock.monotonic() - self._start
        return max(0.0, elapsed_s - self.upstream_s - self.caller_s - self.backoff_s)

    def routed(self, route: str, route_type: str, content: ContentCapture | None = None) -> None:
        """The request is for this configured route, which may ask for its content to be kept."""
        self._route = route
        self.route_type = route_type
        # The content of a span that is not kept need not be made.
        if content is not None and (content.to is not CaptureTo.SPAN or self.trace.sampled):
            self.capture = content if content.to is not CaptureTo.NONE else None
        self._observer.in_flight.enter(route)

    def admitted(self) -> None:
        """The request may be served: stamps the end of admission."""
        self.admit_s = self._observer.clock.monotonic() - self._start - self.caller_s

    def failed(self, error: GatewayError) -> None:
        """The request ends with this error."""
        self.error_type = error.error_type

    def observe_attempt(self, **facts: object) -> "AttemptObservation":
        """Begin to observe one attempt; takes the arguments of `AttemptObservation`. For a `with` statement."""
        self._begun += 1
        return AttemptObservation(self._observer, self, self._begun, **facts)  # type: ignore[arg-type]

    def add(self, attempt: AttemptRecord) -> None:
        """Keep an ended attempt."""
        self._attempts.append(attempt)

    def _finish(self) -> None:
        observer = self._observer
        duration_s = observer.clock.monotonic() - self._start
        error_type = self.error_type
        record = RequestRecord(
            request_id=self.request_id,
            trace=self.trace,
            caller=self.caller,
            method=self._method,
            path_template=self._path_template,
            scheme=self._scheme,
            server_address=self._server[0],
            server_port=self._server[1],
            route=self._route or OTHER,
            route_type=self.route_type,
            outcome=Outcome.OK if error_type is None else error_type.outcome,
            status_code=self.status_code,
            start_ns=self._start_ns,
            end_ns=self._start_ns + int(duration_s * 1e9),
            duration_s=duration_s,
            phases=Phases(
                admit_s=self.admit_s,
                encode_s=self.encode_s,
                upstream_s=self.upstream_s,
                settle_s=self.settle_s,
                caller_s=self.caller_s,
                backoff_s=self.backoff_s,
            ),
            attempts=tuple(self._attempts),
            error_type=error_type,
            stream=self.stream,
            user_agent=observer.redactor.user_agent(self._user_agent),
            client_address=self._address,
        )
        if self._route is not None:
            observer.in_flight.leave(self._route)
        observer.publish(record)


class AttemptObservation:
    """One upstream try while it runs. The caller of `observe_attempt` fills in what it learns."""

    __slots__ = (
        "_asked", "_gen_ai_provider", "_generated", "_http_end_ns", "_http_method", "_http_span_id", "_http_start_ns", "_http_url", "_kind",
        "_number", "_observer", "_operation", "_parameters", "_provider", "_request", "_request_model",
        "_server_address", "_server_port", "_start", "_stream", "chunks", "connect_s", "cost", "error_type",
        "finish_reasons", "first_byte_s", "first_chunk_s", "last_chunk_s", "output_chars", "pieces", "record", "reply", "response_id",
        "response_model", "span_id", "start_ns", "status_code", "usage",
    )  # fmt: skip

    def __init__(
        self,
        observer: Observer,
        request: RequestObservation,
        number: int,
        *,
        kind: AttemptKind,
        operation: Operation,
        provider: str,
        gen_ai_provider: str,
        model: str,
        server_address: str,
        server_port: int,
        stream: bool,
        parameters: RequestParameters = NO_PARAMETERS,
    ) -> None:
        self._observer = observer
        self._request = request
        self._number = number
        self._kind = kind
        self._operation = operation
        self._provider = provider
        self._gen_ai_provider = gen_ai_provider
        self._request_model = model
        self._server_address = server_address
        self._server_port = server_port
        self._stream = stream
        self._parameters = parameters
        self._asked: ModelRequest | None = None
        self.reply: bytes | None = None
        """The canonical body of a whole reply; kept only where `pieces` is not None."""
        self.pieces: list[bytes] | None = None
        """The canonical events of a stream; None where no content is captured."""
        self.span_id = observer.rng.getrandbits(64) or 1
        self.error_type: ErrorType | None = None
        self.status_code: int | None = None
        self.usage: Usage | None = None
        self.cost: Cost | None = None
        self.response_model: str | None = None
        self.response_id: str | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.connect_s: float | None = None
        self.first_byte_s: float | None = None
        self.first_chunk_s: float | None = None
        self._generated = False
        self.last_chunk_s: float | None = None
        self.chunks = 0
        self.output_chars = 0
        self.record: AttemptRecord | None = None
        self._http_start_ns = 0
        self._http_end_ns = 0
        self._http_span_id = 0

    def __enter__(self) -> "AttemptObservation":
        clock = self._observer.clock
        self.start_ns = clock.now_ns()
        self._start = clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.error_type is None:
            self.error_type = ErrorType.INTERNAL
        self._finish()

    def asks(self, request: ModelRequest) -> None:
        """What is sent, in canonical form; its content is kept if the route says so."""
        capture = self._request.capture
        if capture is not None:
            self._asked = request
            self.pieces = []
        stop = self._parameters.stop
        if stop is not None:
            # It is content as well: what the caller wrote.
            kept = capture is not None and capture.to is CaptureTo.SPAN
            told = tuple(map(self._observer.redactor.text, stop)) if kept else None
            self._parameters = structs.replace(self._parameters, stop=told)

    def _content(self) -> Content | None:
        capture = self._request.capture
        if self._asked is None or capture is None:
            return None
        reply = self.reply if self.reply is not None else self.pieces or None
        return self._observer.content(capture, self._asked, reply)

    def failed(self, error: GatewayError) -> None:
        """The attempt ends with this error."""
        self.error_type = error.error_type
        if isinstance(error, UpstreamError) and error.status is not None:
            self.status_code = error.status

    @property
    def trace(self) -> TraceContext:
        """The ids of the request's trace."""
        return self._request.trace

    @property
    def traceparent(self) -> str:
        """The W3C header that makes the upstream's spans children of this attempt."""
        trace = self._request.trace
        return f"00-{trace.trace_id_hex}-{self.span_id:016x}-{int(trace.sampled):02x}"

    def sending(self, method: str, url: str) -> None:
        """The HTTP exchange begins."""
        self._http_method = method
        self._http_url = public_url(url)
        self._http_span_id = self._observer.rng.getrandbits(64) or 1
        self._http_start_ns = self.start_ns + int((self._observer.clock.monotonic() - self._start) * 1e9)

    def answered(self, status: int, connect_s: float | None = None, remaining: Remaining = ()) -> None:
        """The reply's headers came.

        Args:
            status: of the reply.
            connect_s: how long its connection took to open; None where it was open already.
            remaining: what the headers say is left of the provider's rate limits.
        """
        elapsed_s = self._observer.clock.monotonic() - self._start
        self._http_end_ns = self.start_ns + int(elapsed_s * 1e9)
        self.status_code = status
        self.first_byte_s = elapsed_s
        self.connect_s = connect_s
        if remaining:
            self._observer.on_remaining(self._provider, self._request_model, remaining)

    def unanswered(self, connect_s: float | None = None) -> None:
        """The exchange failed without headers; `connect_s` as above, until connecting failed where it did."""
        self._http_end_ns = self.start_ns + int((self._observer.clock.monotonic() - self._start) * 1e9)
        self.connect_s = connect_s

    def chunk(self, now: float, *, generated: bool) -> None:
        """A streamed chunk came at the monotonic time `now`; `generated`: the stream has shown some of the output."""
        elapsed_s = now - self._start
        if self.first_chunk_s is None or (generated and not self._generated):
            self.first_chunk_s = elapsed_s
            self._generated = generated
        self.last_chunk_s = elapsed_s
        self.chunks += 1

    def _http_exchange(self, end_ns: int) -> HttpExchange | None:
        if not self._http_start_ns or not self._observer.http_spans:
            return None
        return HttpExchange(
            method=self._http_method,
            url=self._http_url,
            server_address=self._server_address,
            server_port=self._server_port,
            span_id=self._http_span_id,
            start_ns=self._http_start_ns,
            # A caller who leaves before the headers ends the exchange with the attempt.
            end_ns=self._http_end_ns or end_ns,
            status_code=self.status_code,
            error=self.error_type.value if self.error_type is not None and self.status_code is None else None,
        )

    def _finish(self) -> None:
        duration_s = self._observer.clock.monotonic() - self._start
        end_ns = self.start_ns + int(duration_s * 1e9)
        error_type = self.error_type
        self.record = AttemptRecord(
            number=self._number,
            kind=self._kind,
            operation=self._operation,
            provider=self._provider,
            gen_ai_provider=self._gen_ai_provider,
            request_model=self._request_model,
            server_address=self._server_address,
            server_port=self._server_port,
            span_id=self.span_id,
            start_ns=self.start_ns,
            end_ns=end_ns,
            duration_s=duration_s,
            outcome=Outcome.OK if error_type is None else error_type.outcome,
            stream=self._stream,
            error_type=error_type,
            status_code=self.status_code,
            usage=self.usage,
            cost=self.cost,
            response_model=self.response_model,
            response_id=self.response_id,
            finish_reasons=self.finish_reasons,
            parameters=self._parameters,
            connect_s=self.connect_s,
            first_byte_s=self.first_byte_s,
            first_chunk_s=self.first_chunk_s,
            last_chunk_s=self.last_chunk_s,
            chunks=self.chunks,
            output_chars=self.output_chars,
            http=self._http_exchange(end_ns),
            content=self._content() if self._asked is not None else None,
        )
        self._request.add(self.record)
