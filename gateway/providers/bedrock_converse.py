"""Bedrock's Converse and ConverseStream: chats of every model with one body, with tools, images and JSON schemas.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and ..._ConverseStream.html
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.providers.bedrock_invoke import model_url
from gateway.providers.canonical_reply import ChatChoice, ChunkWriter, Function, ToolCall, chat_reply, decode_reply
from gateway.providers.canonical_reply import Message as ReplyMessage
from gateway.providers.canonical_request import (
    ChatView,
    Message,
    Part,
    ToolChoice,
    call_arguments,
    call_id,
    data_url,
    functions_of,
    members,
    parts_of,
    present,
    read_chat,
    schema_of,
    stop_list,
    text_of,
)
from gateway.providers.parameters import encode
from gateway.providers.spec import Endpoint
from gateway.types.errors import ErrorType, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.usage import Usage, service_tier

_NATIVE = (
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "outputConfig",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
    "serviceTier",
)
"""Members of Converse's own that a caller may send; others would be refused by AWS, and are left out."""
_IMAGE_FORMATS = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_JSON_ONLY = "Answer with one JSON object and nothing else."
_FINISH_REASONS = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}

_Block = dict[str, Any]


def _compact(value: Raw) -> str:
    return msgspec.json.format(bytes(value), indent=-1).decode()


def _refuse(message: str, param: str) -> RequestError:
    return RequestError(ErrorType.INVALID_REQUEST, message, param=param)


# --- requests ---------------------------------------------------------------------------------------------------


