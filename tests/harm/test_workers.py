"""Three workers that are killed again and again, seen by a scraper and by a collector that gets the metrics pushed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.collector import Collector, attributes_of, running_collector
from tests.harm.rig import CONFIG, Gateway, gateway, provider
from tests.proving import Proof
from tests.store.postgres_server import PostgresServer

WORKERS = 3
CALLERS = 8
BODY = {"messages": [{"role": "user", "content": "hi"}]}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
ONLY_UP = ("_total", "_count", "_sum", "_bucket")


class Scraped:
    """One scrape: samples by name and labels, and how many exemplars stand in it."""

    def __init__(self, text: str) -> None:
        self.samples: Samples = {}
        self.exemplars = 0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"{sample.name} stands twice"
                self.samples[key] = sample.value
                self.exemplars += sample.exemplar is not None

    def total(self, name: str) -> float:
        """The sum over a family's labels."""
        return sum(value for (sample, _), value in self.samples.items() if sample == name)

    def check(self, before: Scraped) -> None:
        """Nothing that only goes up has gone back, or away; nor has what a budget spent."""
        for (name, labels), value in before.samples.items():
            ours = name.startswith(("gateway_", "gen_ai_"))
            if ours and (name.endswith(ONLY_UP) or name == "gateway_budget_spent_usd"):
                assert self.samples[name, labels] >= value, (name, labels)
        assert self.total("gateway_build_info") == 1.0
        assert self.exemplars >= before.exemplars
        assert sum(name == "gateway_budget_spent_usd" for name, _ in self.samples) == 1


async def scrape(client: httpx.AsyncClient, one: Gateway) -> Scraped:
    """A scrape as Prometheus makes it."""
    url = f"http://127.0.0.1:{one.metrics_port}/metrics"
    return Scraped((await client.get(url, headers={"accept": "application/openmetrics-text"})).text)


def workers_of(one: Gateway) -> list[int]:
    """The process ids of the workers that live."""
    path = Path(f"/proc/{one.child.pid}/task/{one.child.pid}/children")
    return [int(child) for child in path.read_text().split()]


def pushed(request: ExportMetricsServiceRequest) -> Samples:
    """The points of one export as a scrape's samples; of histograms their sums and counts."""
    found: Samples = {}
    for group in request.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = str(metric.WhichOneof("data"))
                for point in getattr(metric, kind).data_points:
                    labels = frozenset(attributes_of(point).items())
                    if kind == "histogram":
                        found[f"{metric.name}_sum", labels] = point.sum
                        found[f"{metric.name}_count", labels] = float(point.count)
                    else:
                        found[metric.name, labels] = point.as_double
    return found


async def until_equal(collector: Collector, client: httpx.AsyncClient, one: Gateway) -> int:
    """Wait for a push that says what a scrape says; how many samples that is. AssertionError after 30 s."""
    differ: Any = "nothing was pushed"
    for _ in range(60):
        await asyncio.sleep(0.5)
        scraped = (await scrape(client, one)).samples
        ours = {
            key: value
            for key, value in scraped.items()
            if key[0].startswith(("gateway_", "gen_ai_"))
            and not key[0].endswith("_bucket")
            # Time goes on between the two.
            and not key[0].startswith(("gateway_event_loop_lag", "gateway_ledger_", "gateway_price_table_age"))
        }
        told = pushed(collector.metrics[-1]) if collector.metrics else {}
        differ = {key: (value, told.get(key)) for key, value in ours.items() if told.get(key) != value}
        if not differ:
            return len(ours)
    raise AssertionError(f"pushed metrics differ from scraped ones: {differ}")


@pytest.mark.prove(share=1)
@pytest.mark.stack
@pytest.mark.timeout(0)
async def test_workers_killed_while_scraped(tmp_path: Path, proof: Proof) -> None:
    """After each kill -9 counters go on from where they were, dead workers' gauges go, and pushed equals scraped."""
    rng = random.Random(3)
    replies: Counter[str] = Counter()
    with PostgresServer() as postgres, running_collector() as collector, ExitStack() as stack:
        upstream = stack.enter_context(provider())
        budget = "budgets: [{{name: all, amount_usd: 1000000}}]\n"
        config = f"ledger: {{{{postgres: {postgres.conninfo().reveal()}}}}}\n" + budget + CONFIG
        env = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
        one = stack.enter_context(
            gateway(tmp_path, upstream, collector.url, config=config, env=env, arguments=("--workers", str(WORKERS)))
        )
        client = await _client(one)
        ended = asyncio.Event()

        async def call() -> None:
            while not ended.is_set():
                try:
                    # Without keep-alive each request may go to another worker.
                    reply = await client.post("/gateway/chat/invocations", json=BODY, headers={"connection": "close"})
                    replies[str(reply.status_code)] += 1
                except httpx.TransportError:
                    replies["cut"] += 1
                await asyncio.sleep(0.05)

        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        seen = await scrape(client, one)
        kills = scrapes = 0
        for _ in proof.rounds(200):
            victims = workers_of(one)
            if len(victims) == WORKERS:
                os.kill(rng.choice(victims), signal.SIGKILL)
                kills += 1
            for _ in range(8):
                now = await scrape(client, one)
                now.check(seen)
                seen, scrapes = now, scrapes + 1
                await asyncio.sleep(0.1)
        ended.set()
        await asyncio.gather(*callers)
        async with asyncio.timeout(60):
            while (seen := await scrape(client, one)).total("gateway_workers") < WORKERS:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert set(replies) <= {"200", "cut"}, replies
        assert seen.total("gateway_worker_exits_total") == kills
        assert seen.total("gateway_requests_in_flight") == 0.0
        # What was cut may have been counted before the kill; nothing that was answered is missing.
        assert replies["200"] <= seen.total("gateway_requests_total") <= replies.total()
        assert seen.exemplars > 0
        samples = await until_equal(collector, client, one)
        await client.aclose()
        one.end()
        proof.found(kills=kills, scrapes=scrapes, answered=replies["200"], cut=replies["cut"], pushed_samples=samples)


async def _client(one: Gateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", trust_env=False, timeout=60)
