"""Many at once and hostile limits: a hard budget is neither overshot nor refuses what it has room for."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.money import LedgerFile
from gateway.spend.opening import configured_ledgers
from gateway.store.spec import LEASE
from gateway.telemetry import names
from tests.conftest import StartGateway
from tests.journeys.books import (
    accounts_of,
    balanced,
    budget,
    chat,
    configuration,
    dollars,
    entries_of,
    held_by,
    states_of,
    told_nano_usd,
)
from tests.journeys.ledgers import BOTH, JourneyLedger
from tests.openai_replies import openai_chat, openai_usage
from tests.replies import RecordedRequest, Reply, json_reply
from tests.scripted_upstream import ScriptedUpstream
from tests.store.postgres_server import PostgresServer

# One nano-dollar a token in and ten out: $0.001 and $0.01 per million.
PRICES = [
    {"model": model, "input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.01, "web_search_usd": 0.001}
    for model in ("gpt-4o-mini", "gpt-3.5-turbo-instruct", "claude-sonnet-4-5", "gemini-2.5-flash")
]
KEYS = [{"secret": f"gwk_k{n}_0123456789abcdef", "team": f"team{n % 2}"} for n in range(4)]
CALLERS = 200


SCOPES: list[dict[str, str]] = [{"team": "*"}, {"key": "*"}, {"route": "chat"}, {"provider": "openai", "model": "*"}]


@pytest.mark.parametrize(
    ("ledger", "scope"),
    [*(pytest.param(*store.values, {}, marks=store.marks) for store in BOTH), *(("sqlite", scope) for scope in SCOPES)],
    indirect=["ledger"],
)
async def test_exactly_as_many_as_fit_are_admitted(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger, scope: dict[str, str]
) -> None:
    """Of 200 at once, which are the scope's first ever, exactly the 7 that fit are sent; then all books agree."""
    body = chat(max_tokens=50)
    headers = {"authorization": f"Bearer {KEYS[0]['secret']}"}
    one = await held_by(body, prices=PRICES)
    limit = budget(dollars(one * 8 - 1), scope=scope)
    gateway = await start_gateway(
        configuration(upstream.url, prices=PRICES, keys=KEYS, budgets=[limit, budget(1, "roomy")]),
        ledgers=ledger.ledgers,
    )
    gate = asyncio.Event()
    upstream.always(lambda _: openai_chat(usage=openai_usage(11, 50), hold=gate))
    async with httpx.AsyncClient(
        base_url=gateway.url, trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)
    ) as client:
        asked = [
            asyncio.ensure_future(client.post("/v1/chat/completions", json=body, headers=headers))
            for _ in range(CALLERS)
        ]
        pending = set(asked)
        refused = 0
        # Nobody is answered before all others are refused: the budget is decided on holds alone.
        while refused < CALLERS - 7:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            assert done, "nothing more is decided"
            assert {task.result().status_code for task in done} == {429}
            refused += len(done)
        await upstream.wait_requests(7)
        states = [state for state in await states_of(gateway) if state.scope != "global" or not scope]
        assert max(state.held_nano_usd for state in states) == 7 * one
        gate.set()
        replies = await asyncio.gather(*asked)
    assert [reply.status_code for reply in replies].count(200) == 7
    assert upstream.hits == 7
    assert {reply.headers.get("retry-after") for reply in replies if reply.status_code == 429} == {"1"}
    await gateway.records.wait(CALLERS)
    assert await balanced(gateway, map(told_nano_usd, replies)) == 7 * (11 + 500)


