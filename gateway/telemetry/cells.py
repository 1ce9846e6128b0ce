"""The memory of the metrics: one block of numbers that another process can read while its owner writes.

One process writes a block. A parent may read it at any time, also after the writer was killed: what was counted stays
counted, without a message, a lock or a file between the processes. A series is a run of 8-byte slots; a journal in
front of the slots says which run belongs to which family and label values, and only ever grows.

A reader may see a histogram between two of its slots, off by the one observation being made, as in any scrape.
"""

import math
import mmap
import os
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence

import msgspec
from msgspec import Struct

_HEADER_BYTES = 64
_JOURNAL_BYTES = 16 * 1024 * 1024
_SLOT_BYTES = 48 * 1024 * 1024
BLOCK_BYTES = _HEADER_BYTES + _JOURNAL_BYTES + _SLOT_BYTES
"""Reserved, not used: the system backs a page with memory when something is first written to it."""
_JOURNAL_USED, _SLOTS_USED = 0, 1
EXEMPLAR_SLOTS = 4
"""The trace id's two halves, the value, and the time in seconds since the epoch, which is written last."""
_LOW_64 = (1 << 64) - 1


class Exemplar(Struct, frozen=True):
    """A trace that stands for an observation; `timestamp` in seconds since the epoch."""

    trace_id: int
    value: float
    timestamp: float


