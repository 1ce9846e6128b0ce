"""The process's own messages: JSON lines on standard error, written by a thread.

Whoever reads standard error may stop reading. A logging handler that writes would then hold the event loop, and every
request with it, at its next message.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from gateway.telemetry.logs import write_lines
from gateway.telemetry.queue import BackgroundQueue, Batching

CLOSE_TIMEOUT_S = 1.0
_BATCHING = Batching(capacity=2048, batch=1, interval_s=60.0)
"""Each message leaves at once."""
_EXPORTERS = ("opentelemetry", "gateway.telemetry", "grpc", "urllib3")
_MOST_ALIKE = 5
_ALIKE_WITHIN_S = 10.0
_MOST_KINDS = 1000


class JsonFormatter(logging.Formatter):
    """Messages as JSON lines. Tracebacks stay: they go to the operator, never to a caller."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class FewAlike(logging.Filter):
    """Lets few messages of a kind through where a failing collector would make one for every batch.

    The first after a pause says how many were left out.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is written."""
        if record.levelno < logging.WARNING or not record.name.startswith(_EXPORTERS):
            return True
        key, now = (record.name, str(record.msg)), self._monotonic()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= _ALIKE_WITHIN_S:
            if count > _MOST_ALIKE:
                record.msg = f"{record.msg} (and {count - _MOST_ALIKE} like it before)"
            since, count = now, 0
        if len(self._seen) >= _MOST_KINDS:
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < _MOST_ALIKE


class MessageHandler(logging.Handler):
    """Writes to a descriptor from a thread of its own; what does not fit while nobody reads is lost, and counted."""

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lost = 0
        self._on_lost: Callable[[float], None] | None = None
        self._queue: BackgroundQueue[bytes] = BackgroundQueue(
            "messages", self._write, lambda _, lines: self._count(len(lines)), batching=_BATCHING
        )
        self.setFormatter(JsonFormatter())
        self.addFilter(FewAlike())

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a message's line."""
        try:
            line = self.format(record).encode() + b"\n"
        except Exception:  # noqa: BLE001 - logging's contract: a wrong message is told of, and raises nothing
            self.handleError(record)
            return
        self._queue.put(line)

    def close(self) -> None:
        """Write what is queued, for at most CLOSE_TIMEOUT_S seconds."""
        self._queue.close(CLOSE_TIMEOUT_S)
        super().close()

    def count_lost(self, inc: Callable[[float], None]) -> None:
        """From now on, and for what was lost before, count losses with `inc`."""
        self._on_lost = inc
        if self._lost:
            inc(self._lost)
            self._lost = 0

    def _write(self, lines: Sequence[bytes]) -> Iterator[int]:
        return write_lines(self._descriptor, lines)

    def _count(self, lost: int) -> None:
        if self._on_lost is not None:
            self._on_lost(lost)
        else:
            self._lost += lost


def configure_logging(level: str = "INFO") -> None:
    """The process's own messages go to standard error, a JSON line each."""
    _hold_standard_descriptors()
    logging.basicConfig(level=level, handlers=[MessageHandler()], force=True)
    # Uvicorn says each start and stop three times; the gateway says it once.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _hold_standard_descriptors() -> None:
    # Who starts a daemon may close them. The next sockets and files would get their numbers, and with them our lines.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def count_lost_messages(inc: Callable[[float], None]) -> None:
    """Count with `inc` what the process could not say."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, MessageHandler):
            handler.count_lost(inc)
