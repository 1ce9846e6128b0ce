"""The rounds: each measure goes over all variants before it comes to the next, and repeats.

Invariant: a round in which a request failed is an error, never a figure.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import disk, load, payloads
from bench.mock_upstream import Counts
from bench.proc import Measured
from bench.statistics import median, percentile
from bench.variants import ROOT, Variant

DIRECT = "direct"
DISK = "the disk's fdatasync"
STREAMS = 50
EVENTS_PER_S = 50
LOW_RATE_PER_S = 20


@dataclass(frozen=True)
class Plan:
    """How long and how often. Seconds a round; `rounds` of each measure; `starts` of each variant, and of accounting.

    Without seconds for it there is no low rate.
    """

    rounds: int
    starts: int
    loop_s: float
    rate_s: float
    stream_s: float
    accounting_s: float
    extras: bool
    """Also the gateway's own surface, embeddings, and 8 connections."""


FULL = Plan(rounds=5, starts=3, loop_s=3.0, rate_s=5.0, stream_s=4.0, accounting_s=2.0, extras=True)
QUICK = Plan(rounds=2, starts=1, loop_s=1.0, rate_s=1.0, stream_s=1.0, accounting_s=0.4, extras=False)


class Figure(msgspec.Struct, frozen=True):
    """One measure of one variant. `rounds` has a value for each round, or one value where rounds are pooled."""

    variant: str
    measure: str
    rounds: list[float]

    @property
    def value(self) -> float:
        return median(self.rounds)


