"""Newer public prices from a file (`prices_file:`), taken up while serving whenever the file changes.

A file that cannot be read, or that holds worse data than those in use, changes nothing: the old prices stay, the
refusal is counted and logged, and the age of the prices goes on growing.
"""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

from gateway.spend.price_data import PriceDataError
from gateway.spend.prices import PriceBook, PriceData, read_prices
from gateway.types.clock import Clock

_LOG = logging.getLogger(__name__)
_State = tuple[int, int, int] | None


class PriceFileWatch:
    """Keeps a price book as new as a file.

    Args:
        path: genai-prices' JSON form.
        prices: the book; only the event loop's thread changes it.
        clock: wall time: prices announced for later do not make the data young.
    """

    def __init__(self, path: Path, prices: PriceBook, clock: Clock) -> None:
        self._path = path
        self._prices = prices
        self._clock = clock
        self._taken: _State = (0, 0, 0)
        self._pending: _State = (0, 0, 0)

    async def first(self) -> None:
        """Take the file up for the start."""
        await self._take(await asyncio.to_thread(_state, self._path))

    async def look(self) -> None:
        """Take the file up if it changed, and two looks in a row found it alike: it may be half written."""
        state = await asyncio.to_thread(_state, self._path)
        if state == self._taken:
            return
        if state != self._pending:
            self._pending = state
            return
        await self._take(state)

    async def _take(self, state: _State) -> None:
        # Also when it is refused: a wrong file is told of once, not with every look.
        self._taken = self._pending = state
        try:
            data = await asyncio.to_thread(self._read)
            self._prices.take(data)
        except (PriceDataError, OSError) as error:
            self._prices.refused_updates += 1
            _LOG.error("the prices of %s are not in use, the old ones stay: %s", self._path, error)
        else:
            _LOG.info("prices of %s for %d models are in use: %s", data.as_of, data.models, data.version)

    def _read(self) -> PriceData:
        today = datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC).date()
        return read_prices(self._path.read_bytes(), today)


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
