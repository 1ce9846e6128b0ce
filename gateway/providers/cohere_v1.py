"""The `cohere` dialect, version 1: generate, chat and embed, as the MLflow gateway spoke them.

Its streams are JSON lines. Tools and named schemas are in version 2 only.

Source: https://docs.cohere.com/v1/reference/chat, .../generate, .../embed; the `cohere` providers of mlflow 2.8 and 3.x
"""

from typing import Any

import msgspec
from msgspec import Struct

from gateway.providers.canonical_reply import (
    ChatChoice,
    ChunkWriter,
    Message,
    TextChoice,
    chat_reply,
    completion_reply,
    decode_reply,
    embeddings_reply,
)
from gateway.providers.canonical_request import (
    ChatView,
    invalid,
    members,
    read_chat,
    read_completion,
    read_embeddings,
    refuse_native,
    schema_of,
    stop_list,
    text_of,
)
from gateway.providers.cohere_facts import FAILED_REASONS, EmbedOptions, Meta, finish_reason, usage_of
from gateway.providers.spec import Codec, Dialect, Endpoint, Framing
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.route import Operation
from gateway.types.usage import Usage

_GENERATE_NAMES = {"stop": "stop_sequences", "n": "num_generations"}
_EMBED_NAMES = {"input": "texts"}
_ROLES = {"user": "USER", "assistant": "CHATBOT"}


def _wire(endpoint: Endpoint, path: str, body: dict[str, Any]) -> WireRequest:
    return WireRequest(url=f"{endpoint.base_url}/{path}", body=msgspec.json.encode(body))


# --- generate ---------------------------------------------------------------------------------------------------


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/generate`: stop and n under Cohere's names, the temperature in Cohere's range."""
    refuse_native(request.fields, _GENERATE_NAMES, original_shape=request.original_shape)
    view, extras = read_completion(request)
    body: dict[str, Any] = {"model": endpoint.model, **extras, "prompt": view.prompt}
    if view.temperature is not None:
        body["temperature"] = endpoint.quirks.scaled(view.temperature, request)
    body |= members(
        num_generations=view.n, stop_sequences=stop_list(view.stop), max_tokens=view.max_tokens, p=view.top_p
    )
    if request.stream:
        body["stream"] = True
    return _wire(endpoint, "generate", body)


class _Generation(Struct):
    text: str
    index: int = 0
    finish_reason: str | None = None


class _Generations(Struct):
    generations: list[_Generation]
    id: str | None = None
    meta: Meta | None = None


_GENERATIONS = msgspec.json.Decoder(_Generations)


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The generations as choices."""
    reply = decode_reply(_GENERATIONS, body)
    choices = [
        TextChoice(index=index, text=generation.text, finish_reason=finish_reason(generation.finish_reason))
        for index, generation in enumerate(reply.generations)
    ]
    return completion_reply(request, choices, model=endpoint.model, usage=usage_of(reply.meta), response_id=reply.id)


# --- chat -------------------------------------------------------------------------------------------------------


def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/chat`: the last message is the question, the system's are the preamble, the others the history."""
    view, extras = read_chat(request)
    _check_chat(view)
    body: dict[str, Any] = {"model": endpoint.model, **extras}
    if view.temperature is not None:
        body["temperature"] = endpoint.quirks.scaled(view.temperature, request)
    body |= members(max_tokens=view.token_limit, p=view.top_p, response_format=_format(view))
    *earlier, last = view.messages
    body["message"] = text_of(last, f"messages[{len(earlier)}]")
    texts = [(message.role, text_of(message, f"messages[{index}]")) for index, message in enumerate(earlier)]
    if system := [text for role, text in texts if role == "system"]:
        body["preamble_override"] = "\n".join(system)
    if history := [{"role": _ROLES[role], "message": text} for role, text in texts if role in _ROLES]:
        body["chat_history"] = history
    if request.stream:
        body["stream"] = True
    return _wire(endpoint, "chat", body)


def _check_chat(view: ChatView) -> None:
    if not view.messages:
        raise invalid("messages must hold at least one message.", "messages")
    if view.n not in (None, 1):
        raise invalid(f"Parameter n must be 1 for Cohere chat, got {view.n}.", "n")
    if view.stop is not None:
        raise invalid("Parameter stop is not supported for Cohere chat.", "stop")
    if view.messages[-1].role != "user":
        role = view.messages[-1].role
        raise invalid(f"Last message must be from user, got {role}.", f"messages[{len(view.messages) - 1}].role")
    if view.tools:
        raise invalid("Tools need version 2 of Cohere's API: set cohere_api_version: v2 for this route.", "tools")


