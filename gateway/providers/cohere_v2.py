"""The `cohere` dialect, version 2: chat (with tools, images and JSON schemas) and embed; streams are SSE.

There is no generate: a completion is asked as a chat of one user message.

Source: https://docs.cohere.com/reference/chat, .../chat-stream, .../embed
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.providers.canonical_reply import (
    ChatChoice,
    ChunkWriter,
    Function,
    Message,
    TextChoice,
    ToolCall,
    chat_reply,
    completion_reply,
    decode_reply,
    embeddings_reply,
)
from gateway.providers.canonical_request import (
    ChatView,
    CompletionView,
    Tool,
    ToolChoice,
    decode_member,
    invalid,
    members,
    parts_of,
    read_chat,
    read_completion,
    read_embeddings,
    refuse_native,
    schema_of,
    stop_list,
    text_of,
)
from gateway.providers.canonical_request import Message as CanonicalMessage
from gateway.providers.cohere_facts import FAILED_REASONS, EmbedOptions, Meta, finish_reason, usage_of
from gateway.providers.spec import NOTHING, Codec, Dialect, Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.route import Operation

_DEFAULT_INPUT_TYPE = "search_document"
_CHAT_NAMES = {"stop": "stop_sequences"}
_EMBED_NAMES = {"input": "texts"}
_TOOL_CHOICES = {"required": "REQUIRED", "none": "NONE"}


# --- requests ---------------------------------------------------------------------------------------------------


def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/chat`: messages keep OpenAI's form; parameters go under Cohere's names."""
    refuse_native(request.fields, _CHAT_NAMES)
    view, extras = read_chat(request)
    body = _sampling(view, request, endpoint) | extras
    body["messages"] = [_message(message, f"messages[{index}]") for index, message in enumerate(view.messages)]
    if view.token_limit is not None:
        body["max_tokens"] = view.token_limit
    if view.tools:
        body |= _tools(view.tools, view.tool_choice, request.fields["tools"])
    if view.response_format is not None and view.response_format.type != "text":
        body["response_format"] = members(type="json_object", json_schema=schema_of(view))
    return WireRequest(url=f"{endpoint.base_url}/chat", body=msgspec.json.encode(body))


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/chat` with the prompt as the only message."""
    refuse_native(request.fields, _CHAT_NAMES)
    view, extras = read_completion(request)
    body = _sampling(view, request, endpoint) | extras
    body["messages"] = [{"role": "user", "content": view.prompt}]
    if view.max_tokens is not None:
        body["max_tokens"] = view.max_tokens
    return WireRequest(url=f"{endpoint.base_url}/chat", body=msgspec.json.encode(body))


def _sampling(view: ChatView | CompletionView, request: ModelRequest, endpoint: Endpoint) -> dict[str, Any]:
    if view.n not in (None, 1):
        raise invalid(f"Parameter n must be 1 for Cohere chat, got {view.n}.", "n")
    body: dict[str, Any] = {"model": endpoint.model, "stream": request.stream}
    if view.temperature is not None:
        body["temperature"] = endpoint.quirks.scaled(view.temperature, request)
    return body | members(p=view.top_p, stop_sequences=stop_list(view.stop))


def _message(message: CanonicalMessage, path: str) -> dict[str, Any]:
    match message.role:
        case "system" | "developer":
            return {"role": "system", "content": text_of(message, path)}
        case "tool":
            return {"role": "tool", "tool_call_id": message.tool_call_id or "", "content": text_of(message, path)}
        case "assistant":
            built: dict[str, Any] = {"role": "assistant"}
            if message.said is not None:
                built["content"] = text_of(message, path)
            if message.tool_calls:
                built["tool_calls"] = [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.function.name, "arguments": call.function.arguments},
                    }
                    for call in message.tool_calls
                ]
            return built
        case "user":
            return {"role": "user", "content": _user_content(message, path)}
        case role:
            raise invalid(f"{path}.role is '{role}'; Cohere knows system, user, assistant and tool.", f"{path}.role")


def _user_content(message: CanonicalMessage, path: str) -> str | list[Raw]:
    if isinstance(message.content, str):
        return message.content
    content = []
    for index, (part, raw) in enumerate(parts_of(message, path)):
        # Text and image parts have OpenAI's form; anything else has no word in Cohere's.
        if part.type not in ("text", "image_url"):
            param = f"{path}.content[{index}]"
            raise invalid(f"{param} is of type '{part.type}'; Cohere takes text and image_url.", param)
        content.append(raw)
    return content


def _tools(tools: list[Tool], choice: str | ToolChoice | None, given: Raw) -> dict[str, Any]:
    """The tools, and whether one must be called. To have one function called, Cohere is shown it alone."""
    if isinstance(choice, ToolChoice):
        name = choice.function and choice.function.name
        named = [
            raw
            for tool, raw in zip(tools, decode_member(given, list[Raw], "tools"), strict=True)
            if tool.function is not None and tool.function.name == name
        ]
        if not named:
            raise invalid("tool_choice must be none, auto, required or the name of one of the tools.", "tool_choice")
        return {"tools": named, "tool_choice": "REQUIRED"}
    # Without the field Cohere decides by itself, which is what `auto` means.
    return {"tools": given} | ({"tool_choice": _TOOL_CHOICES[choice]} if choice in _TOOL_CHOICES else {})


def embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/embed`, float vectors unless the caller names other types."""
    refuse_native(request.fields, _EMBED_NAMES, original_shape=request.original_shape)
    view, extras = read_embeddings(request)
    options = endpoint.options if isinstance(endpoint.options, EmbedOptions) else EmbedOptions()
    body: dict[str, Any] = {
        "model": endpoint.model,
        "texts": view.texts,
        "input_type": options.input_type or _DEFAULT_INPUT_TYPE,
        "embedding_types": ["float"],
    }
    if view.dimensions is not None:
        body["output_dimension"] = view.dimensions
    return WireRequest(url=f"{endpoint.base_url}/embed", body=msgspec.json.encode(body | extras))


# --- whole replies ----------------------------------------------------------------------------------------------


class _Block(Struct):
    type: str = "text"
    text: str = ""
    thinking: str = ""


class _Function(Struct, frozen=True):
    name: str = ""
    arguments: str = ""


class _Call(Struct):
    id: str = ""
    function: _Function = _Function()


class _Message(Struct):
    content: list[_Block] | None = None
    tool_calls: list[_Call] | None = None
    tool_plan: str | None = None


class _Chat(Struct):
    message: _Message
    id: str | None = None
    finish_reason: str | None = None
    usage: Meta | None = None


_CHAT = msgspec.json.Decoder(_Chat)


def _joined(parts: Iterator[str]) -> str:
    return "".join(parts)


def _texts(message: _Message) -> tuple[str | None, str]:
    """What was said (None when nothing) and what was thought; the plan before tool calls is thought, too."""
    blocks = message.content or []
    said = _joined(block.text for block in blocks)
    thought = _joined(block.thinking for block in blocks)
    return said or (None if message.tool_calls else ""), (message.tool_plan or "") + thought


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The message as the only choice."""
    reply = decode_reply(_CHAT, body)
    said, thought = _texts(reply.message)
    calls = [
        ToolCall(id=call.id, function=Function(name=call.function.name, arguments=call.function.arguments or "{}"))
        for call in reply.message.tool_calls or ()
    ]
    message = Message(content=said, reasoning_content=thought or msgspec.UNSET, tool_calls=calls or msgspec.UNSET)
    choice = ChatChoice(index=0, message=message, finish_reason=finish_reason(reply.finish_reason))
    return chat_reply(request, [choice], model=endpoint.model, usage=usage_of(reply.usage), response_id=reply.id)


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """What was said as the only choice."""
    reply = decode_reply(_CHAT, body)
    said, _ = _texts(reply.message)
    choice = TextChoice(index=0, text=said or "", finish_reason=finish_reason(reply.finish_reason))
    return completion_reply(request, [choice], model=endpoint.model, usage=usage_of(reply.usage), response_id=reply.id)


