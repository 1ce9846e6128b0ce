"""Who pays, what is charged when a provider says nothing or says it oddly, and what a restart must not change."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.store.spec import Payer
from gateway.telemetry import names
from gateway.types.records import Basis
from tests.conftest import StartGateway
from tests.journeys.books import (
    MODELS,
    accounts_of,
    balanced,
    budget,
    chat,
    configuration,
    entries_of,
    states_of,
    told_nano_usd,
)
from tests.journeys.ledgers import JourneyLedger
from tests.journeys.streaming_apis import STREAMING, StreamingApi
from tests.openai_replies import SSE_DONE, openai_chat, openai_error, openai_usage, sse
from tests.replies import Reply, StreamReply, json_reply
from tests.running_gateway import running_gateway, until
from tests.scripted_upstream import ScriptedUpstream

# One nano-dollar a token in and ten out.
PRICES: list[dict[str, object]] = [
    {"model": model, "input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.01} for model in MODELS.values()
]
RED, BLUE = "gwk_red_0123456789abcdef", "gwk_blue_0123456789abcdef"
KEYS = [{"secret": RED, "team": "red"}, {"secret": BLUE, "team": "blue"}]
PATH = "/v1/chat/completions"


# --- who pays ---------------------------------------------------------------------------------------------------

CLAIMS: dict[str, Any] = {
    "team": "blue", "team_id": "blue", "key": BLUE, "api_key": BLUE, "key_id": "blue", "user": "blue",
    "budget": "none", "budget_id": "free", "max_budget": 10**9, "budget_usd": 10**9, "price": 0, "cost": 0,
    "input_usd_per_mtok": 0, "input_cost_per_token": 0, "output_cost_per_token": 0, "spend": -5,
    "metadata": {"team": "blue", "tags": ["free"], "user_api_key_team_id": "blue"}, "tags": ["free"],
    "provider": "vllm", "request_id": "req_1", "litellm_metadata": {"team_id": "blue"},
}  # fmt: skip
HEADERS = {
    "x-team": "blue", "x-team-id": "blue", "x-gateway-team": "blue", "x-gateway-key": BLUE, "x-api-key": BLUE,
    "x-gateway-request-id": "req_1", "x-request-id": "req_1", "idempotency-key": "1", "x-gateway-cost-usd": "0",
    "x-gateway-attempts": "0", "x-budget": "none", "x-gateway-budget": "none", "x-price": "0", "x-route": "embeddings",
    "x-forwarded-for": "10.0.0.1", "baggage": "team=blue", "openai-organization": "blue", "x-litellm-tags": "free",
    "x-model": "free", "x-provider": "vllm",
}  # fmt: skip


async def test_nothing_that_a_caller_says_changes_who_pays(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger
) -> None:
    """Claims in body and headers, together and each alone, leave payer, price, charge and budget as configured."""
    red = budget(1, "red", scope={"team": "red"})
    blue = budget(0, "blue", scope={"team": "blue"})
    config = configuration(upstream.url, prices=PRICES, keys=KEYS, budgets=[red, blue])
    gateway = await start_gateway(config, ledgers=ledger.ledgers)
    upstream.always(lambda _: openai_chat(usage=openai_usage(7, 3)))
    claims = [(CLAIMS, HEADERS), *(({name: value}, {}) for name, value in CLAIMS.items())]
    claims += [({}, {name: value}) for name, value in HEADERS.items()]
    for number, (body, headers) in enumerate(claims, 1):
        reply = await gateway.client.post(PATH, json=chat(**body), headers=headers | {"authorization": f"Bearer {RED}"})
        assert reply.status_code == 200, (body, headers, reply.text)
        record = (await gateway.records.wait(number))[-1]
        assert (record.caller.team, record.caller.key_id) == ("red", "red")
    payers = {line.payer for line in await entries_of(gateway)}
    assert payers == {Payer(team="red", key_id="red", route="chat", provider="openai", model="gpt-4o-mini")}
    # The same request id, claimed twice, is no repetition.
    assert await balanced(gateway) == len(claims) * 37
    spent = {state.budget: state.spent_nano_usd for state in await states_of(gateway)}
    assert spent == {"red": len(claims) * 37, "blue": 0}
    refused = await gateway.client.post(PATH, json=chat(team="red"), headers={"authorization": f"Bearer {BLUE}"})
    assert refused.status_code == 429


async def test_requests_of_one_trace_are_each_charged(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """An agent that continues one trace over three requests pays for three: a trace is not a request."""
    traced = {"trust_inbound_trace": True}
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(1)], telemetry=traced))
    upstream.always(lambda _: openai_chat(usage=openai_usage(7, 3)))
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    for _ in range(3):
        assert (await gateway.client.post(PATH, json=chat(), headers=headers)).status_code == 200
    await gateway.records.wait(3)
    assert await balanced(gateway) == 3 * 37


# --- unknown and free prices ------------------------------------------------------------------------------------


async def test_an_unpriced_model_is_refused_where_a_budget_limits(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger
) -> None:
    """Nobody knows what it would cost, so it cannot be within a budget: 403 `price_unknown`, not sent, no charge."""
    models = MODELS | {"chat": "nobody-prices-this"}
    config = configuration(upstream.url, models=models, budgets=[budget(1)])
    gateway = await start_gateway(config, ledgers=ledger.ledgers)
    reply = await gateway.client.post(PATH, json=chat())
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "price_unknown")
    assert "nobody-prices-this" in reply.json()["error"]["message"]
    assert upstream.hits == 0
    await gateway.records.last()
    assert await balanced(gateway) == 0


async def test_a_soft_budget_lets_an_unpriced_model_pass_and_says_so(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Where nothing refuses, the tokens are counted as unpriced, and the line has no amount: unknown is never zero."""
    models = MODELS | {"chat": "nobody-prices-this"}
    soft = budget(1, enforcement="soft")
    gateway = await start_gateway(configuration(upstream.url, models=models, budgets=[soft]))
    upstream.script(openai_chat(usage=openai_usage(7, 3), model="nobody-prices-this"))
    reply = await gateway.client.post(PATH, json=chat())
    assert reply.status_code == 200
    assert "x-gateway-cost-usd" not in reply.headers
    await gateway.records.last()
    assert [line.nano_usd for line in await entries_of(gateway)] == [None]
    assert gateway.metric(names.UNPRICED_TOKENS) == 10
    assert await balanced(gateway) == 0


