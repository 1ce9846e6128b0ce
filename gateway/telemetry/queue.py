"""A bounded queue with one thread behind it: what may be slow happens there, never in a request.

`put` costs a request well under a microsecond and never blocks. What does not fit, fails or is left over at the end is
dropped and counted: produced = consumed + dropped.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

_T = TypeVar("_T")

EXPORT_FAILED = "export_failed"
REJECTED = "rejected"


class Batching(Struct, frozen=True, kw_only=True):
    """How items wait and leave.

    Args:
        capacity: how many may wait.
        batch: how many leave together at most. Small batches keep a thread from holding the interpreter for long.
        interval_s: how long items wait for company before a batch is handed over.
    """

    capacity: int = 8192
    batch: int = 64
    interval_s: float = 0.2


USUAL_BATCHING = Batching()


class BackgroundQueue(Generic[_T]):
    """Hands items in batches to `consume`, on its own thread.

    Args:
        consume: takes a batch, and yields how many of its next items were taken, as it takes them. What is left
            when it ends or raises is lost.
        on_drop: told (reason, items) of every loss: `queue_full`, the `failure` reason, or `shutdown`.
        on_done: told of the items that were consumed. Each item is told of once, here or as a loss.
    """

    def __init__(
        self,
        name: str,
        consume: Callable[[Sequence[_T]], Iterable[int]],
        on_drop: Callable[[str, Sequence[_T]], None],
        on_done: Callable[[Sequence[_T]], None] = lambda _: None,
        *,
        failure: str = EXPORT_FAILED,
        batching: Batching = USUAL_BATCHING,
    ) -> None:
        self._consume = consume
        self._on_drop = on_drop
        self._on_done = on_done
        self._failure = failure
        self._capacity = batching.capacity
        self._batch = batching.batch
        self._interval_s = batching.interval_s
        self._items: deque[_T] = deque()
        self._wake = threading.Event()
        self._closing = False
        # Guards who tells of the batch in hand: the thread that consumes it, or the close that gives it up.
        self._lock = threading.Lock()
        self._in_hand: Sequence[_T] = ()
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: _T) -> None:
        """Take one item, or drop it when the queue is full."""
        if len(self._items) >= self._capacity or self._closing:
            self._on_drop("shutdown" if self._closing else "queue_full", (item,))
            return
        self._items.append(item)
        if len(self._items) >= self._batch:
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Hand over what is left, for at most `timeout_s` seconds.

        What is not consumed by then is dropped and counted, the batch in hand included, whatever becomes of it later.
        """
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        with self._lock:
            self._abandoned = True
            rest = [*self._in_hand, *self._take(len(self._items))]
            if rest:
                self._on_drop("shutdown", rest)

    def _take(self, count: int) -> list[_T]:
        taken: list[_T] = []
        while len(taken) < count:
            try:
                taken.append(self._items.popleft())
            except IndexError:
                break
        return taken

    def _run(self) -> None:
        while True:
            closing = self._closing
            if not closing and len(self._items) < self._batch:
                self._wake.wait(self._interval_s)
            self._wake.clear()
            while batch := self._take(self._batch):
                self._hand_over(batch)
            if closing:
                return

    def _hand_over(self, batch: Sequence[_T]) -> None:
        with self._lock:
            self._in_hand = batch
        try:
            for count in self._consume(batch):
                self._tell(count)
        except Exception:  # noqa: BLE001, S110 - a failing exporter must not end the thread; its batch is counted
            pass
        with self._lock:
            lost, self._in_hand = self._in_hand, ()
            if lost and not self._abandoned:
                self._on_drop(self._failure, lost)

    def _tell(self, count: int) -> None:
        with self._lock:
            done, self._in_hand = self._in_hand[:count], self._in_hand[count:]
            if not self._abandoned:
                self._on_done(done)
