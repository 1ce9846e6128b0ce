"""Several workers behind one socket: watched, replaced, drained, and told of as one."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.listening import listen
from gateway.supervise import Supervisor
from gateway.telemetry import names
from gateway.telemetry.fleet import Fleet
from tests.openai_replies import openai_chat
from tests.scripted_upstream import ScriptedUpstream
from tests.store.postgres_server import PostgresServer

WAIT_S = 30.0
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def small(mode: str) -> Callable[[int, int, int, int], Sequence[str]]:
    """The command of a worker without an application."""
    return lambda _, *fds: ["tests.small_worker", mode, *map(str, fds)]


class Supervised:
    """A supervisor in this process, over workers of `mode`."""

    def __init__(self, mode: str, workers: int = 2, stopped_within_s: float = WAIT_S) -> None:
        self.fleet = Fleet()
        self.ready = asyncio.Event()
        self.listening = listen("127.0.0.1", 0)
        self.supervisor = Supervisor(
            small(mode),
            workers,
            self.listening,
            self.fleet,
            backoff_s=0.01,
            stopped_within_s=stopped_within_s,
            on_ready=self.ready.set,
        )

    async def __aenter__(self) -> Supervised:
        self.task = asyncio.create_task(self.supervisor.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        if not self.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await self.task
        self.listening.close()

    def value(self, name: str, *labels: str) -> float:
        return self.fleet.read()[name][labels].values[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what another process writes to memory, of which no event tells."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_killed_worker_is_replaced_and_its_counts_stay() -> None:
    """After SIGKILL another worker comes; sums keep the dead one's part, its requests in flight are gone."""
    async with Supervised("steady") as run:
        await asyncio.wait_for(run.ready.wait(), WAIT_S)
        (_, first), _ = run.fleet.processes
        os.kill(first, signal.SIGKILL)
        await run.until(lambda: run.value(names.SPANS_EXPORTED.name) == 3.0)
        await run.until(lambda: run.value(names.REQUESTS_IN_FLIGHT.name, "chat") == 2.0)
        assert run.value(names.WORKERS.name) == 2.0
        assert run.value(names.WORKER_EXITS.name) == 1.0
        duration = run.fleet.read()[names.REQUEST_DURATION.name]["chat", "t", "ok"]
        assert sum(duration.values[1:]) == 3.0
        assert [e for e in duration.exemplars if e is not None]
        assert first not in {pid for _, pid in run.fleet.processes}
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run.task == 0
        assert run.value(names.SPANS_EXPORTED.name) == 3.0
        assert names.REQUESTS_IN_FLIGHT.name not in run.fleet.read()