@pytest.mark.stack
async def test_four_nodes_with_leases_admit_exactly_what_fits(
    upstream: ScriptedUpstream, start_gateway: StartGateway, postgres: PostgresServer
) -> None:
    """Of 200 at once on four gateways with leases on one budget, exactly the 90 that fit are sent; all books agree."""
    body = chat(max_tokens=50)
    one, cost, room = await held_by(body, prices=PRICES), 11 + 500, 90
    conninfo = postgres.new_database()
    nodes = [
        await start_gateway(
            configuration(upstream.url, prices=PRICES, budgets=[budget(dollars(8 * cost + room * one))]),
            ledgers=configured_ledgers(LedgerFile(postgres=conninfo, node=f"n{number}"), Path(), {}),
            # Request ids are drawn from it.
            rng=random.Random(number),
        )
        for number in range(4)
    ]
    upstream.always(lambda _: openai_chat(usage=openai_usage(11, 50)))
    replies = [await node.client.post("/v1/chat/completions", json=body) for node in nodes for _ in range(2)]
    for node in nodes:
        await accounts_of(node).flush()
    leases = [hold for hold in await accounts_of(nodes[0]).call(lambda store: store.holds()) if hold.attempt == LEASE]
    assert leases
    gate = asyncio.Event()
    upstream.always(lambda _: openai_chat(usage=openai_usage(11, 50), hold=gate))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as client:
        asked = [
            asyncio.ensure_future(client.post(f"{nodes[number % 4].url}/v1/chat/completions", json=body))
            for number in range(200)
        ]
        pending = set(asked)
        while len(pending) > room:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            assert done, "nothing more is decided"
            assert {task.result().status_code for task in done} == {429}
        await upstream.wait_requests(8 + room)
        gate.set()
        replies += await asyncio.gather(*asked)
    assert [reply.status_code for reply in replies].count(200) == upstream.hits == 8 + room
    assert {reply.headers.get("retry-after") for reply in replies if reply.status_code == 429} == {"1"}
    for node in nodes:
        await node.records.wait(2 + 50)
        await accounts_of(node).return_leases()
    for node in nodes:
        await accounts_of(node).refresh()
        (state,) = await states_of(node)
        assert (state.spent_nano_usd, state.held_nano_usd) == (sum(map(told_nano_usd, replies)), 0)
    assert state.spent_nano_usd == (8 + room) * cost == sum(line.nano_usd or 0 for line in await entries_of(nodes[0]))
    assert await accounts_of(nodes[0]).call(lambda store: store.wrong_counters()) == []


async def test_what_is_not_used_comes_back(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger
) -> None:
    """A hold's rest returns when its request ends: one after the other, far more requests fit than were held at once."""
    body = chat(max_tokens=50)
    one = await held_by(body, prices=PRICES)
    config = configuration(upstream.url, prices=PRICES, budgets=[budget(dollars(one + 20 * 21))])
    gateway = await start_gateway(config, ledgers=ledger.ledgers)
    upstream.always(lambda _: openai_chat(usage=openai_usage(11, 1)))
    replies = []
    for number in range(1, 22):
        replies.append(await gateway.client.post("/v1/chat/completions", json=body))
        await gateway.records.wait(number)
    assert [reply.status_code for reply in replies] == [200] * 21
    refused = await gateway.client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 429
    await gateway.records.wait(22)
    assert await balanced(gateway, map(told_nano_usd, replies)) == 21 * 21
    assert gateway.metric(names.REQUESTS, error_type="budget_exceeded") == 1


# --- hostile limits ---------------------------------------------------------------------------------------------

LEFT_TO_THE_VENDOR = 5
"""Calls of tools that no request can limit, of a vendor that makes as many as are held."""
HUGE = 10**6
"""Tokens that a model generates when nothing stops it."""
NUMBERS = ["-1", "0", "1000000000000", '"1e9"', '"1000000"', "1e9", "1.5", "null", "true", "[]", "{}", "9" * 40, None]
SAID = [{"role": "user", "content": "Hello?"}]
CONTENTS = [{"role": "user", "parts": [{"text": "Hello?"}]}]


def as_number(value: object) -> float | None:
    """A JSON value as the most generous provider reads it."""
    try:
        return None if value is None or isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def generates(limits: list[object], choices: list[object], prompts: int) -> int:
    """The output tokens of a provider that reads numbers generously, and heeds the largest of them."""
    numbers = [number for limit in limits if (number := as_number(limit)) is not None]
    # Below 1 means "no limit" to some.
    each = HUGE if not numbers or min(numbers) < 1 else min(int(max(numbers)), HUGE)
    counts = [number for count in choices if (number := as_number(count)) is not None and number >= 1]
    return each * int(max(counts, default=1)) * prompts


