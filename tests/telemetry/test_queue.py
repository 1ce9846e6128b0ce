"""A queue whose consumer may be slow, fail or hang: nothing is lost unseen, nothing waits, the end is bounded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from gateway.telemetry.queue import BackgroundQueue, Batching

WAIT_S = 10.0


class Fates:
    """What became of each item, and a consumer that a test holds, breaks or lets go."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.dropped: dict[str, list[int]] = {}
        self.entered = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.answer: bool | Exception = True

    def consume(self, batch: Sequence[int]) -> Iterator[int]:
        self.entered.set()
        assert self.go.wait(WAIT_S)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer:
            yield len(batch)

    def drop(self, reason: str, items: Sequence[int]) -> None:
        self.dropped.setdefault(reason, []).extend(items)

    @property
    def total(self) -> Counter[int]:
        """How often each item was told of."""
        return Counter([*self.done, *(item for items in self.dropped.values() for item in items)])


@pytest.fixture
def fates() -> Iterator[Fates]:
    """The consumer is let go at the end of a test, so that its thread ends."""
    fates = Fates()
    yield fates
    fates.go.set()


def queue(fates: Fates, capacity: int = 1000, batch: int = 10) -> BackgroundQueue[int]:
    """A queue that hands over at once when a batch is full."""
    return BackgroundQueue(
        "test", fates.consume, fates.drop, fates.done.extend,
        batching=Batching(capacity=capacity, batch=batch, interval_s=0.01),
    )  # fmt: skip


def test_everything_is_consumed_in_order(fates: Fates) -> None:
    """What was put before the close is consumed by it, in order."""
    items = queue(fates)
    for item in range(995):
        items.put(item)
    items.close(WAIT_S)
    assert fates.done == list(range(995))
    assert fates.dropped == {}


def test_a_lonely_item_does_not_wait_for_company(fates: Fates) -> None:
    """An item that fills no batch is handed over after the interval."""
    items = queue(fates)
    items.put(1)
    assert fates.entered.wait(WAIT_S)
    items.close(WAIT_S)
    assert fates.done == [1]


def test_a_full_queue_drops_the_newest_and_says_so(fates: Fates) -> None:
    """While the consumer hangs, `put` returns at once; what does not fit is counted."""
    fates.go.clear()
    items = queue(fates, capacity=20)
    for item in range(10):
        items.put(item)
    assert fates.entered.wait(WAIT_S)
    for item in range(10, 50):
        items.put(item)
    assert len(items) == 20
    assert fates.dropped == {"queue_full": list(range(30, 50))}
    fates.go.set()
    items.close(WAIT_S)
    assert fates.total == Counter(range(50))


@pytest.mark.parametrize("answer", [False, RuntimeError("collector on fire")])
def test_a_refused_batch_is_a_loss(fates: Fates, answer: bool | Exception) -> None:
    """A consumer that refuses or raises loses its batch, is asked again for the next, and all is counted."""
    fates.answer = answer
    items = queue(fates)
    for item in range(10):
        items.put(item)
    assert fates.entered.wait(WAIT_S)
    items.close(WAIT_S)
    assert fates.dropped == {"export_failed": list(range(10))}


def test_a_batch_that_is_taken_in_part_is_lost_in_part(fates: Fates) -> None:
    """What a consumer took before it failed, or before the end gave it up, is not counted as lost."""
    fates.go.clear()

    def by_threes(batch: Sequence[int]) -> Iterator[int]:
        yield 3
        if batch[0] == 0:
            raise RuntimeError("after three of the first ten")
        fates.entered.set()
        assert fates.go.wait(WAIT_S)
        yield 3

    batching = Batching(batch=10, interval_s=0.01)
    items = BackgroundQueue("test", by_threes, fates.drop, fates.done.extend, batching=batching)
    for item in range(20):
        items.put(item)
    assert fates.entered.wait(WAIT_S)
    items.close(0.05)
    fates.go.set()
    items._thread.join(WAIT_S)
    assert fates.done == [0, 1, 2, 10, 11, 12]
    assert fates.dropped == {"export_failed": list(range(3, 10)), "shutdown": list(range(13, 20))}


def test_the_end_does_not_wait_for_a_hanging_consumer(fates: Fates) -> None:
    """The close gives up after its time and counts everything, the batch in hand too, and exactly once."""
    fates.go.clear()
    items = queue(fates)
    for item in range(35):
        items.put(item)
    assert fates.entered.wait(WAIT_S)
    items.close(0.05)
    assert sorted(fates.dropped["shutdown"]) == list(range(35))
    items.put(35)
    fates.go.set()
    items._thread.join(WAIT_S)
    assert fates.total == Counter(range(36))
    assert fates.done == []


def test_nothing_is_taken_after_the_end(fates: Fates) -> None:
    """An item that comes after the close is a counted loss."""
    items = queue(fates)
    items.close(WAIT_S)
    items.put(7)
    assert fates.dropped == {"shutdown": [7]}