@dataclass
class _Running:
    variant: Variant
    process: Measured
    port: int
    sink_port: int | None
    answered: int = 0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cores() -> tuple[set[int], set[int]]:
    """The core under measurement and the core of everything else; the same one where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return {available[-1]}, {available[0]}


class Rounds:
    """Runs variants side by side and gathers figures. Use as a context manager: leaving it ends every process.

    With `bare`, also /bare, which only the floor has.
    """

    def __init__(self, plan: Plan, folder: Path, *, bare: bool = False) -> None:
        self._plan = plan
        self._folder = folder
        self._bare = bare
        self._stack = ExitStack()
        self._running: list[_Running] = []
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._latencies: dict[str, list[float]] = defaultdict(list)
        self._measured_core, self._load_core = cores()
        os.sched_setaffinity(0, self._load_core)
        self.upstream_port = self._start_mock()
        self.upstream = f"http://127.0.0.1:{self.upstream_port}"

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, variants: Sequence[Variant]) -> None:
        """Start every variant, `starts` times each; the last ones stay."""
        for number in range(self._plan.starts):
            for item in self._running:
                item.process.stop()
            self._running = [self._start(variant, number) for variant in variants]

    async def measure(self) -> list[Figure]:
        """All measures of the plan."""
        plan = self._plan
        for item in self._running:
            await self._closed(item, "", "/v1/chat/completions", payloads.chat_request(), 64, plan.loop_s / 4)
        chat = payloads.chat_request()
        native = payloads.chat_request(native=True)
        whole = [item for item in self._running if not item.variant.requests_only]
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr)
            # Nobody is always the first, or always after the same other one.
            self._running = [*self._running[1:], self._running[0]]
            for item in self._running:
                await self._closed(item, "chat_64", "/v1/chat/completions", chat, 64, plan.loop_s)
            if plan.extras:
                for item in self._running:
                    await self._closed(item, "chat_8", "/v1/chat/completions", chat, 8, plan.loop_s)
                for item in whole:
                    await self._closed(
                        item, "embeddings_8", "/v1/embeddings", payloads.embeddings_request(), 8, plan.loop_s / 3
                    )
                    if item.variant.native_surface:
                        path = f"/gateway/{payloads.ROUTE}/invocations"
                        await self._closed(item, "native_64", path, native, 64, plan.loop_s / 3)
            if self._bare:
                for item in self._running:
                    await self._closed(item, "bare_64", "/bare", chat, 64, plan.loop_s / 2)
            if plan.rate_s:
                await self._low_rate(chat)
            for item in whole:
                await self._streams(item)
        return self._figures()

    def _start_mock(self) -> int:
        port = free_port()
        command = [sys.executable, "-m", "bench.mock_upstream", "--port", str(port)]
        mock = Measured([*command, "--events-per-s", str(EVENTS_PER_S)], cores=self._load_core, cwd=ROOT)
        self._stack.enter_context(mock)
        mock.wait_ready(f"http://127.0.0.1:{port}/health")
        return port

    def _start(self, variant: Variant, number: int) -> _Running:
        port, metrics_port = free_port(), free_port()
        env = dict(variant.env)
        sink_port = None
        if variant.sink:
            sink_port = self._start_mock()
            env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{sink_port}"
        log = self._folder / f"{variant.name.replace(' ', '-').replace('/', '-')}-{number}.log"
        process = Measured(
            variant.filled(port, metrics_port), cores=self._measured_core, env=env, cwd=variant.cwd, log=log
        )
        self._stack.enter_context(process)
        self._note(variant, "start_s", process.wait_ready(f"http://127.0.0.1:{port}/health"))
        return _Running(variant, process, port, sink_port)

    def _note(self, variant: Variant, measure: str, value: float) -> None:
        if measure:
            self._values[variant.name, measure].append(value)

    async def _closed(
        self, item: _Running, name: str, path: str, body: bytes, connections: int, duration_s: float
    ) -> None:
        """CPU us a request and requests/s. Without a name: warm-up, not kept."""
        gc.collect()
        before_s = item.process.cpu_s()
        loaded = await load.closed_loop(load.http_post(item.port, path, body), connections, duration_s)
        used_s = item.process.cpu_s() - before_s
        _refuse_failures(item.variant, loaded.failures, loaded.first_failure)
        item.answered += loaded.requests
        if name:
            self._note(item.variant, f"cpu_us_{name}", used_s / loaded.requests * 1e6)
            self._note(item.variant, f"per_s_{name}", loaded.requests / loaded.duration_s)
            self._note(item.variant, f"busy_ratio_{name}", used_s / loaded.duration_s)

    async def _low_rate(self, body: bytes) -> None:
        for name, port, item in [
            (DIRECT, self.upstream_port, None),
            *((item.variant.name, item.port, item) for item in self._running),
        ]:
            target = load.http_post(port, "/v1/chat/completions", body)
            loaded = await load.fixed_rate(target, LOW_RATE_PER_S, self._plan.rate_s)
            if item is not None:
                _refuse_failures(item.variant, loaded.failures, loaded.first_failure)
                item.answered += loaded.requests + 1
            self._note_latencies(name, loaded.latencies_s)
        self._note_latencies(DISK, disk.sync_s(self._folder, int(LOW_RATE_PER_S * self._plan.rate_s), LOW_RATE_PER_S))

    def _note_latencies(self, name: str, latencies_s: list[float]) -> None:
        self._latencies[name] += latencies_s
        self._values[name, "p50_ms_low_rate"].append(median(latencies_s) * 1e3)

    async def _streams(self, item: _Running) -> None:
        events = int(self._plan.stream_s * EVENTS_PER_S)
        target = load.http_post(item.port, "/v1/chat/completions", payloads.chat_request(events))
        before_s = item.process.cpu_s()
        streamed = await load.streams(target, STREAMS, stagger_s=0.5)
        used_s = item.process.cpu_s() - before_s
        if streamed.events != STREAMS * events and not streamed.failures:
            raise RuntimeError(f"{item.variant.name}: {streamed.events} events of {STREAMS * events}")
        _refuse_failures(item.variant, streamed.failures, streamed.first_failure)
        item.answered += STREAMS
        self._note(item.variant, "cpu_us_event", used_s / streamed.events * 1e6)
        self._note(item.variant, "ttft_ms", median(streamed.ttft_s) * 1e3)
        self._note(item.variant, "event_p50_ms", median(streamed.delays_s) * 1e3)
        self._note(item.variant, "event_p99_ms", percentile(streamed.delays_s, 0.99) * 1e3)

    def _figures(self) -> list[Figure]:
        for name, values in self._latencies.items():
            self._values[name, "p99_ms_low_rate"] = [percentile(values, 0.99) * 1e3]
        for item in self._running:
            self._note(item.variant, "rss_mib", item.process.rss_mib())
            code = item.process.stop()
            if code != 0 and item.variant.native_surface:
                print(f"{item.variant.name} ended with {code}", file=sys.stderr)
            if item.sink_port is not None:
                # Asked after the end, so that the last batch is in.
                counts = _counts(item.sink_port)
                self._note(item.variant, "spans_per_request", counts.spans / item.answered)
                self._note(item.variant, "otlp_bytes_per_request", counts.otlp_bytes / item.answered)
        return [Figure(variant, measure, rounds) for (variant, measure), rounds in self._values.items()]


def _counts(port: int) -> Counts:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts", timeout=5) as reply:
        return msgspec.convert(json.load(reply), Counts)


def _refuse_failures(variant: Variant, failures: int, first: str) -> None:
    if failures:
        raise RuntimeError(f"{variant.name}: {failures} failed; the first: {first}")
