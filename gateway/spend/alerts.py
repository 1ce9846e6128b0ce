"""Delivery of alerts: at least once, signed, from the outbox that charges fill in their own transaction.

Each alert has an id that stays the same over all tries, so that a receiver can tell a repetition. Nothing is ever sent
unsigned, and no address or secret is logged.
"""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from gateway.config.money import WebhookFile, WebhookFormat
from gateway.spend.budgets import usd_text
from gateway.spend.ledger import Accounts
from gateway.spend.windows import utc_iso
from gateway.store.spec import REFUSED, Alert
from gateway.types.clock import Clock

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]
"""Sends a body to an address with headers; gives the HTTP status, raises OSError when nobody answers."""

RETRY_S = 60
"""A failed delivery is tried again after a minute, until it succeeds."""
_TICK_S = 15.0
_AT_ONCE = 20
_NS = 1_000_000_000


class AlertStats(Struct, kw_only=True):
    """Counts since the start."""

    delivered: int = 0
    failed: int = 0


class SignedBody(Struct, frozen=True):
    """What is posted for one alert."""

    headers: Mapping[str, str]
    body: bytes


def render(alert: Alert, webhook: WebhookFile, now_ns: int) -> SignedBody:
    """An alert in its webhook's format, signed.

    `x-gaugeway-signature` is `t=<seconds>,v1=<hex>`: HMAC-SHA256 with the webhook's secret over `<seconds>.<body>`, so
    that a receiver can refuse old ones.
    """
    body = msgspec.json.encode(_BODIES[webhook.format](alert, webhook))
    seconds = now_ns // _NS
    signed = f"{seconds}.".encode() + body
    digest = hmac.new(webhook.secret.reveal().encode(), signed, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-gaugeway-alert-id": alert.id,
        "x-gaugeway-signature": f"t={seconds},v1={digest}",
    }
    return SignedBody(headers, body)


def summary(alert: Alert) -> str:
    """One sentence for people."""
    spent, limit = usd_text(alert.spent_nano_usd), usd_text(alert.limit_nano_usd)
    place = f"Budget '{alert.budget}' ({alert.scope}, {alert.window_id})"
    if alert.threshold == REFUSED:
        return f"{place} refused a request: ${spent} of ${limit} is spent."
    return f"{place} reached {float(alert.threshold) * 100:g} %: ${spent} of ${limit} is spent."


def _generic(alert: Alert, webhook: WebhookFile) -> dict[str, object]:
    del webhook
    return {
        "id": alert.id,
        "type": "budget.refused" if alert.threshold == REFUSED else "budget.threshold",
        "budget": alert.budget,
        "scope": alert.scope,
        "window": alert.window_id,
        "threshold": alert.threshold,
        "spent_usd": usd_text(alert.spent_nano_usd),
        "limit_usd": usd_text(alert.limit_nano_usd),
        "spent_nano_usd": alert.spent_nano_usd,
        "limit_nano_usd": alert.limit_nano_usd,
        "at": utc_iso(alert.created_ns),
        "summary": summary(alert),
    }


def _slack(alert: Alert, webhook: WebhookFile) -> dict[str, object]:
    # Slack's incoming webhooks: https://api.slack.com/messaging/webhooks. Its text is markup: three characters escape.
    del webhook
    text = summary(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text}


def _pagerduty(alert: Alert, webhook: WebhookFile) -> dict[str, object]:
    # PagerDuty's Events API v2: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
    over = alert.threshold == REFUSED or float(alert.threshold) >= 1
    return {
        "routing_key": webhook.secret.reveal(),
        "event_action": "trigger",
        "dedup_key": alert.id,
        "payload": {
            "summary": summary(alert),
            "source": f"gaugeway budget {alert.budget}",
            "severity": "critical" if over else "warning",
            "timestamp": utc_iso(alert.created_ns),
            "custom_details": _generic(alert, webhook),
        },
    }


_BODIES = {WebhookFormat.JSON: _generic, WebhookFormat.SLACK: _slack, WebhookFormat.PAGERDUTY: _pagerduty}


class AlertSender:
    """Delivers what the outbox holds.

    Args:
        accounts: whose ledger and webhooks.
        post: sends one request.
        clock: wall time.
    """

    def __init__(self, accounts: Accounts, post: Post, clock: Clock) -> None:
        self._accounts = accounts
        self._post = post
        self._clock = clock
        self.stats = AlertStats()

    async def run(self) -> None:
        """Deliver until cancelled: whenever a charge wrote an alert, and on a timer for what failed before."""
        alerted = self._accounts.alerted
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(alerted.wait(), _TICK_S)
            alerted.clear()
            try:
                while await self.deliver_due() == _AT_ONCE:
                    pass
            except Exception:  # noqa: BLE001 - the ledger may be away for a while; the next round tries again
                self.stats.failed += 1

    async def deliver_due(self) -> int:
        """Try every alert that is due, up to a batch; how many there were."""
        now_ns = self._clock.now_ns()
        due = await self._accounts.call(lambda store: store.claim_alerts(now_ns, now_ns + RETRY_S * _NS, _AT_ONCE))
        await asyncio.gather(*(self._deliver(alert) for alert in due))
        return len(due)

    async def _deliver(self, alert: Alert) -> None:
        webhook = self._accounts.budgets.webhooks.get(alert.webhook)
        if webhook is not None:
            signed = render(alert, webhook, self._clock.now_ns())
            try:
                status = await self._post(webhook.url, signed.headers, signed.body)
            except Exception:  # noqa: BLE001 - whatever went wrong, the alert stays due
                status = 0
            if not 200 <= status < 300:
                self.stats.failed += 1
                return
            self.stats.delivered += 1
        # A webhook that is configured no more has nobody to tell.
        await self._accounts.call(lambda store: store.finish_alert(alert.id, self._clock.now_ns()))


def verify_signature(header: str, body: bytes, secret: str, *, now_s: int, tolerance_s: int = 300) -> bool:
    """What a receiver does with `x-gaugeway-signature`; kept here so that the documentation's recipe is tested."""
    parts = _pairs(header.split(","))
    if not parts.get("t", "").isdigit() or abs(now_s - int(parts["t"])) > tolerance_s:
        return False
    expected = hmac.new(secret.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts.get("v1", ""))


def _pairs(items: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (item.strip().partition("=") for item in items)}
