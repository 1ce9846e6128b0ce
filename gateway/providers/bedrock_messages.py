"""Claude on Bedrock by its own Messages API: InvokeModel carries the body, and frames carry the stream's events.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html;
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html
"""

import base64
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.providers.anthropic_reply import MessageStream, message_from_wire
from gateway.providers.bedrock_converse import stream_exception
from gateway.providers.bedrock_invoke import HEADERS, model_url
from gateway.providers.canonical_reply import decode_reply
from gateway.providers.parameters import encode
from gateway.providers.spec import Codec, Endpoint
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, WireRequest
from gateway.types.usage import Usage

_VERSION = "bedrock-2023-05-31"
_BETA = "anthropic-beta"


def _body(request: ModelRequest) -> dict[str, Any]:
    """The caller's body as Bedrock takes it: model and stream are in the URL, version and betas in the body."""
    body: dict[str, Any] = {name: value for name, value in request.fields.items() if name not in ("model", "stream")}
    betas = [beta.strip() for name, value in request.headers if name == _BETA for beta in value.split(",")]
    if betas:
        body["anthropic_beta"] = betas
    return body | {"anthropic_version": _VERSION}


def _to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    action = "invoke-with-response-stream" if request.stream else "invoke"
    return WireRequest(url=model_url(endpoint, action), body=encode(_body(request)), headers=HEADERS)


class _Chunk(Struct):
    bytes: str


_CHUNK = msgspec.json.Decoder(_Chunk)


class _EventType(Struct):
    type: str = ""


_EVENT_TYPE = msgspec.json.Decoder(_EventType)


class FramedMessageStream(MessageStream):
    """Gives a framed Messages stream as the server-sent events that Anthropic itself would send."""

    def feed(self, event: StreamEvent) -> bytes:
        """The event in one frame; raises UpstreamError for an exception frame and for an error event."""
        if (error := stream_exception(event)) is not None:
            raise error
        if event.name != "chunk":
            return b""
        data = _unwrapped(event.data)
        name = decode_reply(_EVENT_TYPE, data).type
        return super().feed(StreamEvent(data, b"event: " + name.encode() + b"\ndata: " + data + b"\n\n", name))


def _unwrapped(frame: bytes) -> bytes:
    try:
        return base64.b64decode(decode_reply(_CHUNK, frame).bytes, validate=True)
    except ValueError:
        # What is no base64 is no JSON either, and is refused as such.
        return b""


# --- token counts -----------------------------------------------------------------------------------------------


def _count_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    # Bedrock counts the body of an InvokeModel call, which must be complete.
    body = {"max_tokens": Raw(b"1")} | _body(request)
    wrapped = base64.b64encode(encode(body)).decode()
    return WireRequest(
        url=model_url(endpoint, "count-tokens"),
        body=encode({"input": {"invokeModel": {"body": wrapped}}}),
        headers=HEADERS,
    )


class _Count(Struct, rename="camel"):
    input_tokens: int


_COUNT = msgspec.json.Decoder(_Count)


def _count_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """Bedrock's count under Anthropic's name. Counting consumes no tokens, which is known and not a guess."""
    count = decode_reply(_COUNT, body).input_tokens
    return ModelReply(body=encode({"input_tokens": count}), usage=Usage(input_tokens=0, output_tokens=0))


MESSAGES = Codec(to_wire=_to_wire, from_wire=message_from_wire, open_stream=FramedMessageStream)
COUNT_TOKENS = Codec(to_wire=_count_to_wire, from_wire=_count_from_wire)
