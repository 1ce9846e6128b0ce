"""Bedrock's Converse and ConverseStream: replies and streams of every model in one form, with tools and reasoning.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and ..._ConverseStream.html
"""

from typing import TypeGuard

import msgspec
from msgspec import Raw, Struct

from gateway.providers.canonical_reply import (
    ChatChoice,
    ChunkWriter,
    Function,
    ThinkingBlock,
    ToolCall,
    arguments_text,
    chat_reply,
    decode_reply,
)
from gateway.providers.canonical_reply import Message as ReplyMessage
from gateway.providers.spec import Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary
from gateway.types.usage import Usage, service_tier

_FINISH_REASONS = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}


# --- whole replies ----------------------------------------------------------------------------------------------


class _CacheDetail(Struct, rename="camel"):
    ttl: str = ""
    input_tokens: int = 0


class _ServiceTier(Struct):
    type: str = ""


class _Usage(Struct, rename="camel"):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[_CacheDetail] | None = None


def _usage(reported: _Usage | None, tier: _ServiceTier | None) -> Usage | None:
    """AWS counts cached tokens beside the input; here they are a part of it."""
    if reported is None or reported.input_tokens is None:
        return None
    read, written = reported.cache_read_input_tokens, reported.cache_write_input_tokens
    return Usage(
        input_tokens=reported.input_tokens + (read or 0) + (written or 0),
        output_tokens=reported.output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=sum(detail.input_tokens for detail in reported.cache_details or () if detail.ttl == "1h")
        or None,
        service_tier="" if tier is None else service_tier(tier.type),
    )


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class _ReasoningText(Struct):
    text: str = ""
    signature: str | None = None


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None


