"""Completions for providers (and models) that only chat: the prompt becomes the user's message, the answer its text.

The MLflow gateway asked OpenAI so until 2.21, and Mistral always. Replies and chunks come back as `text_completion`
objects, with the provider's own ids, finish reasons and usage.

Source: mlflow 2.8.1 `gateway/providers/openai.py`, mlflow 2.22 `gateway/providers/mistral.py`
"""

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.providers import openai, typed_content
from gateway.providers.canonical_reply import decode_reply
from gateway.providers.spec import Codec, Endpoint
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, WireRequest
from gateway.types.route import Operation

_NULL = Raw(b"null")
_PROMPT = msgspec.json.Decoder(str | list[str])


def _as_chat(request: ModelRequest) -> ModelRequest:
    """The chat request that stands for a completions request; raises RequestError for several prompts at once."""
    raw = request.fields.get("prompt", _NULL)
    try:
        prompt = _PROMPT.decode(raw)
    except msgspec.ValidationError:
        prompt = []
    if isinstance(prompt, list):
        if len(prompt) != 1:
            raise RequestError(ErrorType.INVALID_REQUEST, "'prompt' must be one string for this route.", param="prompt")
        prompt = prompt[0]
    fields = {name: value for name, value in request.fields.items() if name != "prompt"}
    fields["messages"] = Raw(msgspec.json.encode([{"role": "user", "content": prompt}]))
    return msgspec.structs.replace(request, operation=Operation.CHAT, fields=fields)


class _Message(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    message: _Message = _Message()
    finish_reason: str | None = None


class _Chat(Struct, frozen=True):
    choices: list[_Choice]
    id: str | UnsetType = UNSET
    created: int | UnsetType = UNSET
    model: str | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class _ChunkChoice(Struct, frozen=True):
    index: int = 0
    delta: _Message = _Message()
    finish_reason: str | None = None


class _Chunk(Struct, frozen=True):
    choices: tuple[_ChunkChoice, ...] = ()
    id: str | UnsetType = UNSET
    created: int | UnsetType = UNSET
    model: str | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class _TextChoice(Struct, frozen=True):
    index: int
    text: str
    finish_reason: str | None
    logprobs: None = None


class _Text(Struct, frozen=True, kw_only=True):
    id: str | UnsetType
    object: str = "text_completion"
    created: int | UnsetType
    model: str | UnsetType
    choices: list[_TextChoice]
    usage: Raw | UnsetType


_CHAT = msgspec.json.Decoder(_Chat)
_CHUNK = msgspec.json.Decoder(_Chunk)


def _text_body(source: _Chat | _Chunk, choices: list[_TextChoice]) -> bytes:
    return msgspec.json.encode(
        _Text(id=source.id, created=source.created, model=source.model, choices=choices, usage=source.usage)
    )


def _from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The chat reply as a text completion."""
    reply = typed_content.chat_from_wire(body, request, endpoint)
    chat = decode_reply(_CHAT, reply.body)
    choices = [_TextChoice(choice.index, choice.message.content or "", choice.finish_reason) for choice in chat.choices]
    return msgspec.structs.replace(reply, body=_text_body(chat, choices))


class _TextStream(typed_content.TextStream):
    """The chunks of a chat as those of a text completion; chunks without text or end are left out."""

    def feed(self, event: StreamEvent) -> bytes:
        """Raises UpstreamError as the stream of a chat does."""
        if not super().feed(event):
            return b""
        chunk = decode_reply(_CHUNK, typed_content.with_text(event.data, "delta", ""))
        choices = [
            _TextChoice(choice.index, choice.delta.content or "", choice.finish_reason)
            for choice in chunk.choices
            if choice.delta.content or choice.finish_reason
        ]
        if chunk.choices and not choices:
            return b""
        return b"data: " + _text_body(chunk, choices) + b"\n\n"


def completions_by_chat(*, drop: tuple[str, ...] = (), temperature_scale: float = 1.0) -> Codec:
    """The codec; `drop` and `temperature_scale` are quirks of completions alone."""

    def to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
        quirks = endpoint.quirks
        own = msgspec.structs.replace(
            quirks, drop=(*quirks.drop, *drop), temperature_scale=quirks.temperature_scale * temperature_scale
        )
        return openai.to_wire(_as_chat(request), msgspec.structs.replace(endpoint, quirks=own))

    return Codec(to_wire=to_wire, from_wire=_from_wire, open_stream=_TextStream)
