"""Requests and fixtures are held against the types of the vendors' own SDKs, so that neither is our invention."""

from typing import Any, get_args

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParams
from google.genai import types as google
from pydantic import TypeAdapter

from gateway.types.route import Operation
from tests.providers.cases import CASES, Case
from tests.providers.test_fixtures import decode

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)
_GOOGLE_TYPES: dict[str, Any] = {
    "contents": TypeAdapter(list[google.Content]),
    "system_instruction": TypeAdapter(google.Content),
    "tools": TypeAdapter(list[google.Tool]),
    "toolConfig": TypeAdapter(google.ToolConfig),
    "generationConfig": TypeAdapter(google.GenerationConfig),
    "safetySettings": TypeAdapter(list[google.SafetySetting]),
}


def speaking(dialect: str, name: str) -> pytest.MarkDecorator:
    """Parametrize a test with a dialect's chats and own calls whose folder holds a file."""
    own = {"anthropic": Operation.MESSAGES, "gemini": Operation.GENERATE_CONTENT}[dialect]
    cases = [
        case
        for case in CASES
        if case.has(name)
        and case.path.parent.name in {dialect, "vertex_ai"}
        and case.endpoint().dialect.name == dialect
        and case.file.operation in {Operation.CHAT, own}
        and "countTokens" not in case.file.path_suffix
    ]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


@speaking("anthropic", "upstream_request.json")
def test_claude_gets_what_its_sdk_would_send(case: Case) -> None:
    """A Messages body has the members and the types of Anthropic's parameters."""
    body = case.json("upstream_request.json")["body"]
    # Sampling has left the newest SDK's types, not the API of the models that have it.
    known = {"temperature", "top_p", "top_k", "anthropic_version"}
    names = {name for params in get_args(MessageCreateParams) for name in params.__annotations__}
    assert set(body) - known <= names
    _PARAMS.validate_python({"model": "claude"} | {name: value for name, value in body.items() if name not in known})


@speaking("anthropic", "upstream_reply.json")
def test_claude_s_replies_are_what_its_sdk_reads(case: Case) -> None:
    """The fixtures' replies are Messages."""
    Message.model_validate(case.json("upstream_reply.json"))


@speaking("anthropic", "upstream.sse")
def test_claude_s_events_are_what_its_sdk_reads(case: Case) -> None:
    """The fixtures' events are those that Anthropic's SDK reads, apart from pings and errors."""
    for event in decode(case, [case.bytes("upstream.sse")]):
        if event.name not in {"ping", "error"}:
            _EVENT.validate_json(event.data)


@speaking("gemini", "upstream_request.json")
def test_gemini_gets_what_its_sdk_would_send(case: Case) -> None:
    """A body has the members and the types of Google's; its models refuse members that they do not know."""
    body = case.json("upstream_request.json")["body"]
    assert set(body) <= set(_GOOGLE_TYPES)
    for name, value in body.items():
        _GOOGLE_TYPES[name].validate_python(value)


@speaking("gemini", "upstream_reply.json")
def test_gemini_s_replies_are_what_its_sdk_reads(case: Case) -> None:
    """The fixtures' replies are GenerateContentResponses."""
    google.GenerateContentResponse.model_validate(case.json("upstream_reply.json"))


@speaking("gemini", "upstream.sse")
def test_gemini_s_events_are_what_its_sdk_reads(case: Case) -> None:
    """The fixtures' events are GenerateContentResponses, apart from errors."""
    for event in decode(case, [case.bytes("upstream.sse")]):
        if not event.data.startswith(b'{"error"'):
            google.GenerateContentResponse.model_validate_json(event.data)
