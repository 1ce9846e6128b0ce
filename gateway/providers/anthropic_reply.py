"""Anthropic's replies and streams: read for what is measured, and turned into canonical ones.

In a stream the counts are cumulative: those of `message_delta` replace those of `message_start`.

Source: https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/streaming
"""

import msgspec
from msgspec import Raw, Struct

from gateway.providers.anthropic_usage import MessageUsage, usage_of
from gateway.providers.canonical_reply import (
    ChatChoice,
    ChunkWriter,
    Function,
    Message,
    TextChoice,
    ThinkingBlock,
    ToolCall,
    arguments_text,
    chat_reply,
    completion_reply,
    decode_reply,
)
from gateway.providers.measured import decode_measured
from gateway.providers.spec import NOTHING, Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary
from gateway.types.usage import Usage

_FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
ERROR_TYPES = {
    "invalid_request_error": ErrorType.PROVIDER_INVALID_REQUEST,
    "request_too_large": ErrorType.PROVIDER_INVALID_REQUEST,
    "authentication_error": ErrorType.PROVIDER_AUTH,
    "permission_error": ErrorType.PROVIDER_AUTH,
    "billing_error": ErrorType.PROVIDER_AUTH,
    "not_found_error": ErrorType.PROVIDER_NOT_FOUND,
    "rate_limit_error": ErrorType.PROVIDER_RATE_LIMITED,
    "timeout_error": ErrorType.PROVIDER_ERROR,
    "api_error": ErrorType.PROVIDER_ERROR,
    "overloaded_error": ErrorType.PROVIDER_OVERLOADED,
}
"""What Anthropic's `error.type` means."""
_RETRYABLE = {"overloaded_error": 529, "rate_limit_error": 429}
_THOUGHTS = ("thinking", "redacted_thinking")
_NO_INPUT = (Raw(), Raw(b"{}"), Raw(b"null"))


def _finish_reason(stop_reason: str | None) -> str:
    return _FINISH_REASONS.get(stop_reason or "", "stop")


# --- shapes -----------------------------------------------------------------------------------------------------


