"""Taking up an edited configuration while serving: the file and the key files it names are read twice a second.

Reading beats being notified: it works on every file system, through the symbolic links that Kubernetes swaps, and
whatever way an editor saves. A change counts once two reads in a row agree, so that a file half written is not taken.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from gateway.config.errors import ConfigError
from gateway.config.settings import Settings
from gateway.types.clock import Clock

INTERVAL_S = 0.5
"""Between two reads. A change takes effect within two intervals and the time that loading takes."""
_LOG = logging.getLogger(__name__)


class ReloadState(Struct, frozen=True, kw_only=True):
    """What the last look at the file gave. `refused` says why the file, as it is now, is not in use."""

    loaded_ns: int
    refused: str | None = None


_Snapshot = dict[Path, bytes | None]


class Reloader:
    """Loads a configuration, and again whenever it changes.

    Args:
        path: the file.
        load: reads and checks it; raises ConfigError.
        interval_s: between two looks at the file.
    """

    def __init__(
        self, path: Path, load: Callable[[], Settings], clock: Clock, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._path = path
        self._load = load
        self._clock = clock
        self._interval_s = interval_s
        self._files: tuple[Path, ...] = (path,)
        self._seen: _Snapshot = {}
        self._asked = asyncio.Event()
        self.state = ReloadState(loaded_ns=0)

    def first(self) -> Settings:
        """Load the file for the start; raises ConfigError."""
        # Read before it is loaded: a change in between is then seen as one.
        self._seen = _read((self._path,))
        settings = self._load()
        self._files = (self._path, *settings.key_files)
        self._seen |= _read(settings.key_files)
        self.state = ReloadState(loaded_ns=self._clock.now_ns())
        return settings

    def ask(self) -> None:
        """Load the file now, changed or not (SIGHUP)."""
        self._asked.set()

    async def run(self, use: Callable[[Settings], Awaitable[None]], refused: Callable[[], None]) -> None:
        """Hand every acceptable change to `use`, and tell `refused` of the others; until cancelled."""
        pending: _Snapshot | None = None
        while True:
            asked = await self._pause()
            # A disk that hangs must not hang the gateway.
            snapshot = await asyncio.to_thread(_read, self._files)
            if not asked:
                if snapshot == self._seen:
                    pending = None
                    continue
                if snapshot != pending:
                    pending = snapshot
                    continue
            pending = None
            self._seen = snapshot
            await self._reload(use, refused)

    async def _pause(self) -> bool:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _reload(self, use: Callable[[Settings], Awaitable[None]], refused: Callable[[], None]) -> None:
        try:
            settings = await asyncio.to_thread(self._load)
            await use(settings)
        except ConfigError as error:
            # A key file that was empty may be filled while the configuration stays as it is.
            await self._watch((self._path, *error.key_files))
            self._refuse(str(error), refused)
        except Exception:  # noqa: BLE001 - logged, and told by metric and health
            # Whatever is wrong with a new file, the old configuration serves on.
            _LOG.exception("loading %s failed", self._path)
            self._refuse("it could not be loaded; the log has the cause", refused)
        else:
            await self._watch((self._path, *settings.key_files))
            self.state = ReloadState(loaded_ns=self._clock.now_ns())
            _LOG.info("%s is in use: %d routes", self._path, len(settings.routes))

    async def _watch(self, files: tuple[Path, ...]) -> None:
        if files != self._files:
            self._files = files
            # What has been read meanwhile is what the next look compares with.
            self._seen = await asyncio.to_thread(_read, files) | self._seen

    def _refuse(self, reason: str, refused: Callable[[], None]) -> None:
        since = datetime.fromtimestamp(self.state.loaded_ns / 1e9, UTC).isoformat(timespec="seconds")
        told = f"The configuration file is not in use: {reason}. The one loaded at {since} serves on."
        self.state = ReloadState(loaded_ns=self.state.loaded_ns, refused=told)
        _LOG.warning("%s", told)
        refused()


def _read(files: tuple[Path, ...]) -> _Snapshot:
    return {path: _content(path) for path in files}


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
