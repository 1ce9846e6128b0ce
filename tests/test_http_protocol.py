"""What one connection may make the server keep, and what becomes of requests that are hardly HTTP."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway import http_protocol, server
from gateway.http_protocol import MAX_HEAD_BYTES, STUCK_AFTER_S, HttpProtocol
from gateway.server import Server, make_server
from tests.raw_http import RawConnection, raw_connection, request_head
from tests.running_gateway import until


class Application:
    """Reads each request and answers with its body's size, or waits for `gate` first.

    With `pieces` it answers with those, whose length it does not say.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        size = 0
        more = True
        while more:
            self.reading.set()
            message = await receive()  # type: ignore[operator]
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await self.gate.wait()
        if self.pieces:
            await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
            try:
                for piece in self.pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})  # type: ignore[operator]
            except asyncio.CancelledError:
                # Like the gateway, it tells its caller of the end.
                pass
            await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]
            return
        body = str(size).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


class Running:
    """A server around the application, without a gateway."""

    def __init__(self, server: Server, application: Application) -> None:
        self.server = server
        self.application = application
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    @property
    def protocols(self) -> list[HttpProtocol]:
        """The connections that the server holds."""
        return [item for item in self.server.server_state.connections if isinstance(item, HttpProtocol)]

    async def taken_in(self) -> HttpProtocol:
        """The one connection that is in the middle of a request, once the server has read what was sent on it."""
        # What was sent before a round trip on another connection has been read after it.
        async with raw_connection(self.url) as other:
            await other.write(request_head("GET", "/"))
            await other.reply()
            [waiting] = [item for item in self.protocols if item.cycle is None or not item.cycle.response_complete]
        return waiting


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A running server."""
    application = Application()
    started = asyncio.Event()
    made = make_server(application, signals=False, on_started=started.set)
    serving = asyncio.create_task(made.serve())
    await started.wait()
    try:
        yield Running(made, application)
    finally:
        made.should_exit = True
        application.gate.set()
        await serving


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing here may be logged as an error."""
    yield
    told = [*caplog.get_records("call"), *caplog.records]
    assert [record.getMessage() for record in told if record.levelno >= logging.ERROR] == []


async def hung_up(connection: RawConnection) -> bool:
    """Whether the server has closed the connection, once it does."""
    try:
        async with asyncio.timeout(10):
            return await connection.reader.read() == b""
    except ConnectionError:
        return True


async def flood(connection: RawConnection, piece: bytes, count: int) -> None:
    """Send a piece again and again, until the server will have no more of it."""
    try:
        for _ in range(count):
            await connection.write(piece)
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET / HTTP/1.1\r\n", b"x-filler: " + b"a" * 8000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nx-filler: ", b"a" * 8000),
        (b"GET /", b"a" * 8000),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 1500),
    ],
    ids=["many-headers", "one-header", "path", "short-headers"],
)
async def test_heads_without_end(running: Running, start: bytes, piece: bytes) -> None:
    """Whoever sends headers or a path without end is told so after 64 KiB, and let go of."""
    async with raw_connection(running.url) as caller:
        await caller.write(start)
        for _ in range(MAX_HEAD_BYTES // len(piece) + 1):
            await caller.write(piece)
        reply = await caller.reply()
        assert (reply.status, reply.body) == (431, b"The request's headers are over 64 KiB.\n")
        assert await hung_up(caller)


async def test_a_large_head_within_the_bound_is_served(running: Running) -> None:
    """Sixty kilobytes of cookies are somebody's daily life, also where they come in parts."""
    head = request_head("GET", "/", [("cookie", "a" * 60_000)])
    async with raw_connection(running.url) as caller, raw_connection(running.url) as other:
        for _ in range(3):
            await caller.write(head[:50_000])
            # Once another has its answer, the server has taken this part.
            await other.write(request_head("GET", "/"))
            assert (await other.reply()).status == 200
            await caller.write(head[50_000:])
            assert (await caller.reply()).status == 200


async def test_trailers_without_end(running: Running) -> None:
    """Headers may come behind a chunked body too; those are bounded as well."""
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("POST", "/", [("transfer-encoding", "chunked")]) + b"2\r\nhi\r\n0\r\n")
        await flood(caller, b"x-filler: " + b"a" * 8000 + b"\r\n", 2000)
        assert await hung_up(caller)
    await asyncio.wait_for(running.application.left.wait(), 10)


