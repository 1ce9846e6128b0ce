"""One upstream try while it runs: its clocks, what is learned of the reply, and at its end the record."""

from collections.abc import Callable, Mapping
from types import TracebackType

from msgspec import Struct, structs

from gateway.telemetry.observer import Observer
from gateway.telemetry.redact import public_url
from gateway.types.errors import ErrorType, GatewayError, Outcome, UpstreamError
from gateway.types.model_io import ModelRequest
from gateway.types.records import (
    NO_PARAMETERS,
    AttemptKind,
    AttemptRecord,
    Content,
    Cost,
    HttpExchange,
    RequestParameters,
    TraceContext,
)
from gateway.types.route import CaptureTo, ContentCapture, Operation
from gateway.types.usage import Usage


class AttemptFacts(Struct, frozen=True, kw_only=True):
    """What is known of an attempt before its first byte leaves; the fields are those of `AttemptRecord`."""

    kind: AttemptKind
    operation: Operation
    provider: str
    gen_ai_provider: str
    request_model: str
    server_address: str
    server_port: int
    stream: bool
    parameters: RequestParameters = NO_PARAMETERS


class AttemptObservation:
    """One upstream try while it runs. The caller of `observe_attempt` fills in what it learns.

    `on_end` is given the record.
    """

    __slots__ = (
        "_asked", "_capture", "_facts", "_generated", "_http_end_ns", "_http_method", "_http_span_id",
        "_http_start_ns", "_http_url", "_number", "_observer", "_on_end", "_parameters", "_start", "chunks",
        "connect_s", "cost", "error_type", "finish_reasons", "first_byte_s", "first_chunk_s", "last_chunk_s",
        "output_chars", "pieces", "reply", "response_id", "response_model", "span_id", "start_ns", "status_code",
        "trace", "usage",
    )  # fmt: skip

    def __init__(
        self,
        observer: Observer,
        trace: TraceContext,
        number: int,
        facts: AttemptFacts,
        *,
        capture: ContentCapture | None,
        on_end: Callable[[AttemptRecord], None],
    ) -> None:
        self._observer = observer
        self.trace = trace
        """The ids of the request's trace."""
        self._number = number
        self._facts = facts
        self._parameters = facts.parameters
        self._capture = capture
        self._on_end = on_end
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
        capture = self._capture
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
        if self._asked is None or self._capture is None:
            return None
        reply = self.reply if self.reply is not None else self.pieces or None
        return self._observer.content(self._capture, self._asked, reply)

    def failed(self, error: GatewayError) -> None:
        """The attempt ends with this error."""
        self.error_type = error.error_type
        if isinstance(error, UpstreamError) and error.status is not None:
            self.status_code = error.status

    @property
    def traceparent(self) -> str:
        """The W3C header that makes the upstream's spans children of this attempt."""
        return f"00-{self.trace.trace_id_hex}-{self.span_id:016x}-{int(self.trace.sampled):02x}"

    def sending(self, method: str, url: str) -> None:
        """The HTTP exchange begins."""
        self._http_method = method
        self._http_url = public_url(url)
        self._http_span_id = self._observer.rng.getrandbits(64) or 1
        self._http_start_ns = self.start_ns + int((self._observer.clock.monotonic() - self._start) * 1e9)

    def answered(self, status: int, headers: Mapping[str, str], connect_s: float | None = None) -> None:
        """The reply's headers came.

        Args:
            status: of the reply.
            headers: of the reply; what they say is left of the provider's rate limits is shown.
            connect_s: how long its connection took to open; None where it was open already.
        """
        elapsed_s = self._observer.clock.monotonic() - self._start
        self._http_end_ns = self.start_ns + int(elapsed_s * 1e9)
        self.status_code = status
        self.first_byte_s = elapsed_s
        self.connect_s = connect_s
        self._observer.on_answer(self._facts.provider, self._facts.request_model, headers)

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
            server_address=self._facts.server_address,
            server_port=self._facts.server_port,
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
        facts = self._facts
        record = AttemptRecord(
            number=self._number,
            kind=facts.kind,
            operation=facts.operation,
            provider=facts.provider,
            gen_ai_provider=facts.gen_ai_provider,
            request_model=facts.request_model,
            server_address=facts.server_address,
            server_port=facts.server_port,
            span_id=self.span_id,
            start_ns=self.start_ns,
            end_ns=end_ns,
            duration_s=duration_s,
            outcome=Outcome.OK if error_type is None else error_type.outcome,
            stream=facts.stream,
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
            content=self._content(),
        )
        self._on_end(record)
