"""One caller request while it runs: clocks, phases, attempts, and at its end the record."""

import asyncio
from types import TracebackType

from gateway.telemetry.attempt_observation import AttemptFacts, AttemptObservation
from gateway.telemetry.observer import Observer
from gateway.types.clock import Clock
from gateway.types.errors import ErrorType, GatewayError, Outcome
from gateway.types.records import ANONYMOUS, OTHER, AttemptRecord, Caller, Phases, RequestRecord, TraceContext
from gateway.types.route import CaptureTo, ContentCapture


def observe_request(
    observer: Observer,
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
    trace = observer.trace_context(path_template, traceparent, address)
    return RequestObservation(observer, trace, method, path_template, scheme, server, user_agent, address)


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
        self.request_id = ""
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
        # Milliseconds first: in the ledger's index random ids cost twice the time, and four times the writes, of ids
        # that grow. Not the trace's id: callers may continue one trace over many requests, and each is charged.
        self.request_id = f"req_{self._start_ns // 1_000_000:011x}{self.trace.span_id:016x}"
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

    def observe_attempt(self, facts: AttemptFacts) -> AttemptObservation:
        """Begin to observe one attempt; to be used in a `with` statement."""
        self._begun += 1
        return AttemptObservation(
            self._observer, self.trace, self._begun, facts, capture=self.capture, on_end=self._attempts.append
        )

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