def to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/converse`, or `/converse-stream`."""
    view, extras = read_chat(request)
    if view.n not in (None, 1):
        raise _refuse(f"Parameter n must be 1 for Amazon Bedrock, got {view.n}.", "n")
    system, messages = _conversation(view)
    body: dict[str, Any] = {"messages": messages}
    sampling = members(
        temperature=view.temperature,
        topP=view.top_p,
        maxTokens=view.token_limit,
        stopSequences=stop_list(view.stop),
    )
    if sampling:
        body["inferenceConfig"] = sampling
    if tools := _tool_config(view):
        body["toolConfig"] = tools
    _add_format(body, system, view)
    if system:
        body["system"] = system
    body |= {name: extras[name] for name in _NATIVE if name in extras}
    return WireRequest(url=model_url(endpoint, "converse-stream" if request.stream else "converse"), body=encode(body))


def _conversation(view: ChatView) -> tuple[list[_Block], list[dict[str, Any]]]:
    """The system's blocks, and turns of alternating roles: neighbours of one role are one turn, as AWS demands."""
    system: list[_Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(view.messages):
        path = f"messages[{index}]"
        if message.role in ("system", "developer"):
            system.append({"text": text_of(message, path)})
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, path)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _blocks(message: Message, path: str) -> list[_Block]:
    match message.role:
        case "user":
            parts = enumerate(parts_of(message, path))
            return [_part(part, f"{path}.content[{n}]") for n, (part, _) in parts if part.type != "text" or part.text]
        case "assistant":
            text = text_of(message, path)
            calls = message.tool_calls or []
            # AWS refuses blank texts, which clients leave beside calls.
            blocks: list[_Block] = [{"text": text}] if text.strip() else []
            for number, call in enumerate(calls):
                if not call.function.name.strip():
                    raise _refuse(
                        f"Invalid assistant tool call: missing function name for tool_call_id={call.id}.",
                        f"{path}.tool_calls[{number}].function.name",
                    )
                arguments = call_arguments(call, f"{path}.tool_calls[{number}]")
                blocks.append(
                    {"toolUse": {"toolUseId": call_id(call.id), "name": call.function.name, "input": arguments}}
                )
            return blocks
        case "tool":
            result = {
                "toolUseId": call_id(message.tool_call_id or ""),
                "content": [{"text": text_of(message, path)}],
            }
            return [{"toolResult": result}]
        case role:
            raise _refuse(
                f"{path}.role is '{role}'; it must be system, developer, user, assistant or tool.", f"{path}.role"
            )


def _part(part: Part, path: str) -> _Block:
    if part.type == "text" and part.text is not None:
        return {"text": part.text}
    address = part.image_address
    if part.type != "image_url" or address is None:
        raise _refuse(f"{path} is of type '{part.type}'; Amazon Bedrock takes text and image_url.", path)
    image = data_url(address)
    if image is None:
        raise _refuse(f"{path}.image_url.url must be a data: URL; Amazon Bedrock fetches no addresses.", path)
    media_type, data = image
    if media_type not in _IMAGE_FORMATS:
        raise _refuse(f"{path} is {media_type}; Amazon Bedrock takes {', '.join(_IMAGE_FORMATS)}.", path)
    return {"image": {"format": _IMAGE_FORMATS[media_type], "source": {"bytes": data}}}


def _tool_config(view: ChatView) -> dict[str, Any] | None:
    """`tools` and `tool_choice`. AWS has no `none`: the tools are left out, unless earlier turns speak of them."""
    talked = any(message.tool_calls or message.role == "tool" for message in view.messages)
    if not view.tools or (view.tool_choice == "none" and not talked):
        return None
    tools = [
        {
            "toolSpec": members(
                name=function.name,
                # AWS refuses an empty description.
                description=function.description or None,
                inputSchema={
                    "json": function.parameters
                    if present(function.parameters)
                    else {"type": "object", "properties": {}}
                },
                strict=function.strict,
            )
        }
        for function in functions_of(view)
    ]
    match view.tool_choice:
        case "required":
            return {"tools": tools, "toolChoice": {"any": {}}}
        case "auto":
            return {"tools": tools, "toolChoice": {"auto": {}}}
        case ToolChoice(function=function) if function is not None:
            return {"tools": tools, "toolChoice": {"tool": {"name": function.name}}}
        case _:
            return {"tools": tools}


def _add_format(body: dict[str, Any], system: list[_Block], view: ChatView) -> None:
    wanted = view.response_format
    if wanted is None:
        return
    if wanted.type == "json_object":
        system.append({"text": _JSON_ONLY})
    elif wanted.json_schema is not None and (schema := schema_of(view)) is not None:
        # AWS wants the schema as text.
        definition = {"schema": _compact(schema)} | members(name=wanted.json_schema.name or None)
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}


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


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None


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
    """The message as the only choice: texts joined, reasoning apart, tool uses as calls."""
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
            function=Function(name=block.tool_use.name, arguments=_compact(block.tool_use.input)),
        )
        for block in blocks
        if block.tool_use is not None
    ]
    message = ReplyMessage(
        content=text or (None if calls else ""),
        reasoning_content=thoughts or msgspec.UNSET,
        tool_calls=calls or msgspec.UNSET,
    )
    choice = ChatChoice(index=0, message=message, finish_reason=_FINISH_REASONS.get(reply.stop_reason, "stop"))
    return chat_reply(request, [choice], model=endpoint.model, usage=_usage(reply.usage, reply.service_tier))


# --- streams ----------------------------------------------------------------------------------------------------


class _ToolUseDelta(Struct):
    input: str = ""


class _ReasoningDelta(Struct):
    text: str = ""


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


class ConverseStream:
    """Turns Converse's events into chunks. The usage comes after the end of the message."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()
        self._writer = ChunkWriter(request, endpoint.model)
        self._calls: dict[int, int] = {}
        """Which call a content block is: text blocks count as blocks, too."""
        self._without_input: set[int] = set()

    def feed(self, event: StreamEvent) -> bytes:
        """One frame; raises UpstreamError for an exception frame and for data that is no event."""
        match event.name:
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
        function = Function(name=tool_use.name, arguments="")
        return self._writer.delta(tool_calls=[ToolCall(index=index, id=tool_use.tool_use_id, function=function)])

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
        thought = delta.reasoning_content.text if delta.reasoning_content is not None else ""
        self.summary.output_chars += len(delta.text or "") + len(thought)
        if not delta.text and not thought:
            # A signature of reasoning has no place in a chunk.
            return b""
        return self._writer.delta(content=delta.text, reasoning_content=thought or None)

    def close(self) -> bytes:
        """Nothing is held back, so nothing is left."""
        return b""