def used_by(request: RecordedRequest) -> int:
    """The output tokens of the greediest provider: all that the request allows, by any name that one of them knows."""
    body = request.json()
    config = {**body.get("generation_config", {}), **body.get("generationConfig", {})}
    names_ = (
        "max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "n_predict",
    )  # fmt: skip
    limits = [members[name] for members in (body, config) for name in names_ if name in members]
    counted = ("n", "best_of", "candidateCount", "candidate_count")
    choices = [members[name] for members in (body, config) for name in counted if name in members]
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else 1
    return generates(limits, choices, prompts)


def tool_calls(body: dict[str, Any]) -> tuple[int, int]:
    """How often the greediest provider runs its own tools, and what each call brings: all that the request allows."""
    own = [tool for tool in body.get("tools", ()) if "functionDeclarations" not in tool and "input_schema" not in tool]
    if not own:
        return 0, 0
    brings = max(tool.get("max_content_tokens", 16_000) for tool in own)
    if "contents" in body:
        # Up to Gemini 2.5 a search costs by the prompt, and what it finds is not charged.
        return (1 if "earch" in str(own) else LEFT_TO_THE_VENDOR), brings
    limits = [body.get("max_tool_calls")] if "input" in body else [tool.get("max_uses") for tool in own]
    return sum(limit if type(limit) is int and limit > 0 else 1000 for limit in limits), brings


def greedy(request: RecordedRequest, gate: asyncio.Event) -> Reply:
    """A reply of that many tokens, and of an input token a byte, in the shape of the API that was asked.

    After each call of a tool the model reads everything again.
    """
    body = request.json()
    said = [value for name, value in body.items() if name in {"messages", "prompt", "input", "contents", "tools"}]
    used = used_by(request)
    calls, brings = tool_calls(body)
    given = len(json.dumps(said).encode()) * (calls + 1) + used * calls + brings * calls * (calls + 1) // 2
    if request.path.endswith("/responses"):
        usage = {"input_tokens": given, "output_tokens": used, "total_tokens": given + used}
        searches = [{"type": "web_search_call", "id": "w", "status": "completed"}] * calls
        reply = {"id": "r", "object": "response", "status": "completed", "output": searches, "usage": usage}
    elif request.path.endswith("/messages"):
        usage = {"input_tokens": given, "output_tokens": used, "server_tool_use": {"web_search_requests": calls}}
        reply = {
            "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "x"}],
            "stop_reason": "end_turn", "usage": usage,
        }  # fmt: skip
    elif "models/" in request.path:
        usage = {"promptTokenCount": given, "candidatesTokenCount": used, "totalTokenCount": given + used}
        content = {"parts": [{"text": "x"}], "role": "model"}
        grounding = {"webSearchQueries": ["one", "two"] if calls else []}
        candidate = {"content": content, "finishReason": "STOP", "index": 0, "groundingMetadata": grounding}
        reply = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}
    else:
        choice = {"index": 0, "finish_reason": "stop", "text": "x", "message": {"role": "assistant", "content": "x"}}
        reply = {"id": "c", "model": "m", "choices": [choice], "usage": openai_usage(given, used)}
    return json_reply(reply, hold=gate)


def spelled(body: dict[str, Any], **raw: str | None) -> bytes:
    """A JSON body with members that are given as JSON text; None leaves one out."""
    text = json.dumps(body)[:-1]
    return (text + "".join(f', "{name}": {value}' for name, value in raw.items() if value is not None) + "}").encode()