async def test_what_is_free_is_usable_after_exhaustion(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger
) -> None:
    """An explicit price of 0 passes an exhausted budget, also when many ask; a priced model beside it does not."""
    free = {"model": "gpt-3.5-turbo-instruct", "input_usd_per_mtok": 0, "output_usd_per_mtok": 0}
    prices = [price for price in PRICES if price["model"] != free["model"]]
    config = configuration(upstream.url, prices=[*prices, free], budgets=[budget(0)])
    gateway = await start_gateway(config, ledgers=ledger.ledgers)
    upstream.always(lambda _: openai_chat(usage=openai_usage(7, 3)))
    for number in range(1, 6):
        reply = await gateway.client.post("/v1/completions", json={"model": "completions", "prompt": "x"})
        assert (reply.status_code, reply.headers["x-gateway-cost-usd"]) == (200, "0.000000000")
        await gateway.records.wait(number)
    assert (await gateway.client.post(PATH, json=chat())).status_code == 429
    assert [line.basis for line in await entries_of(gateway)] == [Basis.PROVIDER_USAGE] * 5
    assert await balanced(gateway) == 0


def priced(usd_per_mtok: str) -> bytes:
    """Public price data of today, as many as the shipped ones, by which every model of MODELS costs so much."""
    today = datetime.now(UTC).date().isoformat()
    prices = [{"prices": {"input_mtok": usd_per_mtok, "output_mtok": "1"}, "constraint": {"start_date": today}}]
    models = [{"id": model, "match": {"equals": model}, "prices": prices} for model in MODELS.values()]
    models += [{"id": f"m{n}", "match": {"equals": f"m{n}"}, "prices": prices} for n in range(5_000)]
    return json.dumps([{"id": "openai", "name": "OpenAI", "api_pattern": "x", "models": models}]).encode()


