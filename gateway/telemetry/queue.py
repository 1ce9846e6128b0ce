"""A bounded queue with one thread behind it: what may be slow happens there, never in a request.

`put` costs a request well under a microsecond and never blocks. What does not fit, fails or is left over at the end is
dropped and counted: produced = consumed + dropped.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")

EXPORT_FAILED = "export_failed"


class BackgroundQueue(Generic[_T]):
    """Hands items in batches to `consume`, on its own thread.

    Args:
        consume: takes a batch; returning False or raising means that the batch is lost.
        on_drop: told (reason, items) of every loss: `queue_full`, the `failure` reason, or `shutdown`.
        on_done: told of every batch that was consumed. Each item is told of once, here or as a loss.
        interval_s: how long items wait for company before a batch is handed over.
    """

    def __init__(
        self,
        name: str,
        consume: Callable[[Sequence[_T]], bool],
        on_drop: Callable[[str, Sequence[_T]], None],
        on_done: Callable[[Sequence[_T]], None] = lambda _: None,
        *,
        failure: str = EXPORT_FAILED,
        capacity: int = 8192,
        batch: int = 64,
        interval_s: float = 0.2,
    ) -> None:
        self._consume = consume
        self._on_drop = on_drop
        self._on_done = on_done
        self._failure = failure
        self._capacity = capacity
        self._batch = batch
        self._interval_s = interval_s
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

    def _hand_over(self, batch: list[_T]) -> None:
        with self._lock:
            self._in_hand = batch
        try:
            accepted = self._consume(batch)
        except Exception:  # noqa: BLE001 - a failing exporter must not end the thread
            accepted = False
        with self._lock:
            self._in_hand = ()
            if self._abandoned:
                return
        if accepted:
            self._on_done(batch)
        else:
            self._on_drop(self._failure, batch)
