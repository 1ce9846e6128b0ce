"""Circuit breakers: a target that keeps failing is left alone for a while, so that requests go where they can be served.

One breaker per (provider, model, credential), shared by every route that uses it. A breaker only changes the order in
which targets are tried: when all of them are open the plan stays as it was, so the last target is never ejected.
"""

from collections.abc import Callable
from enum import IntEnum

from gateway.serve.routing import BoundTarget
from gateway.types.clock import Clock
from gateway.types.errors import ErrorType, Outcome

FAILURES_TO_OPEN = 5
"""Failures in a row, without a success between them, that open a breaker."""
OPEN_S = 15.0
"""How long an open breaker keeps its target out before one request may probe it; doubles with each failed probe."""
LONGEST_OPEN_S = 240.0


class CircuitState(IntEnum):
    """As exported: gateway_provider_circuit_state."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """The state of one target."""

    __slots__ = ("_clock", "_failures", "_on_change", "_open_s", "_probing", "_until", "state")

    def __init__(self, clock: Clock, on_change: Callable[[CircuitState], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._open_s = OPEN_S
        self._until = 0.0
        self._probing = False
        self.state = CircuitState.CLOSED

    def allows(self) -> bool:
        """Whether a request may be sent: always when closed, and one at a time as a probe when its time has come."""
        if self.state is CircuitState.CLOSED:
            return True
        if self.state is CircuitState.OPEN and self._clock.monotonic() >= self._until:
            self._become(CircuitState.HALF_OPEN)
            self._probing = False
        return self.state is CircuitState.HALF_OPEN and not self._probing

    def sending(self) -> None:
        """A request goes to the target now."""
        if self.state is CircuitState.HALF_OPEN:
            self._probing = True

    def succeeded(self) -> None:
        """The target served a request."""
        self._failures = 0
        if self.state is not CircuitState.CLOSED:
            self._open_s = OPEN_S
            self._become(CircuitState.CLOSED)

    def failed(self) -> None:
        """The target failed a request by its own fault."""
        self._failures += 1
        if self.state is CircuitState.HALF_OPEN:
            self._open_s = min(self._open_s * 2, LONGEST_OPEN_S)
            self._open()
        elif self.state is CircuitState.CLOSED and self._failures >= FAILURES_TO_OPEN:
            self._open()

    def abandoned(self) -> None:
        """A request ended without telling anything about the target: a probe may be made again."""
        self._probing = False

    def _open(self) -> None:
        self._until = self._clock.monotonic() + self._open_s
        self._become(CircuitState.OPEN)

    def _become(self, state: CircuitState) -> None:
        self.state = state
        self._on_change(state)


class Breakers:
    """The breakers of all targets in use.

    Args:
        on_change: told (provider, model, state) whenever a breaker changes.
    """

    def __init__(self, clock: Clock, on_change: Callable[[str, str, CircuitState], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._breakers: dict[object, Breaker] = {}

    def of(self, bound: BoundTarget) -> Breaker:
        """The breaker of a target; targets of one provider, model, address and credential share it."""
        endpoint = bound.endpoint
        key = (endpoint.provider, endpoint.base_url, endpoint.model, endpoint.auth)
        breaker = self._breakers.get(key)
        if breaker is None:
            provider, model = bound.target.provider, bound.target.model
            breaker = Breaker(self._clock, lambda state: self._on_change(provider, model, state))
            self._breakers[key] = breaker
        return breaker

    def order(self, targets: tuple[BoundTarget, ...]) -> tuple[BoundTarget, ...]:
        """The targets that may be tried, in their order; all of them when none may."""
        if len(targets) == 1:
            return targets
        allowed = tuple(bound for bound in targets if self.of(bound).allows())
        return allowed or targets


def is_failure(error_type: ErrorType) -> bool:
    """Whether an attempt that ended so speaks against its target.

    A provider that limits us is well: its Retry-After says when to come back.
    """
    return error_type.outcome is Outcome.PROVIDER and error_type is not ErrorType.PROVIDER_RATE_LIMITED


class RetryBudget:
    """Keeps retries a fraction of requests, so that a failing provider is not buried under them.

    Each request deposits `ratio`; each retry takes 1. `reserve` is what a quiet route may spend at once.
    """

    def __init__(self, ratio: float = 0.2, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._balance = reserve

    def deposit(self) -> None:
        """A first attempt is made."""
        if self._balance < self._reserve:
            self._balance = min(self._reserve, self._balance + self._ratio)

    def withdraw(self) -> bool:
        """Take one retry, if there is one left."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
