"""httpx over the shared pool: for instrumented providers, webhooks, tokens, and everything that is not per request."""

from collections.abc import AsyncIterator, Iterable

import httpx

from gateway.types.route import Timeouts
from gateway.upstream.pool import Exchange, Pool

_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate", b"baggage"})
_POOL_HEADERS = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"accept", b"accept-encoding", b"user-agent"}
)
"""What the pool says itself."""
_TIMEOUTS = "gateway.timeouts"
_STREAM = "gateway.stream"
_PROPAGATE = "gateway.propagate_trace"


class _ExchangeStream(httpx.AsyncByteStream):
    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self.exchange.chunks():
            yield chunk

    async def aclose(self) -> None:
        self.exchange.release()


class PoolTransport(httpx.AsyncBaseTransport):
    """An httpx transport over the pool.

    It stands below any instrumentation and takes out the trace headers that instrumentation injects: a provider gets
    a traceparent only where the configuration says `propagate_trace`, and baggage never.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises UpstreamError."""
        body = await request.aread()
        propagate = request.extensions.get(_PROPAGATE, False)
        removed = _POOL_HEADERS | ({b"baggage"} if propagate else _TRACE_HEADERS)
        headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.lower() not in removed
        ]
        timeouts = request.extensions.get(_TIMEOUTS, Timeouts())
        stream = request.extensions.get(_STREAM, False)
        exchange = await self._pool.send(request.method, str(request.url), headers, body, timeouts, stream=stream)
        return httpx.Response(
            exchange.status,
            # aiohttp has already undone the content encoding.
            headers=[(name, value) for name, value in exchange.headers.items() if name.lower() != "content-encoding"],
            stream=_ExchangeStream(exchange),
            request=request,
        )


class InstrumentedSender:
    """Provider calls through an httpx client, so that the instrumentation on it makes their HTTP spans."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

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
        """Send one request and wait for the reply's headers. Raises UpstreamError."""
        request = self._client.build_request(
            method,
            url,
            headers=list(headers),
            content=body,
            extensions={_TIMEOUTS: timeouts, _STREAM: stream, _PROPAGATE: propagate_trace},
        )
        response = await self._client.send(request, stream=True)
        body_stream = response.stream
        while not isinstance(body_stream, _ExchangeStream):
            # The client wraps the transport's stream to measure it.
            body_stream = body_stream._stream  # type: ignore[union-attr]  # noqa: SLF001
        return body_stream.exchange


def http_client(pool: Pool) -> httpx.AsyncClient:
    """A client over the pool, for whatever is no provider call of the hot path."""
    return httpx.AsyncClient(transport=PoolTransport(pool))
