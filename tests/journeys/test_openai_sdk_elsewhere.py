"""The genuine openai SDK with models that are not OpenAI's: tools, streams and structured output go through translation."""

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.conftest import StartGateway
from tests.providers.cases import CASES, Case
from tests.replies import BytesReply, Reply, StreamReply
from tests.running_gateway import RunningGateway
from tests.scripted_upstream import ScriptedUpstream

BASES = {
    "anthropic": "anthropic_api_base",
    "gemini": "gemini_api_base",
    "cohere": "cohere_api_base",
    "bedrock": "bedrock_api_base",
}
STREAM_TYPES = {"upstream.sse": "text/event-stream", "upstream.aws.json": "application/vnd.amazon.eventstream"}
SAID: list[Any] = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]


def case_of(name: str) -> Case:
    """The fixture of a name such as `gemini/chat_tools`."""
    return next(case for case in CASES if case.id == name)


TOOLED = pytest.mark.parametrize(
    "case",
    [case_of(f"{name}_tools") for name in ("anthropic/chat", "gemini/chat", "cohere/v2_chat", "bedrock/chat")],
    ids=lambda case: case.id,
)


def file_of(case: Case, upstream: ScriptedUpstream) -> str:
    """A file with the one route `chat`, to the fixture's model at a scripted upstream."""
    provider = case.path.parent.name
    config = case.file.config | {BASES[provider]: upstream.url}
    model = {"provider": provider, "name": case.file.model, "config": config}
    return json.dumps({"endpoints": [{"name": "chat", "endpoint_type": "llm/v1/chat", "model": model}]})


def streamed(case: Case) -> Reply:
    """The vendor's stream of the fixture."""
    name = case.stream_name
    assert name is not None
    return StreamReply([case.bytes(name)], content_type=STREAM_TYPES[name])


def sdk_of(gateway: RunningGateway) -> openai.AsyncOpenAI:
    """OpenAI's client for a gateway."""
    http = httpx.AsyncClient(trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="anything", http_client=http, max_retries=0)


def calls_of(message: Any) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a message: name and arguments."""
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


@TOOLED
async def test_a_tool_loop(case: Case, upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A reply's calls, streamed or not, are the same; sent back with their results, they go on to the vendor."""
    gateway = await start_gateway(file_of(case, upstream))
    whole = BytesReply(case.bytes("upstream_reply.json"))
    upstream.script(whole, streamed(case), BytesReply(case.bytes("upstream_reply.json")))
    tools = case.json("request.json")["tools"]
    async with sdk_of(gateway) as sdk:
        reply = await sdk.chat.completions.create(model="chat", messages=SAID, tools=tools)
        message = reply.choices[0].message
        async with sdk.chat.completions.stream(
            model="chat", messages=SAID, tools=tools, stream_options={"include_usage": True}
        ) as stream:
            final = await stream.get_final_completion()
        assert (reply.choices[0].finish_reason, final.choices[0].finish_reason) == ("tool_calls", "tool_calls")
        assert calls_of(message) == calls_of(final.choices[0].message)
        assert reply.usage == final.usage
        results = [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in message.tool_calls or ()]
        # The message as the SDK has it, with all the members that OpenAI's own API fills.
        history = [*SAID, message.model_dump(), *results]
        again = await sdk.chat.completions.create(model="chat", messages=history, tools=tools)
    assert again.choices[0].finish_reason == "tool_calls"
    sent = upstream.requests[2].body.decode()
    assert all(name in sent for name, _ in calls_of(message))
    assert "fine" in sent
    assert "annotations" not in sent


class _Answer(BaseModel):
    city: str
    degrees: int


ANSWER = '{"city":"Bonn","degrees":3}'


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        (
            "anthropic/chat_tools",
            {"id": "m", "model": "c", "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn"},
        ),
        ("gemini/chat_tools", {"candidates": [{"content": {"parts": [{"text": ANSWER}]}, "finishReason": "STOP"}]}),
        (
            "cohere/v2_chat_tools",
            {"message": {"content": [{"type": "text", "text": ANSWER}]}, "finish_reason": "COMPLETE"},
        ),
        (
            "bedrock/chat_tools",
            {"output": {"message": {"content": [{"text": ANSWER}]}}, "stopReason": "end_turn"},
        ),
    ],
)
async def test_an_answer_of_a_form(
    name: str, reply: dict[str, Any], upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """The SDK's `parse` sends its schema in the vendor's words and gets its own type back."""
    case = case_of(name)
    gateway = await start_gateway(file_of(case, upstream))
    upstream.script(BytesReply(json.dumps(reply).encode()))
    async with sdk_of(gateway) as sdk:
        answer = await sdk.chat.completions.parse(model="chat", messages=SAID, response_format=_Answer)
    assert answer.choices[0].message.parsed == _Answer(city="Bonn", degrees=3)
    assert "degrees" in upstream.requests[0].body.decode()
