"""Made-up facts for tests of the ledger."""

from gateway.store.spec import Counter, Entry, HoldOp, Payer, SettleOp, Watch
from gateway.types.records import Basis
from gateway.types.usage import Usage

AT = 1_795_392_000 * 10**9
HOUR = 3600 * 10**9
RED = Payer(team="red", key_id="k1", route="chat", provider="openai", model="gpt-4o")


def watch(limit: int, *, hard: bool = True, thresholds: tuple[str, ...] = (), webhooks: tuple[str, ...] = ()) -> Watch:
    """A budget with thresholds as shares of its limit."""
    alerts = tuple((text, int(limit * float(text))) for text in thresholds)
    return Watch(budget="b", limit_nano_usd=limit, hard=hard, alerts=alerts, webhooks=webhooks)


def counter(
    *watches: Watch,
    scope: str = "global",
    match: tuple[tuple[str, str], ...] = (),
    window: str = "month/2026-11/UTC",
    family: str | None = None,
) -> Counter:
    """A counter over the hours around AT."""
    return Counter(
        scope=scope,
        window_id=window,
        start_ns=AT - HOUR,
        end_ns=AT + HOUR,
        family=family or scope,
        match=match,
        watches=watches,
    )


def hold(name: str, nano: int, *counters: Counter, attempt: int = 1, payer: Payer = RED) -> HoldOp:
    """A request for a hold at AT."""
    return HoldOp(request_id=name, attempt=attempt, at_ns=AT, nano_usd=nano, payer=payer, counters=counters)


def entry(
    name: str,
    nano: int | None,
    *,
    attempt: int = 1,
    payer: Payer = RED,
    basis: Basis = Basis.PROVIDER_USAGE,
    at_ns: int = AT,
    usage: Usage | None = None,
) -> Entry:
    """A charge of an attempt that was admitted at AT."""
    return Entry(
        request_id=name,
        attempt=attempt,
        at_ns=at_ns,
        settled_ns=AT + 5,
        payer=payer,
        basis=basis,
        nano_usd=nano,
        price_version="v1",
        usage=usage,
    )


def settle(charge: Entry, *counters: Counter, held: bool = True) -> SettleOp:
    """The charge as an operation."""
    return SettleOp(entry=charge, counters=counters, held=held)
