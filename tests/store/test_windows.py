"""Windows count exactly, in a process and in a shared server."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from gateway.store.shared_windows import RedisWindows
from gateway.store.windows import MemoryWindows, StorageUnavailableError
from tests.clocks import ManualClock
from tests.servers import require


async def test_a_window_allows_so_many_calls_and_says_when_it_ends() -> None:
    """The calls beyond the limit are told the rest of the window, which began with the first call; then all is new."""
    clock = ManualClock()
    windows = MemoryWindows(clock)
    assert [await windows.hit("a", 2, 60) for _ in range(2)] == [None, None]
    clock.advance(45)
    assert await windows.hit("a", 2, 60) == 15
    assert await windows.hit("b", 2, 60) is None
    clock.advance(15)
    assert await windows.hit("a", 2, 60) is None


async def test_ended_windows_are_forgotten() -> None:
    """A flood of callers that do not come back leaves no memory behind once their windows have ended."""
    clock = ManualClock()
    windows = MemoryWindows(clock)
    for number in range(10_000):
        await windows.hit(f"caller-{number}", 1, 1)
        clock.advance(0.01)
    assert len(windows._windows) < 1200


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[str, Popen[bytes]]]:
    """A server on a socket file, whose URL is given; it leaves nothing behind."""
    socket = folder / "redis.sock"
    command = [require("redis-server"), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    with Popen(command, stdout=DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                assert process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server did not listen"
                time.sleep(0.01)
            yield f"redis+unix://{socket}", process
        finally:
            process.kill()


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[tuple[RedisWindows, RedisWindows, Popen[bytes]]]:
    """Two gateways' windows over one real server."""
    with redis_server(tmp_path) as (url, process):
        # A busy machine must not make a count of sixty late.
        first, second = RedisWindows(url, timeout_s=10), RedisWindows(url, timeout_s=10)
        yield first, second, process
        await first.close()
        await second.close()


@pytest.mark.stack
async def test_two_processes_count_together(shared: tuple[RedisWindows, RedisWindows, Popen[bytes]]) -> None:
    """Of 60 calls at once through two clients, 20 are within a limit of 20, not one more and not one less."""
    first, second, _ = shared
    waits = await asyncio.gather(*(windows.hit("a", 20, 3600) for windows in (first, second) * 30))
    assert waits.count(None) == 20
    assert all(0 < wait <= 3600 for wait in waits if wait is not None)
    assert await first.hit("b", 1, 3600) is None


@pytest.mark.stack
async def test_a_dead_server_is_told_as_such(shared: tuple[RedisWindows, RedisWindows, Popen[bytes]]) -> None:
    """Without its server a count fails as StorageUnavailableError."""
    first, _, process = shared
    assert await first.hit("a", 20, 3600) is None
    process.kill()
    process.wait()
    with pytest.raises(StorageUnavailableError):
        await first.hit("a", 20, 3600)
