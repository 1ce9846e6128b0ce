"""Budget alerts over real HTTP: each threshold exactly once, signed, whatever restarts and whoever fails."""

import asyncio
import hashlib
import hmac
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from gateway.cli import SystemClock
from gateway.spend.alerts import RETRY_S
from tests.journeys.books import MODELS, budget, chat, configuration, dollars, states_of
from tests.journeys.ledgers import JourneyLedger, sqlite_ledger
from tests.openai_replies import openai_chat, openai_usage
from tests.replies import BytesReply, HangupReply, RecordedRequest, Reply
from tests.running_gateway import RunningGateway, running_gateway
from tests.scripted_upstream import ScriptedUpstream

# A nano-dollar a token: a reply of 90 and 10 tokens costs 100.
PRICES = [{"model": model, "input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.001} for model in MODELS.values()]
COST = 100
SECRET = "hook-secret"
PATH = "/v1/chat/completions"


class LaterClock(SystemClock):
    """The machine's clocks, with the calendar moved ahead."""

    def __init__(self, ahead_s: int) -> None:
        self._ahead_ns = ahead_s * 1_000_000_000

    def now_ns(self) -> int:
        return super().now_ns() + self._ahead_ns


def received(receiver: ScriptedUpstream) -> list[dict[str, Any]]:
    """The alerts that a receiver got, after checking each signature as docs/spend.md tells receivers to."""
    alerts = []
    for request in receiver.requests:
        parts = dict(part.split("=", 1) for part in (request.header("x-gaugeway-signature") or "").split(","))
        signed = f"{parts['t']}.".encode() + request.body
        assert parts["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        alert = request.json()
        assert request.header("x-gaugeway-alert-id") == alert["id"]
        assert SECRET.encode() not in request.body
        alerts.append(alert)
    return alerts


async def spend(gateway: RunningGateway, upstream: ScriptedUpstream, times: int) -> None:
    """Spend `times` times COST, all at once."""
    done = len(gateway.records.all)
    upstream.always(lambda _: openai_chat(usage=openai_usage(90, 10)))
    replies = await asyncio.gather(*(gateway.client.post(PATH, json=chat()) for _ in range(times)))
    assert {reply.status_code for reply in replies} == {200}
    await gateway.records.wait(done + times)


def config_for(upstream: ScriptedUpstream, receiver: ScriptedUpstream, **more: object) -> str:
    """A soft budget of 100 requests with three thresholds, told to a receiver."""
    hook = {"url": f"{receiver.url}/hook", "secret": SECRET}
    watched = budget(dollars(100 * COST), "watched", **{"enforcement": "soft", "webhooks": [hook], **more})
    return configuration(upstream.url, prices=PRICES, budgets=[watched])


async def test_each_threshold_is_told_once_over_restarts(upstream: ScriptedUpstream, ledger: JourneyLedger) -> None:
    """50, 80 and 100 % of a month are three alerts, though three processes spend it and many requests cross at once."""
    async with ScriptedUpstream() as receiver:
        receiver.always(lambda _: BytesReply(b""))
        config = config_for(upstream, receiver)
        # Every start is 61 s later than the one before: what had been claimed and not delivered would be due again.
        for start, (times, so_far) in enumerate([(49, 0), (5, 1), (30, 2), (40, 3), (10, 3)]):
            clock = LaterClock(start * (RETRY_S + 1))
            async with running_gateway(
                config, ledgers=ledger.ledgers, clock=clock, rng=random.Random(start)
            ) as gateway:
                await spend(gateway, upstream, times)
                await receiver.wait_requests(so_far)
        assert Counter(alert["threshold"] for alert in received(receiver)) == {"0.5": 1, "0.8": 1, "1": 1}
        for alert in received(receiver):
            assert (alert["type"], alert["budget"], alert["scope"]) == ("budget.threshold", "watched", "global")
            assert alert["limit_nano_usd"] == 100 * COST
            assert alert["spent_nano_usd"] >= float(alert["threshold"]) * 100 * COST


async def test_an_alert_waits_for_its_receiver(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """A receiver that refuses, hangs up and is away gets the alert when it is back, under the id of the first try."""
    ledgers = sqlite_ledger(tmp_path / "ledger.db").ledgers
    async with ScriptedUpstream() as receiver:
        failures: list[Reply] = [BytesReply(b"", status=500), HangupReply(), BytesReply(b"", status=404)]
        receiver.script(*failures, BytesReply(b"", status=204))
        config = config_for(upstream, receiver, thresholds=[0.5])
        for start in range(5):
            clock = LaterClock(start * (RETRY_S + 1))
            async with running_gateway(config, ledgers=ledgers, clock=clock, rng=random.Random(start)) as gateway:
                await spend(gateway, upstream, 60 if start == 0 else 1)
                await receiver.wait_requests(min(start + 1, 4))
        alerts = received(receiver)
    assert len(alerts) == 4
    assert len({alert["id"] for alert in alerts}) == 1
    assert all(alert == alerts[0] for alert in alerts)


async def test_a_refusal_is_told_once(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """A hard budget tells the first request that it refused, and not the hundred after it."""
    ledgers = sqlite_ledger(tmp_path / "ledger.db").ledgers
    async with ScriptedUpstream() as receiver:
        receiver.always(lambda _: BytesReply(b""))
        config = config_for(upstream, receiver, enforcement="hard", thresholds=[])
        for start in range(2):
            async with running_gateway(config, ledgers=ledgers, rng=random.Random(start)) as gateway:
                replies = await asyncio.gather(*(gateway.client.post(PATH, json=chat()) for _ in range(50)))
                assert {reply.status_code for reply in replies} == {429}
                await receiver.wait_requests(1)
                (state,) = await states_of(gateway)
                assert (state.spent_nano_usd, state.held_nano_usd) == (0, 0)
        (alert,) = received(receiver)
    assert (alert["type"], alert["threshold"], alert["spent_usd"]) == ("budget.refused", "refused", "0.00")
    assert upstream.hits == 0


async def test_formats_of_other_receivers(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Slack gets a text, PagerDuty an event with its routing key, each once."""
    ledgers = sqlite_ledger(tmp_path / "ledger.db").ledgers
    async with ScriptedUpstream() as receiver:

        def answer(request: RecordedRequest) -> Reply:
            return BytesReply(
                b"ok" if request.path == "/slack" else b"{}", status=200 if request.path == "/slack" else 202
            )

        receiver.always(answer)
        hooks = [{"url": f"{receiver.url}/{name}", "secret": SECRET, "format": name} for name in ("slack", "pagerduty")]
        config = config_for(upstream, receiver, webhooks=hooks, thresholds=[0.5])
        async with running_gateway(config, ledgers=ledgers) as gateway:
            await spend(gateway, upstream, 60)
            await receiver.wait_requests(2)
        bodies = {request.path: request.json() for request in receiver.requests}
        assert len(receiver.requests) == 2
    assert "watched" in bodies["/slack"]["text"]
    assert "50 %" in bodies["/slack"]["text"]
    assert bodies["/pagerduty"]["routing_key"] == SECRET
    assert bodies["/pagerduty"]["payload"]["severity"] == "warning"
    assert json.dumps(bodies["/slack"]).count(SECRET) == 0
