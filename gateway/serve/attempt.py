"""One attempt at one target, inside the seam that measures it. Nothing else in the gateway talks to a provider.

An attempt is admitted by the accounts before its first byte leaves, and charged at its end, however it ends.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.providers.canonical_reply import with_usage
from gateway.providers.spec import Codec
from gateway.providers.whole_reply import as_chunks, is_whole
from gateway.serve.charging import capped, charge_facts, payer_of, unread_facts
from gateway.serve.delivery import Delivery
from gateway.serve.draining import drained
from gateway.serve.parameters import request_parameters
from gateway.serve.routing import BoundTarget
from gateway.spend.ledger import Accounts, Hold
from gateway.spend.settle import ChargeFacts, ending, may_be_estimated
from gateway.telemetry.attempt_observation import AttemptFacts, AttemptObservation
from gateway.telemetry.context import active_attempt
from gateway.telemetry.request_observation import RequestObservation
from gateway.types.errors import ErrorType, GatewayError, UpstreamError, is_unsupported, unsupported_content_type
from gateway.types.model_io import Framing, ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.records import NO_PARAMETERS, AttemptKind
from gateway.types.route import Operation
from gateway.upstream.aws_event_stream import AwsEventStreamDecoder
from gateway.upstream.client import UpstreamClient
from gateway.upstream.framing import SseDecoder
from gateway.upstream.ndjson import NdjsonDecoder
from gateway.upstream.pool import Exchange


class Attempts:
    """Makes attempts.

    Args:
        upstream: the way to the providers.
        accounts: who may spend, and what was spent.
        instrumented: the HTTP span is made by the httpx instrumentation, which needs the attempt as its context.
    """

    def __init__(self, upstream: UpstreamClient, accounts: Accounts, *, instrumented: bool = False) -> None:
        self._upstream = upstream
        self._accounts = accounts
        self._instrumented = instrumented

    async def make(
        self,
        observation: RequestObservation,
        route: str,
        bound: BoundTarget,
        codec: Codec,
        request: ModelRequest,
        kind: AttemptKind,
        delivery: Delivery,
    ) -> ModelReply | None:
        """Try one target.

        Returns the whole reply, or None when a stream has been delivered to its end.
        Raises RequestError (what the dialect cannot express), PolicyError (no budget), UpstreamError, ServiceError.
        """
        clock = observation.clock
        begun = clock.monotonic()
        number = observation.attempt_count + 1
        payer = payer_of(observation.caller, route, bound.target.provider, bound.target.model)
        read = charge_facts if self._accounts.holds else unread_facts
        facts = read(request, payer, observation.request_id, number)
        hold = await self._accounts.admit(facts)
        admitted = clock.monotonic()
        observation.admit_s += admitted - begun
        try:
            if hold is not None:
                request = capped(request, hold.caps, bound.target.provider)
            wire = codec.to_wire(request, bound.endpoint)
        except BaseException:
            self._accounts.release(hold)
            raise
        observation.encode_s += clock.monotonic() - admitted
        with observation.observe_attempt(_known(bound, request, kind, sampled=observation.trace.sampled)) as attempt:
            attempt.asks(request)
            trial = _Trial(observation, attempt, bound, codec, request, delivery)
            try:
                exchange = trial.run(self._upstream, wire, instrumented=self._instrumented)
                if bound.target.drain_s is None or not request.stream:
                    return await exchange
                return await drained(exchange, delivery, bound.target.drain_s)
            except GatewayError as error:
                if isinstance(error, UpstreamError):
                    trial.sent = error.sent
                elif error.error_type is ErrorType.CREDENTIAL_UNAVAILABLE:
                    trial.sent = False
                attempt.failed(error)
                raise
            except asyncio.CancelledError:
                attempt.error_type = ErrorType.CALLER_LEFT if delivery.left else ErrorType.SHUTTING_DOWN
                raise
            finally:
                trial.drained = bound.target.drain_s is not None and delivery.left
                self._charge(observation, attempt, trial, facts, hold)

    def _charge(
        self,
        observation: RequestObservation,
        attempt: AttemptObservation,
        trial: "_Trial",
        facts: ChargeFacts,
        hold: Hold | None,
    ) -> None:
        settling = observation.clock.monotonic()
        how = ending(
            attempt.error_type,
            sent=trial.sent,
            status=attempt.status_code,
            finished=trial.finished,
            started=trial.started,
            drained=trial.drained,
            generated=attempt.output_chars > 0,
        )
        # No bytes counted means that the request was not read before it was sent.
        if not facts.input_bytes and may_be_estimated(how, attempt.usage):
            facts = charge_facts(trial.request, facts.payer, facts.request_id, facts.attempt)
        attempt.cost, attempt.usage = self._accounts.price(
            facts,
            how,
            attempt.usage,
            at_ns=attempt.start_ns if hold is None else hold.at_ns,
            hold=hold,
            output_chars=attempt.output_chars,
            chunks=attempt.chunks,
            response_model=attempt.response_model,
        )
        self._accounts.settle(hold, facts, attempt.cost, attempt.usage, started_ns=attempt.start_ns)
        observation.settle_s += observation.clock.monotonic() - settling


class _Trial:
    """The exchange of one attempt, and how far it has come.

    `sent` says whether request bytes may have reached the provider, `started` whether some of the reply came,
    `finished` whether the provider has completed it, and `drained` whether it was read on for a caller who had left.
    """

    def __init__(
        self,
        observation: RequestObservation,
        attempt: AttemptObservation,
        bound: BoundTarget,
        codec: Codec,
        request: ModelRequest,
        delivery: Delivery,
    ) -> None:
        self._observation = observation
        self._attempt = attempt
        self._bound = bound
        self._codec = codec
        self.request = request
        self._delivery = delivery
        self.sent = True
        self.started = False
        self.finished = False
        self.drained = False

    async def run(self, upstream: UpstreamClient, wire: WireRequest, *, instrumented: bool) -> ModelReply | None:
        exchange = await self._send(upstream, wire, instrumented=instrumented)
        complete = False
        try:
            if self.request.stream and self._codec.open_stream is not None:
                await self._relay(exchange)
                complete = True
                return None
            reply = await self._read(exchange)
            complete = True
            return reply
        finally:
            if complete:
                exchange.release()
            else:
                # The upstream must see at once that nobody reads any more.
                exchange.close()

    async def _send(self, upstream: UpstreamClient, wire: WireRequest, *, instrumented: bool) -> Exchange:
        attempt, bound = self._attempt, self._bound
        endpoint = bound.endpoint
        headers = endpoint.headers
        if bound.target.propagate_trace:
            headers = (*headers, ("traceparent", attempt.traceparent))
        monotonic = self._observation.clock.monotonic
        sending = monotonic()
        attempt.sending(wire.method, wire.url)
        try:
            with active_attempt(attempt, enabled=instrumented):
                exchange = await upstream.send(
                    wire,
                    endpoint.auth,
                    bound.target.timeouts,
                    endpoint.dialect.fault,
                    headers,
                    on_answer=self._answered,
                    stream=self.request.stream,
                    propagate_trace=bound.target.propagate_trace,
                )
        except UpstreamError as error:
            if attempt.status_code is None:
                attempt.unanswered(error.connect_s)
            raise
        finally:
            self._observation.upstream_s += monotonic() - sending
        return exchange

    def _answered(self, exchange: Exchange) -> None:
        self._attempt.answered(exchange.status, exchange.headers, exchange.connect_s)

    async def _read(self, exchange: Exchange) -> ModelReply:
        attempt = self._attempt
        monotonic = self._observation.clock.monotonic
        waiting = monotonic()
        try:
            body = await exchange.read()
        finally:
            self._observation.upstream_s += monotonic() - waiting
        self.started = True
        try:
            reply = self._codec.from_wire(body, self.request, self._bound.endpoint)
            if reply.usage is None and self._codec.header_usage is not None:
                reply = with_usage(reply, self._codec.header_usage(exchange.headers))
        except RecursionError:
            raise _too_deep() from None
        except UpstreamError as error:
            content_type = exchange.headers.get("content-type", "")
            if is_unsupported(content_type):
                # As the MLflow gateway said it: the wrong kind of reply explains why it could not be read.
                raise UpstreamError(error.error_type, unsupported_content_type(content_type)) from error
            raise
        self.finished = True
        attempt.usage = reply.usage
        attempt.response_model = reply.response_model
        attempt.response_id = reply.response_id
        attempt.finish_reasons = reply.finish_reasons
        attempt.output_chars = reply.output_chars
        if attempt.pieces is not None:
            attempt.reply = reply.body
        return reply

    async def _relay(self, exchange: Exchange) -> None:
        assert self._codec.open_stream is not None
        translator = self._codec.open_stream(self.request, self._bound.endpoint)
        decoder = _DECODERS[self._bound.endpoint.dialect.framing]()
        observation, attempt = self._observation, self._attempt
        monotonic = observation.clock.monotonic
        waiting, at_upstream = monotonic(), True
        try:
            stream = exchange.chunks()
            async for data in stream:
                came = monotonic()
                observation.upstream_s += came - waiting
                at_upstream = False
                if not self.started and self._may_be_whole and is_whole(data):
                    waiting, at_upstream = came, True
                    body = b"".join([data, *[more async for more in stream]])
                    observation.upstream_s += monotonic() - waiting
                    at_upstream = False
                    await self._relay_whole(body, translator.summary)
                    return
                self.started = True
                pieces = [piece for event in decoder.feed(data) if (piece := translator.feed(event))]
                if pieces:
                    attempt.chunk(came, generated=translator.summary.output_chars > 0)
                    if attempt.pieces is not None:
                        attempt.pieces += pieces
                    await self._pass_on(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                waiting, at_upstream = monotonic(), True
            observation.upstream_s += monotonic() - waiting
            at_upstream = False
            rest = b"".join([*(translator.feed(event) for event in decoder.close()), translator.close()])
            if not translator.summary.finished:
                raise UpstreamError(ErrorType.STREAM_CUT, "The provider broke its reply off before its end.")
            await self._pass_on(rest)
        except RecursionError:
            raise _too_deep() from None
        finally:
            if at_upstream:
                # A stream that breaks off or stalls was waited for, too.
                observation.upstream_s += monotonic() - waiting
            self.finished = translator.summary.finished
            _summarise(attempt, translator.summary)

    @property
    def _may_be_whole(self) -> bool:
        """Whether a provider that cannot stream may answer in one piece: its own APIs' replies are no events of theirs."""
        sse = self._bound.endpoint.dialect.framing is Framing.SSE
        return sse and self.request.operation in (Operation.CHAT, Operation.COMPLETIONS)

    async def _relay_whole(self, body: bytes, summary: StreamSummary) -> None:
        """Pass a whole reply on as the stream that was asked for."""
        self.started = True
        attempt = self._attempt
        reply = self._codec.from_wire(body, self.request, self._bound.endpoint)
        chunks = as_chunks(reply, self.request, summary)
        attempt.chunk(self._observation.clock.monotonic(), generated=True)
        if attempt.pieces is not None:
            attempt.pieces.append(chunks)
        await self._pass_on(chunks)

    async def _pass_on(self, data: bytes) -> None:
        delivery = self._delivery
        if delivery.left:
            return
        if not delivery.begun:
            await delivery.begin_stream()
        if data:
            await delivery.chunk(data)


