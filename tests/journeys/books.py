"""What tests of money share: a gateway with every vendor's API, and the check that all books say the same."""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import httpx

from gateway.spend.budgets import BudgetState
from gateway.spend.ledger import Accounts
from gateway.store.spec import Entry
from gateway.telemetry import names
from tests.running_gateway import RunningGateway, running_gateway

MODELS = {
    "chat": "gpt-4o-mini",
    "completions": "gpt-3.5-turbo-instruct",
    "embeddings": "text-embedding-3-small",
    "claude": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "vectors": "gemini-embedding-001",
}
"""The model of each route, all of them publicly priced."""
ROUTE_TYPES = {"completions": "completions", "embeddings": "embeddings", "vectors": "embeddings"}
NANO = 1_000_000_000


def configuration(url: str, *, models: Mapping[str, str] | None = None, **sections: object) -> str:
    """A file with the routes of `MODELS` at a scripted upstream, and sections such as `budgets`."""
    gemini = ("gemini", {"gemini_api_key": "AIza", "gemini_api_base": f"{url}/v1beta/models"})
    of_vendor = {
        "claude": ("anthropic", {"anthropic_api_key": "sk-ant", "anthropic_api_base": f"{url}/v1"}),
        "gemini": gemini,
        "vectors": gemini,
    }
    openai = ("openai", {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"})
    routes = []
    for name, model in (models or MODELS).items():
        provider, config = of_vendor.get(name, openai)
        routes.append(
            {
                "name": name,
                "route_type": f"llm/v1/{ROUTE_TYPES.get(name, 'chat')}",
                "model": {"provider": provider, "name": model, "config": config},
            }
        )
    return json.dumps({"routes": routes, **sections})


def budget(usd: float | Decimal | str, name: str = "all", **more: object) -> dict[str, object]:
    """A hard budget over everything, monthly unless told otherwise."""
    return {"name": name, "amount_usd": str(usd), "window": "month", **more}


def dollars(nano_usd: int) -> str:
    """Nano-dollars as an exact amount for a configuration."""
    return str(Decimal(nano_usd) / NANO)


def accounts_of(gateway: RunningGateway) -> Accounts:
    """The accounts of a gateway that runs."""
    accounts = gateway.gateway.accounts
    assert accounts is not None
    return accounts


async def entries_of(gateway: RunningGateway) -> list[Entry]:
    """The ledger's lines, in the order of their requests' admission."""
    return await accounts_of(gateway).call(lambda store: list(store.entries()))


async def states_of(gateway: RunningGateway) -> list[BudgetState]:
    """Every budget, after everything that was charged is committed."""
    await accounts_of(gateway).flush()
    return accounts_of(gateway).budget_states()


def told_nano_usd(reply: httpx.Response) -> int:
    """The cost that a reply tells: in its header, or in the comment at the end of its stream; 0 where it tells none."""
    told = [reply.headers["x-gateway-cost-usd"]] if "x-gateway-cost-usd" in reply.headers else []
    marker = ": x-gateway-cost-usd="
    told += [line.removeprefix(marker) for line in reply.text.splitlines() if line.startswith(marker)]
    return int(sum((Decimal(amount) for amount in told), Decimal(0)) * NANO)


async def balanced(gateway: RunningGateway, told: Iterable[int] | None = None) -> int:
    """What was spent, in nano-dollars, after checking that all books say the same.

    Nothing is held; every counter is what entries and holds say; ledger = records = `gateway_cost_usd_total` = each
    global budget's state and gauge = the sum of what replies told (where `told` is given).
    """
    accounts = accounts_of(gateway)
    await accounts.return_leases()
    lines = await entries_of(gateway)
    spent = sum(line.nano_usd or 0 for line in lines)
    keys = [(line.request_id, line.attempt, line.kind) for line in lines]
    assert len(keys) == len(set(keys)), "an attempt was charged twice"
    assert await accounts.call(lambda store: store.holds()) == []
    assert await accounts.call(lambda store: store.wrong_counters()) == []
    assert spent == sum(record.cost_nano_usd or 0 for record in gateway.records.all)
    assert spent == nano(gateway.metric(names.COST))
    for state in accounts.budget_states():
        assert state.held_nano_usd == 0
        if state.scope == "global":
            assert state.spent_nano_usd == spent
    assert gateway.gateway.signals is not None
    gateway.gateway.signals.update()
    for state in accounts.budget_states():
        labels = {"budget": state.budget, "scope": state.scope}
        assert nano(gateway.metric(names.BUDGET_SPENT, **labels)) == state.spent_nano_usd
        assert gateway.metric(names.BUDGET_HELD, **labels) == 0
    if told is not None:
        assert sum(told) == spent
    return spent


def nano(usd: float) -> int:
    """A metric's dollars as nano-dollars: metrics are floats, and sums here are far below where those lose one."""
    return round(usd * NANO)


def chat(text: str = "Hello?", **more: Any) -> dict[str, Any]:
    """The body of a chat request to the route `chat` on /v1."""
    return {"model": "chat", "messages": [{"role": "user", "content": text}], **more}


async def held_by(body: Mapping[str, Any], **sections: object) -> int:
    """What a request to /v1/chat/completions holds, in nano-dollars: what a budget of nothing says of it."""
    async with running_gateway(configuration("http://127.0.0.1:9", budgets=[budget(0)], **sections)) as gateway:
        reply = await gateway.client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 429
    found = re.search(r"could cost up to \$([0-9.]+\d)", reply.json()["error"]["message"])
    assert found is not None
    return int(Decimal(found[1]) * NANO)