async def test_broken_price_data_change_no_price_and_are_told_of(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While `prices_file` is broken requests cost what they did, the refusal is counted, and the prices' age is known."""
    monkeypatch.setattr("gateway.serve.money_upkeep.UPKEEP_S", 0.01)
    path = tmp_path / "prices.json"
    path.write_bytes(priced("4"))
    gateway = await start_gateway(configuration(upstream.url, prices_file=str(path), budgets=[budget(1)]))
    upstream.always(lambda _: openai_chat(usage=openai_usage(7, 3)))
    told = []

    async def asked() -> int:
        told.append(told_nano_usd(await gateway.client.post(PATH, json=chat())))
        await gateway.records.wait(len(told))
        return told[-1]

    assert await asked() == 7 * 4_000 + 3 * 1_000
    assert gateway.metric(names.PRICE_UPDATES_REFUSED) == 0
    assert gateway.metric(names.PRICE_TABLE_AGE) > 0
    before = accounts_of(gateway).prices.version
    path.write_bytes(priced("9")[:-9])
    await until(lambda: gateway.metric(names.PRICE_UPDATES_REFUSED) == 1, "a refusal that is counted")
    assert await asked() == 7 * 4_000 + 3 * 1_000
    path.write_bytes(priced("9"))
    await until(lambda: accounts_of(gateway).prices.version != before, "the mended prices in use")
    assert await asked() == 7 * 9_000 + 3 * 1_000
    assert await balanced(gateway, told) == sum(told)


# --- attempts ---------------------------------------------------------------------------------------------------


async def test_each_try_is_its_own_line(
    upstream: ScriptedUpstream, start_gateway: StartGateway, ledger: JourneyLedger
) -> None:
    """A refusal, a broken reply and a fallback of one request are three lines of one id, each with its own basis."""

    def target(provider: str, model: str, config: dict[str, str], tier: int = 0) -> dict[str, object]:
        return {"provider": provider, "name": model, "config": config, "tier": tier}

    openai = target("openai", "gpt-4o-mini", {"openai_api_key": "k", "openai_api_base": f"{upstream.url}/v1"})
    key = {"anthropic_api_key": "k", "anthropic_api_base": f"{upstream.url}/v1"}
    claude = target("anthropic", "claude-sonnet-4-5", key, 2)
    dead = target("vllm", "gpt-4o-mini", {"api_base": "http://127.0.0.1:9/v1"}, 1)
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "targets": [openai, dead, claude], "retries": 1}
    config = {"endpoints": [route], "prices": PRICES, "budgets": [budget(1)]}
    gateway = await start_gateway(json.dumps(config), ledgers=ledger.ledgers)
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hi"}], "usage": {"input_tokens": 8, "output_tokens": 2},
    }  # fmt: skip
    upstream.script(
        openai_error(503, "busy", headers=[("retry-after-ms", "1")]),
        # 200 and then nothing that can be read: it was generated, and is charged.
        json_reply("no completion"),
        json_reply(message),
    )
    reply = await gateway.client.post(PATH, json=chat(max_tokens=50))
    assert reply.status_code == 200, reply.text
    record = await gateway.records.last()
    lines = await entries_of(gateway)
    assert {line.request_id for line in lines} == {record.request_id}
    told = [(line.attempt, line.payer.provider, line.basis) for line in lines]
    assert told == [
        (1, "openai", Basis.PROVIDER_ERROR),
        (2, "openai", Basis.PARTIAL),
        (3, "vllm", Basis.NOT_SENT),
        (4, "anthropic", Basis.PROVIDER_USAGE),
    ]
    assert [bool(line.nano_usd) for line in lines] == [False, True, False, True]
    assert reply.headers["x-gateway-attempts"] == "4"
    await balanced(gateway, [record.cost_nano_usd or 0])


# --- what providers report --------------------------------------------------------------------------------------


def without_usage(event: bytes) -> bytes:
    """An event as a provider sends it that reports no usage."""
    head, _, data = event.partition(b"data: ")
    if data.startswith(b"[DONE]"):
        return event
    return head + b"data: " + json.dumps(_stripped(json.loads(data))).encode() + b"\n\n"


def with_zeros(event: bytes) -> bytes:
    """An event of a provider that reports zeros."""
    head, _, data = event.partition(b"data: ")
    if data.startswith(b"[DONE]"):
        return event
    return head + b"data: " + json.dumps(_zeroed(json.loads(data))).encode() + b"\n\n"


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stripped(item) for name, item in value.items() if name not in {"usage", "usageMetadata"}}
    return [_stripped(item) for item in value] if isinstance(value, list) else value


