"""Two gateways in processes of their own, one healthy and one with something wrong around it, under the same load.

The provider and the sinks are processes too; the callers are this one. Rounds of the two alternate (A B, B A, ...), so
that what else the machine does meets both alike; with several cores the gateways have the last one to themselves.
Where the system allows it (to root), gateways, provider and callers run before other work on the machine. Sinks and
scrapers do not.
"""

import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

from bench import load, payloads
from bench.rounds import cores, free_port
from bench.statistics import percentile
from tests.gateway_process import environment

ROOT = Path(__file__).resolve().parents[2]
SPANS_A_REQUEST = 3
GRACE_S = 30.0
"""What Kubernetes gives a process to end."""
_WAIT_S = 30.0
CONFIG = """\
routes:
  - name: chat
    route_type: llm/v1/chat
    model: {{provider: openai, name: gpt-4o-mini, config: {{openai_api_key: sk-test, openai_api_base: "{url}/v1"}}}}
"""


@contextmanager
def before_others() -> Iterator[None]:
    """The process, and those that it starts, run before other work on the machine, where that is allowed."""
    if os.geteuid() == 0 and hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def on_cores(chosen: set[int]) -> Iterator[None]:
    """The process, and those that it starts, use these cores."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextmanager
def process(
    *arguments: str, core: set[int], first: bool = False, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """A Python process on some cores, `first` before other work on the machine; killed at the end."""
    with on_cores(core), before_others() if first else nullcontext():
        child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, **options)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def provider() -> Iterator[str]:
    """A provider that answers at once; its URL."""
    port = free_port()
    with process("-m", "bench.mock_upstream", "--port", str(port), core=cores()[1], first=True):
        url = f"http://127.0.0.1:{port}"
        until_it_answers(f"{url}/health")
        yield url


@contextmanager
def sink(mode: str) -> Iterator[str]:
    """A collector that behaves like this; `down` is an address where nobody listens. Its URL."""
    if mode == "down":
        yield f"http://127.0.0.1:{free_port()}"
        return
    with process("-m", "tests.harm.bad_sink", mode, core=cores()[1], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield f"http://127.0.0.1:{int(child.stdout.readline())}"


def until_it_answers(url: str) -> None:
    """Wait for a server that starts; AssertionError after 30 s."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            httpx.get(url, trust_env=False, timeout=_WAIT_S).raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.02)
        else:
            return


@dataclass
class Gateway:
    """One gateway under load."""

    child: "subprocess.Popen[bytes]"
    port: int
    metrics_port: int
    messages: Path
    requests: int = 0
    p99_ms: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    async def load(self, rate_per_s: float, seconds: float) -> None:
        """Callers for a while; a request that fails is an error."""
        target = load.http_post(self.port, f"/gateway/{payloads.ROUTE}/invocations", payloads.chat_request(native=True))
        with on_cores(cores()[1]), before_others():
            loaded = await load.fixed_rate(target, rate_per_s, seconds)
        assert not loaded.failures, loaded.first_failure
        # The first is not in the latencies.
        self.requests += loaded.requests + 1
        self.latencies_s += loaded.latencies_s
        self.p99_ms.append(percentile(loaded.latencies_s, 0.99) * 1e3)

    def forget(self) -> None:
        """Keep no latencies of the warm-up."""
        self.p99_ms.clear()
        self.latencies_s.clear()

    def scrape(self) -> str:
        """All metrics as text."""
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False, timeout=_WAIT_S).text

    def total(self, name: str, labels: str = "") -> int:
        """The sum of a family's samples whose labels hold a text."""
        found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", self.scrape(), re.MULTILINE)
        return int(sum(float(value) for its, value in found if labels in its))

    def end(self) -> float:
        """SIGTERM, and the seconds until it has ended; AssertionError unless with status 0 within the grace."""
        began = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(GRACE_S) == 0
        return time.monotonic() - began

    def said(self) -> dict[str, tuple[int, int]]:
        """What it said at its end of spans and log lines: how many left, and how many were lost."""
        text = self.messages.read_text()
        found = re.search(r"(\d+) spans exported, (\d+) lost; (\d+) log lines written, (\d+) lost", text)
        assert found is not None, text[-2000:]
        spans, spans_lost, lines, lines_lost = map(int, found.groups())
        return {"spans": (spans, spans_lost), "lines": (lines, lines_lost)}


@contextmanager
def gateway(
    folder: Path,
    provider_url: str,
    collector_url: str | None,
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | None = None,
    config: str = CONFIG,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[Gateway]:
    """A gateway with all signals on; its messages go to a file in `folder` unless `stderr` is a descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gateway.yaml"
    path.write_text(config.format(url=provider_url))
    port, metrics_port = free_port(), free_port()
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector_url} if collector_url else {}
    with ExitStack() as stack:
        messages = folder / "messages"
        told = stack.enter_context(messages.open("wb")) if stderr is None else stderr
        child = stack.enter_context(
            process(
                *("-m", "gateway", "start", "--config-path", str(path), "--port", str(port)),
                *("--metrics-port", str(metrics_port), *arguments),
                core=cores()[0], first=True, env=environment({**variables, **(env or {})}), stdout=stdout, stderr=told,
            )
        )  # fmt: skip
        until_it_answers(f"http://127.0.0.1:{port}/health")
        yield Gateway(child, port, metrics_port, messages)


@dataclass(frozen=True)
class Moved:
    """How far callers' p99 moved: the median over pairs of rounds, and an interval that holds it 19 times in 20."""

    healthy_p50_ms: float
    harmed_p50_ms: float
    healthy_p99_ms: float
    harmed_p99_ms: float
    p99_moved_ms: float
    at_least_ms: float
    at_most_ms: float
    rounds: int


def moved(healthy: Gateway, harmed: Gateway) -> Moved:
    """Compare the rounds that were measured next to each other."""
    differences = sorted(b - a for a, b in zip(healthy.p99_ms, harmed.p99_ms, strict=True))
    low = _rank(len(differences))
    return Moved(
        healthy_p50_ms=percentile(healthy.latencies_s, 0.5) * 1e3,
        harmed_p50_ms=percentile(harmed.latencies_s, 0.5) * 1e3,
        healthy_p99_ms=statistics.median(healthy.p99_ms),
        harmed_p99_ms=statistics.median(harmed.p99_ms),
        p99_moved_ms=statistics.median(differences),
        at_least_ms=-math.inf if low is None else differences[low],
        at_most_ms=math.inf if low is None else differences[-1 - low],
        rounds=len(differences),
    )


def _rank(count: int) -> int | None:
    """Which of `count` sorted values bounds their median from below, wrong once in 40 times (a sign test).

    None where even the lowest is wrong more often: of fewer than 6.
    """
    found, below, ways = None, 0, 1
    for rank in range(count // 2):
        below += ways
        if below > 2**count / 40:
            break
        found = rank
        ways = ways * (count - rank) // (rank + 1)
    return found


async def alternate(healthy: Gateway, harmed: Gateway, number: int, rate_per_s: float, seconds: float) -> None:
    """One round of each, in an order that changes."""
    for one in (healthy, harmed) if number % 2 else (harmed, healthy):
        await one.load(rate_per_s, seconds)


async def warm_up(*gateways: Gateway) -> None:
    """First requests make connections, caches and series."""
    for one in gateways:
        await one.load(100, 1.0)
        one.forget()
