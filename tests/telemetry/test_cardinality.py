"""Whatever callers and providers send, the number of series and the memory that they take have an end."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.metric import DEFAULT_MAX_SERIES
from gateway.telemetry.metrics import RESPONSE_MODELS, Metrics
from gateway.types.errors import ErrorType
from gateway.types.records import Caller, RequestRecord
from tests.proving import Proof
from tests.telemetry import facts


def flood(number: int) -> RequestRecord:
    """A request of which everything that callers and providers can choose is different each time."""
    return facts.request(
        facts.attempt(
            response_model=f"model-{number}", response_id=f"id-{number}", finish_reasons=(f"reason-{number}",)
        ),
        request_id=f"req_{number}",
        user_agent=f"agent-{number}",
        client_address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        caller=Caller(team="search", key_id=f"key-{number}", address=f"a{number}"),
    )


def series(metrics: Metrics) -> int:
    """How many there are."""
    return sum(len(family) for family in metrics.read().values())


def send(metrics: Metrics, begin: int, end: int) -> None:
    for number in range(begin, end):
        metrics.record(flood(number))


def test_a_flood_of_names_makes_no_more_series() -> None:
    """After the first names of a target's replies, ten thousand more users, agents, addresses and models add nothing."""
    metrics = Metrics(Block.private())
    send(metrics, 0, RESPONSE_MODELS + 1)
    before = series(metrics)
    send(metrics, RESPONSE_MODELS + 1, 10_000)
    assert series(metrics) == before


@pytest.mark.prove(share=0.5)
@pytest.mark.timeout(0)
def test_a_million_names_take_no_more_memory(proof: Proof) -> None:
    """A million distinct users, agents, addresses and models leave series and memory where a thousand left them."""
    metrics = Metrics(Block.private())
    send(metrics, 0, 1_000)
    before = series(metrics)
    tracemalloc.start()
    held, _ = tracemalloc.get_traced_memory()
    sent = 1_000
    for _ in proof.rounds(999):
        send(metrics, sent, sent + 1_000)
        sent += 1_000
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert series(metrics) == before
    assert now - held < 1_000_000
    proof.found(requests=sent, series=before, more_series=0, more_bytes=now - held)


def test_configured_names_without_end_are_capped() -> None:
    """Five thousand routes are all counted: each family keeps its cap and one overflow series."""
    metrics = Metrics(Block.private())
    for number in range(5_000):
        metrics.record(facts.request(route=f"route-{number}", error_type=ErrorType.RATE_LIMITED))
    counts = {name: len(family) for name, family in metrics.read().items()}
    assert max(counts.values()) == DEFAULT_MAX_SERIES + 1
    total = sum(s.values[0] for s in metrics.read()[names.REQUESTS.name].values())
    assert total == 5_000
    overflow = metrics.counter(names.LABEL_OVERFLOW, names.REQUESTS.name).value
    assert overflow == 5_000 - DEFAULT_MAX_SERIES
