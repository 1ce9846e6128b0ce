"""The load generator: prepared bytes over keep-alive connections, read with as little work as correctness allows.

Three shapes of load: `closed_loop` (each connection sends again as soon as it has its reply: CPU a request and
requests/s), `fixed_rate` (arrivals at given times, whatever the replies do: latency) and `streams` (paced SSE).
A reply other than 200, and a connection that breaks, are counted as failures and kept out of the latencies.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from bench.payloads import STAMP

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Target:
    """Where to send, and the whole request."""

    port: int
    request: bytes


def http_post(port: int, path: str, body: bytes) -> Target:
    """A POST as an SDK would send it, to 127.0.0.1."""
    lines = (
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "accept: application/json",
        "accept-encoding: gzip, deflate",
        "user-agent: OpenAI/Python 1.99.0",
        "authorization: Bearer sk-bench-caller",
        "content-type: application/json",
        f"content-length: {len(body)}",
    )
    return Target(port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@dataclass
class Loaded:
    """What a round of load saw. Latencies in seconds, one for each good reply."""

    latencies_s: list[float] = field(default_factory=list)
    failures: int = 0
    first_failure: str = ""
    duration_s: float = 0.0

    @property
    def requests(self) -> int:
        return len(self.latencies_s)


class _Caller(asyncio.Protocol):
    """One keep-alive connection. `done` gets the latency, or None for a failure."""

    def __init__(self, done: Callable[[_Caller, float | None], None]) -> None:
        self._done = done
        self._busy = False
        self.problem = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> None:
        self._received = b""
        self._expected = 0
        self._busy = True
        self._sent_s = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        if not self._expected:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(received, 0, end + 2)
            self._expected = end + 4 + int(length.group(1)) if length else -1
        if self._expected > 0 and len(received) < self._expected:
            return
        if self._expected < 0 and not received.endswith(_LAST_CHUNK):
            return
        elapsed_s = time.perf_counter() - self._sent_s
        self._busy = False
        if received.startswith(b"HTTP/1.1 200"):
            self._done(self, elapsed_s)
        else:
            self.problem = received[:400].decode("latin-1")
            self._done(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._busy = False
            self.problem = f"connection lost: {exc}"
            self._done(self, None)


async def closed_loop(target: Target, connections: int, duration_s: float) -> Loaded:
    """Keep `connections` requests in flight for `duration_s`; the last ones are waited for."""
    loop = asyncio.get_running_loop()
    loaded = Loaded()
    ended = asyncio.Event()
    left = connections
    began_s = time.perf_counter()
    until_s = began_s + duration_s

    def done(caller: _Caller, elapsed_s: float | None) -> None:
        nonlocal left
        if elapsed_s is None:
            loaded.failures += 1
            loaded.first_failure = loaded.first_failure or caller.problem
        else:
            loaded.latencies_s.append(elapsed_s)
        if time.perf_counter() < until_s and not caller.transport.is_closing():
            caller.send(target.request)
            return
        left -= 1
        if left == 0:
            ended.set()

    callers = [
        (await loop.create_connection(lambda: _Caller(done), "127.0.0.1", target.port))[1] for _ in range(connections)
    ]
    for caller in callers:
        caller.send(target.request)
    await ended.wait()
    loaded.duration_s = time.perf_counter() - began_s
    for caller in callers:
        caller.transport.close()
    return loaded


async def fixed_rate(target: Target, rate_per_s: float, duration_s: float) -> Loaded:
    """Send at `rate_per_s` for `duration_s`, each on an idle connection or a new one. The first is not counted."""
    loop = asyncio.get_running_loop()
    loaded = Loaded()
    idle: list[_Caller] = []
    waiting: set[asyncio.Future[float | None]] = set()
    results: dict[_Caller, asyncio.Future[float | None]] = {}

    def done(caller: _Caller, elapsed_s: float | None) -> None:
        if elapsed_s is None:
            loaded.failures += 1
            loaded.first_failure = loaded.first_failure or caller.problem
        if not caller.transport.is_closing():
            idle.append(caller)
        results.pop(caller).set_result(elapsed_s)

    began_s = loop.time()
    sent: list[asyncio.Future[float | None]] = []
    for number in range(int(rate_per_s * duration_s) + 1):
        await asyncio.sleep(began_s + number / rate_per_s - loop.time())
        caller = (
            idle.pop() if idle else (await loop.create_connection(lambda: _Caller(done), "127.0.0.1", target.port))[1]
        )
        future: asyncio.Future[float | None] = loop.create_future()
        results[caller] = future
        sent.append(future)
        caller.send(target.request)
    for future in sent:
        waiting.add(future)
    elapsed = [await future for future in sent]
    loaded.latencies_s = [value for value in elapsed[1:] if value is not None]
    loaded.duration_s = loop.time() - began_s
    for caller in idle:
        caller.transport.close()
    return loaded


@dataclass
class Streamed:
    """What a round of streams saw. Times in seconds; `delays_s` is an event's way from provider to caller."""

    ttft_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    events: int = 0
    failures: int = 0
    first_failure: str = ""


class _StreamCaller(asyncio.Protocol):
    """One stream on one connection. An event split between reads is taken when its rest has come."""

    def __init__(self, streamed: Streamed, request: bytes) -> None:
        self._streamed = streamed
        self._request = request
        self._rest = b""
        self._head = b""
        self._first = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        data = self._rest + data
        last = 0
        for match in STAMP.finditer(data):
            if self._first:
                self._first = False
                self._streamed.ttft_s.append(time.perf_counter() - self._sent_s)
            self._streamed.events += 1
            self._streamed.delays_s.append((now_ns - int(match.group(1))) / 1e9)
            last = match.end()
        if self._first and b"\r\n" in data and not data.startswith(b"HTTP/1.1 200"):
            self._fail(data[:400].decode("latin-1"))
        elif data.endswith(_LAST_CHUNK):
            self._transport.close()
            self._finish()
        self._rest = data if self._first else data[last:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._fail(f"stream cut: {exc}")

    def _fail(self, problem: str) -> None:
        self._streamed.failures += 1
        self._streamed.first_failure = self._streamed.first_failure or problem
        self._transport.abort()
        self._finish()

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def streams(target: Target, count: int, stagger_s: float) -> Streamed:
    """Open `count` streams at even distances over `stagger_s`, and read each to its end."""
    loop = asyncio.get_running_loop()
    streamed = Streamed()
    callers: list[_StreamCaller] = []
    began_s = loop.time()
    for number in range(count):
        await asyncio.sleep(began_s + number * stagger_s / count - loop.time())
        _, caller = await loop.create_connection(
            lambda: _StreamCaller(streamed, target.request), "127.0.0.1", target.port
        )
        callers.append(caller)
    await asyncio.gather(*(caller.ended for caller in callers))
    return streamed
