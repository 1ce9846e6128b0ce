"""The metrics of several workers as one truth, in the process that supervises them.

Each worker counts in a block of its own, which this process reads: a scrape asks no worker anything and waits for none.
What an ended worker counted stays in the sums; its gauges go with it. Only what it knew of spending stays for a moment:
a worker knows its own charges at once and those of the others after a while, so that the figure would fall back.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as PrometheusFamily
from prometheus_client.registry import Collector

from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.listener import Exposition
from gateway.telemetry.messages import count_lost_messages
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readings import Reading, families_of, join, read, without_gauges
from gateway.telemetry.variables import Signal

SPENT_KEPT_S = 20.0
"""Longer than a worker takes to look at what the others have charged (gateway.serve.money_upkeep)."""


class Fleet:
    """The blocks of the workers that live, and what the others left."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._spent: list[tuple[float, Reading]] = []
        self._own = Metrics(Block.private())
        self._live: dict[int, tuple[Block, int]] = {}
        self._retired: Reading = {}
        self._own.counter(names.WORKER_EXITS)
        self._own.gauge(names.WORKERS)
        count_lost_messages(self._own.counter(names.MESSAGES_DROPPED).inc)

    @property
    def exposition(self) -> Exposition:
        """What a scrape of all processes gets: the catalogue joined, and each process's own figures."""
        registry = CollectorRegistry()
        PlatformCollector(registry=registry)
        registry.register(_Processes(self))
        return Exposition(lambda: families_of(self.read()), (registry,))

    def joined(self, worker: int, block: Block, pid: int) -> None:
        """A worker runs, and counts in `block`."""
        self._live[worker] = (block, pid)
        self._own.gauge(names.WORKERS).set(len(self._live))

    def left(self, worker: int, *, crashed: bool) -> None:
        """A worker has ended."""
        block, _ = self._live.pop(worker)
        last = read(block)
        self._retired = join([self._retired, without_gauges(last)])
        spent = last.get(names.BUDGET_SPENT.name)
        if spent:
            self._spent.append((self._monotonic() + SPENT_KEPT_S, {names.BUDGET_SPENT.name: spent}))
        self._own.gauge(names.WORKERS).set(len(self._live))
        if crashed:
            self._own.counter(names.WORKER_EXITS).inc()

    def push_failed(self) -> None:
        """An export of the joined metrics was not taken."""
        self._own.counter(names.EXPORT_ERRORS, Signal.METRICS).inc()

    @property
    def processes(self) -> Sequence[tuple[int, int]]:
        """The (worker, process id) pairs that live."""
        return [(worker, pid) for worker, (_, pid) in sorted(self._live.items())]

    def read(self) -> Reading:
        """The figures of all workers, ended ones included."""
        now = self._monotonic()
        self._spent = [(until, spent) for until, spent in self._spent if now < until]
        # Where nobody lives any more, nobody's budgets are shown.
        spent = [spent for _, spent in self._spent] if self._live else []
        live = [read(block) for block, _ in list(self._live.values())]
        return join([self._retired, self._own.read(), *live, *spent])


class _Processes(Collector):
    """process_* of every process, told apart by the label `worker`: memory and start times are no sums."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[PrometheusFamily]:
        families: dict[str, PrometheusFamily] = {}
        sources = [("supervisor", _process(None))]
        sources += [(str(worker), _process(pid)) for worker, pid in self._fleet.processes]
        for name, collector in sources:
            for family in collector.collect():
                joined = families.setdefault(
                    family.name, PrometheusFamily(family.name, family.documentation, family.type, family.unit)
                )
                for sample in family.samples:
                    joined.add_sample(sample.name, {**sample.labels, "worker": name}, sample.value)
        yield from families.values()

    def describe(self) -> Iterator[PrometheusFamily]:
        return iter(())


def _process(pid: int | None) -> ProcessCollector:
    # Given a registry, a collector would join it.
    return ProcessCollector(pid=(lambda: pid) if pid is not None else (lambda: "self"), registry=None)