class Definition(Struct, frozen=True, array_like=True):
    """One series of a block: its family's name, its label values, and its run of slots."""

    family: str
    labels: tuple[str, ...]
    slot: int
    values: int
    """How many slots hold values; a histogram's are its sum and its buckets, +Inf included."""
    exemplars: int
    """How many exemplars follow: one a bucket, or one for a counter."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Definition)


class Block:
    """One block over a memory map. Slots begin as 0."""

    def __init__(self, memory: mmap.mmap, descriptor: int | None = None) -> None:
        whole = memoryview(memory)
        self.descriptor = descriptor
        """What a child process is given to share this block; None for a private one."""
        self._header = whole[:_HEADER_BYTES].cast("Q")
        self._journal = whole[_HEADER_BYTES : _HEADER_BYTES + _JOURNAL_BYTES]
        slots = whole[_HEADER_BYTES + _JOURNAL_BYTES :]
        self.numbers = slots.cast("d")
        self.words = slots.cast("Q")
        self._read: list[Definition] = []
        self._by_family: dict[str, list[Definition]] = {}
        self._read_bytes = 0
        # Two scrapes at once must not both read what is new.
        self._reading = threading.Lock()

    @classmethod
    def private(cls) -> "Block":
        """A block for one process."""
        return cls(mmap.mmap(-1, BLOCK_BYTES))

    @classmethod
    def shared(cls) -> "Block":
        """A block whose `descriptor` can be passed to a child. Raises OSError."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("gateway-metrics")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, BLOCK_BYTES)
        return cls.attach(descriptor)

    @classmethod
    def attach(cls, descriptor: int) -> "Block":
        """The block behind a descriptor that another process made. Raises OSError."""
        return cls(mmap.mmap(descriptor, BLOCK_BYTES), descriptor)

    def define(self, family: str, labels: Sequence[str], values: int, exemplars: int) -> int | None:
        """Reserve a series and return its first slot; None when the block is full."""
        slot, width = self._header[_SLOTS_USED], values + exemplars * EXEMPLAR_SLOTS
        entry = _ENCODER.encode(Definition(family, tuple(labels), slot, values, exemplars))
        begin = self._header[_JOURNAL_USED]
        end = begin + 4 + len(entry)
        if slot + width > len(self.numbers) or end > _JOURNAL_BYTES:
            return None
        self._journal[begin:end] = len(entry).to_bytes(4, "little") + entry
        self._header[_SLOTS_USED] = slot + width
        # Last: a reader believes the journal up to here.
        self._header[_JOURNAL_USED] = end
        return slot

    def definitions(self) -> Sequence[Definition]:
        """All series so far; what was read before is not read again."""
        with self._reading:
            end = self._header[_JOURNAL_USED]
            while self._read_bytes < end:
                begin = self._read_bytes + 4
                size = int.from_bytes(self._journal[self._read_bytes : begin], "little")
                definition = _DECODER.decode(self._journal[begin : begin + size])
                self._read.append(definition)
                self._by_family.setdefault(definition.family, []).append(definition)
                self._read_bytes = begin + size
        return self._read

    def family(self, name: str) -> Sequence[Definition]:
        """The series of one family, of those that `definitions` has read."""
        return self._by_family.get(name, ())

    def exemplar(self, slot: int) -> Exemplar | None:
        """The exemplar in the four slots from `slot`, or None where there is none (or it is being replaced)."""
        timestamp = self.numbers[slot + 3]
        if not timestamp:
            return None
        trace_id = self.words[slot] << 64 | self.words[slot + 1]
        value = self.numbers[slot + 2]
        return Exemplar(trace_id, value, timestamp) if self.numbers[slot + 3] == timestamp else None

    def close(self) -> None:
        """Give the descriptor back; the memory lives as long as someone maps it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class Cell:
    """The slots of one series."""

    __slots__ = ("_exemplars", "_numbers", "_slot", "_words")

    def __init__(self, block: Block, slot: int, values: int) -> None:
        self._numbers = block.numbers
        self._words = block.words
        self._slot = slot
        self._exemplars = slot + values

    def _keep_exemplar(self, slot: int, trace_id: int, value: float, timestamp: float) -> None:
        numbers, words = self._numbers, self._words
        numbers[slot + 3] = 0.0
        words[slot] = trace_id >> 64
        words[slot + 1] = trace_id & _LOW_64
        numbers[slot + 2] = value
        numbers[slot + 3] = timestamp


class Counter(Cell):
    """Goes up."""

    __slots__ = ("_lock",)

    def __init__(self, block: Block, slot: int) -> None:
        super().__init__(block, slot, 1)
        self._lock = threading.Lock()

    def inc(self, amount: float = 1.0, trace_id: int = 0) -> None:
        """Add `amount`, which is not negative; `trace_id` becomes the exemplar where the family keeps them."""
        with self._lock:
            self._numbers[self._slot] += amount
        if trace_id:
            self._keep_exemplar(self._exemplars, trace_id, amount, time.time())

    @property
    def value(self) -> float:
        """The sum so far."""
        return self._numbers[self._slot]


class Gauge(Cell):
    """Goes up and down."""

    __slots__ = ("_lock",)

    def __init__(self, block: Block, slot: int) -> None:
        super().__init__(block, slot, 1)
        self._lock = threading.Lock()

    def set(self, value: float) -> None:
        """Take a value."""
        self._numbers[self._slot] = value

    def clear(self) -> None:
        """Be shown no more, until it is set again: what it told of is gone."""
        self._numbers[self._slot] = math.nan

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        with self._lock:
            self._numbers[self._slot] += amount

    def dec(self, amount: float = 1.0) -> None:
        """Take `amount` away."""
        self.inc(-amount)

    @property
    def value(self) -> float:
        """The value now."""
        return self._numbers[self._slot]


class Histogram(Cell):
    """Counts observations by upper bound. Its slots: the sum, then a count for each bound and for +Inf.

    One thread observes a series: a lock would cost as much as the counting.
    """

    __slots__ = ("_bounds",)

    def __init__(self, block: Block, slot: int, bounds: tuple[float, ...]) -> None:
        super().__init__(block, slot, len(bounds) + 2)
        self._bounds = bounds

    def observe(self, value: float, trace_id: int = 0, timestamp: float = 0.0) -> None:
        """Count one observation; `trace_id` (at `timestamp`) becomes its bucket's exemplar."""
        numbers, slot = self._numbers, self._slot
        bucket = bisect_left(self._bounds, value)
        numbers[slot] += value
        numbers[slot + 1 + bucket] += 1.0
        if trace_id:
            self._keep_exemplar(self._exemplars + bucket * EXEMPLAR_SLOTS, trace_id, value, timestamp)
