"""Captured prompts and replies: in the conventions' form, without secrets, and no larger than asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.errors import ConfigError
from gateway.telemetry.content import ContentMaker
from gateway.telemetry.content_hook import CapturedContent, ContentHookSink, load_hook
from gateway.telemetry.redact import REDACTED, Redactor, public_url
from gateway.types.model_io import ModelRequest
from gateway.types.records import Content
from gateway.types.route import CaptureTo, ContentCapture, Operation
from tests.telemetry import facts

SPAN = ContentCapture(to=CaptureTo.SPAN)


def make(
    fields: dict[str, Any],
    reply: object = None,
    *,
    operation: Operation = Operation.CHAT,
    capture: ContentCapture = SPAN,
    patterns: tuple[str, ...] = (),
) -> Content:
    """The content of a request and its reply (a body's value, or a list of a stream's events)."""
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    request = ModelRequest(operation=operation, fields=raw)
    body: bytes | list[bytes] | None = None
    if isinstance(reply, list):
        body = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in reply]
    elif reply is not None:
        body = msgspec.json.encode(reply)
    content = ContentMaker(Redactor(patterns)).make(capture, request, body)
    assert content is not None
    return content


def messages(text: str | None) -> Any:
    assert text is not None
    return json.loads(text)


def test_a_chat_with_tools_and_pictures() -> None:
    """Texts, tool calls, their answers and the finish reason have the conventions' parts; pictures are only named."""
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"},
                                     {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
    ]  # fmt: skip
    reply = {"choices": [{"message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}]}
    content = make({"messages": asked, "temperature": 1}, reply)
    assert messages(content.input_messages) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What is it?"},
                                   {"type": "blob", "modality": "image", "content": ""}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"x":1}'}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "a cat"}]},
    ]  # fmt: skip
    assert messages(content.output_messages) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "A cat."}], "finish_reason": "stop"}
    ]
    assert not content.cut


def test_a_stream_is_the_reply_that_it_adds_up_to() -> None:
    """Text and tool calls in pieces, of two choices, give what a unary reply would have given."""

    def event(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"x"'}}
    rest = {"index": 0, "function": {"arguments": ":1}"}}
    stream = [
        event(0, {"role": "assistant", "content": ""}), event(0, {"content": "He"}), event(1, {"tool_calls": [call]}),
        event(0, {"content": "llo"}), event(1, {"tool_calls": [rest]}), event(0, {}, "stop"),
        event(1, {}, "tool_calls"), {"choices": [], "usage": {"prompt_tokens": 1}},
    ]  # fmt: skip
    content = make({"messages": []}, stream)
    assert content.input_messages is None
    assert messages(content.output_messages) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "stop"},
        {"role": "assistant",
         "parts": [{"type": "text", "content": ""},
                   {"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"x":1}'}],
         "finish_reason": "tool_calls"},
    ]  # fmt: skip


def test_completions_and_embeddings() -> None:
    """A prompt or an input is a user's text; vectors are no message."""
    reply = {"choices": [{"text": "two", "finish_reason": "length"}]}
    completion = make({"prompt": ["one"]}, reply, operation=Operation.COMPLETIONS)
    assert messages(completion.input_messages) == [{"role": "user", "parts": [{"type": "text", "content": "one"}]}]
    assert messages(completion.output_messages)[0]["finish_reason"] == "length"
    embedding = make({"input": "x"}, {"data": [{"embedding": [0.1]}]}, operation=Operation.EMBEDDINGS)
    assert messages(embedding.input_messages)[0]["parts"][0]["content"] == "x"
    assert embedding.output_messages is None


def test_a_vendors_own_call_is_not_captured() -> None:
    """Bodies that are not canonical are left alone."""
    request = ModelRequest(operation=Operation.GENERATE_CONTENT, fields={})
    assert ContentMaker(Redactor()).make(SPAN, request, b"{}") is None


SECRETS = (
    "sk-proj-abcdefghijklmnopqrstuvwx", "sk-ant-api03-abcdefghijklmnopqrstu", "gsk_abcdefghijklmnopqrstuvwx",
    "ghp_abcdefghijklmnopqrstuvwxyz0123", "github_pat_11ABCDEFG0abcdefghijkl", "xoxb-123456789012-abcdef",
    "AIzaSyA-abcdefghijklmnopqrstuvwxyz12345", "AKIAIOSFODNN7EXAMPLE", "ya29.a0AfH6SMBabcdefghijklmnop",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9", "Bearer abcdefghijklmnop123456",
    "api_key=supersecretvalue1", "password: hunter2hunter2", '"client_secret": "s3cr3t-value-9"',
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "https://user:passw0rd@db.example.com/x", "gw_abcdefghijklmnopqrstuvwx",
)  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_credentials_are_taken_out(secret: str) -> None:
    """Whatever issuer made it, in a question or an answer, alone or inside a sentence."""
    for text in (secret, f"Use {secret} for it", f"line\n{secret}\nline"):
        reply = {"choices": [{"message": {"content": text}}]}
        content = make({"messages": [{"role": "user", "content": text}]}, reply)
        for told in (content.input_messages, content.output_messages):
            assert REDACTED in str(told)
            assert "passw0rd" not in str(told)
            assert msgspec.json.encode(secret).decode()[1:-1] not in str(told)


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem about the sea and its key to the city.",
        "The password policy asks for 12 letters.",
        "def f(api_key): return api_key",
        "See https://example.com/a/b?c=d for sk- and gsk_ prefixes.",
        "a" * 5_000,
    ],
)
def test_prose_and_code_are_left_alone(text: str) -> None:
    """What only talks of secrets is kept."""
    assert Redactor().text(text) == text


