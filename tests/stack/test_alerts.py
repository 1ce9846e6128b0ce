"""Alerts end to end: real requests, the gateway's own gauges, Prometheus's rules, Alertmanager's routing, a webhook."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

from gateway.telemetry.listener import MetricsListener
from tests.openai_replies import openai_chat, openai_error, openai_usage
from tests.replies import RecordedRequest, Reply
from tests.running_gateway import RunningGateway, running_gateway
from tests.scripted_upstream import ScriptedUpstream
from tests.stack import mixed_traffic
from tests.stack.processes import Server, running_alertmanager, running_prometheus

pytestmark = pytest.mark.stack
_WAIT_S = 30.0
Notice = dict[str, Any]


class Webhook:
    """Receives what Alertmanager sends; the receiver's name is the last part of the path."""

    def __init__(self, url: str, notices: "Queue[tuple[str, Notice]]") -> None:
        self.url = url
        self._notices = notices

    async def until(self, receiver: str, status: str, **labels: str) -> Notice:
        """The first alert with this status and these labels that comes for a receiver; AssertionError after 30 s."""
        seen: list[str] = []
        try:
            async with asyncio.timeout(_WAIT_S):
                while True:
                    name, document = await asyncio.to_thread(self._notices.get, True, 1.0)
                    for alert in document["alerts"]:
                        seen.append(f"{name} {alert['status']} {alert['labels']}")
                        if name == receiver and alert["status"] == status and labels.items() <= alert["labels"].items():
                            return dict(alert)
        except (TimeoutError, Empty) as error:
            if isinstance(error, Empty):
                return await self.until(receiver, status, **labels)
            raise AssertionError(f"no {status} {labels} for {receiver}; there came {seen}") from None


@asynccontextmanager
async def running_webhook() -> AsyncIterator[Webhook]:
    """A webhook on a free port."""
    notices: Queue[tuple[str, Notice]] = Queue()

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            notices.put((self.path.rpartition("/")[2], json.loads(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Not worth a line."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receive) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Webhook(f"http://127.0.0.1:{server.server_port}", notices)
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()


@asynccontextmanager
async def running_stack(folder: Path, config: str) -> AsyncIterator[tuple[RunningGateway, Server, Webhook]]:
    """Gateway, Prometheus with the shipped rules 120 times faster, Alertmanager, and the webhook behind it."""
    async with (
        running_webhook() as webhook,
        running_alertmanager(folder, webhook.url) as alertmanager,
        running_gateway(config) as gateway,
    ):
        listener = MetricsListener(gateway.telemetry.exposition, "127.0.0.1", 0)
        port = int(alertmanager.url.rpartition(":")[2])
        try:
            async with running_prometheus(folder, listener.port, alertmanager_port=port, faster=120) as prometheus:
                await prometheus.until('up{job="gaugeway"} == 1')
                yield gateway, prometheus, webhook
        finally:
            await asyncio.to_thread(listener.close)


async def _ask(gateway: RunningGateway, team: str = "search") -> int:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hello?"}]}
    headers = {"authorization": f"Bearer {mixed_traffic.TEAMS[team]}"}
    return (await gateway.client.post("/v1/chat/completions", json=body, headers=headers)).status_code


async def test_a_crossed_budget_reaches_the_team_that_pays(tmp_path: Path) -> None:
    """Real requests cross 80% and then 100% of a team's budget: the webhook hears which, whose, and how much."""
    async with ScriptedUpstream() as upstream:
        # 400 x 250 + 60 x 1000 USD per million tokens: 0.16 USD a request, of 1 USD.
        upstream.always(lambda request: openai_chat(usage=openai_usage(400, 60), model=mixed_traffic.GOOD))
        config = mixed_traffic.config(upstream.url, budget_usd=1.0)
        async with running_stack(tmp_path, config) as (gateway, _, webhook):
            for _ in range(5):
                assert await _ask(gateway) == 200
            notice = await webhook.until("teams", "firing", alertname="GaugewayBudgetNotice", budget="teams")
            assert (notice["labels"]["team"], notice["labels"]["scope"]) == ("search", "team=search")
            assert "$0.80 of $1.00" in notice["annotations"]["description"]
            assert notice["annotations"]["runbook_url"].endswith("GaugewayBudgetNotice.md")
            for _ in range(2):
                assert await _ask(gateway) == 200
            exhausted = await webhook.until("on-call", "firing", alertname="GaugewayBudgetExhausted", team="search")
            assert "$1.12 of $1.00" in exhausted["annotations"]["description"]


async def test_a_failing_provider_is_reported_and_cleared(tmp_path: Path) -> None:
    """A provider goes down: the burn-rate alert and the provider's own fire, and both resolve after it is back."""
    down = asyncio.Event()
    down.set()

    def answer(request: RecordedRequest) -> Reply:
        return openai_error(503) if down.is_set() else openai_chat(usage=openai_usage(9, 3), model=mixed_traffic.GOOD)

    async with ScriptedUpstream() as upstream:
        upstream.always(answer)
        async with running_stack(tmp_path, mixed_traffic.config(upstream.url)) as (gateway, prometheus, webhook):
            asking = asyncio.create_task(_keep_asking(gateway))
            burning = {"alertname": "GaugewayErrorBudgetBurn", "route": "chat", "burn_window": "1h"}
            fired = await webhook.until("on-call", "firing", **burning)
            assert "Route chat fails" in fired["annotations"]["summary"]
            await prometheus.until('ALERTS{alertname="GaugewayProviderDown", provider="openai", alertstate="firing"}')
            down.clear()
            await webhook.until("on-call", "resolved", **burning)
            await prometheus.until('ALERTS{alertname="GaugewayProviderDown"}', lambda series: not series)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def _keep_asking(gateway: RunningGateway) -> None:
    while True:
        await _ask(gateway)
        await asyncio.sleep(0.05)
