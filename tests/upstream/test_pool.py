"""The pool against real servers: which connections it keeps, what it refuses, and that it gives back every one."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.types.errors import ErrorType, Outcome, UpstreamError
from gateway.types.route import Timeouts
from gateway.upstream.outbound import Outbound
from gateway.upstream.pool import MAX_HEADER_BYTES, Pool
from tests.certificates import certificate
from tests.scripted_upstream import (
    BytesReply,
    GarbageReply,
    HangupReply,
    Reply,
    ScriptedUpstream,
    SilentReply,
    StreamReply,
    gzip_reply,
    huge_headers,
    json_reply,
    redirect,
)

USUAL = Timeouts()
HEADERS = (("content-type", "application/json"), ("authorization", "Bearer the-provider's"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's environment says of proxies is not tested here."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool as the gateway makes it."""
    made = Pool()
    yield made
    await made.close()


async def ask(pool: Pool, url: str, timeouts: Timeouts = USUAL) -> tuple[int, bytes]:
    """One whole exchange."""
    exchange = await pool.send("POST", url, HEADERS, b"{}", timeouts)
    try:
        body = await exchange.read()
    except BaseException:
        exchange.close()
        raise
    exchange.release()
    return exchange.status, body


async def failure(pool: Pool, url: str) -> UpstreamError:
    """The error of one exchange."""
    with pytest.raises(UpstreamError) as caught:
        await ask(pool, url)
    return caught.value


# --- connections ------------------------------------------------------------------------------------------------