class _ContentBlock(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Message(Struct, frozen=True):
    content: list[_ContentBlock] = []


class _Output(Struct, frozen=True):
    message: _Message = _Message()


class _Reply(Struct, rename="camel"):
    output: _Output
    stop_reason: str = "end_turn"
    usage: _Usage | None = None
    service_tier: _ServiceTier | None = None


_REPLY = msgspec.json.Decoder(_Reply)


def from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The message as the only choice: texts joined, reasoning apart (signed, too), tool uses as calls."""
    reply = decode_reply(_REPLY, body)
    blocks = reply.output.message.content
    text = "".join(block.text for block in blocks if block.text is not None)
    thoughts = "".join(
        block.reasoning_content.reasoning_text.text
        for block in blocks
        if block.reasoning_content is not None and block.reasoning_content.reasoning_text is not None
    )
    calls = [
        ToolCall(
            id=block.tool_use.tool_use_id,
            function=Function(name=block.tool_use.name, arguments=arguments_text(block.tool_use.input)),
        )
        for block in blocks
        if block.tool_use is not None
    ]
    message = ReplyMessage(
        content=text or (None if calls else ""),
        reasoning_content=thoughts or msgspec.UNSET,
        thinking_blocks=[_thought(block.reasoning_content) for block in blocks if _signed(block.reasoning_content)]
        or msgspec.UNSET,
        tool_calls=calls or msgspec.UNSET,
    )
    choice = ChatChoice(index=0, message=message, finish_reason=_FINISH_REASONS.get(reply.stop_reason, "stop"))
    return chat_reply(request, [choice], model=endpoint.model, usage=_usage(reply.usage, reply.service_tier))


def _signed(reasoning: _Reasoning | None) -> TypeGuard[_Reasoning]:
    """Whether the model wants its reasoning back: only then there is more to it than its text."""
    if reasoning is None:
        return False
    text = reasoning.reasoning_text
    return reasoning.redacted_content is not None or (text is not None and text.signature is not None)


def _thought(reasoning: _Reasoning, index: int | msgspec.UnsetType = msgspec.UNSET) -> ThinkingBlock:
    if reasoning.redacted_content is not None:
        return ThinkingBlock(index=index, type="redacted_thinking", data=reasoning.redacted_content)
    text = reasoning.reasoning_text or _ReasoningText()
    return ThinkingBlock(index=index, type="thinking", thinking=text.text, signature=text.signature or msgspec.UNSET)


# --- streams ----------------------------------------------------------------------------------------------------


class _ToolUseDelta(Struct):
    input: str = ""


class _ReasoningDelta(Struct, rename="camel"):
    text: str = ""
    signature: str | None = None
    redacted_content: str | None = None


class _BlockDelta(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUseDelta | None = None
    reasoning_content: _ReasoningDelta | None = None


class _ToolUseStart(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""


class _BlockStart(Struct, rename="camel"):
    tool_use: _ToolUseStart | None = None


class _Event(Struct, rename="camel"):
    """Any event of ConverseStream: which members there are depends on its type, which is in the frame's headers."""

    content_block_index: int = 0
    start: _BlockStart | None = None
    delta: _BlockDelta | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    service_tier: _ServiceTier | None = None


class _ExceptionBody(Struct):
    message: str = ""


_EVENT = msgspec.json.Decoder(_Event)
_EXCEPTIONS = {
    "throttlingException": (ErrorType.PROVIDER_RATE_LIMITED, 429),
    "serviceUnavailableException": (ErrorType.PROVIDER_OVERLOADED, 503),
    "modelTimeoutException": (ErrorType.STREAM_TIMEOUT, 408),
    "validationException": (ErrorType.PROVIDER_INVALID_REQUEST, 400),
}


def stream_exception(event: StreamEvent) -> UpstreamError | None:
    """The error that a frame reports, or None for one that is an event."""
    if not event.name.endswith(("Exception", "Error")):
        return None
    error_type, status = _EXCEPTIONS.get(event.name, (ErrorType.STREAM_ERROR, 502))
    try:
        message = msgspec.json.decode(event.data, type=_ExceptionBody).message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = ""
    return UpstreamError(
        error_type,
        message or f"Amazon Bedrock reported {event.name} inside its stream.",
        retryable=status in (429, 503),
        status=status,
    )


def _joined(so_far: _Reasoning | None, delta: _ReasoningDelta) -> _Reasoning:
    if delta.redacted_content is not None:
        return _Reasoning(redacted_content=delta.redacted_content)
    text = (so_far.reasoning_text if so_far is not None else None) or _ReasoningText()
    return _Reasoning(_ReasoningText(text.text + delta.text, delta.signature or text.signature))


class ConverseStream:
    """Turns Converse's events into chunks. The usage comes after the end of the message."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()
        self._writer = ChunkWriter(request, endpoint.model)
        self._calls: dict[int, int] = {}
        """Which call a content block is: text blocks count as blocks, too."""
        self._without_input: set[int] = set()
        self._reasoning: _Reasoning | None = None
        self._thoughts = 0

    def feed(self, event: StreamEvent) -> bytes:
        """One frame; raises UpstreamError for an exception frame and for data that is no event."""
        match event.name:
            case "contentBlockStop" if self._reasoning is not None:
                return self._think(self._reasoning)
            case "contentBlockStop" if self._without_input:
                return self._call_ends(decode_reply(_EVENT, event.data).content_block_index)
            case "contentBlockStart" | "contentBlockDelta":
                read = decode_reply(_EVENT, event.data)
                if read.start is not None and read.start.tool_use is not None:
                    return self._call_begins(read.content_block_index, read.start.tool_use)
                return b"" if read.delta is None else self._delta(read.content_block_index, read.delta)
            case "messageStop":
                reason = _FINISH_REASONS.get(decode_reply(_EVENT, event.data).stop_reason or "", "stop")
                self.summary.finish_reasons = (reason,)
                self.summary.finished = True
                return self._writer.delta(finish_reason=reason)
            case "metadata":
                read = decode_reply(_EVENT, event.data)
                self.summary.usage = _usage(read.usage, read.service_tier)
                return self._writer.usage(self.summary.usage)
        if (error := stream_exception(event)) is not None:
            raise error
        return b""

    def _call_begins(self, block: int, tool_use: _ToolUseStart) -> bytes:
        index = self._calls[block] = len(self._calls)
        self._without_input.add(block)
        self.summary.output_chars += len(tool_use.name)
        function = Function(name=tool_use.name, arguments="")
        return self._writer.delta(tool_calls=[ToolCall(index=index, id=tool_use.tool_use_id, function=function)])

    def _think(self, reasoning: _Reasoning) -> bytes:
        """The whole thought in one chunk, as it is to be sent back: its words have gone out piece by piece."""
        self._reasoning = None
        if not _signed(reasoning):
            return b""
        self._thoughts += 1
        return self._writer.delta(thinking_blocks=[_thought(reasoning, self._thoughts - 1)])

    def _call_ends(self, block: int) -> bytes:
        """A call without input has none in its deltas; an empty object is what it means."""
        return self._delta(block, _BlockDelta(tool_use=_ToolUseDelta("{}"))) if block in self._without_input else b""

    def _delta(self, block: int, delta: _BlockDelta) -> bytes:
        if delta.tool_use is not None:
            if delta.tool_use.input:
                self._without_input.discard(block)
            self.summary.output_chars += len(delta.tool_use.input)
            piece = ToolCall(
                index=self._calls.get(block, 0), type=msgspec.UNSET, function=Function(arguments=delta.tool_use.input)
            )
            return self._writer.delta(tool_calls=[piece])
        thought = ""
        if delta.reasoning_content is not None:
            thought = delta.reasoning_content.text
            self._reasoning = _joined(self._reasoning, delta.reasoning_content)
        self.summary.output_chars += len(delta.text or "") + len(thought)
        if not delta.text and not thought:
            return b""
        return self._writer.delta(content=delta.text, reasoning_content=thought or None)

    def close(self) -> bytes:
        """Nothing is held back, so nothing is left."""
        return b""