def _format(view: ChatView) -> dict[str, Any] | None:
    wanted = view.response_format
    if wanted is None or wanted.type == "text":
        return None
    schema = schema_of(view)
    return {"type": "json_object"} | ({"schema": schema} if schema is not None else {})


class _TokenCount(Struct):
    prompt_tokens: int | None = None
    response_tokens: int | None = None


class _Chat(Struct):
    text: str = ""
    response_id: str | None = None
    finish_reason: str | None = None
    token_count: _TokenCount | None = None
    meta: Meta | None = None


def _chat_usage(reply: _Chat) -> Usage | None:
    # Older replies have `token_count`, newer ones only `meta`.
    count = reply.token_count
    if count is not None and count.prompt_tokens is not None:
        return Usage(input_tokens=count.prompt_tokens, output_tokens=count.response_tokens)
    return usage_of(reply.meta)


_CHAT = msgspec.json.Decoder(_Chat)


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The text as the only choice."""
    reply = decode_reply(_CHAT, body)
    choice = ChatChoice(index=0, message=Message(content=reply.text), finish_reason=finish_reason(reply.finish_reason))
    return chat_reply(request, [choice], model=endpoint.model, usage=_chat_usage(reply), response_id=reply.response_id)


# --- embed ------------------------------------------------------------------------------------------------------


def embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/embed`: the input, always as a list, is `texts`."""
    refuse_native(request.fields, _EMBED_NAMES, original_shape=request.original_shape)
    view, extras = read_embeddings(request)
    if view.dimensions is not None:
        raise invalid("'dimensions' needs version 2 of Cohere's API: set cohere_api_version: v2.", "dimensions")
    body: dict[str, Any] = {"model": endpoint.model, "texts": view.texts}
    if isinstance(endpoint.options, EmbedOptions) and endpoint.options.input_type is not None:
        body["input_type"] = endpoint.options.input_type
    return _wire(endpoint, "embed", body | extras)


class _ByType(Struct):
    float: list[list[float]]


class _Embed(Struct):
    embeddings: list[list[float]] | _ByType
    meta: Meta | None = None


_EMBED = msgspec.json.Decoder(_Embed)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The vectors, whether Cohere lists them plainly or by type."""
    reply = decode_reply(_EMBED, body)
    vectors = reply.embeddings.float if isinstance(reply.embeddings, _ByType) else reply.embeddings
    return embeddings_reply(request, vectors, model=endpoint.model, usage=usage_of(reply.meta, generates=False))


# --- streams ----------------------------------------------------------------------------------------------------


class _Ended(_Chat):
    id: str | None = None
    generations: list[_Generation] = []


class _Line(Struct):
    event_type: str = ""
    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    err: str | None = None
    response: _Ended | None = None


_LINE = msgspec.json.Decoder(_Line)


class CohereStream:
    """Turns the lines of `/chat` and of `/generate` into chunks. The stream's id is told only at its end."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()
        self._writer = ChunkWriter(request, endpoint.model)

    def feed(self, event: StreamEvent) -> bytes:
        """One line; raises UpstreamError for a failed generation and for a line that is no event."""
        line = decode_reply(_LINE, event.data)
        if line.event_type == "text-generation":
            self.summary.output_chars += len(line.text)
            return self._writer.delta(line.index, content=line.text)
        if line.event_type == "stream-error" or line.finish_reason in FAILED_REASONS:
            raise UpstreamError(ErrorType.STREAM_ERROR, line.err or "Cohere could not complete its reply.")
        if line.event_type != "stream-end":
            return b""
        return self._end(line.response or _Ended(), line.finish_reason)

    def _end(self, reply: _Ended, reason: str | None) -> bytes:
        reasons = {g.index: g.finish_reason or reason for g in reply.generations} or {0: reason}
        self.summary.usage = _chat_usage(reply)
        self.summary.response_id = reply.response_id or reply.id
        self.summary.finished = True
        chunks = b""
        for index, theirs in sorted(reasons.items()):
            ours = finish_reason(theirs) or "stop"
            self.summary.finish_reasons += (ours,)
            chunks += self._writer.delta(index, finish_reason=ours)
        return chunks + self._writer.usage(self.summary.usage)

    def close(self) -> bytes:
        """Nothing is held back, so nothing is left."""
        return b""


DIALECT = Dialect(
    name="cohere_v1",
    codecs={
        Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire, open_stream=CohereStream),
        Operation.COMPLETIONS: Codec(
            to_wire=completion_to_wire, from_wire=completion_from_wire, open_stream=CohereStream
        ),
        Operation.EMBEDDINGS: Codec(to_wire=embeddings_to_wire, from_wire=embeddings_from_wire),
    },
    framing=Framing.NDJSON,
)
