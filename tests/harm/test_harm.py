"""Whatever becomes of the telemetry's sinks, callers do not wait, nothing is lost unseen, and the end comes in time."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE

import httpx
import pytest

from bench.rounds import cores
from tests.harm.bad_sink import MODES, TAKES
from tests.harm.rig import (
    SPANS_A_REQUEST,
    Gateway,
    Moved,
    alternate,
    gateway,
    moved,
    process,
    provider,
    sink,
    warm_up,
)
from tests.proving import Proof

RATE_PER_S = float(os.environ.get("GAUGEWAY_PROVE_RATE", "150"))
SLICE_S = 1.5
ROUNDS = 60
MOST_MS = 1.0
OTLP = {
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3000",
    # A queue that fills within seconds.
    "OTEL_BSP_MAX_QUEUE_SIZE": "300",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "300",
}


async def compare(healthy: Gateway, harmed: Gateway, proof: Proof) -> Moved:
    """Rounds of both, as many as the time allows."""
    await warm_up(healthy, harmed)
    for number in proof.rounds(ROUNDS):
        await alternate(healthy, harmed, number, RATE_PER_S, SLICE_S)
    return moved(healthy, harmed)


def tell(proof: Proof, result: Moved, **more: float) -> None:
    """The figures; a p99 that certainly moved too far is a failure."""
    proof.found(
        p99_ms_healthy=result.healthy_p99_ms, p99_ms_harmed=result.harmed_p99_ms, p99_moved_ms=result.p99_moved_ms,
        from_ms=result.at_least_ms, to_ms=result.at_most_ms, rounds=result.rounds, **more,
    )  # fmt: skip
    assert result.at_least_ms <= MOST_MS


def agree(one: Gateway, *, taken: int | None = None) -> dict[str, tuple[int, int]]:
    """After its end: each span and line was exported or lost, and the sink took what the gateway says."""
    said = one.said()
    assert sum(said["spans"]) == SPANS_A_REQUEST * one.requests
    if taken is not None:
        assert said["spans"][0] == taken
    return said


def taken_by(collector: str) -> int:
    """How many spans a collector took."""
    return int(httpx.get(f"{collector}/taken", trust_env=False).text)


async def test_everything_is_wrong_at_once(tmp_path: Path) -> None:
    """With a frozen collector, and nobody at its log and messages, a gateway serves, counts its losses and ends."""
    with ExitStack() as stack:
        upstream, bad = stack.enter_context(provider()), stack.enter_context(sink("frozen"))
        out, messages = stack.enter_context(unread_pipe()), stack.enter_context(unread_pipe())
        one = stack.enter_context(gateway(tmp_path, upstream, bad, env=OTLP, stdout=out, stderr=messages))
        # More than a batch is under way, and more than the queue holds waits.
        for _ in range(2):
            await one.load(300, 1.0)
        assert one.total("gateway_requests_total") == one.requests
        spans_lost = one.total("gateway_telemetry_spans_dropped_total", 'reason="queue_full"')
        assert spans_lost > 0
        assert one.total("gateway_telemetry_spans_exported_total") == 0
        assert one.total("gateway_telemetry_log_lines_written_total") == 0
        assert one.total("gateway_telemetry_log_lines_dropped_total", 'sink="otlp_logs"') > 0
        one.end()


@pytest.mark.prove(share=0.5)
@pytest.mark.timeout(0)
@pytest.mark.parametrize("mode", ["take", "down", *(mode for mode in MODES if mode != "take")])
async def test_collector(mode: str, tmp_path: Path, proof: Proof) -> None:
    """However a collector fails, p99 moves by at most 1 ms, spans are counted exactly, and the end is in time."""
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        good, bad = stack.enter_context(sink("take")), stack.enter_context(sink(mode))
        healthy = stack.enter_context(gateway(tmp_path / "healthy", upstream, good, env=OTLP))
        harmed = stack.enter_context(gateway(tmp_path / "harmed", upstream, bad, env=OTLP))
        result = await compare(healthy, harmed, proof)
        dropped = harmed.total("gateway_telemetry_spans_dropped_total")
        queue_full = harmed.total("gateway_telemetry_spans_dropped_total", 'reason="queue_full"')
        assert (dropped > 0) == (mode not in {"take", "slow", "html"} or queue_full > 0)
        took_s = harmed.end()
        healthy.end()
        taken = 0
        if mode in TAKES:
            taken = taken_by(bad)
        # An answer that comes after the end was not waited for: the slow collector has taken what counts as lost.
        exported, lost = agree(harmed, taken=None if mode == "slow" else taken)["spans"]
        assert exported <= taken
        agree(healthy)
        tell(proof, result, exported=exported, lost=lost, of_them_queue_full=queue_full, end_s=took_s)


@contextmanager
def unread_pipe() -> Iterator[int]:
    """A pipe that is full, and that nobody reads; its writing end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(writer)
        os.close(reader)


