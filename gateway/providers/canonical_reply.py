"""Canonical (OpenAI-like) replies, for dialects that must build them from their vendor's.

Whole replies and chunks are written from the same few values, so that folding the chunks of a stream gives the reply.
Facts that a vendor did not report stay out or are null; a token count is never invented.

Source: https://platform.openai.com/docs/api-reference (the chat completion, chunk, completion and embeddings objects)
"""

import base64
import json
from array import array
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest
from gateway.types.route import Operation
from gateway.types.usage import Usage

_T = TypeVar("_T")
_BASE64 = msgspec.Raw(b'"base64"')


def decode_reply(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """Decode a provider's reply; UpstreamError with UNREADABLE_REPLY when it is not what the vendor documents."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamError(
            ErrorType.UNREADABLE_REPLY, "The provider's reply is not the JSON that its API documents."
        ) from error


class Function(Struct, frozen=True):
    """The function of a call; in a chunk either member may be left out."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET

    @property
    def chars(self) -> int:
        """How many characters were generated for it."""
        return len(self.name or "") + len(self.arguments or "")


def arguments_text(arguments: msgspec.Raw) -> str:
    """A call's arguments, which vendors send as JSON and OpenAI's callers read as text.

    Spaced as Python writes JSON: callers of the MLflow gateway got them so, and may compare texts.
    """
    return json.dumps(msgspec.json.decode(arguments), ensure_ascii=False) if arguments else "{}"


class ToolCall(Struct, frozen=True, kw_only=True):
    """One call that the model asks for. `index` is for chunks only; `thought_signature` is Gemini's."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = "function"
    function: Function
    thought_signature: str | UnsetType = UNSET


class ThinkingBlock(Struct, frozen=True, kw_only=True):
    """One of Claude's thoughts, signed, or encrypted in `data`; `index` is for chunks only.

    Callers who send it back with the message let Claude go on from there.
    """

    index: int | UnsetType = UNSET
    type: str
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    data: str | UnsetType = UNSET


class _ImageUrl(Struct, frozen=True):
    url: str


class Image(Struct, frozen=True, kw_only=True):
    """An image that the model made, as a `data:` URL. OpenAI's chats have none: the form is OpenRouter's."""

    index: int
    type: str = "image_url"
    image_url: _ImageUrl

    @classmethod
    def inline(cls, index: int, media_type: str, data: str) -> "Image":
        """An image from its base64."""
        return cls(index=index, image_url=_ImageUrl(f"data:{media_type};base64,{data}"))


class TopToken(Struct, frozen=True, kw_only=True):
    """A token that might have been said; `bytes` are those of its UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopToken, frozen=True, kw_only=True):
    """A token that was said, and what else might have been."""

    top_logprobs: list[TopToken]


class Logprobs(Struct, frozen=True, kw_only=True):
    """How likely each token of a choice was."""

    content: list[TokenLogprob]
    refusal: None = None


class Message(Struct, frozen=True, kw_only=True):
    """What the assistant said. `content` is null where there are only calls."""

    role: str = "assistant"
    content: str | None = None
    reasoning_content: str | UnsetType = UNSET
    thinking_blocks: list[ThinkingBlock] | UnsetType = UNSET
    images: list[Image] | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One choice of a chat completion."""

    index: int
    message: Message
    logprobs: Logprobs | UnsetType = UNSET
    finish_reason: str | None


class TextChoice(Struct, frozen=True, kw_only=True):
    """One choice of a text completion."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: str | None


