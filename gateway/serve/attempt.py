"""One attempt at one target, inside the seam that measures it. Nothing else in the gateway talks to a provider."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.providers.spec import Codec
from gateway.serve.delivery import Delivery
from gateway.serve.parameters import request_parameters
from gateway.serve.routing import BoundTarget
from gateway.telemetry.context import active_attempt
from gateway.telemetry.observe import AttemptObservation, RequestObservation
from gateway.types.errors import ErrorType, RequestError, UpstreamError, is_unsupported, unsupported_content_type
from gateway.types.model_io import Framing, ModelReply, ModelRequest, StreamEvent, StreamSummary
from gateway.types.records import AttemptKind
from gateway.upstream.aws_event_stream import AwsEventStreamDecoder
from gateway.upstream.client import UpstreamClient
from gateway.upstream.framing import SseDecoder
from gateway.upstream.ndjson import NdjsonDecoder
from gateway.upstream.pool import Exchange


class Attempts:
    """Makes attempts.

    Args:
        upstream: the way to the providers.
        instrumented: the HTTP span is made by the httpx instrumentation, which needs the attempt as its context.
    """

    def __init__(self, upstream: UpstreamClient, *, instrumented: bool = False) -> None:
        self._upstream = upstream
        self._instrumented = instrumented

    async def make(
        self,
        observation: RequestObservation,
        bound: BoundTarget,
        codec: Codec,
        request: ModelRequest,
        kind: AttemptKind,
        delivery: Delivery,
    ) -> ModelReply | None:
        """Try one target.

        Returns the whole reply, or None when a stream has been delivered to its end.
        Raises UpstreamError, RequestError (which the dialect cannot express, or whose caller left), ServiceError.
        """
        target = bound.target
        with observation.observe_attempt(
            kind=kind,
            operation=request.operation,
            provider=target.provider,
            gen_ai_provider=bound.gen_ai_provider,
            model=target.model,
            server_address=bound.server_address,
            server_port=bound.server_port,
            stream=request.stream,
            parameters=request_parameters(request),
        ) as attempt:
            try:
                return await self._exchange(observation, attempt, bound, codec, request, delivery)
            except asyncio.CancelledError:
                if not delivery.left:
                    raise
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                raise RequestError(ErrorType.CALLER_LEFT, "The caller closed the connection.") from None

    async def _exchange(
        self,
        observation: RequestObservation,
        attempt: AttemptObservation,
        bound: BoundTarget,
        codec: Codec,
        request: ModelRequest,
        delivery: Delivery,
    ) -> ModelReply | None:
        clock = observation.clock
        begun = clock.monotonic()
        endpoint = bound.endpoint
        wire = codec.to_wire(request, endpoint)
        extra_headers = endpoint.headers
        if bound.target.propagate_trace:
            extra_headers = (*extra_headers, ("traceparent", attempt.traceparent))
        sent = clock.monotonic()
        observation.encode_s += sent - begun
        attempt.sending(wire.method, wire.url)
        try:
            with active_attempt(attempt, enabled=self._instrumented):
                exchange = await self._upstream.send(
                    wire,
                    endpoint.auth,
                    bound.target.timeouts,
                    endpoint.dialect.fault,
                    extra_headers,
                    propagate_trace=bound.target.propagate_trace,
                )
        except UpstreamError as error:
            attempt.answered(error.status)
            raise
        finally:
            observation.upstream_s += clock.monotonic() - sent
        attempt.answered(exchange.status)
        complete = False
        try:
            if request.stream and codec.open_stream is not None:
                await self._relay(observation, attempt, bound, codec, request, delivery, exchange)
                complete = True
                return None
            reply = await self._read(observation, attempt, bound, codec, request, exchange)
            complete = True
            return reply
        finally:
            if complete:
                exchange.release()
            else:
                # The upstream must see at once that nobody reads any more.
                exchange.close()

    async def _read(
        self,
        observation: RequestObservation,
        attempt: AttemptObservation,
        bound: BoundTarget,
        codec: Codec,
        request: ModelRequest,
        exchange: Exchange,
    ) -> ModelReply:
        clock = observation.clock
        waiting = clock.monotonic()
        try:
            body = await exchange.read()
        finally:
            observation.upstream_s += clock.monotonic() - waiting
        try:
            reply = codec.from_wire(body, request, bound.endpoint)
        except UpstreamError as error:
            content_type = exchange.headers.get("content-type", "")
            if is_unsupported(content_type):
                # A proxy's or a login page: its kind says more than that it is no JSON.
                raise UpstreamError(error.error_type, unsupported_content_type(content_type)) from error
            raise
        attempt.usage = reply.usage
        attempt.response_model = reply.response_model
        attempt.response_id = reply.response_id
        attempt.finish_reasons = reply.finish_reasons
        attempt.output_chars = reply.output_chars
        return reply

    async def _relay(
        self,
        observation: RequestObservation,
        attempt: AttemptObservation,
        bound: BoundTarget,
        codec: Codec,
        request: ModelRequest,
        delivery: Delivery,
        exchange: Exchange,
    ) -> None:
        assert codec.open_stream is not None
        translator = codec.open_stream(request, bound.endpoint)
        decoder = _DECODERS[bound.endpoint.dialect.framing]()
        monotonic = observation.clock.monotonic
        try:
            waiting = monotonic()
            async for data in exchange.chunks():
                came = monotonic()
                observation.upstream_s += came - waiting
                pieces = [piece for event in decoder.feed(data) if (piece := translator.feed(event))]
                if pieces:
                    attempt.chunk(came)
                    sending = monotonic()
                    if not delivery.begun:
                        await delivery.begin_stream()
                    await delivery.chunk(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                    waiting = monotonic()
                    observation.caller_s += waiting - sending
                else:
                    waiting = monotonic()
            rest = b"".join([*(translator.feed(event) for event in decoder.close()), translator.close()])
            if not translator.summary.finished:
                raise UpstreamError(ErrorType.STREAM_CUT, "The provider broke its reply off before its end.")
            if rest or not delivery.begun:
                if not delivery.begun:
                    await delivery.begin_stream()
                if rest:
                    await delivery.chunk(rest)
        finally:
            _summarise(attempt, translator.summary)


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
