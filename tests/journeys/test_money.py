"""Money, end to end: what a reply, a record, a metric and the ledger say of its cost is the same figure."""

import json

import httpx
import pytest

from gateway.telemetry import names
from gateway.types.errors import ErrorType
from gateway.types.records import AttemptKind, Basis
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_error, openai_stream, openai_usage
from tests.running_gateway import RunningGateway
from tests.scripted_upstream import ScriptedUpstream

BODY = {"model": "chat", "messages": [{"role": "user", "content": "Hello?"}]}
PRICE = {"model": "house-model", "input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}
ALPHA, BETA = "gwk_alpha_0123456789abcdef", "gwk_beta_0123456789abcdef"


def _target(url: str, model: str) -> dict[str, object]:
    config = {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"}
    return {"provider": "openai", "name": model, "config": config}


def _config(url: str, model: str = "house-model", **sections: object) -> str:
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "model": _target(url, model)}
    return json.dumps({"endpoints": [route], "prices": [PRICE], **sections})


async def _ask(gateway: RunningGateway, key: str | None = None, **extra: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await gateway.client.post("/v1/chat/completions", json=BODY | extra, headers=headers)


async def _ledger_sum(gateway: RunningGateway) -> int:
    accounts = gateway.gateway.accounts
    assert accounts is not None
    return await accounts.call(lambda store: sum(entry.nano_usd or 0 for entry in store.entries()))


async def _ledger_lines(gateway: RunningGateway) -> int:
    accounts = gateway.gateway.accounts
    assert accounts is not None
    return await accounts.call(lambda store: len(list(store.entries())))


async def test_the_cost_is_the_same_everywhere(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Header, record, metric and ledger agree to the nano-dollar, for a whole reply and for a stream."""
    gateway = await start_gateway(_config(upstream.url))
    upstream.script(openai_chat(usage=openai_usage(9, 3)), openai_stream(["Hi"], usage=openai_usage(7, 2)))
    whole = await _ask(gateway)
    streamed = await _ask(gateway, stream=True)
    first, second = await gateway.records.wait(2)
    assert first.cost_nano_usd == 9 * 2500 + 3 * 10_000
    assert second.cost_nano_usd == 7 * 2500 + 2 * 10_000
    assert whole.headers["x-gateway-cost-usd"] == "0.000052500"
    assert ": x-gateway-cost-usd=0.000037500\n\ndata: [DONE]" in streamed.text
    assert gateway.metric(names.COST, basis="provider_usage") == pytest.approx(0.00009)
    assert await _ledger_sum(gateway) == 90_000


async def test_an_unknown_price_is_flagged_and_never_zero(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A model without a price has no cost header, counts its tokens as unpriced, and leaves a ledger line of none."""
    gateway = await start_gateway(_config(upstream.url, model="nobody-prices-this"))
    upstream.script(openai_chat(usage=openai_usage(9, 3), model="nobody-prices-this"))
    reply = await _ask(gateway)
    assert "x-gateway-cost-usd" not in reply.headers
    assert (await gateway.records.last()).cost_nano_usd is None
    assert gateway.metric(names.UNPRICED_TOKENS, model="nobody-prices-this") == 12
    assert gateway.metric(names.COST) == 0
    accounts = gateway.gateway.accounts
    assert accounts is not None
    assert await accounts.call(lambda store: [entry.nano_usd for entry in store.entries()]) == [None]


async def test_a_hard_budget_refuses_before_anything_is_sent(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Without room a request is refused with 429, no provider is asked, and the refusal is measured."""
    budget = {"name": "small", "amount_usd": 0.000001, "window": "day"}
    gateway = await start_gateway(_config(upstream.url, budgets=[budget]))
    reply = await _ask(gateway, max_tokens=100)
    assert reply.status_code == 429
    assert reply.json()["error"]["code"] == "budget_exceeded"
    assert "small" in reply.json()["error"]["message"]
    assert upstream.hits == 0
    record = await gateway.records.last()
    assert record.error_type is ErrorType.BUDGET_EXCEEDED
    assert record.attempts == ()
    assert gateway.metric(names.REQUESTS, outcome="policy", error_type="budget_exceeded") == 1


@pytest.mark.parametrize(
    ("scope", "spare_usd", "status"),
    [
        pytest.param({"model": "house-model"}, 2.5, 200, id="of the first model alone"),
        pytest.param({}, 0, 200, id="of both, and the spare is free"),
        pytest.param({}, 2.5, 429, id="of both"),
    ],
)
async def test_a_target_that_no_budget_has_room_for_is_passed_over(
    scope: dict[str, str], spare_usd: float, status: int, upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """The next target answers when its own budgets let it; the one without room is not asked, and nothing is held."""
    targets = [_target(upstream.url, name) | {"tier": tier} for tier, name in enumerate(("house-model", "spare"))]
    prices = [PRICE, PRICE | {"model": "spare", "input_usd_per_mtok": spare_usd, "output_usd_per_mtok": spare_usd}]
    budget = {"name": "spent", "scope": scope, "amount_usd": 0.000001, "window": "day"}
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "targets": targets}
    gateway = await start_gateway(json.dumps({"endpoints": [route], "prices": prices, "budgets": [budget]}))
    upstream.always(lambda _: openai_chat(usage=openai_usage(9, 3)))
    reply = await _ask(gateway, max_tokens=100)
    assert reply.status_code == status
    attempts = (await gateway.records.last()).attempts
    served = [(AttemptKind.FALLBACK, "spare")] if status == 200 else []
    assert [(attempt.kind, attempt.request_model) for attempt in attempts] == served
    assert upstream.hits == len(attempts) == await _ledger_lines(gateway)
    accounts = gateway.gateway.accounts
    assert accounts is not None
    assert await accounts.call(lambda store: store.holds()) == []


async def test_a_failed_provider_is_told_of_before_a_fallback_without_room(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """The provider may be back in a moment, and the money next month: the caller hears of the former."""
    targets = [_target(upstream.url, name) | {"tier": tier} for tier, name in enumerate(("house-model", "spare"))]
    prices = [PRICE, PRICE | {"model": "spare"}]
    budget = {"name": "spent", "scope": {"model": "spare"}, "amount_usd": 0.000001, "window": "month"}
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "targets": targets}
    gateway = await start_gateway(json.dumps({"endpoints": [route], "prices": prices, "budgets": [budget]}))
    upstream.always(lambda _: openai_error(503, "busy", headers=[("retry-after", "20")]))
    reply = await _ask(gateway)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "20")
    record = await gateway.records.last()
    assert record.error_type is ErrorType.PROVIDER_OVERLOADED
    assert upstream.hits == len(record.attempts) == 1


async def test_a_hard_budget_bounds_the_output(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A request that names no limit gets the one that money is held for; what is not used comes back."""
    budget = {"name": "plenty", "amount_usd": 5, "window": "day"}
    gateway = await start_gateway(_config(upstream.url, budgets=[budget], ledger={"default_output_tokens": 1000}))
    upstream.script(openai_chat(usage=openai_usage(9, 3)))
    assert (await _ask(gateway)).status_code == 200
    assert upstream.requests[0].json()["max_completion_tokens"] == 1000
    accounts = gateway.gateway.accounts
    assert accounts is not None
    await accounts.flush()
    (state,) = accounts.budget_states()
    assert (state.spent_nano_usd, state.held_nano_usd) == (52_500, 0)


async def test_a_failed_provider_costs_nothing_and_its_retry_is_charged(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Each attempt has its own ledger line, with its own basis."""
    target = {
        "provider": "openai",
        "name": "house-model",
        "config": {"openai_api_key": "sk-test", "openai_api_base": f"{upstream.url}/v1"},
    }
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "model": target, "retries": 1}
    gateway = await start_gateway(json.dumps({"endpoints": [route], "prices": [PRICE]}))
    upstream.script(openai_error(503, "busy", headers=[("retry-after-ms", "1")]), openai_chat(usage=openai_usage(9, 3)))
    await _ask(gateway)
    accounts = gateway.gateway.accounts
    assert accounts is not None
    lines = await accounts.call(
        lambda store: [(entry.attempt, entry.basis, entry.nano_usd) for entry in store.entries()]
    )
    assert lines == [(1, Basis.PROVIDER_ERROR, 0), (2, Basis.PROVIDER_USAGE, 52_500)]


async def test_a_cut_stream_is_charged_for_what_came(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A stream that breaks has no usage: its input and what was seen of its output are charged, as partial."""
    gateway = await start_gateway(_config(upstream.url))
    upstream.script(openai_stream(["Hello ", "world"], cut_after=3))
    await _ask(gateway, stream=True)
    cost = (await gateway.records.last()).attempts[0].cost
    assert cost is not None
    assert cost.basis is Basis.PARTIAL
    assert cost.nano_usd
    assert await _ledger_sum(gateway) == cost.nano_usd


async def test_keys_say_who_pays(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """With keys configured a caller needs one; its team pays whatever the request says, and routes are held to."""
    keys = [{"secret": ALPHA, "team": "search"}, {"secret": BETA, "team": "ads", "routes": ["other"]}]
    gateway = await start_gateway(_config(upstream.url, keys=keys))
    upstream.script(openai_chat(usage=openai_usage(9, 3)))
    assert (await _ask(gateway)).status_code == 401
    assert (await _ask(gateway, "gwk_alpha_wrong0123456789abc")).status_code == 401
    assert (await _ask(gateway, BETA)).status_code == 403
    assert (await _ask(gateway, ALPHA, user="someone", team="ads")).status_code == 200
    assert upstream.hits == 1
    assert gateway.metric(names.COST, team="search") == pytest.approx(0.0000525)
    assert gateway.metric(names.REQUESTS, error_type="unauthenticated") == 2
    assert gateway.metric(names.REQUESTS, error_type="forbidden_route") == 1