class _Block(Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()


class _Message(Struct):
    id: str
    model: str
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: MessageUsage | None = None


class _Delta(Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Error(Struct):
    type: str = ""
    message: str = "The provider reported an error inside its stream."


class _Event(Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: MessageUsage | None = None
    error: _Error | None = None


class _Completion(Struct):
    completion: str
    stop_reason: str | None = None
    model: str | None = None
    id: str | None = None


class _TokenCount(Struct):
    input_tokens: int


_MESSAGE = msgspec.json.Decoder(_Message)
_EVENT = msgspec.json.Decoder(_Event)
_COMPLETION = msgspec.json.Decoder(_Completion)
_TOKEN_COUNT = msgspec.json.Decoder(_TokenCount)


# --- whole replies ----------------------------------------------------------------------------------------------


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A Messages reply as a chat completion: texts joined, thinking as `reasoning_content`, tool uses as calls.

    The thoughts stand in `thinking_blocks` too, as Claude wants them back.
    """
    reply = decode_reply(_MESSAGE, body)
    texts = [block.text for block in reply.content if block.type == "text" and block.text is not None]
    thoughts = [block.thinking for block in reply.content if block.type == "thinking" and block.thinking]
    calls = [_call(block) for block in reply.content if block.type == "tool_use"]
    blocks = [_thought(block) for block in reply.content if block.type in _THOUGHTS]
    message = Message(
        content="".join(texts) or None,
        reasoning_content="".join(thoughts) or msgspec.UNSET,
        thinking_blocks=blocks or msgspec.UNSET,
        tool_calls=calls or msgspec.UNSET,
    )
    return chat_reply(
        request,
        [ChatChoice(index=0, message=message, finish_reason=_finish_reason(reply.stop_reason))],
        model=endpoint.model,
        usage=usage_of(reply.usage),
        response_id=reply.id,
        response_model=reply.model,
    )


def _thought(block: _Block, index: int | msgspec.UnsetType = msgspec.UNSET) -> ThinkingBlock:
    if block.type == "redacted_thinking":
        return ThinkingBlock(index=index, type=block.type, data=block.data or "")
    return ThinkingBlock(
        index=index, type=block.type, thinking=block.thinking or "", signature=block.signature or msgspec.UNSET
    )


def _call(block: _Block) -> ToolCall:
    return ToolCall(id=block.id or "", function=Function(name=block.name or "", arguments=arguments_text(block.input)))


def message_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """What is measured of a Messages reply; the bytes stay."""
    reply = decode_measured(_MESSAGE, body)
    usage = usage_of(reply.usage)
    return ModelReply(
        body=body,
        usage=usage,
        response_model=reply.model,
        response_id=reply.id,
        finish_reasons=(_finish_reason(reply.stop_reason),) if reply.stop_reason else (),
        output_chars=0 if usage else sum(map(_chars, reply.content)),
    )


def _chars(block: _Block) -> int:
    """How many characters were generated for a whole block."""
    return len(block.text or block.thinking or block.name or "") + len(bytes(block.input))


def token_count_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A token count; the bytes stay. Counting consumes no tokens, which is known and not a guess."""
    decode_reply(_TOKEN_COUNT, body)
    return ModelReply(body=body, usage=Usage(input_tokens=0, output_tokens=0))


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A Text Completions reply; that API reports no usage."""
    reply = decode_reply(_COMPLETION, body)
    finish_reason = "stop" if reply.stop_reason == "stop_sequence" else "length"
    return completion_reply(
        request,
        [TextChoice(index=0, text=reply.completion, finish_reason=finish_reason)],
        model=endpoint.model,
        usage=None,
        response_id=reply.id,
        response_model=reply.model,
    )


# --- streams ----------------------------------------------------------------------------------------------------


class _Reader:
    """Reads a Messages stream's events and keeps its summary."""

    def __init__(self, *, passes: bool = False) -> None:
        self.summary = StreamSummary()
        self._reported = MessageUsage()
        self._decode = decode_measured if passes else decode_reply

    def read(self, data: bytes) -> _Event:
        """Decode one event; raises UpstreamError for an error event and for data that is none."""
        event = self._decode(_EVENT, data)
        summary = self.summary
        match event.type:
            case "error":
                raise _stream_error(event.error or _Error())
            case "message_start" if event.message is not None:
                summary.response_id = event.message.id
                summary.response_model = event.message.model
                self._count(event.message.usage)
                # The output is still to come: what stands here is where counting starts, not a count of the reply.
                self._reported.output_tokens = None
                summary.usage = usage_of(self._reported)
            case "content_block_start" if event.content_block is not None:
                summary.output_chars += len(event.content_block.text or event.content_block.name or "")
            case "content_block_delta" if event.delta is not None:
                delta = event.delta
                summary.output_chars += len(delta.text or delta.thinking or delta.partial_json or "")
            case "message_delta":
                if event.delta is not None and event.delta.stop_reason is not None:
                    summary.finish_reasons = (_finish_reason(event.delta.stop_reason),)
                self._count(event.usage)
            case "message_stop":
                summary.finished = True
        return event

    def _count(self, reported: MessageUsage | None) -> None:
        if reported is not None:
            for name in MessageUsage.__struct_fields__:
                if (value := getattr(reported, name)) is not None:
                    setattr(self._reported, name, value)
            self.summary.usage = usage_of(self._reported)


def _stream_error(error: _Error) -> UpstreamError:
    # Inside a stream an error has no status of its own; these two stand for one that invites another try.
    status = _RETRYABLE.get(error.type)
    if status is None:
        return UpstreamError(ErrorType.STREAM_ERROR, error.message)
    return UpstreamError(ERROR_TYPES[error.type], error.message, retryable=True, status=status)


class MessageStream:
    """Forwards a Messages stream as it came (passthrough), and reads what is measured."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self._reader = _Reader(passes=True)
        self.summary = self._reader.summary

    def feed(self, event: StreamEvent) -> bytes:
        """The event's own bytes; raises UpstreamError for an error event."""
        if event.data in NOTHING:
            return b""
        self._reader.read(event.data)
        return event.raw

    def close(self) -> bytes:
        """Nothing is held back."""
        return b""


class ChatStream:
    """Turns a Messages stream into chat chunks. Calls are numbered apart from the blocks that carry them."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self._reader = _Reader()
        self.summary = self._reader.summary
        self._writer = ChunkWriter(request, endpoint.model)
        self._calls: dict[int, int] = {}
        self._without_arguments: set[int] = set()
        self._thought: _Block | None = None
        self._thoughts = 0

    def feed(self, event: StreamEvent) -> bytes:
        """The chunks of one event; empty for events that only frame others. Raises UpstreamError for an error event."""
        if event.data in NOTHING:
            return b""
        read = self._reader.read(event.data)
        match read.type:
            case "message_start":
                self._writer.response_id = self.summary.response_id
                self._writer.response_model = self.summary.response_model
            case "content_block_start" if read.content_block is not None:
                return self._begin(read.index, read.content_block)
            case "content_block_delta" if read.delta is not None:
                return self._continue(read.index, read.delta)
            case "content_block_stop" if self._thought is not None:
                return self._think(self._thought)
            case "content_block_stop" if read.index in self._without_arguments:
                # A call without arguments has none in its deltas; an empty object is what it means.
                return self._arguments(read.index, "{}")
            case "message_delta" if read.delta is not None and read.delta.stop_reason is not None:
                return self._writer.delta(finish_reason=_finish_reason(read.delta.stop_reason))
            case "message_stop":
                return self._writer.usage(self.summary.usage)
        return b""

    def _begin(self, index: int, block: _Block) -> bytes:
        if block.type == "text" and block.text:
            return self._writer.delta(content=block.text)
        if block.type in _THOUGHTS:
            self._thought = block
        if block.type != "tool_use":
            return b""
        number = self._calls[index] = len(self._calls)
        # A call that one of Claude's own tools makes has its arguments here, and no deltas.
        arguments = "" if block.input in _NO_INPUT else arguments_text(block.input)
        if not arguments:
            self._without_arguments.add(index)
        self.summary.output_chars += len(arguments)
        call = ToolCall(index=number, id=block.id or "", function=Function(name=block.name or "", arguments=arguments))
        return self._writer.delta(tool_calls=[call])

    def _continue(self, index: int, delta: _Delta) -> bytes:
        if delta.text:
            return self._writer.delta(content=delta.text)
        if delta.signature and self._thought is not None:
            self._thought.signature = (self._thought.signature or "") + delta.signature
        if delta.thinking:
            if self._thought is not None:
                self._thought.thinking = (self._thought.thinking or "") + delta.thinking
            return self._writer.delta(reasoning_content=delta.thinking)
        if delta.partial_json and index in self._calls:
            return self._arguments(index, delta.partial_json)
        return b""

    def _think(self, block: _Block) -> bytes:
        """The whole thought in one chunk, as it is to be sent back: its words have gone out piece by piece."""
        self._thought = None
        self._thoughts += 1
        return self._writer.delta(thinking_blocks=[_thought(block, self._thoughts - 1)])

    def _arguments(self, index: int, text: str) -> bytes:
        self._without_arguments.discard(index)
        call = ToolCall(index=self._calls[index], type=msgspec.UNSET, function=Function(arguments=text))
        return self._writer.delta(tool_calls=[call])

    def close(self) -> bytes:
        """Nothing is held back."""
        return b""
