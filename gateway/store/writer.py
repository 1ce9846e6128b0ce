"""The one thread that writes a ledger, and the queue before it.

Whatever is queued is committed as one group. Work that somebody waits for (a hold, a call) starts a commit at once;
charges wait up to 20 ms for company. A charge leaves the queue only when its commit has succeeded: a failed
commit puts it back and is tried again, which is harmless because a charge is written once however often it is told.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from msgspec import Struct

from gateway.store.spec import Committed, HoldOp, LeaseOp, LedgerStore, Op, Refusal, ReleaseOp, SettleOp, StoreError
from gateway.types.clock import Clock

_LOG = logging.getLogger(__name__)
_LINGER_S = 0.02
"""How long a charge that nobody waits for may wait for company: a commit costs ten times what a charge in it does."""
_RETRY_S = 0.05
_MAX_BATCH = 200
_SWEEP_EVERY_S = 30.0


class Waiting(Struct, eq=False):
    """One operation in the queue. Somebody waits for it if `waited`; then `result` or `error` tells how it ended."""

    op: Op
    waited: bool = False
    refusal: Refusal | None = None
    error: StoreError | None = None


class _Call(Struct, eq=False):
    work: Callable[[LedgerStore], Any]
    future: Future[Any]


class WriterEvents(Protocol):
    """What the writer tells, from its own thread."""

    def committed(self, waited: Sequence[Waiting], committed: Committed | None, seconds: float | None) -> None:
        """A group ended: its operations that somebody waits for, and what was committed (None when it failed)."""
        ...

    def lost(self, op: Op, error: StoreError) -> None:
        """An operation that the store can never take; it is told here so that a log can keep it."""
        ...


class WriterStats(Struct, kw_only=True):
    """Counts since the start."""

    failed_commits: int = 0
    lost: int = 0
    orphans: int = 0
    duplicates: int = 0


class Writer:
    """Owns a ledger store in a thread of its own.

    Args:
        open_store: opens the store; called in the thread, since SQLite's connections stay in theirs.
        events: told what happened, in the thread.
        clock: wall time for orphans, monotonic time for durations.
    """

    def __init__(self, open_store: Callable[[], LedgerStore], events: WriterEvents, clock: Clock) -> None:
        self._open_store = open_store
        self._events = events
        self._clock = clock
        self._queue: deque[Waiting | _Call] = deque()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._opened: Future[None] = Future()
        self._in_flight = 0
        self._next_sweep = 0.0
        self._failing = False
        self.stats = WriterStats()

    def start(self) -> None:
        """Open the store, charge orphans, begin to write; raises StoreError when the store cannot be opened."""
        self._thread.start()
        self._opened.result()

    @property
    def pending(self) -> int:
        """Operations that wait for their commit."""
        return len(self._queue) + self._in_flight

    def put(self, waiting: Waiting) -> None:
        """Queue an operation; from any thread, never blocking."""
        self._queue.append(waiting)
        if waiting.waited:
            self._urgent.set()
        if not self._wake.is_set():
            self._wake.set()

    def call(self, work: Callable[[LedgerStore], Any]) -> Future[Any]:
        """Run `work` on the store, in the thread, after what is queued."""
        future: Future[Any] = Future()
        self._queue.append(_Call(work, future))
        self._urgent.set()
        self._wake.set()
        return future

    def stop(self, grace_s: float) -> int:
        """Commit what is queued, within `grace_s` seconds, and close the store; how many operations are left.

        Charges that are left and have a hold become orphans, charged at the next start.
        """
        if not self._thread.is_alive():
            return self.pending
        self._deadline = self._clock.monotonic() + grace_s
        self._stopping.set()
        self._urgent.set()
        self._wake.set()
        self._thread.join(grace_s + 1.0)
        return self.pending

    def _run(self) -> None:
        try:
            store = self._open_store()
            self.stats.orphans += store.sweep(self._clock.now_ns())
        except BaseException as error:  # noqa: BLE001 - whoever started the thread gets it, whatever it is
            self._opened.set_exception(error)
            return
        self._next_sweep = self._clock.monotonic() + _SWEEP_EVERY_S
        self._opened.set_result(None)
        try:
            self._loop(store)
        finally:
            store.close()

    def _loop(self, store: LedgerStore) -> None:
        while True:
            self._wake.wait(1.0)
            if self._queue and not self._urgent.is_set():
                self._urgent.wait(_LINGER_S)
            self._wake.clear()
            self._urgent.clear()
            while self._queue:
                if not self._group(store):
                    self._stopping.wait(_RETRY_S)
                    break
            if self._stopping.is_set() and (not self._queue or self._clock.monotonic() >= self._deadline):
                return
            if self._queue:
                self._wake.set()
            self._tend(store)

    def _group(self, store: LedgerStore) -> bool:
        """Commit one group; False when the store failed and time should pass before the next try."""
        batch: list[Waiting] = []
        while self._queue and len(batch) < _MAX_BATCH:
            item = self._queue.popleft()
            if isinstance(item, _Call):
                if batch:
                    self._queue.appendleft(item)
                    break
                self._one_call(store, item)
                return True
            batch.append(item)
            self._in_flight = len(batch)
        try:
            return self._commit(store, batch)
        finally:
            self._in_flight = 0

    def _one_call(self, store: LedgerStore, call: _Call) -> None:
        # Whoever asked may have been cancelled; from here on it cannot be.
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            call.future.set_result(call.work(store))
        except Exception as error:  # noqa: BLE001 - the caller of `call` gets it
            call.future.set_exception(error)

    def _commit(self, store: LedgerStore, batch: Sequence[Waiting]) -> bool:
        began = self._clock.monotonic()
        try:
            committed = store.commit([waiting.op for waiting in batch])
        except StoreError as error:
            self.stats.failed_commits += 1
            return self._failed(store, batch, error, self._clock.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - a thread that died would lose every charge after this one
            self.stats.failed_commits += 1
            wrapped = StoreError(f"{type(error).__name__}: {error}", retryable=False)
            return self._failed(store, batch, wrapped, self._clock.monotonic() - began)
        if self._failing:
            self._failing = False
            _LOG.warning("the ledger takes commits again")
        self.stats.duplicates += committed.duplicates
        for waiting, refusal in zip(batch, committed.refusals, strict=True):
            waiting.refusal = refusal
        waited = [waiting for waiting in batch if waiting.waited]
        self._events.committed(waited, committed, self._clock.monotonic() - began)
        return True

    def _failed(self, store: LedgerStore, batch: Sequence[Waiting], error: StoreError, seconds: float) -> bool:
        if not error.retryable:
            # One of them is impossible: the others must not suffer for it.
            if len(batch) > 1:
                for waiting in batch:
                    self._commit(store, [waiting])
                return True
            if isinstance(batch[0].op, SettleOp):
                self.stats.lost += 1
                self._events.lost(batch[0].op, error)
        elif not self._failing:
            # Said once: it is tried again twenty times a second, and counted each time.
            self._failing = True
            _LOG.warning("the ledger takes no commits: %s", error)
        kept: list[Waiting] = []
        waited = []
        for waiting in batch:
            if isinstance(waiting.op, HoldOp | LeaseOp):
                waiting.error = error
                waited.append(waiting)
                if error.ambiguous and isinstance(waiting.op, HoldOp):
                    op = waiting.op
                    kept.append(Waiting(ReleaseOp(request_id=op.request_id, attempt=op.attempt)))
            elif error.retryable:
                kept.append(waiting)
        self._queue.extendleft(reversed(kept))
        self._events.committed(waited, None, seconds)
        return not error.retryable

    def _tend(self, store: LedgerStore) -> None:
        try:
            store.tend()
            if self._clock.monotonic() >= self._next_sweep:
                self._next_sweep = self._clock.monotonic() + _SWEEP_EVERY_S
                self.stats.orphans += store.sweep(self._clock.now_ns())
        except StoreError:
            self.stats.failed_commits += 1
