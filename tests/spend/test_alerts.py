"""Alerts: each threshold once, signed, in three formats, tried until somebody takes them."""

import asyncio
import json
from collections.abc import Mapping

import msgspec
import pytest

from gateway.config.money import WebhookFile, WebhookFormat
from gateway.spend.alerts import RETRY_S, AlertSender, render, verify_signature
from gateway.spend.ledger import Accounts
from gateway.store.spec import Alert
from gateway.types.errors import PolicyError
from gateway.types.secret import Secret
from tests.spend.accounts import HELD, NOON_NS, OpenAccounts, SetClock, budget, facts
from tests.spend.test_ledger import settle
from tests.store.stores import POSTGRES

HOOK = {"url": "https://alerts.test/hook", "secret": "s3cret"}
ALERT = Alert(
    id="a1",
    budget="team red",
    scope="team=red",
    window_id="month/2026-11/UTC",
    threshold="0.8",
    webhook="w",
    spent_nano_usd=8_100_000_000,
    limit_nano_usd=10_000_000_000,
    created_ns=NOON_NS,
)


class Receiver:
    """A webhook's other end: keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Mapping[str, str], bytes]] = []
        self.answers: list[int | Exception] = []
        self.enough = asyncio.Event()
        self.wanted = 1

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.got.append((url, headers, body))
        if len(self.got) >= self.wanted:
            self.enough.set()
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


def hook(format_: WebhookFormat) -> WebhookFile:
    """A webhook of a format."""
    return WebhookFile(url="https://alerts.test", secret=Secret("s3cret"), format=format_)


def charge(accounts: Accounts, name: str, output: int) -> None:
    """Charge 100 + 10 * output nano-dollars."""
    settle(accounts, None, facts(name), output)


async def test_each_threshold_is_delivered_once_across_a_restart(open_accounts: OpenAccounts) -> None:
    """50 %, 80 % and 100 % arrive once each, although charges and a restart follow."""
    config = budget(1000, enforcement="soft", webhooks=[HOOK])
    receiver = Receiver()
    clock = SetClock()
    accounts = await open_accounts(config, clock=clock)
    for i in range(5):
        charge(accounts, f"r{i}", 0)
    await accounts.flush()
    assert await AlertSender(accounts, receiver.post, clock).deliver_due() == 1
    await accounts.close()
    again = await open_accounts(config, clock=clock)
    for i in range(10):
        charge(again, f"s{i}", 0)
    await again.flush()
    sender = AlertSender(again, receiver.post, clock)
    assert await sender.deliver_due() == 2
    assert await sender.deliver_due() == 0
    assert sorted(json.loads(body)["threshold"] for _, _, body in receiver.got) == ["0.5", "0.8", "1"]


async def test_a_new_window_alerts_anew(open_accounts: OpenAccounts) -> None:
    """The next day's 50 % is another alert than today's."""
    clock = SetClock()
    accounts = await open_accounts(
        budget(1000, enforcement="soft", window="day", thresholds=["0.5"], webhooks=[HOOK]), clock=clock
    )
    receiver = Receiver()
    for day in range(3):
        settle(accounts, None, facts(f"r{day}"), 90, at_ns=clock.ns)
        await accounts.flush()
        assert await AlertSender(accounts, receiver.post, clock).deliver_due() == 1
        clock.ns += 24 * 3600 * 10**9
    assert len({headers["x-gaugeway-alert-id"] for _, headers, _ in receiver.got}) == 3


@pytest.mark.parametrize("answer", [500, 404, 302, OSError("refused")])
async def test_a_failed_delivery_is_tried_again_with_the_same_id(
    open_accounts: OpenAccounts, answer: int | Exception
) -> None:
    """What no receiver accepted comes again after a minute, recognisable; what was accepted does not."""
    clock = SetClock()
    accounts = await open_accounts(budget(1000, enforcement="soft", thresholds=["0.5"], webhooks=[HOOK]), clock=clock)
    charge(accounts, "r", 90)
    await accounts.flush()
    receiver = Receiver()
    receiver.answers = [answer]
    sender = AlertSender(accounts, receiver.post, clock)
    assert await sender.deliver_due() == 1
    assert await sender.deliver_due() == 0
    clock.ns += RETRY_S * 10**9
    assert await sender.deliver_due() == 1
    clock.ns += RETRY_S * 10**9
    assert await sender.deliver_due() == 0
    assert (sender.stats.failed, sender.stats.delivered) == (1, 1)
    assert len({headers["x-gaugeway-alert-id"] for _, headers, _ in receiver.got}) == 1


@POSTGRES
async def test_four_nodes_deliver_each_alert_once(open_accounts: OpenAccounts) -> None:
    """Four nodes that all charge and all deliver send each threshold once."""
    config = budget(1000, enforcement="soft", webhooks=[HOOK])
    clock = SetClock()
    nodes = [await open_accounts(config, clock=clock, node=name) for name in "abcd"]
    for i in range(40):
        charge(nodes[i % 4], f"r{i}", 0)
    for node in nodes:
        await node.flush()
    receiver = Receiver()
    await asyncio.gather(*(AlertSender(node, receiver.post, clock).deliver_due() for node in nodes))
    assert sorted(json.loads(body)["threshold"] for _, _, body in receiver.got) == ["0.5", "0.8", "1"]


async def test_the_task_delivers_as_soon_as_a_charge_crosses(open_accounts: OpenAccounts) -> None:
    """The running sender needs no timer: the charge's commit wakes it."""
    accounts = await open_accounts(budget(1000, enforcement="soft", thresholds=["0.5"], webhooks=[HOOK]))
    receiver = Receiver()
    task = asyncio.ensure_future(AlertSender(accounts, receiver.post, SetClock()).run())
    try:
        charge(accounts, "r", 90)
        await asyncio.wait_for(receiver.enough.wait(), 5)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert len(receiver.got) == 1


