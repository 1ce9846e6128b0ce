"""HTTP that is not per request: tokens, webhooks, and provider calls where an instrumentation makes their spans.

httpx and its instrumentation are a third of the gateway's start, and many gateways never need them: both are imported
with the first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.upstream.pool import Pool

if TYPE_CHECKING:
    import httpx

    from gateway.upstream.http_client import InstrumentedSender


class Outbound:
    """One instrumented httpx client over the pool, made when it is first needed.

    Args:
        instrument: puts the tracing instrumentation on the client.
    """

    def __init__(self, pool: Pool, instrument: Callable[[httpx.AsyncClient], None]) -> None:
        self._pool = pool
        self._instrument = instrument
        self._made: httpx.AsyncClient | None = None

    def _client(self) -> httpx.AsyncClient:
        if self._made is None:
            from gateway.upstream.http_client import http_client

            self._made = http_client(self._pool)
            self._instrument(self._made)
        return self._made

    async def exchange(
        self, method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[int, bytes]:
        """One whole exchange as (status, body); raises UpstreamError when there is none."""
        response = await self._client().request(method, url, headers=list(headers), content=body)
        return response.status_code, response.content

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send a webhook; its status. Raises UpstreamError when there is no answer."""
        status, _ = await self.exchange("POST", url, tuple(headers.items()), body)
        return status

    def sender(self) -> InstrumentedSender:
        """A sender for provider calls whose HTTP spans the instrumentation makes."""
        from gateway.upstream.http_client import InstrumentedSender

        return InstrumentedSender(self._client())

    async def close(self) -> None:
        """Close the client, if there is one."""
        if self._made is not None:
            await self._made.aclose()
