"""One cost, told alike: reply, stream, record, ledger, log line, span and counter, for every vendor's API.

What it must be is computed by genai-prices itself, from the usage that the vendor reported, cached parts included.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

import anthropic
import genai_prices
import httpx
import openai
import pytest
from google import genai
from google.genai import types

from gateway.telemetry import names
from gateway.telemetry.setup import TraceExport
from tests.collector import Collector, attributes_of, running_collector
from tests.conftest import StartGateway
from tests.journeys.books import (
    MODELS,
    NANO,
    accounts_of,
    balanced,
    budget,
    chat,
    configuration,
    entries_of,
    nano,
    told_nano_usd,
)
from tests.journeys.streaming_apis import STREAMING, TEXTS
from tests.openai_replies import SSE_DONE, openai_chat, openai_embeddings, openai_usage, sse
from tests.replies import Reply, StreamReply, json_reply
from tests.running_gateway import RunningGateway, running_gateway, until
from tests.scripted_upstream import ScriptedUpstream

SAID = [{"role": "user", "content": "Hello?"}]
CONTENTS = [{"role": "user", "parts": [{"text": "Hello?"}]}]


@dataclass(frozen=True)
class Case:
    """One call, what its vendor answers, and the same usage in genai-prices' words."""

    path: str
    body: Mapping[str, Any]
    reply: Reply
    model: str
    vendor: str
    usage: Mapping[str, int]
    served: Mapping[str, str] = field(default_factory=dict)
    """What chooses among a model's prices, such as the service tier."""

    @property
    def nano_usd(self) -> int:
        """What it costs, rounded up."""
        price = genai_prices.calc_price(
            genai_prices.Usage(**self.usage),
            model_ref=MODELS[self.model],
            provider_id=self.vendor,
            price_context=self.served,
        )
        return int((price.total_price * NANO).to_integral_value(ROUND_CEILING))


CACHED = {"input_tokens": 1000, "cache_read_tokens": 400, "output_tokens": 51}
OPENAI_USAGE = openai_usage(1000, 51, cached=400, reasoning=20)
CLAUDE = {"input_tokens": 1000, "cache_read_tokens": 300, "cache_write_tokens": 200, "output_tokens": 51}
CLAUDE_USAGE = {
    "input_tokens": 500,
    "cache_read_input_tokens": 300,
    "cache_creation_input_tokens": 200,
    "output_tokens": 51,
}
GEMINI_USAGE = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 400,
    "candidatesTokenCount": 31,
    "thoughtsTokenCount": 20,
    "totalTokenCount": 1051,
}


def openai_chunks(usage: Mapping[str, Any]) -> Reply:
    """A chat stream whose last chunk has this usage."""
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    said = [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]
    end = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    chunks = [{"choices": said}, {"choices": end}, {"choices": [], "usage": usage}]
    return StreamReply([*(sse(frame | chunk) for chunk in chunks), SSE_DONE])


def response(**more: Any) -> dict[str, Any]:
    """A whole response with this usage."""
    usage = {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 400},
        "output_tokens": 51,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 1051,
    }
    text = {"type": "output_text", "text": "Hi", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o-mini", "status": "completed",
        "output": [message], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more,
    }  # fmt: skip


def named(kind: str, **fields: Any) -> bytes:
    """An event with a name."""
    return b"event: " + kind.encode() + b"\n" + sse({"type": kind, **fields})


def responses_events(**more: Any) -> Reply:
    """A response as a stream."""
    delta = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": "Hi", "logprobs": []}
    return StreamReply(
        [
            named("response.created", sequence_number=0, response=response(status="in_progress", usage=None)),
            named("response.output_text.delta", sequence_number=1, **delta),
            named("response.completed", sequence_number=2, response=response(**more)),
        ]
    )