async def test_a_hard_budget_alerts_at_its_first_refusal(open_accounts: OpenAccounts) -> None:
    """A hard budget may never reach 100 %: its first refusal is told instead, once."""
    clock = SetClock()
    accounts = await open_accounts(budget(HELD - 1, webhooks=[HOOK]), clock=clock)
    for name in ("a", "b"):
        with pytest.raises(PolicyError):
            await accounts.admit(facts(name))
    receiver = Receiver()
    assert await AlertSender(accounts, receiver.post, clock).deliver_due() == 1
    assert json.loads(receiver.got[0][2])["type"] == "budget.refused"


def test_a_signature_fits_its_body_its_time_and_its_secret() -> None:
    """A receiver accepts the true body in time, and nothing else."""
    signed = render(ALERT, hook(WebhookFormat.JSON), NOON_NS)
    header, now_s = signed.headers["x-gaugeway-signature"], NOON_NS // 10**9
    assert verify_signature(header, signed.body, "s3cret", now_s=now_s)
    assert not verify_signature(header, signed.body + b" ", "s3cret", now_s=now_s)
    assert not verify_signature(header, signed.body, "other", now_s=now_s)
    assert not verify_signature(header, signed.body, "s3cret", now_s=now_s + 301)
    assert not verify_signature("nonsense", signed.body, "s3cret", now_s=now_s)


def test_an_empty_secret_is_refused() -> None:
    """No webhook without a secret gets into a configuration."""
    for secret in ("", "  "):
        with pytest.raises(msgspec.ValidationError, match="secret"):
            budget(1, webhooks=[{"url": "https://x.test", "secret": secret}])


def test_bodies_have_their_receivers_shapes() -> None:
    """Generic JSON names amounts exactly, Slack gets text, PagerDuty an Events v2 trigger that deduplicates."""
    generic = json.loads(render(ALERT, hook(WebhookFormat.JSON), NOON_NS).body)
    assert (generic["spent_usd"], generic["limit_usd"], generic["at"]) == ("8.10", "10.00", "2026-11-23T12:00:00Z")
    slack = json.loads(render(ALERT, hook(WebhookFormat.SLACK), NOON_NS).body)
    assert slack == {"text": "Budget 'team red' (team=red, month/2026-11/UTC) reached 80 %: $8.10 of $10.00 is spent."}
    pager = json.loads(render(ALERT, hook(WebhookFormat.PAGERDUTY), NOON_NS).body)
    assert (pager["routing_key"], pager["event_action"], pager["dedup_key"]) == ("s3cret", "trigger", "a1")
    assert set(pager["payload"]) >= {"summary", "source", "severity"}
    assert pager["payload"]["severity"] == "warning"
