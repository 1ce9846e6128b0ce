"""A whole reply where a stream was asked for, from providers that cannot stream, or not with tools: as one chunk."""

import msgspec
from msgspec import Raw

from gateway.types.model_io import ModelReply, ModelRequest, StreamSummary

_BODY = msgspec.json.Decoder(dict[str, Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])
_CHUNK = Raw(b'"chat.completion.chunk"')
_NULL = Raw(b"null")


def is_whole(first: bytes) -> bool:
    """Whether the first bytes of a stream of server-sent events are none, but those of a JSON object."""
    return first.lstrip()[:1] == b"{"


def as_chunks(reply: ModelReply, request: ModelRequest, summary: StreamSummary) -> bytes:
    """A canonical reply as server-sent events, and as `summary` of the stream that it stands for."""
    summary.usage = reply.usage
    summary.response_model = reply.response_model
    summary.response_id = reply.response_id
    summary.finish_reasons = reply.finish_reasons
    summary.output_chars = reply.output_chars
    summary.finished = True
    body = _BODY.decode(reply.body)
    usage = body.pop("usage", _NULL)
    choices = _OBJECTS.decode(body["choices"])
    if any("message" in choice for choice in choices):
        body["object"] = _CHUNK
        choices = [_delta(choice) for choice in choices]
    events = _event({**body, "choices": Raw(msgspec.json.encode(choices))})
    if request.include_usage and usage != _NULL:
        events += _event({**body, "choices": Raw(b"[]"), "usage": usage})
    return events


def _delta(choice: dict[str, Raw]) -> dict[str, Raw]:
    """A choice of a chat with its message as a delta, in which calls are numbered."""
    message = _BODY.decode(choice.get("message", Raw(b"{}")))
    if message.get("tool_calls", _NULL) != _NULL:
        calls = _OBJECTS.decode(message["tool_calls"])
        numbered = [{"index": Raw(str(number).encode()), **call} for number, call in enumerate(calls)]
        message["tool_calls"] = Raw(msgspec.json.encode(numbered))
    others = {name: value for name, value in choice.items() if name != "message"}
    return {**others, "delta": Raw(msgspec.json.encode(message))}


def _event(chunk: dict[str, Raw]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
