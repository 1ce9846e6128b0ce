"""From an admitted request to its delivered reply: targets in turn, retries within what the route allows."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.serve.attempt import Attempts
from gateway.serve.circuit import Breakers, RetryBudget, is_failure
from gateway.serve.delivery import Delivery
from gateway.serve.draining import caller_left
from gateway.serve.routing import BoundRoute, BoundTarget, plan
from gateway.telemetry.request_observation import RequestObservation
from gateway.types.clock import Rng
from gateway.types.errors import ErrorType, GatewayError, Outcome, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest
from gateway.types.records import AttemptKind

_FIRST_BACKOFF_S = 0.25
LONGEST_WAIT_S = 10.0
_OF_THE_TARGET = frozenset({ErrorType.CREDENTIAL_UNAVAILABLE, ErrorType.BUDGET_EXCEEDED})


class Serving:
    """Serves requests over the targets of their routes.

    Args:
        sleep: waits before a retry; an argument so that tests need not.
    """

    def __init__(
        self,
        attempts: Attempts,
        breakers: Breakers,
        rng: Rng,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._attempts = attempts
        self._breakers = breakers
        self._rng = rng
        self._sleep = sleep
        self._retry_budgets: dict[str, RetryBudget] = {}

    async def serve(
        self, observation: RequestObservation, route: BoundRoute, request: ModelRequest, delivery: Delivery
    ) -> None:
        """Serve one request to its end. Raises GatewayError; after `delivery.begun` the caller has had a part."""
        failures: list[GatewayError] = []
        try:
            reply = await self._first_success(observation, route, request, delivery, failures)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not delivery.left or task is None:
                raise
            task.uncancel()
            raise caller_left() from None
        finally:
            # Their tracebacks lead back here: what is kept would wait for the garbage collector, its request with it.
            failures.clear()
        delivery.stop_watching()
        if reply is None:
            await delivery.end_stream()
        elif delivery.has_left():
            raise caller_left()
        else:
            await delivery.whole(reply)

    async def _first_success(
        self,
        observation: RequestObservation,
        route: BoundRoute,
        request: ModelRequest,
        delivery: Delivery,
        failures: list[GatewayError],
    ) -> ModelReply | None:
        targets = self._breakers.order(able(plan(route, self._rng), request))
        budget = self._retry_budgets.setdefault(route.route.name, RetryBudget())
        budget.deposit()
        retries_left = route.route.retries
        kind = AttemptKind.FIRST
        for bound in targets:
            tries = 0
            while True:
                if kind is not AttemptKind.FIRST and delivery.has_left():
                    raise caller_left()
                try:
                    return await self._try(observation, route, bound, request, kind, delivery)
                except GatewayError as error:
                    if delivery.left:
                        # Whatever became of the attempt, nobody waits for another.
                        raise caller_left() from error
                    if delivery.begun or not may_be_tried_elsewhere(error):
                        raise
                    failures.append(error)
                    wait_s = self._wait_s(error, tries)
                    if retries_left > 0 and wait_s is not None and budget.withdraw():
                        retries_left -= 1
                        tries += 1
                        kind = AttemptKind.RETRY
                        await self._back_off(observation, wait_s)
                        continue
                    kind = AttemptKind.FALLBACK
                    break
        raise told(failures)

    async def _back_off(self, observation: RequestObservation, wait_s: float) -> None:
        begun = observation.clock.monotonic()
        try:
            await self._sleep(wait_s)
        finally:
            observation.backoff_s += observation.clock.monotonic() - begun

    async def _try(
        self,
        observation: RequestObservation,
        route: BoundRoute,
        bound: BoundTarget,
        request: ModelRequest,
        kind: AttemptKind,
        delivery: Delivery,
    ) -> ModelReply | None:
        breaker = self._breakers.of(bound)
        breaker.sending()
        codec = bound.endpoint.dialect.codecs[request.operation]
        try:
            reply = await self._attempts.make(observation, route.route.name, bound, codec, request, kind, delivery)
        except GatewayError as error:
            if is_failure(error.error_type):
                breaker.failed()
            else:
                breaker.abandoned()
            raise
        except BaseException:
            breaker.abandoned()
            raise
        breaker.succeeded()
        return reply

    def _wait_s(self, error: GatewayError, tries: int) -> float | None:
        """How long to wait before the same target is tried again; None when it must not be."""
        if not isinstance(error, UpstreamError) or not error.retryable:
            return None
        if error.retry_after_s is not None:
            # Who has to wait longer than this is better off knowing it: the reply carries the Retry-After.
            return error.retry_after_s if error.retry_after_s <= LONGEST_WAIT_S else None
        # Full jitter: callers that failed together must not come back together.
        return self._rng.random() * min(_FIRST_BACKOFF_S * 2.0**tries, LONGEST_WAIT_S)


def able(targets: tuple[BoundTarget, ...], request: ModelRequest) -> tuple[BoundTarget, ...]:
    """Those of a route's targets whose dialects can serve the request; raises RequestError when there is none."""
    operation, title = request.operation, targets[0].provider_title
    found = tuple(bound for bound in targets if operation in bound.endpoint.dialect.codecs)
    if not found:
        state = "available" if request.original_shape else "implemented"
        raise RequestError(ErrorType.UNSUPPORTED_OPERATION, f"The {operation} route is not {state} for {title} models.")
    if not request.stream:
        return found
    found = tuple(bound for bound in found if bound.endpoint.dialect.codecs[operation].open_stream is not None)
    if not found:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            f"Streaming is not available for {title} models. Ask without 'stream'.",
            param="stream",
        )
    return found


def may_be_tried_elsewhere(error: GatewayError) -> bool:
    """Whether another try can help: not when the caller caused the failure, or a policy that knows no targets.

    A budget may be one provider's or model's, and have room for a cheaper one.
    """
    return error.error_type.outcome is Outcome.PROVIDER or error.error_type in _OF_THE_TARGET


def told(failures: Sequence[GatewayError]) -> GatewayError:
    """The failure of a request whose targets have all failed: the last one.

    A provider's failure comes before a budget's refusal: it may be over in a moment, and money is there again when its
    window ends.
    """
    return next(
        (error for error in reversed(failures) if error.error_type is not ErrorType.BUDGET_EXCEEDED), failures[-1]
    )