class _Delta(Struct, frozen=True, kw_only=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    thinking_blocks: list[ThinkingBlock] | UnsetType = UNSET
    images: list[Image] | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class _DeltaChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: _Delta
    logprobs: Logprobs | UnsetType = UNSET
    finish_reason: str | None = None


class _InputDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int | UnsetType
    cache_write_tokens: int | UnsetType
    audio_tokens: int | UnsetType


class _OutputDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int | UnsetType
    audio_tokens: int | UnsetType


class _Usage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int | None
    completion_tokens: int | UnsetType | None
    total_tokens: int | None
    prompt_tokens_details: _InputDetails | UnsetType
    completion_tokens_details: _OutputDetails | UnsetType


class _Reply(Struct, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    choices: Sequence[ChatChoice | TextChoice | _DeltaChoice]
    usage: _Usage | UnsetType | None = UNSET


class _Embedding(Struct, frozen=True, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: list[float] | str


class _Embeddings(Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[_Embedding]
    model: str
    usage: _Usage | None


def _known(value: int | None) -> int | UnsetType:
    return UNSET if value is None else value


def _usage(usage: Usage | None, *, generates: bool = True) -> _Usage | None:
    if usage is None:
        return None
    of_input = (usage.cache_read_tokens, usage.cache_write_tokens, usage.input_audio_tokens)
    of_output = (usage.reasoning_tokens, usage.output_audio_tokens)
    return _Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens if generates else UNSET,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=_InputDetails(
            cached_tokens=_known(of_input[0]),
            cache_write_tokens=_known(of_input[1]),
            audio_tokens=_known(of_input[2]),
        )
        if any(value is not None for value in of_input)
        else UNSET,
        completion_tokens_details=_OutputDetails(
            reasoning_tokens=_known(of_output[0]), audio_tokens=_known(of_output[1])
        )
        if any(value is not None for value in of_output)
        else UNSET,
    )


def chat_reply(
    request: ModelRequest,
    choices: Sequence[ChatChoice],
    *,
    model: str,
    usage: Usage | None,
    response_id: str | None = None,
    response_model: str | None = None,
) -> ModelReply:
    """A chat completion. `model` is shown when the vendor named none; an id is made from the request's."""
    body = _Reply(
        id=response_id or f"chatcmpl-{request.request_id}",
        object="chat.completion",
        created=request.created,
        model=response_model or model,
        choices=choices,
        usage=_usage(usage),
    )
    chars = 0
    if usage is None:
        chars = sum(_message_chars(choice.message) for choice in choices)
    return ModelReply(
        body=msgspec.json.encode(body),
        usage=usage,
        response_model=response_model,
        response_id=response_id,
        finish_reasons=tuple(choice.finish_reason for choice in choices if choice.finish_reason),
        output_chars=chars,
    )


def _message_chars(message: Message) -> int:
    chars = len(message.content or "") + len(message.reasoning_content or "")
    return chars + sum(call.function.chars for call in message.tool_calls or ())


def completion_reply(
    request: ModelRequest,
    choices: Sequence[TextChoice],
    *,
    model: str,
    usage: Usage | None,
    response_id: str | None = None,
    response_model: str | None = None,
) -> ModelReply:
    """A text completion; arguments as for `chat_reply`."""
    body = _Reply(
        id=response_id or f"cmpl-{request.request_id}",
        object="text_completion",
        created=request.created,
        model=response_model or model,
        choices=choices,
        usage=_usage(usage),
    )
    return ModelReply(
        body=msgspec.json.encode(body),
        usage=usage,
        response_model=response_model,
        response_id=response_id,
        finish_reasons=tuple(choice.finish_reason for choice in choices if choice.finish_reason),
        output_chars=sum(len(choice.text) for choice in choices) if usage is None else 0,
    )


def embeddings_reply(
    request: ModelRequest,
    vectors: Sequence[list[float]],
    *,
    model: str,
    usage: Usage | None,
    response_model: str | None = None,
) -> ModelReply:
    """An embeddings list; `encoding_format: base64` gives each vector as base64 of little-endian float32."""
    as_base64 = request.fields.get("encoding_format") == _BASE64
    body = _Embeddings(
        data=[
            _Embedding(index=index, embedding=_float32(vector) if as_base64 else vector)
            for index, vector in enumerate(vectors)
        ],
        model=response_model or model,
        usage=_usage(usage, generates=False),
    )
    return ModelReply(body=msgspec.json.encode(body), usage=usage, response_model=response_model)


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_usage(reply: ModelReply, usage: Usage | None) -> ModelReply:
    """A canonical reply whose body had no token counts, with the ones that were found elsewhere."""
    if usage is None:
        return reply
    members = _MEMBERS.decode(reply.body)
    generates = "choices" in members
    members["usage"] = msgspec.Raw(msgspec.json.encode(_usage(usage, generates=generates)))
    if not generates:
        usage = msgspec.structs.replace(usage, output_tokens=0)
    return msgspec.structs.replace(reply, body=msgspec.json.encode(members), usage=usage, output_chars=0)


def _float32(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode("ascii")


class ChunkWriter:
    """Writes the chunks of one stream, each a complete SSE event. The role goes with each choice's first delta.

    Set `response_id` and `response_model` when the vendor tells them, before the first chunk. `writes_text` says that
    the chunks are a text completion's.
    """

    def __init__(self, request: ModelRequest, model: str) -> None:
        self._request = request
        self.writes_text = request.operation is Operation.COMPLETIONS
        self._model = model
        self._begun: set[int] = set()
        self.response_id: str | None = None
        self.response_model: str | None = None

    def delta(
        self,
        index: int = 0,
        *,
        content: str | None = None,
        reasoning_content: str | None = None,
        thinking_blocks: list[ThinkingBlock] | None = None,
        images: list[Image] | None = None,
        tool_calls: list[ToolCall] | None = None,
        logprobs: Logprobs | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        """One chunk with one choice; of a text completion only `content` and the reason are written."""
        if self.writes_text:
            return self._event([TextChoice(index=index, text=content or "", finish_reason=finish_reason)])
        first = index not in self._begun
        self._begun.add(index)
        delta = _Delta(
            role="assistant" if first else UNSET,
            content=UNSET if content is None else content,
            reasoning_content=UNSET if reasoning_content is None else reasoning_content,
            thinking_blocks=thinking_blocks or UNSET,
            images=images or UNSET,
            tool_calls=tool_calls or UNSET,
        )
        return self._event(
            [_DeltaChoice(index=index, delta=delta, logprobs=logprobs or UNSET, finish_reason=finish_reason)]
        )

    def usage(self, usage: Usage | None) -> bytes:
        """The last chunk, with the usage and no choice: only for callers who asked, and only when it is known."""
        if usage is None or not self._request.include_usage:
            return b""
        return self._event([], usage)

    def _event(self, choices: Sequence[TextChoice | _DeltaChoice], usage: Usage | None = None) -> bytes:
        prefix = "cmpl" if self.writes_text else "chatcmpl"
        chunk = _Reply(
            id=self.response_id or f"{prefix}-{self._request.request_id}",
            object="text_completion" if self.writes_text else "chat.completion.chunk",
            created=self._request.created,
            model=self.response_model or self._model,
            choices=choices,
            usage=UNSET if usage is None else _usage(usage),
        )
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