def _known(bound: BoundTarget, request: ModelRequest, kind: AttemptKind, *, sampled: bool) -> AttemptFacts:
    return AttemptFacts(
        kind=kind,
        operation=request.operation,
        provider=bound.target.provider,
        gen_ai_provider=bound.gen_ai_provider,
        request_model=bound.target.model,
        server_address=bound.server_address,
        server_port=bound.server_port,
        stream=request.stream,
        # Only spans show them.
        parameters=request_parameters(request) if sampled else NO_PARAMETERS,
    )


def _too_deep() -> UpstreamError:
    return UpstreamError(ErrorType.UNREADABLE_REPLY, "The provider's reply is nested too deep.")


def _summarise(attempt: AttemptObservation, summary: StreamSummary) -> None:
    attempt.usage = summary.usage
    attempt.response_model = summary.response_model
    attempt.response_id = summary.response_id
    attempt.finish_reasons = summary.finish_reasons
    attempt.output_chars = summary.output_chars


class Decoder(Protocol):
    """Cuts an upstream's bytes into events, sans-IO."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that `data` completes. Raises UpstreamError for bytes that are no such stream."""
        ...

    def close(self) -> list[StreamEvent]:
        """The last events, where the stream ended without saying so."""
        ...


_DECODERS: Mapping[Framing, Callable[[], Decoder]] = {
    Framing.SSE: SseDecoder,
    Framing.NDJSON: NdjsonDecoder,
    Framing.AWS_EVENT_STREAM: AwsEventStreamDecoder,
}
