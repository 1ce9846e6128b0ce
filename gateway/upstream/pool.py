"""HTTP exchanges over aiohttp's connection pool: the hot path's way to the network.

httpx's own pool and request objects cost several times what an exchange costs here (docs/adr/0002), so httpx stays
the API for everything that is not per request (`gateway.upstream.http_client`), on top of this same pool.
Every failure of an exchange leaves as one `UpstreamError`.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl

from gateway import __version__
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.route import Timeouts

MAX_REPLY_BYTES = 256 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
_OUR_HEADERS = (
    ("user-agent", f"gaugeway/{__version__}"),
    ("accept", "*/*"),
    # Undoing a compression costs more than the bytes that it saves on the way to a data centre.
    ("accept-encoding", "identity"),
)
"""Given with each request, so that aiohttp need not work out its own."""


@lru_cache(maxsize=4096)
def _url(url: str) -> yarl.URL:
    try:
        # Dialects quote what they put into a path; quoting again would change model names that hold ':' or '%'.
        parsed = yarl.URL(url, encoded=True)
        if parsed.scheme in ("http", "https") and parsed.host and 0 < (parsed.port or 0) < 65536:
            return parsed
    except ValueError:
        pass
    raise UpstreamError(
        ErrorType.CONNECT_FAILED, "The provider's address is not a valid URL; check its base URL.", sent=False
    )


@lru_cache(maxsize=256)
def _client_timeout(timeouts: Timeouts) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=timeouts.total_s, sock_connect=timeouts.connect_s, sock_read=timeouts.first_byte_s
    )


class Exchange:
    """One open exchange: status and headers are here, the body is still on its way."""

    __slots__ = ("_response", "connect_s", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, connect_s: float | None) -> None:
        self._response = response
        self.connect_s = connect_s
        """Seconds that connecting took: name, TCP and TLS; None over a connection that was open already."""
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        """The whole body, decompressed. Raises UpstreamError."""
        content = self._response.content
        parts: list[bytes] = []
        size = 0
        try:
            while part := await content.readany():
                parts.append(part)
                size += len(part)
                if size > MAX_REPLY_BYTES:
                    self.close()
                    raise UpstreamError(ErrorType.UNREADABLE_REPLY, "The provider's reply is over 256 MiB.")
        except Exception as error:
            raise map_failure(error, reading=True) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, decompressed. Raises UpstreamError."""
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except Exception as error:
            raise map_failure(error, reading=True) from error

    def close(self) -> None:
        """Break the connection off; the upstream sees it at once."""
        self._response.close()

    def release(self) -> None:
        """Give the connection back once the body has been read to its end (else break it off)."""
        self._response.release()