async def test_one_connection_serves_many_requests(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Requests that follow one another share a connection, refusals and empty replies included."""
    upstream.always(
        lambda request: [
            json_reply({"ok": True}),
            json_reply({"error": {}}, status=429),
            BytesReply(b"", status=200),
            StreamReply([b"{", b"}"], content_type="application/json"),
        ][upstream.hits % 4]
    )
    for _ in range(40):
        await ask(pool, upstream.url)
    assert (upstream.hits, upstream.connections) == (40, 1)


async def test_requests_at_once_have_connections_of_their_own(pool: Pool, upstream: ScriptedUpstream) -> None:
    """No request waits for another's connection; afterwards there are no more than were needed at once."""
    gate = asyncio.Event()
    upstream.always(lambda request: json_reply({}, hold=gate))
    first = [asyncio.ensure_future(ask(pool, upstream.url)) for _ in range(50)]
    await upstream.wait_requests(50)
    gate.set()
    await asyncio.gather(*first)
    await asyncio.gather(*(ask(pool, upstream.url) for _ in range(50)))
    assert upstream.connections == 50


async def test_a_connection_that_its_server_closed_is_not_used(pool: Pool, upstream: ScriptedUpstream) -> None:
    """After the server has closed an idle connection, the next request takes another."""
    upstream.always(lambda request: StreamReply([b"{}"], framing="close"))
    for number in range(1, 4):
        assert await ask(pool, upstream.url) == (200, b"{}")
        await upstream.wait_closed_connection(number)
    assert upstream.connections == 3


async def test_a_reply_that_was_not_read_to_its_end_breaks_its_connection_off(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """A connection with the rest of a reply in it is never given to another request."""
    reply = StreamReply([b"data: 1\n\n", asyncio.Event(), b"data: 2\n\n"])
    upstream.script(reply, json_reply({}))
    exchange = await pool.send("POST", upstream.url, HEADERS, b"{}", Timeouts())
    assert await anext(exchange.chunks()) == b"data: 1\n\n"
    exchange.release()
    await asyncio.wait_for(reply.peer_left.wait(), 10)
    assert await ask(pool, upstream.url) == (200, b"{}")
    assert upstream.connections == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_no_connection_stays_behind_cancelled_exchanges(
    pool: Pool, upstream: ScriptedUpstream, stream: bool
) -> None:
    """After 500 exchanges were cancelled, before their headers or in mid-stream, the upstream has no connection left."""
    upstream.always(
        lambda request: SilentReply() if upstream.hits % 2 else StreamReply([b"data: 1\n\n", asyncio.Event()])
    )

    async def read() -> None:
        exchange = await pool.send("POST", upstream.url, HEADERS, b"{}", Timeouts(), stream=stream)
        try:
            async for _ in exchange.chunks():
                pass
        finally:
            exchange.close()

    for batch in range(1, 6):
        tasks = [asyncio.ensure_future(read()) for _ in range(100)]
        await upstream.wait_requests(batch * 100)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
    await upstream.until(lambda up: up.open_connections == 0, "connections closed")
    assert upstream.hits == 500


# --- replies ----------------------------------------------------------------------------------------------------


async def test_a_compressed_reply_is_undone(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A provider may compress though it was not asked to."""
    upstream.script(gzip_reply(b'{"a": 1}'))
    assert await ask(pool, upstream.url) == (200, b'{"a": 1}')
    assert upstream.requests[0].header("accept-encoding") == "identity"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", b"this is not gzip"), ("deflate", b"\xff\xff"), ("br", b"x")],
)
async def test_a_compression_that_cannot_be_undone(
    pool: Pool, upstream: ScriptedUpstream, encoding: str, body: bytes
) -> None:
    """A broken or unknown compression is the provider's failure."""
    upstream.script(BytesReply(body, headers=[("content-encoding", encoding)]))
    error = await failure(pool, upstream.url)
    assert (error.error_type.outcome, error.retryable) == (Outcome.PROVIDER, False)
    await upstream.until(lambda up: up.open_connections <= 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(pool: Pool, upstream: ScriptedUpstream, status: int) -> None:
    """A credential never goes where a reply points to."""
    async with ScriptedUpstream() as elsewhere:
        upstream.script(redirect(elsewhere.url, status=status))
        assert (await ask(pool, upstream.url))[0] == status
        assert elsewhere.connections == 0


async def test_large_headers_are_taken_and_huge_ones_refused(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Replies may have headers of up to 64 KiB; longer ones are an unreadable reply."""
    upstream.script(huge_headers(MAX_HEADER_BYTES - 100), huge_headers(4 * MAX_HEADER_BYTES), json_reply({}))
    assert await ask(pool, upstream.url) == (200, b"{}")
    error = await failure(pool, upstream.url)
    assert error.error_type is ErrorType.UNREADABLE_REPLY
    assert await ask(pool, upstream.url) == (200, b"{}")


# --- addresses --------------------------------------------------------------------------------------------------


async def test_an_ipv6_address(pool: Pool) -> None:
    """A base URL may hold an IPv6 address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with ScriptedUpstream("::1") as upstream:
        upstream.script(json_reply({}))
        assert await ask(pool, f"{upstream.url}/v1/chat") == (200, b"{}")
        assert upstream.requests[0].header("host") == f"[::1]:{upstream.port}"


@pytest.mark.parametrize(
    "url", ["http://", "http://host:99999/", "ftp://127.0.0.1/", "no-url", "http://[::1", "http://\x00/"]
)
async def test_what_is_no_address(pool: Pool, url: str) -> None:
    """A base URL that is none is told as such, and nothing has been sent."""
    error = await failure(pool, url)
    assert (error.error_type, error.sent) == (ErrorType.CONNECT_FAILED, False)


async def test_a_key_of_two_lines(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A key that no header can carry is told as such, without the key, and nothing has been sent."""
    with pytest.raises(UpstreamError, match="line break") as caught:
        await pool.send("POST", upstream.url, [("authorization", "Bearer k\nx-evil: 1")], b"{}", Timeouts())
    assert (caught.value.error_type, caught.value.sent, upstream.hits) == (ErrorType.CONNECT_FAILED, False, 0)
    assert "evil" not in caught.value.message


async def test_a_name_that_does_not_resolve(pool: Pool) -> None:
    """A host that does not exist could not be reached, and may be tried again."""
    error = await failure(pool, "http://provider.invalid/")
    assert (error.error_type, error.sent, error.retryable) == (ErrorType.CONNECT_FAILED, False, True)


# --- TLS --------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_nobody_vouches_for(pool: Pool, tmp_path: Path) -> None:
    """A server with a certificate of its own making gets nothing, and no second try."""
    _, context = certificate(tmp_path, "server", "127.0.0.1")
    async with ScriptedUpstream(tls=context) as upstream:
        error = await failure(pool, upstream.url)
        assert (error.error_type, error.sent, error.retryable) == (ErrorType.CONNECT_FAILED, False, False)
        assert "certificate" in error.message
        assert upstream.hits == 0


async def test_a_certificate_for_another_host(tmp_path: Path) -> None:
    """A trusted certificate counts for its own host alone; there it serves, on one connection."""
    public, context = certificate(tmp_path, "server", "127.0.0.1")
    other_public, other_context = certificate(tmp_path, "other", "192.0.2.1")
    trust = ssl.create_default_context(cafile=str(public))
    trust.load_verify_locations(other_public)
    pool = Pool(tls=trust)
    try:
        async with ScriptedUpstream(tls=context) as upstream, ScriptedUpstream(tls=other_context) as impostor:
            upstream.always(lambda request: json_reply({}))
            assert [await ask(pool, upstream.url) for _ in range(3)] == [(200, b"{}")] * 3
            assert upstream.connections == 1
            error = await failure(pool, impostor.url)
            assert error.error_type is ErrorType.CONNECT_FAILED
            assert impostor.hits == 0
    finally:
        await pool.close()


async def test_a_server_without_tls(pool: Pool) -> None:
    """https:// to a server that speaks none is a failed connection, with nothing sent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        error = await failure(pool, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (error.error_type, error.sent) == (ErrorType.CONNECT_FAILED, False)


# --- proxies ----------------------------------------------------------------------------------------------------


async def through(
    proxy: str, url: str, monkeypatch: pytest.MonkeyPatch, *, timeouts: Timeouts = USUAL, **variables: str
) -> tuple[int, bytes]:
    """One exchange by a pool that is made while the environment names a proxy."""
    for name, value in ({"http_proxy": proxy, "https_proxy": proxy} | variables).items():
        monkeypatch.setenv(name, value)
    pool = Pool()
    try:
        return await ask(pool, url, timeouts)
    finally:
        await pool.close()


async def test_a_proxy_is_used(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY leads requests through the proxy, with the proxy's own credentials beside the provider's."""
    upstream.script(json_reply({}))
    proxy = f"http://user:pass@127.0.0.1:{upstream.port}"
    assert await through(proxy, "http://provider.invalid/v1/chat", monkeypatch) == (200, b"{}")
    [request] = upstream.requests
    assert (request.path, request.header("host")) == ("/v1/chat", "provider.invalid")
    assert request.header("proxy-authorization") == "Basic dXNlcjpwYXNz"
    assert request.header("authorization") == "Bearer the-provider's"


async def test_https_goes_through_a_tunnel(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """For https:// the proxy sees a CONNECT without the provider's credential; its refusal is told with the status."""
    upstream.script(BytesReply(b"", status=403))
    with pytest.raises(UpstreamError) as refused:
        await through(f"http://user:pass@127.0.0.1:{upstream.port}", "https://provider.invalid/v1/chat", monkeypatch)
    assert (refused.value.error_type, refused.value.sent) == (ErrorType.CONNECT_FAILED, False)
    assert "403" in refused.value.message
    [request] = upstream.requests
    assert request.method == "CONNECT"
    assert request.header("proxy-authorization") == "Basic dXNlcjpwYXNz"
    assert request.header("authorization") is None


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (SilentReply(), ErrorType.CONNECT_TIMEOUT),
        (HangupReply(), ErrorType.CONNECT_FAILED),
        (HangupReply(reset=True), ErrorType.CONNECT_FAILED),
        (GarbageReply(), ErrorType.CONNECT_FAILED),
    ],
    ids=["silent", "hang-up", "reset", "garbage"],
)
async def test_a_proxy_that_opens_no_tunnel(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, reply: Reply, error_type: ErrorType
) -> None:
    """Asking for the tunnel is a part of connecting: bounded like it, and nothing has been sent to the provider."""
    upstream.script(reply)
    with pytest.raises(UpstreamError) as failed:
        await through(upstream.url, "https://provider.invalid/", monkeypatch, timeouts=Timeouts(connect_s=0.2))
    assert (failed.value.error_type, failed.value.sent, failed.value.retryable) == (error_type, False, True)


async def test_no_proxy_for_the_hosts_that_are_excepted(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_PROXY excepts hosts."""
    upstream.script(json_reply({"direct": True}))
    async with ScriptedUpstream() as proxy:
        reply = await through(proxy.url, upstream.url, monkeypatch, no_proxy="localhost,127.0.0.1")
        assert proxy.connections == 0
    assert reply == (200, b'{"direct": true}')


async def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy is told to be one, since a direct way may be forbidden."""
    with pytest.raises(UpstreamError, match="socks5"):
        await through("socks5://127.0.0.1:1", "http://provider.invalid/", monkeypatch)


@pytest.mark.parametrize("proxied", [False, True])
async def test_the_users_netrc_is_not_read(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxied: bool
) -> None:
    """A ~/.netrc with an entry for the provider's host does not stand in for its configured credential."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    upstream.script(json_reply({}))
    variables = {} if proxied else {"no_proxy": "*"}
    assert (await through(upstream.url, f"http://127.0.0.1:{upstream.port}/", monkeypatch, **variables))[0] == 200
    assert upstream.requests[0].header("authorization") == "Bearer the-provider's"


async def test_tokens_and_webhooks_take_the_same_way(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What httpx sends goes over the same pool: through the proxy, and no further than a redirect."""
    monkeypatch.setenv("http_proxy", upstream.url)
    upstream.script(redirect("http://elsewhere.invalid/"))
    pool = Pool()
    outbound = Outbound(pool, lambda client: None)
    try:
        status, _ = await outbound.exchange("POST", "http://tokens.invalid/oauth", (("a", "b"),), b"x=1")
    finally:
        await outbound.close()
        await pool.close()
    assert status == 307
    [request] = upstream.requests
    assert (request.path, request.header("host"), request.body) == ("/oauth", "tokens.invalid", b"x=1")