class _Vectors(Struct):
    float: list[list[float]]


class _Embed(Struct):
    embeddings: _Vectors
    meta: Meta | None = None


_EMBED = msgspec.json.Decoder(_Embed)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The float vectors; UNREADABLE_REPLY where the caller asked Cohere for other types only."""
    reply = decode_reply(_EMBED, body)
    usage = usage_of(reply.meta, generates=False)
    return embeddings_reply(request, reply.embeddings.float, model=endpoint.model, usage=usage)


# --- streams ----------------------------------------------------------------------------------------------------


class _EventMessage(Struct):
    content: _Block | None = None
    tool_calls: _Call | None = None
    tool_plan: str | None = None


class _EventDelta(Struct):
    message: _EventMessage | None = None
    finish_reason: str | None = None
    usage: Meta | None = None
    error: str | None = None


class _Event(Struct):
    type: str = ""
    id: str | None = None
    index: int = 0
    delta: _EventDelta | None = None


class _EventHead(Struct):
    type: str = ""
    id: str | None = None


_HEAD = msgspec.json.Decoder(_EventHead)
_EVENT = msgspec.json.Decoder(_Event)
_NO_DELTA = _EventDelta()
_NO_MESSAGE = _EventMessage()
_READ = (
    "content-start",
    "content-delta",
    "tool-plan-delta",
    "tool-call-start",
    "tool-call-delta",
    "tool-call-end",
    "message-end",
)
"""The events that say something to the caller. `message-start` has lists where these have objects."""


class CohereStream:
    """Turns Cohere's events into chunks. A call's index is its place among the calls, as Cohere counts them."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()
        self._writer = ChunkWriter(request, endpoint.model)
        self._completion = request.operation is Operation.COMPLETIONS
        self._calls: dict[int, int] = {}
        self._without_arguments: set[int] = set()

    def feed(self, event: StreamEvent) -> bytes:
        """One event; raises UpstreamError for a failed generation and for data that is no event."""
        if event.data in NOTHING:
            return b""
        head = decode_reply(_HEAD, event.data)
        if head.type == "message-start":
            self.summary.response_id = self._writer.response_id = head.id
            return b""
        if head.type not in _READ:
            return b""
        read = decode_reply(_EVENT, event.data)
        delta = read.delta or _NO_DELTA
        if read.type == "message-end":
            return self._end(delta)
        if read.type == "tool-call-end":
            # A call without arguments has none in its deltas; an empty object is what it means.
            return self._arguments(read.index, "{}") if read.index in self._without_arguments else b""
        return self._piece(read, delta.message or _NO_MESSAGE)

    def _piece(self, read: _Event, message: _EventMessage) -> bytes:
        if message.tool_calls is not None:
            return self._call(read, message.tool_calls)
        text = message.content.text if message.content is not None else ""
        thought = (message.content.thinking if message.content is not None else "") + (message.tool_plan or "")
        self.summary.output_chars += len(text) + len(thought)
        if self._completion:
            return self._writer.delta(content=text) if text else b""
        if not text and not thought:
            return b""
        return self._writer.delta(content=text or None, reasoning_content=thought or None)

    def _call(self, read: _Event, call: _Call) -> bytes:
        self.summary.output_chars += len(call.function.name) + len(call.function.arguments)
        if read.type == "tool-call-start":
            index = self._calls[read.index] = len(self._calls)
            if not call.function.arguments:
                self._without_arguments.add(read.index)
            function = Function(name=call.function.name, arguments=call.function.arguments)
            return self._writer.delta(tool_calls=[ToolCall(index=index, id=call.id, function=function)])
        return self._arguments(read.index, call.function.arguments)

    def _arguments(self, place: int, text: str) -> bytes:
        if text:
            self._without_arguments.discard(place)
        piece = ToolCall(index=self._calls.get(place, 0), type=msgspec.UNSET, function=Function(arguments=text))
        return self._writer.delta(tool_calls=[piece])

    def _end(self, delta: _EventDelta) -> bytes:
        if delta.finish_reason in FAILED_REASONS:
            raise UpstreamError(ErrorType.STREAM_ERROR, delta.error or "Cohere could not complete its reply.")
        reason = finish_reason(delta.finish_reason) or "stop"
        self.summary.usage = usage_of(delta.usage)
        self.summary.finish_reasons = (reason,)
        self.summary.finished = True
        return self._writer.delta(finish_reason=reason) + self._writer.usage(self.summary.usage)

    def close(self) -> bytes:
        """Nothing is held back, so nothing is left."""
        return b""


DIALECT = Dialect(
    name="cohere_v2",
    codecs={
        Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire, open_stream=CohereStream),
        Operation.COMPLETIONS: Codec(
            to_wire=completion_to_wire, from_wire=completion_from_wire, open_stream=CohereStream
        ),
        Operation.EMBEDDINGS: Codec(to_wire=embeddings_to_wire, from_wire=embeddings_from_wire),
    },
)
