"""An expiring value is fetched once, renewed in time, and its failures are shared."""

import asyncio
from collections import deque

import pytest

from gateway.upstream.expiring import RETRY_RENEWAL_S, Expiring
from tests.clocks import ManualClock


class Source:
    """Fetches that the test answers one by one."""

    def __init__(self) -> None:
        self.pending: deque[asyncio.Future[tuple[str, float]]] = deque()
        self.fetches = 0
        self._asked = asyncio.Event()

    async def fetch(self) -> tuple[str, float]:
        self.fetches += 1
        future: asyncio.Future[tuple[str, float]] = asyncio.get_running_loop().create_future()
        self.pending.append(future)
        self._asked.set()
        return await future

    async def asked(self) -> "asyncio.Future[tuple[str, float]]":
        """The oldest fetch that waits for an answer."""
        while not self.pending:
            self._asked.clear()
            await self._asked.wait()
        return self.pending.popleft()


async def settled(token: Expiring[str]) -> None:
    """Wait until the fetch under way has been taken in."""
    while token._task is not None:
        await asyncio.wait([token._task])
        await asyncio.sleep(0)


async def filled(source: Source, clock: ManualClock, lifetime_s: float = 3600.0) -> Expiring[str]:
    token = Expiring(source.fetch, clock)
    first = asyncio.ensure_future(token.get())
    (await source.asked()).set_result(("one", lifetime_s))
    assert await first == "one"
    await settled(token)
    return token


async def test_many_callers_share_one_fetch() -> None:
    """However many requests wait for a value, it is fetched once."""
    source, clock = Source(), ManualClock()
    token = Expiring(source.fetch, clock)
    callers = [asyncio.ensure_future(token.get()) for _ in range(50)]
    (await source.asked()).set_result(("one", 3600.0))
    assert set(await asyncio.gather(*callers)) == {"one"}
    assert source.fetches == 1


async def test_a_held_value_is_given_without_a_fetch() -> None:
    """While the value is far from its end nothing is fetched."""
    source, clock = Source(), ManualClock()
    token = await filled(source, clock)
    clock.advance(3200)
    assert await token.get() == "one"
    assert source.fetches == 1


async def test_renewal_happens_before_the_end_and_nobody_waits() -> None:
    """Near its end the value is renewed by one background fetch while callers still get the old one."""
    source, clock = Source(), ManualClock()
    token = await filled(source, clock)
    clock.advance(3301)
    assert [await token.get() for _ in range(3)] == ["one"] * 3
    (await source.asked()).set_result(("two", 3600.0))
    await settled(token)
    assert await token.get() == "two"
    assert source.fetches == 2


async def test_an_expired_value_is_never_given() -> None:
    """Ten seconds before its end the value counts as expired, and callers wait for the next."""
    source, clock = Source(), ManualClock()
    token = await filled(source, clock)
    clock.advance(3591)
    waiting = asyncio.ensure_future(token.get())
    renewal = await source.asked()
    assert not waiting.done()
    renewal.set_result(("two", 3600.0))
    assert await waiting == "two"


async def test_a_failed_fetch_is_shared_and_the_next_caller_tries_again() -> None:
    """All who wait get the failure; whoever asks later starts a new fetch."""
    source, clock = Source(), ManualClock()
    token = Expiring(source.fetch, clock)
    callers = [asyncio.ensure_future(token.get()) for _ in range(3)]
    (await source.asked()).set_exception(LookupError("no"))
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    await settled(token)
    again = asyncio.ensure_future(token.get())
    (await source.asked()).set_result(("two", 60.0))
    assert await again == "two"


async def test_a_failed_renewal_keeps_the_old_value_and_backs_off() -> None:
    """While the old value holds, a failed renewal hurts nobody and is not repeated by every request."""
    source, clock = Source(), ManualClock()
    token = await filled(source, clock)
    clock.advance(3301)
    assert await token.get() == "one"
    (await source.asked()).set_exception(LookupError("no"))
    await settled(token)
    assert await token.get() == "one"
    assert source.fetches == 2
    clock.advance(RETRY_RENEWAL_S)
    assert await token.get() == "one"
    (await source.asked()).set_result(("two", 3600.0))
    await settled(token)
    assert await token.get() == "two"


async def test_a_caller_who_leaves_does_not_break_the_fetch() -> None:
    """A cancelled caller leaves the fetch to those who still wait."""
    source, clock = Source(), ManualClock()
    token = Expiring(source.fetch, clock)
    leaving, staying = asyncio.ensure_future(token.get()), asyncio.ensure_future(token.get())
    fetch = await source.asked()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    fetch.set_result(("one", 60.0))
    assert await staying == "one"


async def test_close_breaks_off_a_fetch() -> None:
    """Closing cancels what is under way."""
    source, clock = Source(), ManualClock()
    token = Expiring(source.fetch, clock)
    caller = asyncio.ensure_future(token.get())
    await source.asked()
    token.close()
    with pytest.raises(asyncio.CancelledError):
        await caller
