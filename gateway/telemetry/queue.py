"""A bounded queue with one thread behind it: what may be slow happens there, never in a request.

`put` costs a request well under a microsecond and never blocks. What does not fit, fails or is left over at the end is
dropped and counted: produced = consumed + dropped.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")


class BackgroundQueue(Generic[_T]):
    """Hands items in batches to `consume`, on its own thread.

    Args:
        consume: takes a batch; returning False or raising means that the batch is lost.
        on_drop: told (reason, how many items) of every loss: `queue_full`, the `failure` reason, or `shutdown`.
        interval_s: how long items wait for company before a batch is handed over.
    """

    def __init__(
        self,
        name: str,
        consume: Callable[[Sequence[_T]], bool],
        on_drop: Callable[[str, Sequence[_T]], None],
        *,
        failure: str = "export_failed",
        capacity: int = 8192,
        batch: int = 64,
        interval_s: float = 0.2,
    ) -> None:
        self._consume = consume
        self._on_drop = on_drop
        self._failure = failure
        self._capacity = capacity
        self._batch = batch
        self._interval_s = interval_s
        self._items: deque[_T] = deque()
        self._wake = threading.Event()
        self._closing = False
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
        """Hand over what is left, for at most `timeout_s` seconds; the rest is dropped and counted."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._abandoned = True
            rest = self._take(len(self._items))
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
        try:
            accepted = self._consume(batch)
        except Exception:  # noqa: BLE001 - a failing exporter must not end the thread
            accepted = False
        if not accepted:
            # After an abandoned close nobody counts for us: the batch in hand is lost with the process.
            self._on_drop("shutdown" if self._abandoned else self._failure, batch)
