"""A reply that passes as it came may have members of odd types: they cost their measurement, and not the reply."""

import json
from typing import Any

import pytest

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, StreamEvent
from tests.conftest import StartGateway
from tests.openai_replies import SSE_DONE, sse
from tests.providers.cases import CASES, Case
from tests.replies import StreamReply, json_reply
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

SAID = [{"role": "user", "content": "Hello?"}]


def _case(name: str) -> Case:
    return next(case for case in CASES if case.id == name)


def _read(reply: Any, name: str = "openai/chat") -> ModelReply:
    case = _case(name)
    return case.codec().from_wire(json.dumps(reply).encode(), case.request(), case.endpoint())


@pytest.mark.parametrize(
    ("odd", "usage", "response_id"),
    [
        ({"id": 17}, (9, 3), None),
        ({"model": ["m"], "id": "c"}, (9, 3), "c"),
        ({"usage": "none"}, None, None),
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": []}}, (9, 3), None),
        ({"usage": {"prompt_tokens": "9", "completion_tokens": 3}}, (None, 3), None),
        ({"usage": {"prompt_tokens": 9.5, "completion_tokens": 3}}, (None, 3), None),
        ({"choices": [{"finish_reason": 1}, {"finish_reason": "stop"}]}, (9, 3), None),
    ],
)
def test_an_odd_member_costs_its_measurement(
    odd: dict[str, Any], usage: tuple[int | None, int | None] | None, response_id: str | None
) -> None:
    """The reply is forwarded byte for byte, and all that can be read of it is counted."""
    reply = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    } | odd
    found = _read(reply)
    assert found.body == json.dumps(reply).encode()
    assert found.response_id == response_id
    counted = None if found.usage is None else (found.usage.input_tokens, found.usage.output_tokens)
    assert counted == usage


@pytest.mark.parametrize(
    "reply", [{}, [], {"choices": 3}, {"choices": [3]}, "Hi", {"id": 3, "object": "chat.completion"}]
)
def test_what_is_no_reply_is_unreadable(reply: Any) -> None:
    """Without its choices a body is no completion, however its other members are."""
    with pytest.raises(UpstreamError) as failure:
        _read(reply)
    assert failure.value.error_type is ErrorType.UNREADABLE_REPLY


@pytest.mark.parametrize(
    ("stated", "error_type", "retryable", "code"),
    [
        ({"code": "busy"}, ErrorType.PROVIDER_ERROR, False, "busy"),
        ({"code": 429}, ErrorType.PROVIDER_RATE_LIMITED, True, None),
        ({"code": "content_filter", "status": 400}, ErrorType.PROVIDER_INVALID_REQUEST, False, "content_filter"),
    ],
)
def test_an_error_with_a_good_status_is_an_error(
    stated: dict[str, Any], error_type: ErrorType, retryable: bool, code: str | None
) -> None:
    """OpenRouter answers 200 with an error's body: it is the error that the body states, in the body's words."""
    with pytest.raises(UpstreamError, match=r"The model is busy\.") as failure:
        _read({"error": {"message": "The model is busy.", **stated}, "user_id": "u"})
    error = failure.value
    assert (error.error_type, error.retryable, error.code) == (error_type, retryable, code)


async def test_a_stream_of_odd_chunks_passes(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Content in parts, ids that are numbers and counts that are texts reach the caller as they came."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    chunks = [
        sse({"id": 1, "choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "Hi"}]}}]}),
        sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}]}),
        sse(
            {"id": "c", "choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": "9", "completion_tokens": 3}}
        ),
    ]
    upstream.script(StreamReply([*chunks, SSE_DONE]))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": SAID, "stream": True})
    assert reply.content.startswith(b"".join(chunks))
    assert reply.content.endswith(SSE_DONE)
    attempt = (await gateway.records.last()).attempts[0]
    assert (attempt.response_id, attempt.error_type) == ("c", None)
    assert attempt.usage is not None
    assert attempt.usage.output_tokens == 3


async def test_a_message_with_odd_members_passes(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Anthropic's own replies are no exception; a translated one must be what its API documents."""
    config = {"anthropic_api_key": "k", "anthropic_api_base": f"{upstream.url}/v1"}
    model = {"provider": "anthropic", "name": "claude-sonnet-4-5", "config": config}
    gateway = await start_gateway(
        json.dumps({"endpoints": [{"name": "chat", "endpoint_type": "llm/v1/chat", "model": model}]})
    )
    odd = {
        "id": "msg_1",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": ["Hi"]}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": "0"},
    }
    upstream.script(json_reply(odd), json_reply(odd))
    passed = await gateway.client.post("/v1/messages", json={"model": "chat", "max_tokens": 9, "messages": SAID})
    assert passed.json() == odd
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (9, 3)
    translated = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": SAID})
    assert (translated.status_code, translated.json()["error"]["code"]) == (502, "unreadable_reply")


@pytest.mark.parametrize(
    ("said", "chars"),
    [
        ({"content": "Hello"}, 5),
        ({"content": "Hello", "reasoning_content": "Hmm", "reasoning": "Hmm"}, 8),
        ({"content": None, "reasoning": "Hmm"}, 3),
        ({"content": None, "refusal": "No."}, 3),
        ({"content": "", "tool_calls": [{"function": {"name": "now", "arguments": '{"a":1}'}}]}, 10),
        ({"content": "Hello", "tool_calls": [{"index": 1, "function": {"arguments": '{"a"'}}]}, 9),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "now", "input": "x"}}]}, 4),
        ({"content": None, "function_call": {"name": "now", "arguments": "{}"}}, 5),
        ({"role": "assistant"}, 0),
    ],
)
def test_all_that_a_model_generates_counts_as_output(said: dict[str, Any], chars: int) -> None:
    """Where a provider counts nothing, thoughts, refusals and calls are counted like text, streamed and whole."""
    assert _read({"choices": [{"message": said}]}).output_chars == chars
    case = _case("openai/chat_stream")
    open_stream = case.codec().open_stream
    assert open_stream is not None
    stream = open_stream(case.request(streaming=True), case.endpoint())
    data = json.dumps({"choices": [{"delta": said}]}).encode()
    stream.feed(StreamEvent(data, data))
    assert stream.summary.output_chars == chars