async def test_a_worker_that_crashes_again_and_again_is_started_again() -> None:
    """Crashes are counted, none loses its counts, and the supervisor lives on."""
    async with Supervised("crashing", workers=1) as run:
        await run.until(lambda: run.value(names.WORKER_EXITS.name) >= 3.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run.task == 0
        assert run.value(names.SPANS_EXPORTED.name) == run.value(names.WORKER_EXITS.name)


async def test_a_worker_that_cannot_start_ends_the_start() -> None:
    """A configuration that no worker can serve is an exit status, not an endless loop."""
    async with Supervised("broken") as run:
        assert await asyncio.wait_for(run.task, WAIT_S) == 1


async def test_a_worker_that_does_not_drain_is_killed() -> None:
    """A worker deaf to SIGTERM does not hold the end for longer than the grace, and the status says so."""
    async with Supervised("deaf", stopped_within_s=0.2) as run:
        await asyncio.wait_for(run.ready.wait(), WAIT_S)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(run.task, WAIT_S) == 1


def test_workers_end_when_their_supervisor_is_killed() -> None:
    """SIGKILL for the supervisor leaves no worker behind."""
    code = (
        "import asyncio\n"
        "from tests.test_supervise import Supervised\n"
        "async def main():\n"
        "    async with Supervised('steady') as run:\n"
        "        await run.ready.wait()\n"
        "        print('ready', flush=True)\n"
        "        await run.task\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"ready\n"
        supervisor.kill()
        # The workers hold the other end of this pipe: it ends when they have.
        assert supervisor.stdout.read() == b""


# --- the whole gateway


@asynccontextmanager
async def started(
    config: Path, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str, list[str]]]:
    """`gateway start --workers 2`: the process, the URLs of the API and of the metrics, and its log so far."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "start", "--config-path", str(config),
        "--port", "0", "--metrics-port", "0", "--workers", "2", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    lines: list[str] = []
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while not lines or "workers serve" not in lines[-1]:
                lines.append((await process.stdout.readline()).decode())
                assert lines[-1], lines
        found = re.search(r"(http://[^,]+), metrics on (http://[^\"]+)", lines[-1])
        assert found is not None
        yield process, found[1], found[2], lines
    finally:
        if process.returncode is None:
            process.terminate()
            rest, _ = await process.communicate()
            lines += rest.decode().splitlines()


async def scrape(client: httpx.AsyncClient, url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of one scrape, exemplars checked for."""
    text = (await client.get(url, headers={"accept": "application/openmetrics-text"})).text
    families = list(text_string_to_metric_families(text))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def counted(
    client: httpx.AsyncClient, url: str, requests: int
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of the first scrape with so many requests: a worker counts one after its last byte has left."""
    async with asyncio.timeout(WAIT_S):
        while total(samples := await scrape(client, url), "gateway_requests_total") < requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return samples


def total(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str) -> float:
    """The sum over a family's labels."""
    return sum(value for (sample, _), value in samples.items() if sample == name)


def test_several_workers_need_a_shared_ledger(tmp_path: Path) -> None:
    """An SQLite ledger has one owner: the start is refused, with the remedy, instead of counting budgets apart."""
    config = tmp_path / "gateway.yaml"
    config.write_text("endpoints: []\n")
    command = [sys.executable, "-m", "gateway", "start", "--config-path", str(config), "--workers", "2"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "ledger: {postgres: " in refused.stderr


@pytest.mark.stack
async def test_the_gateway_with_two_workers(tmp_path: Path) -> None:
    """Served by both, scraped as one: a worker's death takes no count back, and SIGTERM drains and exits 0."""
    with PostgresServer() as postgres:
        config = tmp_path / "gateway.yaml"
        async with ScriptedUpstream() as upstream:
            config.write_text(CONFIG.format(ledger=postgres.conninfo().reveal(), url=upstream.url))
            await _two_workers(config, upstream)


CONFIG = """
ledger: {{postgres: {ledger}}}
routes:
  - name: chat
    route_type: llm/v1/chat
    model: {{provider: openai, name: m, config: {{openai_api_key: sk-test, openai_api_base: "{url}/v1"}}}}
"""


async def _two_workers(config: Path, upstream: ScriptedUpstream) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
        upstream.always(lambda _: openai_chat())
        async with started(config, "--traces", "none") as (process, api, metrics, _):
            url = f"{api}/gateway/chat/invocations"
            workers: set[int] = set()
            served = 0
            while served < 20:
                # Without keep-alive each request may go to another worker.
                reply = await client.post(url, json=CHAT, headers={"connection": "close"})
                assert reply.status_code == 200
                served += 1
            before = await counted(client, metrics, served)
            assert total(before, "gateway_requests_total") == served
            assert total(before, "gateway_build_info") == 1.0
            workers = {int(dict(labels)["worker"]) for (name, labels) in before
                       if name == "process_start_time_seconds" and dict(labels)["worker"] != "supervisor"}  # fmt: skip
            assert workers == {0, 1}

            hold = asyncio.Event()
            upstream.script(openai_chat(hold=hold))
            held = asyncio.create_task(client.post(url, json=CHAT))
            await upstream.wait_requests(served + 1)
            during = await scrape(client, metrics)
            assert total(during, "gateway_requests_in_flight") == 1.0
            for pid in _children(process.pid):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                await held
            hold.set()
            # The socket outlives the workers: this waits in its backlog for the next one.
            assert (await client.post(url, json=CHAT)).status_code == 200
            after = await counted(client, metrics, served + 1)
            assert total(after, "gateway_requests_in_flight") == 0.0
            assert total(after, "gateway_requests_total") == served + 1
            assert total(after, "gateway_worker_exits_total") == 2.0
            monotone = {key for key in before if key[0].endswith(("_total", "_count", "_sum", "_bucket"))}
            back = {key for key in monotone if key[0].startswith(("gateway_", "gen_ai_")) and after[key] < before[key]}
            assert back == set()

            last = asyncio.Event()
            upstream.script(openai_chat("drained", hold=last))
            drained = asyncio.create_task(client.post(url, json=CHAT))
            await upstream.wait_requests(served + 3)
            process.terminate()
            last.set()
            assert (await drained).status_code == 200
            assert await asyncio.wait_for(process.wait(), WAIT_S) == 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
