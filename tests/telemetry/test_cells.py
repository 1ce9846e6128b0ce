"""The block of numbers: what is counted in it, and what another process reads from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from gateway.telemetry import names
from gateway.telemetry.cells import Block, Counter, Exemplar, Histogram
from gateway.telemetry.fleet import Fleet
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readings import Series, join, read, without_gauges

CHILD = """
import os, sys
from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.fleet import Fleet
from gateway.telemetry.metrics import Metrics
metrics = Metrics(Block.attach(int(sys.argv[1])))
metrics.counter(names.SPANS_EXPORTED).inc(3)
metrics.histogram(names.OVERHEAD, "chat", "admit").observe(0.002)
metrics.gauge(names.REQUESTS_IN_FLIGHT, "chat").inc()
os.write(1, b"counted")
sys.stdin.read()
"""


def test_a_killed_writer_loses_nothing() -> None:
    """A parent reads, after SIGKILL, all that the child had counted, and reads it live before."""
    block = Block.shared()
    assert block.descriptor is not None
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(block.descriptor)],
        pass_fds=(block.descriptor,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert os.read(child.stdout.fileno(), 100) == b"counted"
        live = read(block)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        child.stdin.close()
    assert live[names.REQUESTS_IN_FLIGHT.name]["chat",] == Series([1.0])
    assert read(block) == live
    kept = without_gauges(live)
    assert names.REQUESTS_IN_FLIGHT.name not in kept
    assert kept[names.SPANS_EXPORTED.name][()].values == [3.0]
    assert sum(kept[names.OVERHEAD.name]["chat", "admit"].values[1:]) == 1.0
    block.close()


def test_a_histogram_counts_by_upper_bound() -> None:
    """An observation on a bound belongs to that bound; above the last one is +Inf."""
    block = Block.private()
    slot = block.define(names.OVERHEAD.name, ("chat", "admit"), 4, 0)
    assert slot is not None
    histogram = Histogram(block, slot, (0.1, 0.5))
    for value in (0.1, 0.2, 0.5, 7.0):
        histogram.observe(value)
    assert read(block)[names.OVERHEAD.name]["chat", "admit"].values == [pytest.approx(7.8), 1.0, 2.0, 1.0]


def test_an_exemplar_is_the_last_one_of_its_bucket() -> None:
    """All 128 bits of a trace id come back, with the value that it stands for, in the bucket of that value."""
    block = Block.private()
    slot = block.define(names.REQUEST_DURATION.name, ("chat", "t", "ok"), 4, 3)
    assert slot is not None
    histogram = Histogram(block, slot, (0.1, 0.5))
    histogram.observe(0.3, (1 << 127) + 1, 10.0)
    histogram.observe(0.4, (1 << 127) + 2, 11.0)
    histogram.observe(0.05)
    exemplars = read(block)[names.REQUEST_DURATION.name]["chat", "t", "ok"].exemplars
    assert exemplars == (None, Exemplar((1 << 127) + 2, 0.4, 11.0), None)


def test_a_half_written_exemplar_is_not_read() -> None:
    """While an exemplar is replaced there is none: its time is taken away first and given last."""
    block = Block.private()
    slot = block.define(names.COST.name, (), 1, 1)
    assert slot is not None
    Counter(block, slot).inc(1.0, 77)
    assert block.exemplar(slot + 1) is not None
    block.numbers[slot + 4] = 0.0
    assert block.exemplar(slot + 1) is None


def test_a_full_block_refuses_a_series() -> None:
    """A block without room defines nothing more, and what it has stays readable."""
    block = Block.private()
    defined = 0
    while block.define("gateway_sink_errors_total", ("x" * 1_000_000,), 1, 0) is not None:
        defined += 1
    assert 10 < defined < 20
    assert len(block.definitions()) == defined


def test_workers_are_summed_and_gauges_joined_as_the_catalogue_says() -> None:
    """Counts, histograms and requests in flight add up; a breaker's state is the worst; the newest exemplar stays."""
    one, two = Metrics(Block.private()), Metrics(Block.private())
    for metrics, timestamp in ((one, 5.0), (two, 4.0)):
        metrics.counter(names.SPANS_EXPORTED).inc(2)
        metrics.gauge(names.REQUESTS_IN_FLIGHT, "chat").set(3)
        metrics.histogram(names.REQUEST_DURATION, "chat", "t", "ok").observe(0.2, int(timestamp), timestamp)
    one.gauge(names.CIRCUIT_STATE, "openai", "m").set(2)
    two.gauge(names.CIRCUIT_STATE, "openai", "m").set(0)
    one.gauge(names.CONFIG_RELOAD_SUCCESSFUL).set(1)
    two.gauge(names.CONFIG_RELOAD_SUCCESSFUL).set(0)
    joined = join([one.read(), two.read()])
    assert joined[names.SPANS_EXPORTED.name][()].values == [4.0]
    assert joined[names.REQUESTS_IN_FLIGHT.name]["chat",].values == [6.0]
    assert joined[names.CIRCUIT_STATE.name]["openai", "m"].values == [2.0]
    assert joined[names.CONFIG_RELOAD_SUCCESSFUL.name][()].values == [0.0]
    duration = joined[names.REQUEST_DURATION.name]["chat", "t", "ok"]
    assert sum(duration.values[1:]) == 2.0
    assert [e.trace_id for e in duration.exemplars if e is not None] == [5]
    # Joining reads; it must not add one worker's figures to another's memory.
    assert one.read()[names.SPANS_EXPORTED.name][()].values == [2.0]


def test_what_budgets_spent_does_not_fall_back_when_a_worker_dies() -> None:
    """The dead worker's figure stays until the others have looked at the ledger; then theirs is the truth."""
    now = 0.0
    fleet = Fleet(lambda: now)
    blocks = [Block.private(), Block.private()]
    labels = ("all", "global", "month")
    for number, (block, spent) in enumerate(zip(blocks, (5.0, 3.0), strict=True)):
        Metrics(block).gauge(names.BUDGET_SPENT, *labels).set(spent)
        fleet.joined(number, block, 1)
    fleet.left(0, crashed=True)
    assert fleet.read()[names.BUDGET_SPENT.name][labels].values == [5.0]
    now = 21.0
    assert fleet.read()[names.BUDGET_SPENT.name][labels].values == [3.0]
    fleet.left(1, crashed=False)
    assert names.BUDGET_SPENT.name not in fleet.read()


def test_two_readers_at_once_see_each_series_once() -> None:
    """A scrape and a push that both find new series do not show one of them twice."""
    block = Block.private()
    metrics = Metrics(block)
    for number in range(300):
        metrics.gauge(names.REQUESTS_IN_FLIGHT, f"route-{number}").set(1)
    readers = [threading.Thread(target=block.definitions) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(block.definitions()) == 300