def test_patterns_of_the_configuration_are_taken_out_too() -> None:
    """Each by its own rules: flags of one pattern do not reach another."""
    redactor = Redactor((r"(?i)customer-\d+", r"\bDE\d{20}\b"))
    assert redactor.text("CUSTOMER-17 pays from DE02120300000000202051") == f"{REDACTED} pays from {REDACTED}"
    assert redactor.text("de02120300000000202051") == "de02120300000000202051"


@given(text=st.text(max_size=400), limit=st.integers(1, 200))
def test_content_is_cut_to_its_size(text: str, limit: int) -> None:
    """The texts together have at most the size, a cut mark aside, and a cut is told of."""
    capture = ContentCapture(to=CaptureTo.SPAN, max_bytes=limit)
    content = make({"messages": [{"role": "user", "content": text}] * 3}, capture=capture)
    parts = [part["content"] for message in messages(content.input_messages) for part in message["parts"]]
    kept = sum(len(part.removesuffix("…").encode()) for part in parts)
    assert kept <= max(limit, len(Redactor().text(text).encode()) * 3 if not content.cut else limit)
    assert content.cut == (len(Redactor().text(text).encode()) * 3 > limit)


def test_a_secret_on_the_edge_of_the_cut_is_not_kept() -> None:
    """Texts are redacted before they are cut, so half a secret cannot stay."""
    secret = "sk-proj-abcdefghijklmnopqrstuvwx"
    for limit in range(1, 60):
        capture = ContentCapture(to=CaptureTo.SPAN, max_bytes=limit)
        content = make({"messages": [{"role": "user", "content": f"1234567890 {secret}"}]}, capture=capture)
        assert "sk-" not in str(content.input_messages)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://h:8443/v1/chat", "https://h:8443/v1/chat"),
        ("https://user:secret@h/v1?key=abc&alt=sse&api-version=1", "https://h/v1?key=REDACTED&alt=sse&api-version=1"),
        ("https://h/v1?sig=a%20b&empty=", "https://h/v1?sig=REDACTED&empty=REDACTED"),
        ("https://h/models/a:b%2Fc#frag", "https://h/models/a:b%2Fc"),
    ],
)
def test_urls_are_told_without_secrets(url: str, told: str) -> None:
    """User, password, fragment and the values of a query stay here."""
    assert public_url(url) == told


HOOKED: list[CapturedContent] = []


def keep(content: CapturedContent) -> None:
    """A hook."""
    if content.route == "broken":
        raise RuntimeError("hook on fire")
    HOOKED.append(content)


def test_a_hook_gets_what_its_routes_capture() -> None:
    """Only content for the hook reaches it, with the ids that join it to the trace; a failing call is counted."""
    HOOKED.clear()
    failed: list[int] = []
    sink = ContentHookSink(load_hook(f"{__name__}:keep"), lambda: failed.append(1), lambda _: pytest.fail("lost"))
    for_hook = Content(to=CaptureTo.HOOK, input_messages="[1]", output_messages="[2]")
    sink.record(facts.request(facts.attempt(content=Content(to=CaptureTo.SPAN, input_messages="[0]"))))
    sink.record(facts.request(facts.attempt(content=for_hook), route="broken"))
    sink.record(facts.request(facts.attempt(content=for_hook)))
    sink.close(10.0)
    [told] = HOOKED
    assert (told.input_messages, told.output_messages, told.route) == ("[1]", "[2]", "chat")
    assert (told.trace_id, told.span_id) == (f"{facts.TRACE_ID:032x}", "000000000000beef")
    assert failed == [1]


@pytest.mark.parametrize("name", ["no.such.module:f", "json:nothing", "json", "math:pi"])
def test_a_hook_that_cannot_be_imported_is_refused(name: str) -> None:
    """The refusal names the field."""
    with pytest.raises(ConfigError, match="content_hook"):
        load_hook(name)
