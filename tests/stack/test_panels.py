"""Every query of every dashboard, asked of a real Prometheus that scrapes a real gateway under mixed traffic."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio

from gateway.telemetry.listener import MetricsListener
from gateway.telemetry.setup import TraceExport
from tests.dashboards.documents import DOCUMENTS, targets, variables
from tests.running_gateway import RunningGateway, running_gateway
from tests.scripted_upstream import ScriptedUpstream
from tests.stack import mixed_traffic
from tests.stack.processes import RATE_INTERVAL, Server, running_prometheus

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module")]

NOTHING_WENT_WRONG = {
    ("gateway", "Telemetry lost", "B"): "no collector refuses a batch",
    ("gateway", "Telemetry lost", "E"): "no sink fails to take a record",
    ("gateway", "Label overflow", "B"): "no family reaches its cap; query A says 0",
}
"""Queries that are empty here, and why. Every other one must show something, and so must every panel."""
ROUNDS = 12
CHOICES = {
    "job": "gaugeway", "route": "support", "team": "support", "provider": "groq", "model": mixed_traffic.FAILING,
    "budget": "teams",
}  # fmt: skip
"""The one value of each variable, a target that sometimes fails; the instance is whatever is scraped."""


@pytest.fixture(scope="module")
def collector() -> Iterator[None]:
    """An OTLP endpoint that takes everything: without one no trace is sampled, and no exemplar is kept."""

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Not worth a line."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            yield
        server.shutdown()
        thread.join()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(
    tmp_path_factory: pytest.TempPathFactory, collector: None
) -> AsyncIterator[tuple[RunningGateway, Server]]:
    """A gateway with mixed traffic behind it, and the Prometheus that has scraped it all the while."""
    folder = tmp_path_factory.mktemp("panels")
    async with ScriptedUpstream() as upstream:
        upstream.always(mixed_traffic.Answers())
        text = mixed_traffic.config(upstream.url)
        async with running_gateway(text, export=TraceExport.OTLP) as gateway:
            listener = MetricsListener(gateway.telemetry.exposition, "127.0.0.1", 0)
            try:
                async with running_prometheus(folder, listener.port) as prometheus:
                    await prometheus.until('up{job="gaugeway"} == 1')
                    sent = 0
                    for number in range(1, ROUNDS + 1):
                        sent += await mixed_traffic.send_round(gateway)
                        # Rates need traffic between scrapes, not before them.
                        await prometheus.until(f'count_over_time(up{{job="gaugeway"}}[5m]) > {2 * number}')
                    await prometheus.until(f"sum(gateway_requests_total) == {sent}")
                    yield gateway, prometheus
            finally:
                await asyncio.to_thread(listener.close)


async def test_no_panel_is_empty_or_broken(scraped: tuple[RunningGateway, Server]) -> None:
    """With every variable All, and with each at one value, every query of every panel answers with something."""
    _, prometheus = scraped
    wrong: list[str] = []
    for name, choose in itertools.product(DOCUMENTS, (False, True)):
        board = DOCUMENTS[name]
        values = await _values(board, prometheus, choose)
        for panel, target in targets(board):
            where = (name, panel["title"], target["refId"])
            expr, instant = _filled(target["expr"], values), bool(target.get("instant"))
            found = await _ask(prometheus, expr, instant=instant)
            if not found and where not in NOTHING_WENT_WRONG:
                # On a busy machine a scrape may come too late, and for a moment nothing is known.
                await prometheus.until('min(up{job="gaugeway"}) == 1')
                found = await _ask(prometheus, expr, instant=instant)
            if not found and where not in NOTHING_WENT_WRONG:
                wrong.append(f"{where} ({'one value' if choose else 'All'})")
    assert not wrong, "\n".join(wrong)


async def test_a_dot_in_a_graph_is_a_request(scraped: tuple[RunningGateway, Server]) -> None:
    """The exemplars that Prometheus keeps carry the trace ids of requests that were really served."""
    gateway, prometheus = scraped
    served = {record.trace.trace_id_hex for record in gateway.records.all}
    for family in (
        "gateway_request_duration_seconds_bucket",
        "gen_ai_client_operation_time_to_first_chunk_seconds_bucket",
        "gateway_cost_usd_total",
    ):
        found = await prometheus.data("query_exemplars", query=family, start=_ago(600), end=_ago(-5))
        traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
        assert traces, family
        assert traces <= served, family


async def _values(board: dict[str, Any], prometheus: Server, choose: bool) -> dict[str, str]:
    """What Grafana puts in for each variable: All, or the chosen value if it is on offer."""
    values = {"__rate_interval": RATE_INTERVAL, "__range": "1m", "datasource": "prometheus"}
    for name, variable in variables(board).items():
        if variable["type"] != "query":
            continue
        query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert query is not None
        matcher = _filled(query[1], values)
        offered = await prometheus.data(f"label/{query[2]}/values", **{"match[]": matcher})
        assert offered, f"{board['uid']}: the variable {name} offers nothing"
        wanted = CHOICES.get(name, offered[0])
        assert not choose or wanted in offered, f"{name}: {wanted} is not among {offered}"
        everything = variable.get("allValue") or "(" + "|".join(map(re.escape, offered)) + ")"
        values[name] = wanted if choose else everything.replace("\\", "\\\\")
    return values


def _filled(expr: str, values: dict[str, str]) -> str:
    # What moves by minutes in a board moves by seconds here.
    quick = re.sub(r"\[\d+\w:\d+m\]", "[2m:1s]", expr).replace("[2m]", "[5s]").replace("[15m]", "[5s]")
    return re.sub(r"\$\{?([a-z_]\w*)\}?", lambda match: values[match[1]], quick)


async def _ask(prometheus: Server, expr: str, *, instant: bool) -> list[Any]:
    if instant:
        return [one for one in await prometheus.instant(expr) if one["value"][1] != "NaN"]
    result = await prometheus.data("query_range", query=expr, start=_ago(30), end=_ago(0), step="1s")
    return [one for one in result["result"] if any(value != "NaN" for _, value in one["values"])]


def _ago(seconds: float) -> str:
    return f"{time.time() - seconds:.3f}"