def _zeroed(value: Any, *, inside: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            name: _zeroed(item, inside=inside or name in {"usage", "usageMetadata"}) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_zeroed(item, inside=inside) for item in value]
    return 0 if inside and isinstance(value, int) else value


@pytest.mark.parametrize("api", STREAMING, ids=lambda api: api.name)
async def test_zero_is_zero_and_missing_is_estimated(
    upstream: ScriptedUpstream, start_gateway: StartGateway, api: StreamingApi
) -> None:
    """A stream whose provider reports 0 costs 0; one that reports nothing costs its estimate, and is flagged."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(1)]))
    upstream.script(StreamReply([with_zeros(event) for event in api.events]))
    assert (await gateway.client.post(api.path, json=api.body)).status_code == 200
    await gateway.records.wait(1)
    upstream.script(StreamReply([without_usage(event) for event in api.events]))
    assert (await gateway.client.post(api.path, json=api.body)).status_code == 200
    await gateway.records.wait(2)
    zero, missing = await entries_of(gateway)
    assert (zero.nano_usd, zero.basis) == (0, Basis.PROVIDER_USAGE)
    assert missing.basis is Basis.ESTIMATED
    assert missing.usage is not None
    assert missing.usage.source.value == "estimated"
    # "Once upon a time" is sixteen characters.
    assert missing.usage.output_tokens == 4
    assert (missing.usage.input_tokens or 0) > 4
    await balanced(gateway)


@pytest.mark.parametrize("budgets", [[], [budget(1)], [budget(1, enforcement="soft")]], ids=["none", "hard", "soft"])
async def test_whole_replies_without_usage_are_estimated(
    upstream: ScriptedUpstream, start_gateway: StartGateway, budgets: list[dict[str, object]]
) -> None:
    """Also where nothing is streamed, a provider's silence is not free, and its zero is; whatever the budgets are."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=budgets))
    silent, zero = openai_chat("Once upon a time", usage=None), openai_chat("x", usage=openai_usage(0, 0))
    embedded = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
    upstream.script(silent, zero, json_reply(embedded))
    for _ in range(2):
        await gateway.client.post(PATH, json=chat())
    await gateway.client.post("/v1/embeddings", json={"model": "embeddings", "input": "Once upon a time"})
    await gateway.records.wait(3)
    first, second, third = await entries_of(gateway)
    assert (first.basis, second.basis, third.basis) == (Basis.ESTIMATED, Basis.PROVIDER_USAGE, Basis.ESTIMATED)
    assert first.usage is not None
    # An estimate is one token per 4 bytes of the request and 4 a message.
    said = [json.dumps(value, separators=(",", ":")) for value in chat().values()]
    assert first.usage.input_tokens == -(-len("".join(said)) // 4) + 4
    assert first.usage.output_tokens == 4
    assert second.nano_usd == 0
    assert third.usage is not None
    assert third.usage.output_tokens == 0
    assert third.nano_usd
    await balanced(gateway)


def chunks(*usages: dict[str, Any] | None, at_end: dict[str, Any] | None = None) -> Reply:
    """A chat stream with a usage (or none) in each chunk with content, and perhaps one in a chunk of its own."""
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    pieces = []
    for number, usage in enumerate(usages, 1):
        last = number == len(usages)
        choice = {"index": 0, "delta": {"content": "word"}, "finish_reason": "stop" if last else None}
        pieces.append(sse(frame | {"choices": [choice]} | ({} if usage is None else {"usage": usage})))
    if at_end is not None:
        pieces.append(sse(frame | {"choices": [], "usage": at_end}))
    return StreamReply([*pieces, SSE_DONE])


async def test_an_error_in_the_middle_of_a_stream_does_not_make_it_free(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """What was generated before the provider's own error is charged as partial; an error before all output is not."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(1)]))
    api = next(api for api in STREAMING if api.name == "responses")
    error = {"code": "rate_limit_exceeded", "message": "Slow down."}
    failed = {"type": "response.failed", "response": {"id": "r", "status": "failed", "error": error}}
    upstream.script(StreamReply([*api.events[:3], sse(failed)]), StreamReply([sse(failed)]))
    for number in (1, 2):
        await gateway.client.post(api.path, json=api.body)
        await gateway.records.wait(number)
    begun, not_begun = await entries_of(gateway)
    assert begun.basis is Basis.PARTIAL
    assert begun.usage is not None
    assert (begun.usage.output_tokens or 0) >= 3
    assert (not_begun.basis, not_begun.nano_usd) == (Basis.PROVIDER_ERROR, 0)
    await balanced(gateway)


NULL: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("reply", "counts"),
    [
        (lambda: chunks(None, None, None, at_end=openai_usage(9, 3)), (9, 3)),
        (lambda: chunks(openai_usage(9, 3), None, None), (9, 3)),
        (lambda: chunks(None, None, openai_usage(9, 3)), (9, 3)),
        (lambda: chunks(None, None, openai_usage(9, 3), at_end=openai_usage(9, 3)), (9, 3)),
        (lambda: chunks(openai_usage(9, 1), openai_usage(9, 2), openai_usage(9, 3)), (9, 3)),
        (lambda: chunks(openai_usage(9, 1), openai_usage(9, 2), openai_usage(9, 3), at_end=openai_usage(9, 3)), (9, 3)),
        (lambda: chunks(openai_usage(9, 3), None, None, at_end=NULL), (9, 3)),
        (lambda: chunks(openai_usage(9, 3, cached=4), openai_usage(9, 3, cached=4)), (9, 3)),
    ],
    ids=["last", "first", "finish", "twice", "cumulative", "cumulative-and-last", "then-empty", "same-twice"],
)
async def test_usage_counts_once_wherever_it_stands(
    upstream: ScriptedUpstream, start_gateway: StartGateway, reply: Any, counts: tuple[int, int]
) -> None:
    """In the first, the last or the finishing chunk, twice, or as a running total: what is charged is the same."""
    gateway = await start_gateway(configuration(upstream.url, prices=PRICES, budgets=[budget(1)]))
    upstream.script(reply())
    assert (await gateway.client.post(PATH, json=chat(stream=True))).status_code == 200
    await gateway.records.last()
    (line,) = await entries_of(gateway)
    assert line.usage is not None
    assert (line.usage.input_tokens, line.usage.output_tokens) == counts
    assert line.basis is Basis.PROVIDER_USAGE
    assert await balanced(gateway) == counts[0] + 10 * counts[1]


# --- restarts ---------------------------------------------------------------------------------------------------


async def test_restarts_and_reloads_overwrite_nothing(
    upstream: ScriptedUpstream, ledger: JourneyLedger, tmp_path: Path
) -> None:
    """Over three starts and a reload, with other budgets and prices each time, lines stay and sums go on."""
    config_path = tmp_path / "gateway.yaml"
    upstream.always(lambda _: openai_chat(usage=openai_usage(7, 3)))
    seen: list[Any] = []
    dearer = [price | {"output_usd_per_mtok": 0.1} for price in PRICES]
    for start, prices in enumerate((PRICES, dearer, PRICES)):
        budgets = [budget(1), *([budget(2, "second", scope={"team": "*"})] if start else [])]
        text = configuration(upstream.url, prices=prices, budgets=budgets)
        async with running_gateway(
            text, ledgers=ledger.ledgers, rng=random.Random(start), config_path=config_path
        ) as gateway:
            states = {state.budget: state.spent_nano_usd for state in await states_of(gateway)}
            assert states["all"] == sum(line.nano_usd for line in seen)
            assert await entries_of(gateway) == seen
            for number in range(1, 4):
                await gateway.client.post(PATH, json=chat())
                await gateway.records.wait(number)
            async with gateway.reload():
                config_path.write_text(
                    configuration(upstream.url, prices=prices, budgets=[*budgets, budget(3, f"new{start}")])
                )
            await gateway.client.post(PATH, json=chat())
            await gateway.records.wait(4)
            lines = await entries_of(gateway)
            assert lines[: len(seen)] == seen
            assert len(lines) == len(seen) + 4
            spent = sum(line.nano_usd or 0 for line in lines)
            assert {state.spent_nano_usd for state in await states_of(gateway)} == {spent}
            seen = lines
    store = ledger.ledgers.read()
    assert list(store.entries()) == seen
    assert store.wrong_counters() == []
    store.close()
    assert sum(line.nano_usd or 0 for line in seen) == 8 * 37 + 4 * 307
