"""The metrics of several workers as one truth, in the process that supervises them.

Each worker counts in a block of its own, which this process reads: a scrape asks no worker anything and waits for none.
What an ended worker counted stays in the sums; its gauges go with it.
"""

from collections.abc import Iterator, Sequence

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


class Fleet:
    """The blocks of the workers that live, and what the others left."""

    def __init__(self) -> None:
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
        self._retired = join([self._retired, without_gauges(read(block))])
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
        return join([self._retired, self._own.read(), *(read(block) for block, _ in list(self._live.values()))])


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
