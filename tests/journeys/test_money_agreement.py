"""One cost, told alike: reply, stream, record, ledger, log line, span and counter, for every vendor's API.

What it must be is computed by genai-prices itself, from the usage that the vendor reported, cached parts included.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from tests.running_gateway import RunningGateway, running_gateway
from tests.upstream import ScriptedUpstream

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

    @property
    def nano_usd(self) -> int:
        """What it costs, rounded up."""
        price = genai_prices.calc_price(
            genai_prices.Usage(**self.usage), model_ref=MODELS[self.model], provider_id=self.vendor
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


def responses_events() -> Reply:
    """A response as a stream."""
    delta = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": "Hi", "logprobs": []}
    return StreamReply(
        [
            named("response.created", sequence_number=0, response=response(status="in_progress", usage=None)),
            named("response.output_text.delta", sequence_number=1, **delta),
            named("response.completed", sequence_number=2, response=response()),
        ]
    )


def message(usage: Mapping[str, int]) -> dict[str, Any]:
    """A whole message of Claude's."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def message_events() -> Reply:
    """The same as a stream: the input at its start, the output at its end."""
    begun = message(CLAUDE_USAGE | {"output_tokens": 1}) | {"content": [], "stop_reason": None}
    return StreamReply(
        [
            named("message_start", message=begun),
            named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
            named("content_block_stop", index=0),
            named(
                "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 51}
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
