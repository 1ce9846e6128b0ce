"""The genuine google-genai SDK works after changing its base URL."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.conftest import StartGateway
from tests.replies import BytesReply, StreamReply, json_reply
from tests.running_gateway import RunningGateway
from tests.scripted_upstream import ScriptedUpstream

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemini"


def gemini_yaml(upstream: ScriptedUpstream) -> str:
    """A file with the routes `chat` and `vectors`, to Gemini at a scripted upstream."""
    config = {"gemini_api_key": "AIza-test", "gemini_api_base": f"{upstream.url}/v1beta/models"}
    model = {"provider": "gemini", "name": "gemini-2.5-flash", "config": config}
    embedder = model | {"name": "gemini-embedding-001"}
    return json.dumps(
        {
            "endpoints": [
                {"name": "chat", "endpoint_type": "llm/v1/chat", "model": model},
                {"name": "vectors", "endpoint_type": "llm/v1/embeddings", "model": embedder},
            ]
        }
    )


@asynccontextmanager
async def _sdk(gateway: RunningGateway, version: str | None = None) -> AsyncIterator[genai.client.AsyncClient]:
    # Over httpx: the SDK's own aiohttp session warns of how it is made.
    async with httpx.AsyncClient(trust_env=False) as http:
        options = types.HttpOptions(
            base_url=gateway.url,
            api_version=version,
            httpx_async_client=http,
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        yield genai.Client(api_key="anything", http_options=options).aio


@pytest.mark.parametrize("version", [None, "v1beta"], ids=["newest", "v1beta"])
async def test_content_is_generated(
    upstream: ScriptedUpstream, start_gateway: StartGateway, version: str | None
) -> None:
    """The SDK reads the vendor's own reply; the vendor got the configured model in its path and the configured key."""
    gateway = await start_gateway(gemini_yaml(upstream))
    upstream.script(BytesReply((FIXTURES / "generate_content" / "upstream_reply.json").read_bytes()))
    async with _sdk(gateway, version) as sdk:
        reply = await sdk.models.generate_content(
            model="chat", contents="Hello", config=types.GenerateContentConfig(temperature=0.5)
        )
    assert reply.text == "Hi"
    request = upstream.requests[0]
    assert request.path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert request.header("x-goog-api-key") == "AIza-test"
    assert request.json()["generationConfig"] == {"temperature": 0.5}
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (3, 1)


async def test_content_is_streamed(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The SDK reads each event, function calls too; the counts of the last one stand."""
    gateway = await start_gateway(gemini_yaml(upstream))
    upstream.script(StreamReply([(FIXTURES / "generate_content_stream" / "upstream.sse").read_bytes()]))
    async with _sdk(gateway) as sdk:
        stream = await sdk.models.generate_content_stream(model="chat", contents="Hello")
        replies = [reply async for reply in stream]
    calls = [call.name for reply in replies for call in reply.function_calls or ()]
    assert (replies[0].text, calls) == ("H", ["now"])
    assert (upstream.requests[0].path, upstream.requests[0].query) == (
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        "alt=sse",
    )
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (3, 2)


async def test_tokens_are_counted_by_the_vendor(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A token count goes to the vendor's own call."""
    gateway = await start_gateway(gemini_yaml(upstream))
    upstream.script(json_reply({"totalTokens": 31}))
    async with _sdk(gateway) as sdk:
        count = await sdk.models.count_tokens(model="chat", contents="Hello")
    assert count.total_tokens == 31
    assert upstream.requests[0].path == "/v1beta/models/gemini-2.5-flash:countTokens"


async def test_texts_are_embedded(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The SDK embeds several texts at once; each goes out under the configured model's name."""
    gateway = await start_gateway(gemini_yaml(upstream))
    upstream.script(json_reply({"embeddings": [{"values": [0.5]}, {"values": [0.25]}]}))
    async with _sdk(gateway) as sdk:
        reply = await sdk.models.embed_content(model="vectors", contents=["a", "b"])
    assert [vector.values for vector in reply.embeddings or ()] == [[0.5], [0.25]]
    request = upstream.requests[0]
    assert request.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    assert {one["model"] for one in request.json()["requests"]} == {"models/gemini-embedding-001"}


@pytest.mark.parametrize("version", [None, "v1beta"], ids=["newest", "v1beta"])
async def test_models_are_listed(upstream: ScriptedUpstream, start_gateway: StartGateway, version: str | None) -> None:
    """The SDK lists the routes as models, with what each of them can do."""
    gateway = await start_gateway(gemini_yaml(upstream))
    async with _sdk(gateway, version) as sdk:
        models = {model.name: model.supported_actions async for model in await sdk.models.list()}
        one = await sdk.models.get(model="chat")
        with pytest.raises(errors.ClientError, match="nothing") as missing:
            await sdk.models.get(model="nothing")
    assert models == {"models/chat": ["generateContent", "countTokens"], "models/vectors": ["embedContent"]}
    assert (one.name, missing.value.code) == ("models/chat", 404)


async def test_errors_are_the_sdk_s_own(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """An exhausted quota raises what the SDK raises for the vendor's; the wait in the body becomes a header."""
    gateway = await start_gateway(gemini_yaml(upstream))
    error = json.loads((FIXTURES / "error_rate_limited" / "upstream_error.json").read_text())
    upstream.script(json_reply(error["body"], status=429), json_reply(error["body"], status=429))
    async with _sdk(gateway) as sdk:
        with pytest.raises(errors.ClientError, match="You exceeded your current quota") as refusal:
            await sdk.models.generate_content(model="chat", contents="Hello")
    assert (refusal.value.code, refusal.value.status) == (429, "RESOURCE_EXHAUSTED")
    reply = await gateway.client.post("/v1beta/models/chat:generateContent", json={"contents": []})
    assert reply.headers["retry-after"] == "22"
