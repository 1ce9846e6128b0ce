"""Claude's own API on Bedrock: the caller sees what Anthropic itself would send."""

import base64
import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.providers.bedrock import BEDROCK, AwsConfig, BedrockConfig
from gateway.providers.spec import Codec, Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelRequest
from gateway.types.route import Operation
from gateway.upstream.aws_event_stream import AwsEventStreamDecoder
from tests.aws_events import message

EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_bdrk_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-3-haiku",
            "content": [],
            "usage": {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 10}},
]
REQUEST = ModelRequest(operation=Operation.MESSAGES, fields={}, stream=True)


@pytest.fixture
def account() -> Endpoint:
    return BEDROCK.connect(BedrockConfig(aws_config=AwsConfig(aws_region="us-east-1")), "anthropic.claude-3-haiku")


def codec(account: Endpoint) -> Codec:
    return account.dialect.codecs[Operation.MESSAGES]


def frame(data: bytes) -> bytes:
    return message("chunk", json.dumps({"bytes": base64.b64encode(data).decode(), "p": "abc"}).encode())


def test_frames_become_anthropics_events(account: Endpoint) -> None:
    """Each frame is one event under its own name, its data byte for byte; usage and ids are read on the way."""
    open_stream = codec(account).open_stream
    assert open_stream is not None
    stream = open_stream(REQUEST, account)
    payloads = [json.dumps(event).encode() for event in EVENTS]
    frames = AwsEventStreamDecoder().feed(b"".join(map(frame, payloads)))
    output = b"".join(map(stream.feed, frames)) + stream.close()
    names = [event["type"].encode() for event in EVENTS]
    assert output == b"".join(
        b"event: " + name + b"\ndata: " + data + b"\n\n" for name, data in zip(names, payloads, strict=True)
    )
    summary = stream.summary
    assert summary.finished
    assert summary.response_id == "msg_bdrk_1"
    assert summary.finish_reasons == ("stop",)
    assert summary.usage is not None
    assert (summary.usage.input_tokens, summary.usage.output_tokens, summary.usage.cache_read_tokens) == (15, 4, 5)


@pytest.mark.parametrize(
    ("data", "error_type"),
    [
        (message("throttlingException", b'{"message":"slow down"}', kind="exception"), ErrorType.PROVIDER_RATE_LIMITED),
        (message("chunk", b'{"bytes": "%%%"}'), ErrorType.UNREADABLE_REPLY),
        (message("chunk", b"{}"), ErrorType.UNREADABLE_REPLY),
        (frame(b"no json"), ErrorType.UNREADABLE_REPLY),
    ],
)
def test_a_wrong_frame_is_the_providers_fault(account: Endpoint, data: bytes, error_type: ErrorType) -> None:
    """Exception frames and unreadable chunks end the stream with their cause."""
    open_stream = codec(account).open_stream
    assert open_stream is not None
    stream = open_stream(REQUEST, account)
    with pytest.raises(UpstreamError) as caught:
        for event in AwsEventStreamDecoder().feed(data):
            stream.feed(event)
    assert caught.value.error_type is error_type


def test_counting_wraps_the_body_that_would_be_invoked(account: Endpoint) -> None:
    """The count is asked for a complete InvokeModel body, and comes back under Anthropic's name."""
    count = account.dialect.codecs[Operation.COUNT_TOKENS]
    request = ModelRequest(
        operation=Operation.COUNT_TOKENS, fields=REQUEST.fields | {"messages": Raw(b'[{"role":"user"}]')}
    )
    wire = count.to_wire(request, account)
    assert wire.url.endswith("/model/anthropic.claude-3-haiku/count-tokens")
    inner = json.loads(base64.b64decode(json.loads(wire.body)["input"]["invokeModel"]["body"]))
    assert inner == {"max_tokens": 1, "messages": [{"role": "user"}], "anthropic_version": "bedrock-2023-05-31"}
    reply = count.from_wire(b'{"inputTokens": 12}', request, account)
    assert json.loads(reply.body) == {"input_tokens": 12}


def test_other_vendors_models_have_no_messages_api() -> None:
    """Only Claude speaks Anthropic's API."""
    other = BEDROCK.connect(BedrockConfig(aws_config=AwsConfig(aws_region="us-east-1")), "amazon.nova-pro-v1:0")
    assert Operation.MESSAGES not in other.dialect.codecs
