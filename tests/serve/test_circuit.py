"""Breakers open on failures in a row, probe with one request, and never eject the last target."""

from gateway.providers.registry import PROVIDERS
from gateway.serve.circuit import (
    FAILURES_TO_OPEN,
    LONGEST_OPEN_S,
    OPEN_S,
    Breaker,
    Breakers,
    CircuitState,
    RetryBudget,
    is_failure,
)
from gateway.serve.routing import BoundTarget, bind
from gateway.types.errors import ErrorType
from gateway.types.route import Route, RouteType, Target
from gateway.types.secret import Secret
from tests.clocks import ManualClock


def _breaker(clock: ManualClock) -> tuple[Breaker, list[CircuitState]]:
    changes: list[CircuitState] = []
    return Breaker(clock, changes.append), changes


def _fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.sending()
        breaker.failed()


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    """Only an unbroken row of failures opens a breaker."""
    breaker, changes = _breaker(ManualClock())
    _fail(breaker, FAILURES_TO_OPEN - 1)
    breaker.succeeded()
    _fail(breaker, FAILURES_TO_OPEN - 1)
    assert breaker.allows()
    assert changes == []
    _fail(breaker, 1)
    assert not breaker.allows()
    assert changes == [CircuitState.OPEN]


def test_one_probe_at_a_time_decides() -> None:
    """When its time has come an open breaker lets one request through, and that one's end decides."""
    clock = ManualClock()
    breaker, changes = _breaker(clock)
    _fail(breaker, FAILURES_TO_OPEN)
    clock.advance(OPEN_S)
    assert breaker.allows()
    breaker.sending()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert changes == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


def test_failed_probes_wait_longer_up_to_a_bound() -> None:
    """Each failed probe doubles the wait, up to LONGEST_OPEN_S."""
    clock = ManualClock()
    breaker, _ = _breaker(clock)
    _fail(breaker, FAILURES_TO_OPEN)
    wait_s = OPEN_S
    for _ in range(8):
        clock.advance(wait_s - 0.001)
        assert not breaker.allows()
        clock.advance(0.001)
        assert breaker.allows()
        _fail(breaker, 1)
        wait_s = min(wait_s * 2, LONGEST_OPEN_S)


def test_a_probe_whose_caller_left_frees_its_place() -> None:
    """A probe that told nothing about the target does not block the next one."""
    clock = ManualClock()
    breaker, _ = _breaker(clock)
    _fail(breaker, FAILURES_TO_OPEN)
    clock.advance(OPEN_S)
    assert breaker.allows()
    breaker.sending()
    breaker.abandoned()
    assert breaker.allows()


def _targets(*models: str) -> tuple[BoundTarget, ...]:
    provider = PROVIDERS["openai"]
    config = provider.config(openai_api_key=Secret("sk-test"))
    route = Route(
        name="chat",
        route_type=RouteType.CHAT,
        targets=tuple(Target(provider="openai", model=model, config=config) for model in models),
        original_shape=False,
    )
    return bind([route], {"openai": provider})["chat"].targets


def test_open_targets_are_left_out_but_never_all_of_them() -> None:
    """An open target is not tried while another may be; when all are open the plan stands."""
    breakers = Breakers(ManualClock(), lambda provider, model, state: None)
    first, second = targets = _targets("a", "b")
    _fail(breakers.of(first), FAILURES_TO_OPEN)
    assert breakers.order(targets) == (second,)
    _fail(breakers.of(second), FAILURES_TO_OPEN)
    assert breakers.order(targets) == targets
    assert breakers.order((first,)) == (first,)


def test_what_speaks_against_a_target() -> None:
    """Provider failures count; callers' mistakes, refusals and rate limits do not."""
    assert is_failure(ErrorType.CONNECT_FAILED)
    assert is_failure(ErrorType.PROVIDER_ERROR)
    assert not is_failure(ErrorType.PROVIDER_RATE_LIMITED)
    assert not is_failure(ErrorType.PROVIDER_INVALID_REQUEST)
    assert not is_failure(ErrorType.CALLER_LEFT)


def test_the_retry_budget_is_a_fraction_of_requests() -> None:
    """A quiet route may spend the reserve at once; after that retries come at the ratio of requests."""
    budget = RetryBudget(ratio=0.25, reserve=2.0)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.deposit()
    assert [budget.withdraw() for _ in range(2)] == [True, False]