async def test_chunks_of_one_byte(running: Running) -> None:
    """A body may come in the smallest of chunks, whatever their framing adds up to."""
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("POST", "/", [("transfer-encoding", "chunked")]))
        await caller.write(b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")
        assert (await caller.reply()).body == b"50000"


async def test_large_bodies_are_no_heads(running: Running) -> None:
    """The bound on heads does not count bodies, and begins anew with each request."""
    body = b"a" * 1_000_000
    async with raw_connection(running.url) as caller:
        for _ in range(3):
            await caller.write(request_head("POST", "/", [("content-length", str(len(body)))]) + body)
            assert (await caller.reply()).body == b"1000000"


async def test_a_flood_behind_a_request_in_flight(running: Running) -> None:
    """A caller who waits for one reply cannot fill the memory with the head of the next request."""
    running.application.gate.clear()
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("GET", "/") + b"GET / HTTP/1.1\r\n")
        await running.application.reading.wait()
        await flood(caller, b"x-filler: " + b"a" * 8000 + b"\r\n", 2000)
        assert await hung_up(caller)


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"POST / HTTP/1.1\r\nhost: x\r\n", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"],
    ids=["nothing", "line-end", "half-a-head", "half-a-body"],
)
async def test_stuck_callers_are_let_go_of(running: Running, sent: bytes) -> None:
    """A caller who stops in the middle of a request is kept for a minute, and no longer."""
    async with raw_connection(running.url) as caller:
        await caller.write(sent)
        protocol = await running.taken_in()
        now = asyncio.get_running_loop().time()
        protocol.leave_if_stuck(now + STUCK_AFTER_S - 1)
        assert not protocol.transport.is_closing()
        protocol.leave_if_stuck(now + STUCK_AFTER_S + 1)
        assert await hung_up(caller)


async def test_who_trickles_a_head_is_stuck_too(running: Running) -> None:
    """A byte now and then does not buy a head more time."""
    async with raw_connection(running.url) as caller:
        await caller.write(b"GET / HTTP/1.1\r\n")
        protocol = await running.taken_in()
        begun = protocol._head_since
        protocol.data_received(b"x-a: b\r\n")
        assert protocol._head_since == begun


async def test_waiting_for_a_reply_is_not_being_stuck(running: Running) -> None:
    """However long a model thinks, its caller is not let go of; nor is one between two requests."""
    running.application.gate.clear()
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("POST", "/", [("content-length", "2")]) + b"hi")
        await running.application.reading.wait()
        [protocol] = running.protocols
        assert not protocol.cycle.more_body
        hours_later = asyncio.get_running_loop().time() + 10_000
        protocol.leave_if_stuck(hours_later)
        running.application.gate.set()
        assert (await caller.reply()).body == b"2"
        protocol.leave_if_stuck(hours_later)
        await caller.write(request_head("GET", "/"))
        assert (await caller.reply()).status == 200


