"""Limits keep their order, and a storage that is away costs neither callers nor the limit."""

import pytest

from gateway.serve.limits import Limits
from gateway.store.windows import MemoryWindows, StorageUnavailableError, Windows
from gateway.types.errors import ErrorType, PolicyError
from gateway.types.records import Caller
from gateway.types.route import Limit, Route, RouteType
from tests.clocks import ManualClock


def limit(calls: int, *, per_route: bool = False) -> Limit:
    return Limit(calls=calls, period_s=60, period="minute", per_route=per_route)


def route(*limits: Limit) -> Route:
    return Route(name="chat", route_type=RouteType.CHAT, targets=(), original_shape=True, limits=limits)


async def admitted(limits: Limits, route: Route, callers: str) -> str:
    """One letter a call: the caller's own where it was admitted, a dot where it was refused."""
    result = ""
    for caller in callers:
        try:
            await limits.admit(route, Caller(address=caller))
            result += caller
        except PolicyError:
            result += "."
    return result


def counting(clock: ManualClock, shared: Windows | None = None) -> tuple[Limits, list[None]]:
    errors: list[None] = []
    return Limits(clock, shared, lambda: errors.append(None)), errors


async def test_callers_are_counted_apart_and_routes_together() -> None:
    """Without a key each caller has the limit to itself; with `route` all callers share it."""
    limits, _ = counting(ManualClock())
    assert await admitted(limits, route(limit(2)), "aaabab") == "aa.b.b"
    assert await admitted(limits, route(limit(3, per_route=True)), "aabb") == "aab."


async def test_the_refused_take_nothing_from_the_others() -> None:
    """A caller over its own limit does not use up what all callers share, in whatever order the file has them."""
    limits, _ = counting(ManualClock())
    assert await admitted(limits, route(limit(3, per_route=True), limit(1)), "aaaabc") == "a...bc"


async def test_a_key_is_a_caller_wherever_it_calls_from() -> None:
    """Two addresses with one key are one caller; two keys at one address are two."""
    limits, _ = counting(ManualClock())
    await limits.admit(route(limit(1)), Caller(key_id="k1", address="a"))
    await limits.admit(route(limit(1)), Caller(key_id="k2", address="a"))
    with pytest.raises(PolicyError):
        await limits.admit(route(limit(1)), Caller(key_id="k1", address="b"))


async def test_a_refusal_says_what_and_how_long() -> None:
    """The words are those of the MLflow gateway, and the wait ends with the window."""
    clock = ManualClock()
    limits, _ = counting(clock)
    await limits.admit(route(limit(1)), Caller(address="a"))
    clock.advance(20)
    with pytest.raises(PolicyError, match=r"^Rate limit exceeded: 1 per 1 minute$") as refusal:
        await limits.admit(route(limit(1)), Caller(address="a"))
    assert (refusal.value.error_type, refusal.value.retry_after_s) == (ErrorType.RATE_LIMITED, 40)


async def test_a_key_has_a_limit_of_its_own() -> None:
    """A gateway key's limit counts over all routes."""
    limits, _ = counting(ManualClock())
    await limits.admit_key("k1", 1)
    await limits.admit_key("k2", 1)
    with pytest.raises(PolicyError):
        await limits.admit_key("k1", 1)


class Flaky:
    """A shared storage that can be away."""

    def __init__(self, clock: ManualClock) -> None:
        self.windows = MemoryWindows(clock)
        self.away = False
        self.asked = 0

    async def hit(self, key: str, calls: int, period_s: int) -> float | None:
        self.asked += 1
        if self.away:
            raise StorageUnavailableError("away")
        return await self.windows.hit(key, calls, period_s)

    async def close(self) -> None: ...


async def test_a_storage_that_is_away_is_counted_and_left_alone() -> None:
    """Meanwhile the process holds the limit on its own; the storage is asked again after a second, not at each call."""
    clock = ManualClock()
    storage = Flaky(clock)
    limits, errors = counting(clock, storage)
    assert await admitted(limits, route(limit(2)), "a") == "a"
    storage.away = True
    assert await admitted(limits, route(limit(2)), "aaaa") == "aa.."
    assert (storage.asked, len(errors)) == (2, 1)
    clock.advance(1)
    storage.away = False
    assert await admitted(limits, route(limit(2)), "aa") == "a."
    assert (storage.asked, len(errors)) == (4, 1)
