"""The genuine openai SDK works against /v1 after changing its base URL."""

import asyncio
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from gateway.types.errors import ErrorType
from tests.conftest import StartGateway
from tests.openai_replies import (
    openai_chat,
    openai_completion,
    openai_embeddings,
    openai_error,
    openai_stream,
    openai_usage,
)
from tests.replies import StreamReply, json_reply
from tests.running_gateway import PLAIN, RunningGateway, routes_yaml
from tests.scripted_upstream import ScriptedUpstream

FIXTURES = Path(__file__).parents[1] / "fixtures" / "openai"
MESSAGES = [{"role": "user", "content": "Hello?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def _sdk(gateway: RunningGateway, **options: object) -> openai.AsyncOpenAI:
    client = httpx.AsyncClient(trust_env=False, verify=PLAIN)
    options = {"max_retries": 0} | options
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="anything", http_client=client, **options)


async def test_chat(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A chat completion comes back as the SDK's own type, and the provider gets the configured model and key."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("Hi!", usage=openai_usage(9, 3, cached=4)))
    async with _sdk(gateway) as sdk:
        reply = await sdk.chat.completions.create(model="chat", messages=MESSAGES, temperature=0.5, seed=7)
    assert isinstance(reply, ChatCompletion)
    assert reply.choices[0].message.content == "Hi!"
    assert reply.usage is not None
    assert reply.usage.total_tokens == 12
    assert reply._request_id == (await gateway.records.last()).request_id
    request = upstream.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.header("authorization") == "Bearer sk-test"
    assert request.json() == {"messages": MESSAGES, "model": "gpt-4o-mini", "temperature": 0.5, "seed": 7}
    record = await gateway.records.last()
    usage = record.attempts[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (9, 3, 4)


async def test_stream(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A stream arrives chunk by chunk; the usage that the gateway asked for is counted and not shown."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_stream(["Hel", "lo"], usage=openai_usage(5, 2)))
    async with _sdk(gateway) as sdk:
        stream = await sdk.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    assert all(chunk.usage is None for chunk in chunks)
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (5, 2)
    assert attempt.first_chunk_s is not None
    assert attempt.finish_reasons == ("stop",)


async def test_stream_with_usage(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A caller who asks for the usage chunk gets it."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_stream(["Hello"], usage=openai_usage(5, 1)))
    async with _sdk(gateway) as sdk:
        stream = await sdk.chat.completions.create(
            model="chat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6


async def test_tools(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Tools go up untouched and tool calls come back as the SDK's own objects."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    reply = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    upstream.script(json_reply(reply))
    async with _sdk(gateway) as sdk:
        answer = await sdk.chat.completions.create(model="chat", messages=MESSAGES, tools=[WEATHER])
    assert upstream.requests[0].json()["tools"] == [WEATHER]
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.arguments == '{"city":"Bonn"}'


async def test_completions_and_embeddings(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Completions and embeddings of `endpoints:` go to the provider's own paths."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_completion("blue"), openai_embeddings([0.1, 0.2], [0.3, 0.4]))
    async with _sdk(gateway) as sdk:
        text = await sdk.completions.create(model="completions", prompt="The sky is")
        vectors = await sdk.embeddings.create(model="embeddings", input=["a", "b"], encoding_format="float")
    assert text.choices[0].text == "blue"
    assert [item.embedding for item in vectors.data] == [[0.1, 0.2], [0.3, 0.4]]
    assert [request.path for request in upstream.requests] == ["/v1/completions", "/v1/embeddings"]


async def test_models(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The list of models is the list of routes."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    async with _sdk(gateway) as sdk:
        models = [model.id async for model in sdk.models.list()]
        one = await sdk.models.retrieve("chat")
    assert models == ["chat", "completions", "embeddings"]
    assert one.id == "chat"


async def test_azures_sdk(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """OpenAI's client for Azure finds a route where it looks for a deployment, whatever the provider behind it."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("Hi!"), openai_embeddings([0.5, 0.25]))
    async with httpx.AsyncClient(trust_env=False) as http:
        sdk = openai.AsyncAzureOpenAI(
            azure_endpoint=gateway.url, api_version="2024-10-21", api_key="anything", http_client=http, max_retries=0
        )
        reply = await sdk.chat.completions.create(model="chat", messages=MESSAGES)
        vectors = await sdk.embeddings.create(model="embeddings", input="a", encoding_format="float")
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.chat.completions.create(model="nothing", messages=MESSAGES)
    assert reply.choices[0].message.content == "Hi!"
    assert vectors.data[0].embedding == [0.5, 0.25]
    assert unknown.value.code == "unknown_route"
    assert [request.json()["model"] for request in upstream.requests] == ["gpt-4o-mini", "text-embedding-3-small"]


async def test_what_there_is_not(start_gateway: StartGateway) -> None:
    """Calls that no route serves raise the SDK's own error, with a text that names them."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    async with _sdk(gateway) as sdk:
        with pytest.raises(openai.NotFoundError, match="/v1/audio/speech is not available") as speech:
            await sdk.audio.speech.create(model="chat", voice="alloy", input="Hello")
        with pytest.raises(openai.NotFoundError, match="/v1/files is not available"):
            await sdk.files.list()
    assert speech.value.code == "unsupported_operation"


async def test_errors_are_the_sdks_own(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Unknown routes, bad requests and refusing providers raise the SDK's types, with our code and the trace id."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    async with _sdk(gateway) as sdk:
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.chat.completions.create(model="nothing", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as wrong:
            await sdk.chat.completions.create(model="embeddings", messages=MESSAGES)
        upstream.script(openai_error(429, "slow down", headers=[("retry-after", "7")]))
        with pytest.raises(openai.RateLimitError) as limited:
            await sdk.chat.completions.create(model="chat", messages=MESSAGES)
    assert unknown.value.code == "unknown_route"
    assert wrong.value.code == "wrong_route_type"
    assert limited.value.code == "provider_rate_limited"
    assert limited.value.response.headers["retry-after"] == "7"
    assert isinstance(limited.value.body, dict)
    assert limited.value.body["trace_id"] == limited.value.response.headers["x-gateway-trace-id"]


async def test_the_sdks_retries_find_a_recovered_provider(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A 503 is retryable for the SDK too; each of its tries is a request of its own."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_error(503, "busy", headers=[("retry-after-ms", "1")]), openai_chat("Hi!"))
    async with _sdk(gateway, max_retries=1) as sdk:
        reply = await sdk.chat.completions.create(model="chat", messages=MESSAGES)
    assert reply.choices[0].message.content == "Hi!"
    assert len(await gateway.records.wait(2)) == 2


async def test_a_stream_that_breaks_raises(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """When the provider breaks off, the SDK raises instead of ending the stream as if it were whole."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_stream(["Hel", "lo"], cut_after=2))
    seen = []
    async with _sdk(gateway) as sdk:
        stream = await sdk.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError) as broken:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content)
    assert seen == ["", "Hel"]
    assert broken.value.code == "stream_cut"


async def test_responses(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The Responses API passes through with the model mapped and its usage counted."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hi!", "annotations": []}],
    }
    usage = {
        "input_tokens": 8,
        "output_tokens": 2,
        "total_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "status": "completed",
        "output": [message],
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    upstream.script(json_reply(body))
    async with _sdk(gateway) as sdk:
        reply = await sdk.responses.create(model="chat", input="Hello?")
    assert reply.output_text == "Hi!"
    assert upstream.requests[0].path == "/v1/responses"
    assert upstream.requests[0].json() == {"input": "Hello?", "model": "gpt-4o-mini"}
    counted = (await gateway.records.last()).attempts[0].usage
    assert counted is not None
    assert (counted.input_tokens, counted.cache_read_tokens, counted.reasoning_tokens) == (8, 3, 1)


async def test_a_response_streams(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The SDK reads the vendor's own events of a streamed response; the tokens in the last one count."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(StreamReply([(FIXTURES / "responses_stream" / "upstream.sse").read_bytes()]))
    async with _sdk(gateway) as sdk:
        stream = await sdk.responses.create(model="chat", input="Hello?", stream=True)
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert ("".join(deltas), events[-1].type) == ("In a peaceful grove", "response.completed")
    counted = (await gateway.records.last()).attempts[0].usage
    assert counted is not None
    assert (counted.input_tokens, counted.output_tokens) == (36, 87)


async def test_a_response_that_fails_in_its_stream(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A response that fails after its first words ends in the SDK's error event, and counts as the provider's failure."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    begun, failed = (
        (FIXTURES / "responses_stream_failed" / "upstream.sse").read_bytes().split(b"event: response.failed")
    )
    gate = asyncio.Event()
    upstream.script(StreamReply([begun, gate, b"event: response.failed" + failed]))
    async with _sdk(gateway) as sdk:
        stream = await sdk.responses.create(model="chat", input="Hello?", stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                gate.set()
    assert (event.type, event.message) == ("error", "The model failed to generate a response.")
    assert (await gateway.records.last()).error_type is ErrorType.STREAM_ERROR
