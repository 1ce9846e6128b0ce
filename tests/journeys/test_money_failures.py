"""What other gateways get wrong about money, end to end: over real HTTP, with a real ledger."""

import asyncio
import json

import httpx
import pytest

from gateway.api import native
from gateway.api.openai import V1_SURFACES
from gateway.spend.ledger import Accounts
from gateway.store.spec import Entry
from gateway.types.records import Basis
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_stream, openai_usage
from tests.running_gateway import RunningGateway
from tests.upstream import ScriptedUpstream

BODY = {"model": "chat", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 10}
PRICE = {"model": "house-model", "input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}


def config(url: str, **sections: object) -> str:
    """One chat route, priced, with budgets and the like as asked for."""
    target = {
        "provider": "openai",
        "name": "house-model",
        "config": {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"},
    }
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "model": target}
    return json.dumps({"endpoints": [route], "prices": [PRICE], **sections})


def budget(usd: float) -> dict[str, object]:
    """A hard budget over everything."""
    return {"name": "all", "amount_usd": usd, "window": "none"}


def accounts_of(gateway: RunningGateway) -> Accounts:
    """The gateway's accounts."""
    accounts = gateway.gateway.accounts
    assert accounts is not None
    return accounts


async def entries(gateway: RunningGateway) -> list[Entry]:
    """The ledger's lines."""
    return await accounts_of(gateway).call(lambda store: list(store.entries()))


async def books_balance(gateway: RunningGateway) -> int:
    """What is spent, after checking: nothing held, ledger = counter = gauge."""
    accounts = accounts_of(gateway)
    await accounts.flush()
    (state,) = accounts.budget_states()
    lines = await entries(gateway)
    assert state.held_nano_usd == 0
    assert await accounts.call(lambda store: store.wrong_counters()) == []
    assert state.spent_nano_usd == sum(line.nano_usd or 0 for line in lines)
    return state.spent_nano_usd


async def test_requests_of_one_trace_are_each_charged(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """An agent that continues one trace over three requests pays for three: a trace is not a request."""
    gateway = await start_gateway(config(upstream.url, budgets=[budget(5)], telemetry={"trust_inbound_trace": True}))
    upstream.script(*(openai_chat(usage=openai_usage(9, 3)) for _ in range(3)))
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    for _ in range(3):
        reply = await gateway.client.post("/v1/chat/completions", json=BODY, headers=headers)
        assert reply.status_code == 200
    await gateway.records.wait(3)
    assert await books_balance(gateway) == 3 * 52_500


async def test_200_at_once_and_room_for_five(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Of 200 concurrent requests, as many reach the provider as the budget has room for, and not one more."""
    probe = await start_gateway(config(upstream.url, budgets=[budget(5)]))
    upstream.script(openai_chat(usage=openai_usage(9, 3)))
    gate = asyncio.Event()
    held = await _held_by_one(probe, upstream, gate)
    gateway = await start_gateway(config(upstream.url, budgets=[budget(held * 5.5 / 1e9)]))
    upstream.script(*(openai_chat(usage=openai_usage(9, 3), hold=gate) for _ in range(5)))
    before = upstream.hits
    gate.clear()
    asked = [asyncio.ensure_future(gateway.client.post("/v1/chat/completions", json=BODY)) for _ in range(200)]
    while sum(task.done() for task in asked) < 195:
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        asked_done = [task for task in asked if task.done()]
        assert all(task.result().status_code == 429 for task in asked_done)
        if len(asked_done) < 195:
            await asyncio.wait([task for task in asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    gate.set()
    codes = [reply.status_code for reply in await asyncio.gather(*asked)]
    assert (codes.count(200), codes.count(429)) == (5, 195)
    assert upstream.hits - before == 5
    await gateway.records.wait(200)
    assert await books_balance(gateway) == 5 * 52_500


async def _held_by_one(gateway: RunningGateway, upstream: ScriptedUpstream, gate: asyncio.Event) -> int:
    """What one request is held at."""
    upstream.script(openai_chat(usage=openai_usage(9, 3)))
    await gateway.client.post("/v1/chat/completions", json=BODY)
    upstream.script(openai_chat(usage=openai_usage(9, 3), hold=gate))
    task = asyncio.ensure_future(gateway.client.post("/v1/chat/completions", json=BODY))
    while True:
        await accounts_of(gateway).flush()
        holds = await accounts_of(gateway).call(lambda store: store.holds())
        if holds:
            break
        assert not task.done()
    gate.set()
    await task
    return holds[0].nano_usd


@pytest.mark.parametrize("chunks", range(5))
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/endpoints/chat/invocations"])
async def test_leaving_after_any_chunk_is_charged_and_closes_the_upstream(
    upstream: ScriptedUpstream, start_gateway: StartGateway, path: str, chunks: int
) -> None:
    """A caller who leaves after chunk k pays for the input and what came; the provider's connection ends with theirs."""
    gateway = await start_gateway(config(upstream.url, budgets=[budget(5)]))
    never = asyncio.Event()
    reply = openai_stream([*["word "] * chunks, never, "unseen"])
    upstream.script(reply)
    body = {key: value for key, value in BODY.items() if key != "model" or path.startswith("/v1")} | {"stream": True}
    seen = 0
    async with (
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client,
        client.stream("POST", path, json=body) as answer,
    ):
        async for text in answer.aiter_lines():
            seen += '"word "' in text
            if seen >= chunks and text:
                break
    await asyncio.wait_for(reply.peer_left.wait(), 5)
    await gateway.records.wait(1)
    assert await books_balance(gateway) > 0
    (line,) = await entries(gateway)
    assert line.basis is Basis.PARTIAL
    assert line.usage is not None
    assert line.usage.output_tokens is not None
    assert line.usage.output_tokens >= chunks


async def test_every_billable_path_obeys_the_budget(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The surfaces are walked: with an exhausted budget none of them reaches a provider."""
    gateway = await start_gateway(config(upstream.url, budgets=[budget(0)]))
    body = BODY | {"prompt": "x", "input": "x", "contents": [{"role": "user", "parts": [{"text": "x"}]}]}
    named = ["/gateway/chat/invocations", "/endpoints/chat/invocations", "/v1beta/models/chat:generateContent"]
    refused = 0
    for path in [*named, *(surface.path for surface in (*V1_SURFACES, *native.FIXED))]:
        given = body if path.startswith("/v1") else {key: body[key] for key in ("messages",)}
        reply = await gateway.client.post(path, json=given)
        assert reply.status_code >= 400, path
        refused += reply.status_code == 429
    assert upstream.hits == 0
    assert refused >= 3
