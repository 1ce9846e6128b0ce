"""From an admitted request to its delivered reply: targets in turn, retries within what the route allows."""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.serve.attempt import Attempts
from gateway.serve.delivery import Delivery
from gateway.serve.routing import BoundRoute, plan
from gateway.telemetry.observe import RequestObservation
from gateway.types.clock import Rng
from gateway.types.errors import ErrorType, GatewayError, Outcome, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest
from gateway.types.records import AttemptKind

_FIRST_BACKOFF_S = 0.25
_LONGEST_WAIT_S = 30.0


class Serving:
    """Serves requests over the targets of their routes."""

    def __init__(self, attempts: Attempts, rng: Rng, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._attempts = attempts
        self._rng = rng
        self._sleep = sleep

    async def serve(
        self, observation: RequestObservation, route: BoundRoute, request: ModelRequest, delivery: Delivery
    ) -> None:
        """Serve one request to its end. Raises GatewayError; after `delivery.begun` the caller has had a part."""
        reply = await self._first_success(observation, route, request, delivery)
        delivery.stop_watching()
        if reply is None:
            await delivery.end_stream()
        else:
            await delivery.whole(reply)

    async def _first_success(
        self, observation: RequestObservation, route: BoundRoute, request: ModelRequest, delivery: Delivery
    ) -> ModelReply | None:
        targets = [bound for bound in plan(route, self._rng) if request.operation in bound.endpoint.dialect.codecs]
        if not targets:
            raise RequestError(
                ErrorType.UNSUPPORTED_OPERATION,
                f"The {request.operation} operation is not available for {route.route.provider} models.",
            )
        retries_left = route.route.retries
        kind = AttemptKind.FIRST
        for position, bound in enumerate(targets):
            tries = 0
            while True:
                try:
                    codec = bound.endpoint.dialect.codecs[request.operation]
                    return await self._attempts.make(observation, bound, codec, request, kind, delivery)
                except GatewayError as error:
                    if delivery.begun or not may_be_tried_elsewhere(error):
                        raise
                    if retries_left > 0 and isinstance(error, UpstreamError) and error.retryable:
                        retries_left -= 1
                        kind = AttemptKind.RETRY
                        await self._sleep(self._wait_s(error, tries))
                        tries += 1
                        continue
                    if position == len(targets) - 1:
                        raise
                    kind = AttemptKind.FALLBACK
                    break
        raise AssertionError("the loop returns or raises")

    def _wait_s(self, error: UpstreamError, tries: int) -> float:
        if error.retry_after_s is not None:
            return min(error.retry_after_s, _LONGEST_WAIT_S)
        # Full jitter: callers that failed together must not come back together.
        return self._rng.random() * min(_FIRST_BACKOFF_S * 2.0**tries, _LONGEST_WAIT_S)


def may_be_tried_elsewhere(error: GatewayError) -> bool:
    """Whether another target can help: not when the caller or a policy caused the failure."""
    return error.error_type.outcome is Outcome.PROVIDER or error.error_type is ErrorType.CREDENTIAL_UNAVAILABLE