def message(usage: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message of Claude's."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def message_events(usage: Mapping[str, Any] = CLAUDE_USAGE, **at_end: Any) -> Reply:
    """The same as a stream: the input at its start, the output at its end."""
    begun = message({**usage, "output_tokens": 1}) | {"content": [], "stop_reason": None}
    return StreamReply(
        [
            named("message_start", message=begun),
            named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
            named("content_block_stop", index=0),
            named(
                "message_delta",
                delta={"stop_reason": "end_turn", "stop_sequence": None},
                usage={"output_tokens": 51, **at_end},
            ),
            named("message_stop"),
        ]
    )


def generated(**more: Any) -> dict[str, Any]:
    """A reply of Gemini's."""
    candidate = {"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0, "finishReason": "STOP"}
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "usageMetadata": GEMINI_USAGE, **more}


def cases() -> list[Case]:
    """Every API, whole and streamed. Replies serve once, so each test makes its own."""
    stream = {"stream": True}
    claude: dict[str, Any] = {"model": "claude", "max_tokens": 64, "messages": SAID}
    gemini = {"contents": CONTENTS}
    usage = OPENAI_USAGE
    return [
        Case("/v1/chat/completions", chat(), openai_chat(usage=usage), "chat", "openai", CACHED),
        Case("/v1/chat/completions", chat(stream=True), openai_chunks(usage), "chat", "openai", CACHED),
        Case("/endpoints/chat/invocations", {"messages": SAID}, openai_chat(usage=usage), "chat", "openai", CACHED),
        Case("/endpoints/chat/invocations", {"messages": SAID} | stream, openai_chunks(usage), "chat", "openai", CACHED),
        Case("/gateway/chat/invocations", {"messages": SAID}, openai_chat(usage=usage), "chat", "openai", CACHED),
        Case(
            "/v1/completions", {"model": "completions", "prompt": "x"}, openai_chat(usage=openai_usage(1000, 51)),
            "completions", "openai", {"input_tokens": 1000, "output_tokens": 51},
        ),
        Case(
            "/v1/embeddings", {"model": "embeddings", "input": "x"}, openai_embeddings([0.5], prompt_tokens=1001),
            "embeddings", "openai", {"input_tokens": 1001},
        ),
        Case("/v1/responses", {"model": "chat", "input": "x"}, json_reply(response()), "chat", "openai", CACHED),
        Case("/v1/responses", {"model": "chat", "input": "x"} | stream, responses_events(), "chat", "openai", CACHED),
        Case("/v1/messages", claude, json_reply(message(CLAUDE_USAGE)), "claude", "anthropic", CLAUDE),
        Case("/v1/messages", claude | stream, message_events(), "claude", "anthropic", CLAUDE),
        Case("/v1/chat/completions", chat(model="claude"), json_reply(message(CLAUDE_USAGE)), "claude", "anthropic", CLAUDE),
        Case("/v1/chat/completions", chat(model="claude", stream=True), message_events(), "claude", "anthropic", CLAUDE),
        Case("/v1beta/models/gemini:generateContent", gemini, json_reply(generated()), "gemini", "google", CACHED),
        Case(
            "/v1beta/models/gemini:streamGenerateContent", gemini, StreamReply([sse(generated())]),
            "gemini", "google", CACHED,
        ),
        Case("/v1/chat/completions", chat(model="gemini"), json_reply(generated()), "gemini", "google", CACHED),
        Case(
            "/v1/chat/completions", chat(model="gemini", stream=True), StreamReply([sse(generated())]),
            "gemini", "google", CACHED,
        ),
    ]  # fmt: skip


def spans_in(collector: Collector) -> dict[str, list[dict[str, Any]]]:
    """The attributes of all spans that a collector got, by trace id."""
    found: dict[str, list[dict[str, Any]]] = {}
    for span in collector.spans:
        found.setdefault(span.trace_id.hex(), []).append(attributes_of(span))
    return found


async def test_all_signals_tell_one_cost(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reply (or the comment that ends its stream), record, ledger, log line, both spans and the counter: one figure."""
    log = os.open(tmp_path / "requests.log", os.O_WRONLY | os.O_CREAT)
    all_cases = cases()
    told: list[int] = []
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        config = configuration(upstream.url, budgets=[budget(50)])
        async with running_gateway(config, export=TraceExport.OTLP, log_descriptor=log) as gateway:
            for number, case in enumerate(all_cases, 1):
                upstream.script(case.reply)
                counted = nano(gateway.metric(names.COST))
                reply = await gateway.client.post(case.path, json=case.body)
                assert reply.status_code == 200, (case.path, reply.text)
                record = (await gateway.records.wait(number))[-1]
                assert record.cost_nano_usd == case.nano_usd, case
                assert nano(gateway.metric(names.COST)) - counted == case.nano_usd
                # Google's SDK takes a comment for an event, so that surface tells no cost at a stream's end.
                if "streamGenerateContent" in case.path:
                    assert "x-gateway-cost-usd" not in reply.text
                    told.append(case.nano_usd)
                else:
                    told.append(told_nano_usd(reply))
            records = gateway.records.all
            await accounts_of(gateway).flush()
            by_request = {line.request_id: line.nano_usd for line in await entries_of(gateway)}
            assert await balanced(gateway, told) == sum(case.nano_usd for case in all_cases)
            caching = [attempt.cost for record in records for attempt in record.attempts if attempt.cost is not None]
            assert nano(gateway.metric(names.CACHE_SAVED)) == sum(cost.cache_saved_nano_usd for cost in caching)
            assert nano(gateway.metric(names.CACHE_SURCHARGE)) == sum(cost.cache_surcharge_nano_usd for cost in caching)
            # 300 tokens read at 0.30 instead of 3 USD a million, 200 written at 3.75: Claude's four cases.
            of_claude = {"route": "claude"}
            assert nano(gateway.metric(names.CACHE_SAVED, **of_claude)) == 4 * 300 * 2_700
            assert nano(gateway.metric(names.CACHE_SURCHARGE, **of_claude)) == 4 * 200 * 750
        spans = spans_in(collector)
    os.close(log)
    lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    in_log = {line["request_id"]: line["cost_nano_usd"] for line in lines}
    for case, record, in_reply in zip(all_cases, records, told, strict=True):
        of_trace = spans[record.trace.trace_id_hex]
        in_spans = [span["gateway.cost.nano_usd"] for span in of_trace if "gateway.cost.nano_usd" in span]
        assert in_spans == [case.nano_usd] * 2, case
        dollars = [span["gateway.cost.usd"] for span in of_trace if "gateway.cost.usd" in span]
        assert [nano(amount) for amount in dollars] == [case.nano_usd] * 2
        assert (in_reply, by_request[record.request_id], in_log[record.request_id]) == (case.nano_usd,) * 3


# --- what vendors charge beside tokens --------------------------------------------------------------------------

HOUR = {"cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150}}
SEARCHED = {"server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}}
TOOLS = [
    {"type": "web_search_call", "id": "w1", "status": "completed", "action": {"type": "search", "query": "x"}},
    {"type": "web_search_call", "id": "w2", "status": "completed", "action": {"type": "open_page", "url": "https://x"}},
    {"type": "web_search_call", "id": "w3", "status": "completed", "action": {"type": "search", "query": "y"}},
    {"type": "file_search_call", "id": "f1", "status": "completed", "queries": ["x"]},
]
GROUNDED = {"groundingMetadata": {"webSearchQueries": ["", "a", "b", "a"]}}


def charged_cases() -> list[Case]:
    """Calls whose price is more than their tokens' at the standard rate."""
    claude: dict[str, Any] = {"model": "claude", "max_tokens": 64, "messages": SAID}
    long = CLAUDE | {"cache_write_1h_tokens": 150}
    searched = CACHED | {"web_searches": 2, "storage_searches": 1}
    candidate = generated()["candidates"][0] | GROUNDED
    tier = {"service_tier": "priority"}
    ask: dict[str, Any] = {"model": "chat", "input": "x"}
    return [
        Case("/v1/messages", claude, json_reply(message(CLAUDE_USAGE | HOUR)), "claude", "anthropic", long),
        Case("/v1/messages", claude | {"stream": True}, message_events(CLAUDE_USAGE | HOUR), "claude", "anthropic", long),
        Case("/v1/chat/completions", chat(model="claude"), json_reply(message(CLAUDE_USAGE | SEARCHED)), "claude",
             "anthropic", CLAUDE | {"web_searches": 2}),
        Case("/v1/messages", claude | {"stream": True}, message_events(**SEARCHED), "claude", "anthropic",
             CLAUDE | {"web_searches": 2}),
        Case("/v1/responses", ask, json_reply(response(output=TOOLS)), "chat", "openai", searched),
        Case("/v1/responses", ask | {"stream": True}, responses_events(output=TOOLS), "chat", "openai", searched),
        Case("/v1/responses", ask, json_reply(response(**tier)), "chat", "openai", CACHED, tier),
        Case("/v1/responses", ask | {"stream": True}, responses_events(**tier), "chat", "openai", CACHED, tier),
        Case("/v1/chat/completions", chat(), openai_chat(usage=OPENAI_USAGE, **tier), "chat", "openai", CACHED, tier),
        Case("/v1beta/models/gemini:generateContent", {"contents": CONTENTS}, json_reply(generated(candidates=[candidate])),
             "gemini", "google", CACHED | {"web_searches": 1}),
        Case("/v1/chat/completions", chat(model="gemini", stream=True),
             StreamReply([sse(generated(candidates=[candidate]))]), "gemini", "google", CACHED | {"web_searches": 1}),
    ]  # fmt: skip


async def test_what_vendors_charge_beside_tokens_is_charged(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Caches of an hour, searches, grounding and service tiers cost what genai-prices says, in the reply and the books."""
    gateway = await start_gateway(configuration(upstream.url, budgets=[budget(50)]))
    told = []
    for number, case in enumerate(charged_cases(), 1):
        upstream.script(case.reply)
        reply = await gateway.client.post(case.path, json=case.body)
        assert reply.status_code == 200, (case.path, reply.text)
        record = (await gateway.records.wait(number))[-1]
        plain = Case(
            case.path,
            case.body,
            case.reply,
            case.model,
            case.vendor,
            CACHED if "cache_write_tokens" not in case.usage else CLAUDE,
        )
        assert record.cost_nano_usd == case.nano_usd, case
        assert case.nano_usd > plain.nano_usd, "the case shows nothing"
        cost = record.attempts[0].cost
        assert cost is not None
        assert cost.unpriced == ()
        told.append(told_nano_usd(reply))
    assert gateway.metric(names.UNPRICED_PARTS) == 0
    assert await balanced(gateway, told) == sum(told)
    kept = [line.usage for line in await entries_of(gateway)]
    assert [usage.service_tier for usage in kept if usage is not None and usage.service_tier] == ["priority"] * 3
    assert sum(usage.web_searches or 0 for usage in kept if usage is not None) == 10


async def test_what_nobody_prices_is_flagged(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A tier, a tool and a search without a price leave the tokens' cost, and say so in the metric and the log line."""
    log = os.open(tmp_path / "requests.log", os.O_WRONLY | os.O_CREAT)
    price = {
        "model": MODELS["claude"],
        "input_usd_per_mtok": 1,
        "output_usd_per_mtok": 2,
        "cache_write_usd_per_mtok": 3,
    }
    gateway = await start_gateway(configuration(upstream.url, prices=[price]), log_descriptor=log)
    code = [{"type": "code_interpreter_call", "id": "c", "status": "completed"}]
    claude: dict[str, Any] = {"model": "claude", "max_tokens": 64, "messages": SAID}
    usage = CLAUDE_USAGE | HOUR | SEARCHED | {"speed": "fast"}
    upstream.script(json_reply(response(output=code, service_tier="ultrafast")), json_reply(message(usage)))
    assert (await gateway.client.post("/v1/responses", json={"model": "chat", "input": "x"})).status_code == 200
    assert (await gateway.client.post("/v1/messages", json=claude)).status_code == 200
    first, second = await gateway.records.wait(2)
    assert first.cost_nano_usd == Case("", {}, json_reply({}), "chat", "openai", CACHED).nano_usd
    assert second.cost_nano_usd == 800 * 1_000 + 200 * 3_000 + 51 * 2_000
    flagged = [("chat", "other_tool"), ("chat", "service_tier"), ("claude", "web_search"), ("claude", "cache_write_1h"),
               ("claude", "service_tier")]  # fmt: skip
    for route, part in flagged:
        assert gateway.metric(names.UNPRICED_PARTS, model=MODELS[route], part=part) == 1
    assert gateway.metric(names.UNPRICED_PARTS) == len(flagged)
    await until(lambda: (tmp_path / "requests.log").read_text().count("\n") == 2, "two lines")
    os.close(log)
    lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    assert [line["cost_unpriced"] for line in lines] == [
        ["other_tool", "service_tier"], ["web_search", "cache_write_1h", "service_tier"],
    ]  # fmt: skip


# --- the vendors' own SDKs read what the gateway adds to their streams -------------------------------------------


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The client that the SDKs use."""
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@asynccontextmanager
async def openai_sdk(gateway: RunningGateway, http: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK."""
    yield openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", http_client=http, max_retries=0)


async def test_the_sdks_read_streams_that_end_with_a_cost(
    upstream: ScriptedUpstream, start_gateway: StartGateway, http: httpx.AsyncClient
) -> None:
    """OpenAI's (chat, completions, responses), Anthropic's and Google's get all of their events, and no more."""
    gateway = await start_gateway(configuration(upstream.url))
    events = {api.name: api.events for api in STREAMING}
    text = "".join(TEXTS)
    async with openai_sdk(gateway, http) as sdk:
        upstream.script(StreamReply(events["chat"]), StreamReply(events["completions"]))
        chunks = [chunk async for chunk in await sdk.chat.completions.create(model="chat", messages=SAID, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
        pieces = [piece async for piece in await sdk.completions.create(model="completions", prompt="x", stream=True)]
        assert "".join(piece.choices[0].text for piece in pieces) == text
        upstream.script(responses_events())
        kinds = [event.type async for event in await sdk.responses.create(model="chat", input="x", stream=True)]
        assert kinds == ["response.created", "response.output_text.delta", "response.completed"]
    upstream.script(StreamReply(events["messages"]))
    async with (
        anthropic.AsyncAnthropic(base_url=gateway.url, api_key="any", max_retries=0) as claude,
        claude.messages.stream(model="claude", max_tokens=64, messages=SAID) as stream,
    ):
        seen = [event.type async for event in stream]
        assert (await stream.get_final_text(), seen[-1]) == (text, "message_stop")
    upstream.script(StreamReply(events["gemini"]))
    options = types.HttpOptions(
        base_url=gateway.url, httpx_async_client=http, retry_options=types.HttpRetryOptions(attempts=1)
    )
    models = genai.Client(api_key="any", http_options=options).aio.models
    replies = [reply async for reply in await models.generate_content_stream(model="gemini", contents="x")]
    assert "".join(reply.text or "" for reply in replies) == text
    records = await gateway.records.wait(5)
    assert [record.outcome.value for record in records] == ["ok"] * 5