class Lines:
    """Whoever reads the request log, slowly; `count` is how many lines have come."""

    def __init__(self, reader: int, piece_bytes: int, pause_s: float) -> None:
        self._reader, self._piece_bytes, self._pause_s = reader, piece_bytes, pause_s
        self.hurry = threading.Event()
        self.count = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while piece := os.read(self._reader, self._piece_bytes):
            self.count += piece.count(b"\n")
            self.hurry.wait(self._pause_s)


@pytest.mark.prove(share=0.5)
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["nobody reads", "slow reader", "full disk", "nobody reads messages"])
async def test_log(kind: str, tmp_path: Path, proof: Proof) -> None:
    """A log that nobody reads, that is read slowly or that cannot be written moves p99 by at most 1 ms."""
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        lines: Lines | None = None
        stdout, stderr = subprocess.DEVNULL, None
        if kind == "nobody reads":
            stdout = stack.enter_context(unread_pipe())
        elif kind == "nobody reads messages":
            stderr = stack.enter_context(unread_pipe())
        elif kind == "full disk":
            stdout = stack.enter_context(open("/dev/full", "wb")).fileno()  # noqa: ASYNC230, PTH123
        else:
            reader, stdout = os.pipe()
            lines = Lines(reader, 1024, 0.1)
        # The messages that nobody reads are those of a collector that is down.
        good = stack.enter_context(sink("take"))
        bad = stack.enter_context(sink("http-400" if stderr is not None else "take"))
        healthy = stack.enter_context(gateway(tmp_path / "healthy", upstream, good))
        harmed = stack.enter_context(gateway(tmp_path / "harmed", upstream, bad, stdout=stdout, stderr=stderr))
        result = await compare(healthy, harmed, proof)
        written = harmed.total("gateway_telemetry_log_lines_written_total")
        if kind == "nobody reads messages":
            assert harmed.total("gateway_telemetry_messages_dropped_total") == 0
        took_s = harmed.end()
        healthy.end()
        lost = 0
        if stderr is None:
            written, lost = agree(harmed)["lines"]
            assert written + lost == harmed.requests
        if lines is not None:
            os.close(stdout)
            lines.hurry.set()
            lines.thread.join()
            assert lines.count == written
        else:
            assert (written == 0) == (kind in {"nobody reads", "full disk"})
        tell(proof, result, lines_written=written, lines_lost=lost, end_s=took_s)


ROUTES = 190
SERIES = 50_000
SCRAPED_S = 3.0


def many_routes(url: str) -> str:
    """A configuration whose metrics are many once each route was asked."""
    target = f'model: {{provider: openai, name: m, config: {{openai_api_key: sk-test, openai_api_base: "{url}/v1"}}}}'
    names = ["chat", *(f"route-{number}" for number in range(ROUTES))]
    return "routes:\n" + "".join(f"  - name: {name}\n    route_type: llm/v1/chat\n    {target}\n" for name in names)


@pytest.mark.prove(share=1)
@pytest.mark.timeout(0)
@pytest.mark.parametrize("how", ["each second", "back to back", "byte by byte"])
async def test_scrape(how: str, tmp_path: Path, proof: Proof) -> None:
    """Scrapes of 50,000 series under load move p99 by at most 1 ms."""
    with ExitStack() as stack:
        upstream = stack.enter_context(provider())
        config = many_routes(upstream).replace("{", "{{").replace("}", "}}")
        scraped = stack.enter_context(gateway(tmp_path, upstream, None, config=config))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{scraped.port}", trust_env=False) as client:
            body = {"messages": [{"role": "user", "content": "hi"}]}
            for number in range(ROUTES):
                (await client.post(f"/gateway/route-{number}/invocations", json=body)).raise_for_status()
        series = sum(not line.startswith("#") for line in scraped.scrape().splitlines())
        assert series >= SERIES
        alone = Gateway(scraped.child, scraped.port, scraped.metrics_port, scraped.messages)
        await warm_up(alone, scraped)
        url = f"http://127.0.0.1:{scraped.metrics_port}/metrics"
        interval = {"each second": "1", "back to back": "0", "byte by byte": "bytes"}[how]
        scraper = stack.enter_context(
            process("-m", "tests.harm.scraper", url, interval, core=cores()[1], stdin=PIPE, stdout=PIPE)
        )
        assert scraper.stdin is not None
        assert scraper.stdout is not None
        scrapes = 0
        for number in proof.rounds(ROUNDS):
            for one in (alone, scraped) if number % 2 else (scraped, alone):
                if one is scraped:
                    scraper.stdin.write(b"%g\n" % SCRAPED_S)
                    scraper.stdin.flush()
                await one.load(RATE_PER_S, SCRAPED_S)
                if one is scraped:
                    while scraper.stdout.readline() != b"done\n":
                        scrapes += 1
        assert scrapes > 0 or how == "byte by byte"
        took_s = scraped.end()
        tell(proof, moved(alone, scraped), series=series, scrapes=scrapes, end_s=took_s)
