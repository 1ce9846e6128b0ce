"""The genuine anthropic SDK works against /v1/messages after changing its base URL."""

import json
from pathlib import Path

import anthropic
import pytest
from anthropic.types import Message

from gateway.types.errors import ErrorType
from tests.conftest import StartGateway
from tests.replies import BytesReply, StreamReply, json_reply
from tests.running_gateway import RunningGateway
from tests.scripted_upstream import ScriptedUpstream

FIXTURES = Path(__file__).parents[1] / "fixtures" / "anthropic"
HELLO: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello"}]


def claude_yaml(upstream: ScriptedUpstream, retries: int = 0) -> str:
    """A file with the one route `chat`, to Claude at a scripted upstream."""
    config = {"anthropic_api_key": "sk-ant-test", "anthropic_api_base": f"{upstream.url}/v1"}
    model = {"provider": "anthropic", "name": "claude-sonnet-4-5", "config": config}
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "retries": retries, "model": model}
    return json.dumps({"endpoints": [route]})


def _sdk(gateway: RunningGateway) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key="anything", max_retries=0)


async def test_a_message_passes_through(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The SDK reads the vendor's own message; the vendor got the configured model and key, and the caller's betas."""
    gateway = await start_gateway(claude_yaml(upstream))
    given = (FIXTURES / "messages" / "upstream_reply.json").read_bytes()
    upstream.script(BytesReply(given))
    async with _sdk(gateway) as sdk:
        reply = await sdk.messages.create(
            model="chat", max_tokens=64, messages=HELLO, extra_headers={"anthropic-beta": "context-1m-2025-08-07"}
        )
    assert reply == Message.model_validate_json(given)
    assert reply._request_id == (await gateway.records.last()).request_id
    request = upstream.requests[0]
    assert (request.path, request.header("x-api-key")) == ("/v1/messages", "sk-ant-test")
    assert request.header("anthropic-beta") == "context-1m-2025-08-07"
    assert request.json() == {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": HELLO}
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (125, 15)


async def test_a_stream_passes_through(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The SDK's own accumulator makes the final message of the events; the tokens of the last event are counted."""
    gateway = await start_gateway(claude_yaml(upstream))
    upstream.script(StreamReply([(FIXTURES / "messages_stream" / "upstream.sse").read_bytes()]))
    async with _sdk(gateway) as sdk, sdk.messages.stream(model="chat", max_tokens=64, messages=HELLO) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        message = await stream.get_final_message()
    assert text == "I'll check."
    assert message.stop_reason == "end_turn"
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (10_682, 510)


async def test_tokens_are_counted_by_the_vendor(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A token count goes to the vendor's own call, and consumes none."""
    gateway = await start_gateway(claude_yaml(upstream))
    upstream.script(json_reply({"input_tokens": 14}))
    async with _sdk(gateway) as sdk:
        count = await sdk.messages.count_tokens(model="chat", messages=HELLO)
    assert count.input_tokens == 14
    assert upstream.requests[0].path == "/v1/messages/count_tokens"
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert attempt.usage.total_tokens == 0


async def test_models_are_listed(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    """The SDK pages through the routes as through the vendor's models."""
    gateway = await start_gateway(claude_yaml(upstream))
    async with _sdk(gateway) as sdk:
        models = [model async for model in sdk.models.list()]
    assert [(model.id, model.type, model.display_name) for model in models] == [("chat", "model", "chat")]
    assert models[0].created_at.year > 2000


async def test_errors_are_the_sdk_s_own(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A rate limit and an unknown route raise what the SDK raises for the vendor's, with a text that names the cause."""
    gateway = await start_gateway(claude_yaml(upstream))
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}
    upstream.script(json_reply(error, status=429, headers=[("retry-after", "7")]))
    async with _sdk(gateway) as sdk:
        with pytest.raises(anthropic.RateLimitError, match=r"Slow down\.") as limited:
            await sdk.messages.create(model="chat", max_tokens=64, messages=HELLO)
        with pytest.raises(anthropic.APIStatusError, match="Route other not found"):
            await sdk.messages.create(model="other", max_tokens=64, messages=HELLO)
    assert limited.value.response.headers["retry-after"] == "7"


async def test_an_error_inside_a_stream_is_the_sdk_s_own(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A stream that the vendor ends with an error raises in the SDK, and is recorded as the provider's failure."""
    gateway = await start_gateway(claude_yaml(upstream))
    upstream.script(StreamReply([(FIXTURES / "chat_stream_error" / "upstream.sse").read_bytes()]))
    async with _sdk(gateway) as sdk:
        with pytest.raises(anthropic.APIStatusError, match="Internal server error"):
            async with sdk.messages.stream(model="chat", max_tokens=64, messages=HELLO) as stream:
                await stream.until_done()
    assert (await gateway.records.last()).error_type is ErrorType.STREAM_ERROR


async def test_an_overloaded_vendor_is_asked_again(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """529 invites another try; the SDK sees only the reply."""
    gateway = await start_gateway(claude_yaml(upstream, retries=1))
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    given = (FIXTURES / "messages" / "upstream_reply.json").read_bytes()
    upstream.script(json_reply(overloaded, status=529, headers=[("retry-after", "0")]), BytesReply(given))
    async with _sdk(gateway) as sdk:
        reply = await sdk.messages.create(model="chat", max_tokens=64, messages=HELLO)
    assert reply.id == "msg_013Zva2CMHLNnXjNJJKqJ2EF"
    errors = [attempt.error_type for attempt in (await gateway.records.last()).attempts]
    assert errors == [ErrorType.PROVIDER_OVERLOADED, None]
