"""Callers who leave: charged for what came, the provider's connection closed with theirs, nothing kept open."""

import asyncio
import contextlib
import gc
import json
import re
import socket
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.spend.settle import BYTES_PER_TOKEN
from gateway.store.spec import Entry
from gateway.telemetry import names
from gateway.types.errors import ErrorType
from gateway.types.records import Basis
from tests.conftest import StartGateway
from tests.journeys.books import MODELS, accounts_of, balanced, budget, configuration, entries_of
from tests.journeys.ledgers import JourneyLedger, sqlite_ledger
from tests.journeys.streaming_apis import STREAMING, TEXTS, StreamingApi
from tests.openai_replies import openai_chat, openai_usage
from tests.proving import Proof
from tests.replies import RecordedRequest, Reply, StreamReply, Wire, head
from tests.running_gateway import RunningGateway, until
from tests.scripted_upstream import ScriptedUpstream

PRICES = [{"model": model, "input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.01} for model in MODELS.values()]
WAIT_S = 10.0


class Caller:
    """A caller on a socket of its own, who can leave at any byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.seen = b""

    @classmethod
    async def ask(
        cls, gateway: RunningGateway, path: str, body: object, *, receive_buffer_bytes: int | None = None
    ) -> "Caller":
        """Connect and send a request."""
        address = urlsplit(gateway.url)
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
        # A reader that takes little keeps what it has not asked for in the socket.
        reader, writer = await asyncio.open_connection(sock=raw, limit=2**16 if receive_buffer_bytes is None else 1024)
        data = json.dumps(body).encode()
        head_ = (
            f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
        )
        writer.write(head_.encode() + b"\r\n\r\n" + data)
        await writer.drain()
        return cls(reader, writer)

    async def until(self, count: int) -> None:
        """Read until `count` events of the stream have come."""
        while self.seen.count(b"data: ") < count:
            try:
                data = await asyncio.wait_for(self._reader.read(2**16), WAIT_S)
            except TimeoutError:
                data = b""
            assert data, f"event {count} of the stream did not come: {self.seen!r}"
            self.seen += data

    async def leave(self, *, reset: bool) -> None:
        """Close the connection, by FIN or by RST."""
        if reset:
            self._writer.transport.abort()
        else:
            self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def nothing_is_left(gateway: RunningGateway, upstream: ScriptedUpstream, callers: int = 0) -> None:
    """Neither side has a connection open, but for `callers`, and no request is in flight."""
    await upstream.until(lambda up: up.open_connections == 0, "the provider's connections closed")
    await until(lambda: gateway.connections == callers, "the callers' connections closed")
    assert gateway.metric(names.REQUESTS_IN_FLIGHT) == 0


def check_line(api: StreamingApi, came: int, line: Entry) -> None:
    """What an attempt that ended after `came` events is charged for, by the settle table."""
    assert line.usage is not None
    counts = (line.usage.input_tokens, line.usage.output_tokens)
    finished = came >= api.finished_at
    if came >= api.reported_at:
        assert counts[0] == api.input_tokens
    if not finished:
        # Whether the headers of a reply without a body had come is not for the test to say.
        assert line.basis in ({Basis.UNKNOWN, Basis.PARTIAL} if came == 0 else {Basis.PARTIAL})
        output = counts[1]
        assert output is not None
        said = "".join(TEXTS)
        # No more than came, as seen: four characters a token, and one a chunk.
        assert output <= max(came, -(-len(said) // BYTES_PER_TOKEN))
        assert output >= min(came, 1)
    else:
        assert line.basis in {Basis.PROVIDER_USAGE, Basis.ESTIMATED}
    assert line.nano_usd


@pytest.mark.parametrize(
    ("ledger", "api"),
    [
        *(pytest.param("sqlite", api, id=api.name) for api in STREAMING),
        # What happens to a stream does not depend on the store: one API shows that its charges reach this one too.
        pytest.param("postgres", STREAMING[0], id=f"{STREAMING[0].name}-postgres", marks=pytest.mark.stack),
    ],
    indirect=["ledger"],
)
async def test_leaving_after_any_event(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger, api: StreamingApi
) -> None:
    """After event k, for every k, a caller's leaving closes the provider's connection and is charged as the table says."""
    config = configuration(upstream.url, prices=PRICES, budgets=[budget(5)])
    gateway = await start_gateway(config, ledgers=ledger.ledgers)
    for came in range(api.visible + 1):
        reply = StreamReply([*api.events[:came], asyncio.Event(), *api.events[came:]])
        upstream.script(reply)
        caller = await Caller.ask(gateway, api.path, api.body)
        async with asyncio.timeout(WAIT_S):
            await reply.started.wait()
        await caller.until(came)
        await caller.leave(reset=bool(came % 2))
        async with asyncio.timeout(WAIT_S):
            await reply.peer_left.wait()
        record = (await gateway.records.wait(came + 1))[-1]
        assert (record.error_type, record.status_code) == (ErrorType.CALLER_LEFT, 499)
        await nothing_is_left(gateway, upstream)
        check_line(api, came, (await entries_of(gateway))[-1])
    assert await balanced(gateway) > 0


@pytest.mark.parametrize("api", STREAMING, ids=lambda api: api.name)
async def test_a_provider_that_cuts_after_any_event(
    upstream: ScriptedUpstream, start_gateway: StartGateway, api: StreamingApi
) -> None:
    """A stream that its provider breaks off is told as broken, and is charged as one whose caller left."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(5)]))
    for came in range(api.finished_at):
        upstream.script(StreamReply(api.events, cut_after=came, reset=bool(came % 2)))
        reply = await gateway.client.post(api.path, json=api.body)
        record = (await gateway.records.wait(came + 1))[-1]
        assert record.error_type in {ErrorType.STREAM_CUT, ErrorType.CONNECTION_LOST}
        assert "stream_cut" in reply.text or "connection_lost" in reply.text
        line = (await entries_of(gateway))[-1]
        assert line.basis in {Basis.PARTIAL, Basis.UNKNOWN}
        assert line.nano_usd
    assert await balanced(gateway) > 0


class Flood(Reply):
    """A stream that goes on for as long as somebody reads it."""

    def __init__(self, event: bytes) -> None:
        super().__init__()
        self._event = event * 64

    async def send(self, wire: Wire) -> None:
        wire.write(head(200, [("content-type", "text/event-stream"), ("connection", "close")]))
        while True:
            wire.write(self._event if wire.waiting_bytes < 2**20 else b"")
            await asyncio.sleep(0)


@pytest.mark.parametrize("api", STREAMING, ids=lambda api: api.name)
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_leaving_while_the_gateway_cannot_send(
    upstream: ScriptedUpstream, start_gateway: StartGateway, api: StreamingApi, reset: bool
) -> None:
    """A caller who reads nothing blocks its own stream only; when it leaves, all is as if it had read."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(5)]))
    flood = Flood(api.events[2])
    upstream.script(flood)
    caller = await Caller.ask(gateway, api.path, api.body, receive_buffer_bytes=2048)
    await until(lambda: gateway.blocked == 1, "a blocked caller")
    # Others are served meanwhile.
    assert (await gateway.client.get("/health")).status_code == 200
    await caller.leave(reset=reset)
    async with asyncio.timeout(WAIT_S):
        await flood.peer_left.wait()
    assert (await gateway.records.last()).error_type is ErrorType.CALLER_LEFT
    await nothing_is_left(gateway, upstream, callers=1)
    (line,) = await entries_of(gateway)
    assert line.basis is Basis.PARTIAL
    assert line.usage is not None
    assert (line.usage.output_tokens or 0) > 64
    assert await balanced(gateway) > 0


async def test_leaving_before_the_request_is_whole_costs_nothing(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A caller who leaves in the middle of its own request has asked nobody anything."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(5)]))
    address = urlsplit(gateway.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 1000\r\n\r\n{")
    await writer.drain()
    await until(lambda: gateway.connections == 1, "a connection")
    writer.close()
    await until(lambda: gateway.connections == 0, "no connection")
    assert upstream.hits == 0
    assert await balanced(gateway) == 0


async def test_leaving_while_money_is_asked_for_gives_it_back(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A caller who leaves before its hold is on disk is not served, holds nothing, and pays nothing."""
    path = tmp_path / "ledger.db"
    config = configuration(upstream.url, prices=PRICES, budgets=[budget(5)])
    gateway = await start_gateway(config, ledgers=sqlite_ledger(path).ledgers)
    api = STREAMING[0]
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        caller = await Caller.ask(gateway, api.path, api.body)
        await until(lambda: accounts_of(gateway).stats().pending > 0, "a hold that waits")
        await caller.leave(reset=True)
        record = await gateway.records.last()
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert (record.error_type, record.attempts) == (ErrorType.CALLER_LEFT, ())
    await nothing_is_left(gateway, upstream)
    assert await balanced(gateway) == 0
    assert upstream.hits == 0


async def test_one_who_leaves_a_whole_reply_pays_for_it(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A reply that is not streamed is generated whatever its caller does: it is charged exactly."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(5)]))
    gate = asyncio.Event()
    reply = openai_chat(usage=openai_usage(9, 3), hold=gate)
    upstream.script(reply)
    caller = await Caller.ask(gateway, "/v1/chat/completions", {"model": "chat", "messages": [{"role": "user"}]})
    await reply.started.wait()
    await caller.leave(reset=True)
    await until(lambda: gateway.connections == 0, "no connection")
    gate.set()
    await gateway.records.wait(1)
    assert await balanced(gateway) == 9 + 30


# --- the long form ----------------------------------------------------------------------------------------------

LEAVERS = 100_000
AT_ONCE = 10
WARM = 1_000
"""Leavers after which everything that is kept for good is there."""
_NUMBER = re.compile(rb"caller (\d+)")


def open_files() -> int:
    """The descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.prove(share=3)
@pytest.mark.timeout(0)
async def test_nothing_leaks_over_100_000_leavers(
    upstream: ScriptedUpstream, start_gateway: StartGateway, proof: Proof
) -> None:
    """100,000 callers leave at any event of any API: descriptors, tasks and connections are as before, books balance.

    Providers are left within 250 ms of the caller's leaving, 99 times in 100.
    """
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES))
    took: list[float] = []
    replies: dict[int, Reply] = {}

    def answer(request: RecordedRequest) -> Reply:
        found = _NUMBER.search(request.body)
        assert found is not None
        return replies[int(found[1])]

    async def leave(number: int) -> None:
        api = STREAMING[number % len(STREAMING)]
        came = number // len(STREAMING) % (api.visible + 1)
        reply = replies[number] = StreamReply([*api.events[:came], asyncio.Event()])
        body = json.loads(json.dumps(api.body).replace("Hello?", f"caller {number}"))
        caller = await Caller.ask(gateway, api.path, body)
        await reply.started.wait()
        await caller.until(came)
        left = time.monotonic()
        await caller.leave(reset=bool(number % 2))
        await reply.peer_left.wait()
        took.append(time.monotonic() - left)
        del replies[number]

    async def leave_in_turn(numbers: Iterator[int]) -> None:
        for number in numbers:
            await leave(number)
            # Records are checked below by their number and sum alone.
            upstream.requests.clear()
            if number % WARM == 0:
                # What this test keeps of each leaver is not what is measured: walking it all takes a second.
                gc.freeze()

    upstream.always(answer)
    await share_out(leave_in_turn, iter(range(WARM)))
    await nothing_is_left(gateway, upstream)
    files, tasks = open_files(), len(asyncio.all_tasks())
    await share_out(leave_in_turn, (WARM + number for number in proof.rounds(LEAVERS - WARM)))
    leavers = len(took)
    await nothing_is_left(gateway, upstream)
    assert open_files() <= files
    assert len(asyncio.all_tasks()) <= tasks
    await gateway.records.wait(leavers)
    assert len(await entries_of(gateway)) == leavers
    assert await balanced(gateway) > 0
    percentile = statistics.quantiles(took, n=100)[98]
    proof.found(
        leavers=leavers, left_within_ms_p99=percentile * 1e3, left_within_ms_most=max(took) * 1e3,
        open_files_more=open_files() - files, difference_nano_usd=0,
    )  # fmt: skip
    assert percentile < 0.25


async def share_out(work: Callable[[Iterator[int]], Awaitable[None]], numbers: Iterator[int]) -> None:
    """AT_ONCE tasks that take the next number each."""
    await asyncio.gather(*(work(numbers) for _ in range(AT_ONCE)))
