"""Windows that several gateway processes share, in Redis or Valkey, by the `limits` library's scripts."""

import asyncio
import time

from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.store.windows import StorageUnavailableError


class RedisWindows:
    """Windows in one Redis or Valkey server.

    Args:
        url: `redis://`, `rediss://` or `redis+unix://`, with user, password and database as usual; `valkey...` too.
        timeout_s: how long a request may wait for its count.
    """

    def __init__(self, url: str, timeout_s: float = 0.25) -> None:
        self._timeout_s = timeout_s
        url = url.replace("valkey", "redis", 1) if url.startswith("valkey") else url
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url.replace("redis+unix://", "unix://", 1),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A request does not wait for a second try: it is counted in the process instead.
            retry=Retry(NoBackoff(), 0),
        )
        self._storage = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            key_prefix="gaugeway",
            connection_pool=self._pool,  # type: ignore[arg-type]
        )

    async def hit(self, key: str, calls: int, period_s: int) -> float | None:
        """Count one call; raises StorageUnavailableError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if await self._storage.incr(key, period_s) <= calls:
                    return None
                return max(0.0, await self._storage.get_expiry(key) - time.time())
        except (RedisError, OSError, TimeoutError) as error:
            raise StorageUnavailableError(type(error).__name__) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.disconnect()
