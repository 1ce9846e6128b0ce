"""kill -9 and SIGTERM of whole gateways under load: what the provider served is what the ledger says, once each."""

import asyncio
import random
import re
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.store.spec import Entry
from gateway.telemetry import names
from gateway.types.records import Basis
from tests.journeys.books import MODELS, budget, chat, configuration, dollars, held_by, told_nano_usd
from tests.journeys.ledgers import JourneyLedger, postgres_ledger, sqlite_ledger
from tests.journeys.nursery import ROOT, Child, free_port, nursery
from tests.openai_replies import openai_chat, openai_stream, openai_usage
from tests.proving import Proof
from tests.replies import RecordedRequest, Reply
from tests.running_gateway import PLAIN, running_gateway
from tests.scripted_upstream import ScriptedUpstream
from tests.store.postgres_server import PostgresServer

# One nano-dollar a token.
PRICES = [{"model": model, "input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.001} for model in MODELS.values()]
LIMIT_TOKENS = 10_000_000
"""What a request may generate, plus ten times its number: an orphan's amount then tells whose it was."""
CALLERS = 20
ROOM = 12
"""Requests that fit at once: fewer than ask, so that each round fights for the budget."""


def body_of(number: int) -> dict[str, Any]:
    """The request of a number, streamed every third time."""
    return chat(f"n={number:08d}", max_tokens=LIMIT_TOKENS + 10 * number, stream=number % 3 == 0)


class Served:
    """A provider that keeps the numbers of the requests it served, and reports the number as the output's tokens."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, request: RecordedRequest) -> Reply:
        found = re.search(rb"n=(\d{8})", request.body)
        assert found is not None
        number = int(found[1])
        self.numbers.append(number)
        usage = openai_usage(1, number)
        if number % 3 == 0:
            return openai_stream(["Hel", "lo"], usage=usage)
        return openai_chat(usage=usage)


async def ask_until_killed(child: Child, numbers: "Numbers") -> None:
    """Ask one request after the other until nobody answers any more."""
    async with httpx.AsyncClient(base_url=child.url, trust_env=False, timeout=30, verify=PLAIN) as client:
        while True:
            number = numbers.next()
            try:
                reply = await client.post("/v1/chat/completions", json=body_of(number))
            except httpx.TransportError:
                return
            assert reply.status_code in {200, 429}, reply.text
            if reply.status_code == 429:
                numbers.refused += 1
                await asyncio.sleep(0)


class Numbers:
    """Counts requests, and refusals."""

    def __init__(self) -> None:
        self.asked = self.refused = 0

    def next(self) -> int:
        """A number that nobody has had."""
        self.asked += 1
        return self.asked


def number_of(entry: Entry, held_by_none: int) -> int:
    """Whose charge a line is: told by its usage, or by its amount where the process died first."""
    if entry.basis is Basis.ORPHAN:
        assert entry.nano_usd is not None
        # A streamed request's "true" is a byte shorter than "false".
        return round((entry.nano_usd - held_by_none) / 10)
    assert entry.usage is not None
    assert entry.usage.output_tokens is not None
    return entry.usage.output_tokens


async def kill_many(folder: Path, ledger: JourneyLedger, rounds: Iterable[int], seed: int) -> tuple[int, int]:
    """Kill a gateway under load in each round, all on one ledger, and reconcile; how many were killed and served."""
    rng = random.Random(seed)
    config = folder / "gateway.yaml"
    section = {**ledger.section, "max_output_tokens": 10 * LIMIT_TOKENS}
    held_by_none = await held_by(body_of(0), prices=PRICES, ledger={"max_output_tokens": 10 * LIMIT_TOKENS})
    served, numbers = Served(), Numbers()
    limits = []
    kills = owed = 0
    async with ScriptedUpstream() as upstream, nursery() as forks:
        upstream.always(served)
        for _ in rounds:
            kills += 1
            limits.append(owed + (held_by_none + 10 * (numbers.asked + 10_000)) * ROOM)
            budgets = [budget(dollars(limits[-1]), thresholds=[], window="none")]
            config.write_text(configuration(upstream.url, prices=PRICES, budgets=budgets, ledger=section))
            child = await forks.start(config)
            callers = [asyncio.create_task(ask_until_killed(child, numbers)) for _ in range(CALLERS)]
            enough = len(served.numbers) + rng.randrange(1, 80)
            await upstream.until(lambda _: len(served.numbers) >= enough)  # noqa: B023 - awaited here
            await asyncio.sleep(rng.random() * 0.01)
            assert await child.end(signal.SIGKILL) == -signal.SIGKILL
            await asyncio.gather(*callers)
            owed = ledger.owed()
            assert owed <= limits[-1]
            upstream.requests.clear()
        # The last start charges what the last kill left, and ends in order.
        child = await forks.start(config)
        spent = await child.spent_nano_usd()
        assert await child.end(signal.SIGTERM) == 0
    lines = ledger.entries()
    assert spent == sum(line.nano_usd or 0 for line in lines), "the gauge is not the ledger's sum"
    charged = Counter(number_of(line, held_by_none) for line in lines)
    assert [number for number in served.numbers if charged[number] == 0] == [], "served and not charged"
    assert [number for number, times in charged.items() if times > 1] == [], "charged twice"
    not_served = set(charged) - set(served.numbers)
    # A hold that was on disk when its process died before sending is charged too: nobody can know that it was not sent.
    assert all(line.basis is Basis.ORPHAN for line in lines if number_of(line, held_by_none) in not_served)
    assert sum(line.basis is Basis.ORPHAN for line in lines) > kills // 4
    assert len(served.numbers) > kills
    assert numbers.refused > kills // 4
    verified = CliRunner().invoke(main, ["ledger", "verify", "--config-path", str(config)])
    assert verified.exit_code == 0, verified.output
    assert "difference 0 nano-USD" in verified.output
    return kills, len(served.numbers)


@pytest.mark.timeout(300)
async def test_killing_gateways_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After 5 kill -9 under load each request that the provider served is charged once, and no limit was passed."""
    await kill_many(tmp_path, sqlite_ledger(tmp_path / "ledger.db"), range(5), seed=1)


@pytest.mark.stack
@pytest.mark.timeout(300)
async def test_killing_gateways_on_postgres_loses_and_doubles_nothing(tmp_path: Path, postgres: PostgresServer) -> None:
    """The same on PostgreSQL: the next start takes the name of the dead node, and charges what it left."""
    await kill_many(tmp_path, postgres_ledger(postgres), range(5), seed=3)


@pytest.mark.prove(share=3)
@pytest.mark.timeout(0)
async def test_2_000_kills_of_whole_gateways(tmp_path: Path, proof: Proof) -> None:
    """The same after 2,000 kill -9."""
    kills, served = await kill_many(tmp_path, sqlite_ledger(tmp_path / "ledger.db"), proof.rounds(2_000), seed=2)
    proof.found(kills=kills, served=served, lost=0, doubled=0, difference_nano_usd=0)


# --- SIGTERM ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def started(config: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """`gateway start` as a process of its own: it, the address of its callers and the one of its metrics."""
    port = free_port()
    arguments = ["start", "--config-path", str(config), "--port", str(port), "--metrics-port", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        line = await said(process, "metrics on")
        metrics = re.search(r"metrics on (http://[^/]+/metrics)", line)
        assert metrics is not None
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(trust_env=False, verify=PLAIN) as client, asyncio.timeout(30):
            while True:
                try:
                    await client.get(f"{url}/health")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.01)
        yield process, url, metrics[1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(process: asyncio.subprocess.Process, words: str) -> str:
    """The first message of the process with these words."""
    assert process.stderr is not None
    seen = []
    async with asyncio.timeout(30):
        while line := (await process.stderr.readline()).decode():
            if words in line:
                return line
            seen.append(line)
    raise AssertionError(f"it ended without saying '{words}': {seen}")


async def gauge(client: httpx.AsyncClient, metrics: str, name: str) -> float:
    """A metric without labels, as scraped."""
    found = re.search(rf"^{name} (\S+)$", (await client.get(metrics)).text, re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


@contextmanager
def unwritable(ledger: JourneyLedger) -> Iterator[None]:
    """Nobody can add a line while the context lasts: somebody else has the ledger locked."""
    if "path" in ledger.section:
        lock = sqlite3.connect(str(ledger.section["path"]), isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            lock.execute("ROLLBACK")
            lock.close()
        return
    import psycopg

    with psycopg.connect(str(ledger.section["postgres"])) as connection:
        connection.execute("LOCK TABLE entries IN EXCLUSIVE MODE")
        yield


@pytest.mark.timeout(120)
async def test_sigterm_with_500_queued_charges_loses_none(
    upstream: ScriptedUpstream, ledger: JourneyLedger, tmp_path: Path
) -> None:
    """With a ledger that cannot write, 500 replies go out; SIGTERM then waits for all their charges, and exits 0.

    What the replies told is what the ledger says in the end.
    """
    config = tmp_path / "gateway.yaml"
    config.write_text(configuration(upstream.url, prices=PRICES, ledger=ledger.section))
    upstream.always(lambda _: openai_chat(usage=openai_usage(9, 3)))
    async with (
        started(config) as (process, url, metrics),
        httpx.AsyncClient(trust_env=False, timeout=30, verify=PLAIN) as client,
    ):
        told = []
        with unwritable(ledger):
            while len(told) < 500:
                replies = await asyncio.gather(
                    *(client.post(f"{url}/v1/chat/completions", json=chat()) for _ in range(50))
                )
                assert {reply.status_code for reply in replies} == {200}
                told += map(told_nano_usd, replies)
            deadline = time.monotonic() + 30
            while await gauge(client, metrics, names.LEDGER_PENDING.name) < 500:
                assert time.monotonic() < deadline, "500 charges are not queued"
            assert ledger.entries() == []
            process.send_signal(signal.SIGTERM)
            await said(process, "draining")
        assert await asyncio.wait_for(process.wait(), 30) == 0
    lines = ledger.entries()
    assert len({(line.request_id, line.attempt) for line in lines}) == len(lines) == 500
    assert sum(line.nano_usd or 0 for line in lines) == sum(told) == 500 * 12
    assert CliRunner().invoke(main, ["ledger", "verify", "--config-path", str(config)]).exit_code == 0


async def test_streams_at_the_end_of_the_grace_are_charged(upstream: ScriptedUpstream, ledger: JourneyLedger) -> None:
    """Streams that a stop breaks off are charged for what came, in the ledger, before the process ends."""
    gates = [asyncio.Event() for _ in range(20)]
    upstream.script(*(openai_stream(["word", gate, "unseen"]) for gate in gates))
    config = configuration(upstream.url, prices=PRICES, budgets=[budget(5)])
    async with running_gateway(config, ledgers=ledger.ledgers) as gateway:
        first = [asyncio.Event() for _ in gates]
        streams = [asyncio.create_task(_read(gateway.url, event)) for event in first]
        async with asyncio.timeout(10):
            await asyncio.gather(*(event.wait() for event in first))
    ends = await asyncio.gather(*streams)
    assert all("word" in text and "unseen" not in text for text in ends)
    lines = ledger.entries()
    assert [line.basis for line in lines] == [Basis.PARTIAL] * 20
    assert all(line.nano_usd for line in lines)
    store = ledger.ledgers.read()
    assert store.holds() == []
    assert store.wrong_counters() == []
    store.close()


async def _read(url: str, first: asyncio.Event) -> str:
    """Read a stream to its end, however it ends; `first` is set when its first word has come."""
    text = ""
    async with httpx.AsyncClient(trust_env=False, timeout=30, verify=PLAIN) as client:
        try:
            async with client.stream("POST", f"{url}/v1/chat/completions", json=chat(stream=True)) as reply:
                async for piece in reply.aiter_text():
                    text += piece
                    if "word" in text:
                        first.set()
        except httpx.TransportError:
            pass
    return text