class Pool:
    """Connections to all upstreams, kept alive between requests. To be made and closed on a running loop."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        # A request that meets a connection which its server is closing is lost, and may not be sent again: it might
        # have been served. Model servers of one's own mostly close after 5 s (uvicorn, Node, llama.cpp), so theirs
        # are given up before; vendors keep theirs for a minute and more, and TLS is worth keeping.
        self._plain = _session(tls, keepalive_s=4.0)
        # llama.cpp's server promises to keep the connection and closes it behind a stream.
        self._plain_streams = _session(tls, keepalive_s=None)
        self._tls = _session(tls, keepalive_s=30.0)
        # aiohttp's own trust_env would look into the environment with each request, and take credentials from ~/.netrc
        # that stand against the provider's.
        proxies = getproxies()
        self._way_to: Callable[[str], _Way] = lru_cache(4096)(partial(_way, proxies)) if proxies else _directly

    async def send(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        timeouts: Timeouts,
        *,
        stream: bool = False,
        propagate_trace: bool = False,
    ) -> Exchange:
        """Send one request and wait for the reply's headers. Raises UpstreamError; redirects are not followed.

        `stream` says that a stream is asked for. `propagate_trace` changes nothing here: the pool sends no trace header
        that it is not given.
        """
        _connect_s.set(None)
        try:
            session = self._tls if url.startswith("https:") else self._plain_streams if stream else self._plain
            way = self._way_to(url)
            response = await session.request(
                method,
                _url(url),
                headers=(*_OUR_HEADERS, *way.headers, *headers),
                data=body,
                allow_redirects=False,
                timeout=_client_timeout(timeouts),
                proxy=way.proxy,
                proxy_headers=way.tunnel_headers,
            )
        except Exception as error:
            raise _timed(map_failure(error, reading=False)) from error
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            # aiohttp has one read timeout: until the headers it was the first byte's, from here on it is the chunks'.
            connection.protocol.read_timeout = timeouts.between_chunks_s
            connection.protocol.start_timeout()
        return Exchange(response, _connect_s.get())

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._plain, self._plain_streams, self._tls):
            await session.close()


_connect_s: ContextVar[float | None] = ContextVar("connect_s")


class _TimedConnector(aiohttp.TCPConnector):
    """Tells the task that sends how long a new connection took, or its failure. aiohttp's own tracing would cost every request.

    The time to connect bounds all of it: aiohttp's leaves out looking the name up, and asking a proxy for a tunnel.
    """

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's
    ) -> Any:
        clock = self._loop.time
        begun = clock()
        try:
            async with asyncio.timeout(timeout.sock_connect):
                return await super()._create_connection(req, traces, timeout)
        except (aiohttp.ClientHttpProxyError, aiohttp.ClientConnectorError, TimeoutError):
            raise
        except aiohttp.ClientError as error:
            raise UpstreamError(
                ErrorType.CONNECT_FAILED,
                "The proxy on the way to the provider opened no tunnel.",
                retryable=True,
                sent=False,
            ) from error
        finally:
            # Failures as well: a provider that nobody reaches is slow to connect to, not absent.
            _connect_s.set(clock() - begun)


def _session(tls: ssl.SSLContext | None, *, keepalive_s: float | None) -> aiohttp.ClientSession:
    """A session whose idle connections are kept for `keepalive_s`, or closed with each reply when that is None."""
    context = tls if tls is not None else True
    if keepalive_s is None:
        connector = _TimedConnector(limit=0, force_close=True, ttl_dns_cache=30, ssl=context)
    else:
        connector = _TimedConnector(limit=0, keepalive_timeout=keepalive_s, ttl_dns_cache=30, ssl=context)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


class _Way(NamedTuple):
    """How a host is reached: directly, or through a proxy that may want headers.

    A proxy reads the headers of a plain request; of an encrypted one, those with which its tunnel is asked for.
    """

    proxy: yarl.URL | None = None
    headers: tuple[tuple[str, str], ...] = ()
    tunnel_headers: Mapping[str, str] | None = None


_DIRECT = _Way()


def _directly(url: str) -> _Way:
    return _DIRECT


def _way(proxies: Mapping[str, str], url: str) -> _Way:
    """How `url` is reached, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY; raises UpstreamError."""
    target = _url(url)
    named = proxies.get(target.scheme)
    if not named or target.host is None or proxy_bypass(target.host):
        return _DIRECT
    proxy = yarl.URL(named if "://" in named else f"http://{named}")
    if proxy.scheme not in ("http", "https"):
        raise UpstreamError(
            ErrorType.CONNECT_FAILED,
            f"The proxy that the environment names is of kind '{proxy.scheme}'; only http and https are supported.",
            sent=False,
        )
    if proxy.user is None:
        return _Way(proxy)
    credential = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    header = ("proxy-authorization", f"Basic {credential}")
    bare = proxy.with_user(None)
    return _Way(bare, tunnel_headers=dict([header])) if target.scheme == "https" else _Way(bare, headers=(header,))


def _timed(failure: UpstreamError) -> UpstreamError:
    failure.connect_s = _connect_s.get()
    return failure


def map_failure(error: Exception, *, reading: bool) -> UpstreamError:
    """One failure of the network, as the error that callers, metrics and retries see.

    `reading` tells whether the reply's headers had already come. Only what surely did not reach the upstream is
    retryable.
    """
    match error:
        case UpstreamError():
            return error
        case aiohttp.ConnectionTimeoutError():
            return UpstreamError(
                ErrorType.CONNECT_TIMEOUT, "Connecting to the provider took too long.", retryable=True, sent=False
            )
        case aiohttp.ClientConnectorCertificateError():
            return UpstreamError(
                ErrorType.CONNECT_FAILED, "The provider's TLS certificate could not be verified.", sent=False
            )
        case aiohttp.ClientHttpProxyError():
            return UpstreamError(
                ErrorType.CONNECT_FAILED,
                f"The proxy on the way to the provider refused with status {error.status}.",
                sent=False,
            )
        case aiohttp.ClientConnectorError() | aiohttp.ClientProxyConnectionError():
            return UpstreamError(
                ErrorType.CONNECT_FAILED, "The provider could not be reached.", retryable=True, sent=False
            )
        case aiohttp.SocketTimeoutError() if reading:
            return UpstreamError(ErrorType.STREAM_TIMEOUT, "The provider stopped sending in the middle of its reply.")
        case aiohttp.SocketTimeoutError():
            return UpstreamError(ErrorType.FIRST_BYTE_TIMEOUT, "The provider took too long to begin its reply.")
        case asyncio.TimeoutError():
            return UpstreamError(ErrorType.TOTAL_TIMEOUT, "The provider took too long to finish its reply.")
        case aiohttp.ClientPayloadError():
            return UpstreamError(ErrorType.STREAM_CUT, "The provider broke its reply off before its end.")
        case aiohttp.ClientResponseError():
            return UpstreamError(ErrorType.UNREADABLE_REPLY, "The provider's answer is not HTTP.")
        case _ if reading:
            return UpstreamError(ErrorType.STREAM_CUT, "The provider broke its reply off before its end.")
        case aiohttp.ClientError() | OSError():
            return UpstreamError(ErrorType.CONNECTION_LOST, "The provider closed the connection without an answer.")
        case ValueError():
            return UpstreamError(
                ErrorType.CONNECT_FAILED,
                "A header that the configuration gives holds a line break; check the key and the headers.",
                sent=False,
            )
        case _:
            return UpstreamError(ErrorType.CONNECTION_LOST, "The exchange with the provider failed.")