def hostile() -> list[tuple[str, bytes]]:
    """(path, body) of requests that try to get more than is held for them."""
    asked: list[tuple[str, bytes]] = []
    for value in NUMBERS:
        for name in ("max_tokens", "max_completion_tokens", "n_predict"):
            asked.append(("/v1/chat/completions", spelled(chat(), **{name: value})))
            asked.append(("/v1/chat/completions", spelled(chat(max_tokens=5), **{name: value})))
        asked.append(("/endpoints/chat/invocations", spelled({"messages": SAID}, max_tokens=value)))
        asked.append(("/gateway/chat/invocations", spelled({"messages": SAID}, max_tokens=value)))
        asked.append(("/v1/completions", spelled({"model": "completions", "prompt": "x"}, max_tokens=value)))
        asked.append(("/v1/responses", spelled({"model": "chat", "input": "x"}, max_output_tokens=value)))
        asked.append(("/v1/messages", spelled({"model": "claude", "messages": SAID}, max_tokens=value)))
        asked.append(("/endpoints/claude/invocations", spelled({"messages": SAID}, max_tokens=value)))
        for section in ("generationConfig", "generation_config"):
            for name in ("maxOutputTokens", "max_output_tokens"):
                inside = "null" if value is None else f'{{"{name}": {value}}}'
                asked.append(
                    ("/v1beta/models/gemini:generateContent", spelled({"contents": CONTENTS}, **{section: inside}))
                )
    for count in ("128", '"128"', "128.0", "1.28e2", "127.5"):
        asked.append(("/v1/chat/completions", spelled(chat(max_tokens=5), n=count)))
        asked.append(("/v1/completions", spelled({"model": "completions", "prompt": "x", "max_tokens": 5}, n=count)))
        asked.append(
            ("/v1/completions", spelled({"model": "completions", "prompt": "x", "max_tokens": 5}, best_of=count))
        )
        for name in ("candidateCount", "candidate_count"):
            inside = f'{{"maxOutputTokens": 5, "{name}": {count}}}'
            asked.append(
                ("/v1beta/models/gemini:generateContent", spelled({"contents": CONTENTS}, generationConfig=inside))
            )
            asked.append(
                ("/endpoints/gemini/invocations", spelled({"messages": SAID, "max_tokens": 5}, generationConfig=inside))
            )
    for value in NUMBERS:
        search = spelled({"type": "web_search_20250305", "name": "s", "schema": 1}, max_uses=value).decode()
        fetch = spelled({"type": "web_fetch_20250910", "name": "f"}, max_content_tokens=value).decode()
        body = {"model": "claude", "messages": SAID, "max_tokens": 5}
        asked.append(("/v1/messages", spelled(body, tools=f"[{search}, {fetch}]")))
        body = {"model": "chat", "input": "x", "max_output_tokens": 5, "tools": [{"type": "web_search"}]}
        asked.append(("/v1/responses", spelled(body, max_tool_calls=value)))
    for tool in ("google_search", "googleSearch", "urlContext"):
        asked.append(("/v1beta/models/gemini:generateContent", spelled({"contents": CONTENTS, "tools": [{tool: {}}]})))
    for prompt in (["x"] * 40, [[1, 2, 3]] * 40, list(range(40)), []):
        asked.append(("/v1/completions", spelled({"model": "completions", "prompt": prompt, "max_tokens": 500})))
    return asked


async def test_no_spelling_of_a_limit_overshoots(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Whatever stands for a limit or a count, a provider that takes all it is allowed stays within what is held."""
    ledger = {"default_output_tokens": 1000, "max_output_tokens": 2000}
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(1)], ledger=ledger))
    accounts = accounts_of(gateway)
    served = 0
    for number, (path, body) in enumerate(hostile(), 1):
        hits, gate = upstream.hits, asyncio.Event()
        upstream.always(lambda request: greedy(request, gate))  # noqa: B023 - answered within this round
        asked = asyncio.ensure_future(
            gateway.client.post(path, content=body, headers={"content-type": "application/json"})
        )
        arrived = asyncio.ensure_future(upstream.wait_requests(hits + 1))
        await asyncio.wait({asked, arrived}, return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()
        holds = await accounts.call(lambda store: store.holds())
        gate.set()
        reply = await asked
        await gateway.records.wait(number)
        if upstream.hits == hits:
            assert reply.status_code in {400, 422, 429}, (path, body, reply.text)
            continue
        assert reply.status_code == 200, (path, body, reply.text)
        served += 1
        (hold,) = holds
        charged = (await entries_of(gateway))[-1].nano_usd
        assert charged is not None
        assert charged <= hold.nano_usd, (path, body, upstream.requests[-1].body)
    assert served > 150
    await balanced(gateway)