@pytest.mark.parametrize("count", [1, 32], ids=["whole", "stream"])
async def test_who_reads_nothing_is_let_go_of(running: Running, count: int) -> None:
    """A caller who does not take its reply holds its request for a minute after its last byte, and no longer."""
    running.application.pieces = [b"x" * (2**25 // count)] * count
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("GET", "/"))
        await caller.reader.readuntil(b"\r\n\r\n")
        [protocol] = running.protocols
        await until(lambda: protocol.transport.get_write_buffer_size() > 0, "a full connection")
        now = asyncio.get_running_loop().time()
        protocol.leave_if_stuck(now)
        protocol.leave_if_stuck(now + STUCK_AFTER_S - 1)
        assert running.protocols == [protocol]
        await caller.reader.readexactly(2**20)
        await until(lambda: protocol._untaken_bytes != protocol.transport.get_write_buffer_size(), "progress")
        protocol.leave_if_stuck(now + STUCK_AFTER_S + 1)
        assert not protocol.transport.is_closing()
        protocol.leave_if_stuck(now + 2 * STUCK_AFTER_S + 2)
        await until(lambda: not running.protocols, "the end of the connection")
    await until(lambda: not running.server.server_state.tasks, "the end of the request")


async def test_the_end_does_not_wait_for_who_reads_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who cannot be told of the end, since it takes nothing, is left with a broken connection."""
    monkeypatch.setattr(server, "_END_S", 0.05)
    running.application.pieces = [b"x" * 2**20] * 32
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("GET", "/"))
        await caller.reader.readuntil(b"\r\n\r\n")
        [protocol] = running.protocols
        await until(lambda: protocol.flow.write_paused, "a full connection")
        # As two signals say it.
        running.server.should_exit = running.server.force_exit = True
        await until(lambda: not running.server.server_state.tasks, "the end of the request")


async def test_http_1_0_has_no_chunks(running: Running) -> None:
    """A reply of unknown length to HTTP/1.0 ends with its connection; one of known length says it."""
    running.application.pieces = [b"data: 1\n\n", b"data: 2\n\n"]
    asked = b"GET / HTTP/1.0\r\n\r\n"
    async with raw_connection(running.url) as caller:
        await caller.write(asked)
        head, _, body = (await caller.reader.read()).partition(b"\r\n\r\n")
    assert (b"transfer-encoding" in head, body) == (False, b"data: 1\n\ndata: 2\n\n")
    running.application.pieces = []
    async with raw_connection(running.url) as caller:
        await caller.write(asked)
        reply = await caller.reply()
        assert (reply.header("content-length"), reply.body, await hung_up(caller)) == ("1", b"0", True)


async def test_the_server_looks_for_stuck_callers(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself lets go of stuck callers as time passes."""
    monkeypatch.setattr(http_protocol, "STUCK_AFTER_S", -1.0)
    monkeypatch.setattr(server, "_TICKS", 1)
    async with raw_connection(running.url) as caller:
        await caller.write(b"GET / HTTP/1.1\r\n")
        assert await hung_up(caller)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"not http at all\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET /\x80\xff HTTP/1.1\r\n\r\n",
        b"GET http://[::bad HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=lambda request: repr(request[:30]),
)
async def test_what_is_hardly_http_is_refused(running: Running, request_bytes: bytes) -> None:
    """Requests that HTTP does not allow get 400 and the end of their connection; the next caller is served."""
    async with raw_connection(running.url) as caller:
        await caller.write(request_bytes)
        reply = await caller.reply()
        assert reply.status == 400
        assert await hung_up(caller)
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("GET", "/"))
        assert (await caller.reply()).status == 200
    assert running.server.server_state.tasks == set()


async def test_a_refusal_is_no_reply_to_the_request_before(running: Running) -> None:
    """What is no HTTP behind a request in flight ends the connection, without a 400 that its caller would take for its own."""
    running.application.gate.clear()
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("GET", "/") + b"\x00\r\n\r\n")
        assert await hung_up(caller)


@pytest.mark.parametrize(
    "headers", [[("upgrade", "websocket"), ("connection", "Upgrade")], [("upgrade", "h2c"), ("connection", "upgrade")]]
)
async def test_upgrades_are_not_taken(running: Running, headers: list[tuple[str, str]]) -> None:
    """A request that offers another protocol is answered in this one."""
    async with raw_connection(running.url) as caller:
        await caller.write(request_head("GET", "/", headers))
        assert (await caller.reply()).status == 200


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    """Requests that come at once are answered one after the other."""
    async with raw_connection(running.url) as caller:
        requests = [request_head("POST", "/", [("content-length", str(n))]) + b"x" * n for n in range(200)]
        await caller.write(b"".join(requests))
        assert [json.loads((await caller.reply()).body) for _ in requests] == list(range(200))


@pytest.mark.parametrize(
    "headers",
    [
        [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAEAAEAAAAIAAAAA")],
        [("Upgrade", " h2c "), ("Connection", "upgrade")],
    ],
    ids=["java", "spaced"],
)
async def test_a_wish_for_http_2_is_passed_over(running: Running, headers: list[tuple[str, str]]) -> None:
    """A client that would rather speak HTTP/2, as Java's does, keeps its body, and its connection."""
    body = b"upgrade: h2c\r\nupgrade: h2c\r\n\r\n"
    async with raw_connection(running.url) as caller:
        for _ in range(2):
            head = request_head("POST", "/", [*headers, ("content-length", str(len(body)))])
            await caller.write(head + body)
            reply = await caller.reply()
            assert (reply.status, reply.body) == (200, str(len(body)).encode())
