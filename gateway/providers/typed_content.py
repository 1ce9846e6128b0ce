"""The `openai` dialect of vendors whose messages may hold a list of typed parts: the list becomes text.

Text parts become `content`, thoughts (Databricks' `reasoning`, Mistral's `thinking`) become `reasoning_content`. Bodies
without such a list stay as they came, byte for byte, at the price of one search.
"""

import re
from typing import Any

import msgspec

from gateway.providers import openai
from gateway.providers.openai import OpenAIStream
from gateway.providers.spec import Codec, Endpoint
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent

_LIST_CONTENT = re.compile(rb'"content"\s*:\s*\[')
_THOUGHTS = {"reasoning": "summary", "thinking": "thinking"}


def with_text(body: bytes, member: str, joint: str) -> bytes:
    """The body with the content of every choice's `member` made text; the same bytes where none is a list.

    `joint` stands between parts: a line end in whole replies, nothing in the pieces of a stream.
    """
    if _LIST_CONTENT.search(body) is None:
        return body
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    if not isinstance(reply, dict):
        return body
    for choice in _list(reply.get("choices")):
        if isinstance(choice, dict) and isinstance(choice.get(member), dict):
            _flatten(choice[member], joint)
    return msgspec.json.encode(reply)


def _flatten(message: dict[str, Any], joint: str) -> None:
    parts = message.get("content")
    if not isinstance(parts, list):
        return
    typed = [part for part in parts if isinstance(part, dict)]
    message["content"] = joint.join(_text(part) for part in typed if part.get("type") == "text") or None
    thoughts = [
        _text(thought)
        for part in typed
        for thought in _list(part.get(_THOUGHTS.get(str(part.get("type")), "")))
        if isinstance(thought, dict)
    ]
    if thoughts:
        message["reasoning_content"] = joint.join(thoughts)


def _text(part: dict[str, Any]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A chat completion whose content is text."""
    return openai.chat_from_wire(with_text(body, "message", "\n"), request, endpoint)


class TextStream(OpenAIStream):
    """OpenAI's stream whose deltas hold text."""

    def feed(self, event: StreamEvent) -> bytes:
        """Forward one event, with a list of parts made text."""
        data = with_text(event.data, "delta", "")
        if data is not event.data:
            event = StreamEvent(data, b"data: " + data + b"\n\n", event.name)
        return super().feed(event)


CHAT = Codec(to_wire=openai.to_wire, from_wire=chat_from_wire, open_stream=TextStream)
