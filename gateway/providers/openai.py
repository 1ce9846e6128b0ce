"""The `openai` dialect: chat completions, completions, embeddings and responses, spoken by OpenAI and many others.

Canonical and wire form are the same here, so a request is patched, not rebuilt: `model` and the stream's usage switch
change, every other top-level value reaches the provider byte for byte. A reply's bytes are forwarded as they came.

Source: https://platform.openai.com/docs/api-reference
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from gateway.providers.hints import is_neutral
from gateway.providers.measured import decode_measured
from gateway.providers.openai_calls import CallNumbers
from gateway.providers.openai_errors import reported_error, stream_error
from gateway.providers.openai_messages import suited
from gateway.providers.openai_responses import RESPONSES
from gateway.providers.spec import Codec, Dialect, Endpoint, Quirks
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.route import Operation
from gateway.types.usage import Usage, service_tier

_NULL = Raw(b"null")
_TRUE_USAGE = Raw(b'{"include_usage":true}')
_PATHS = {
    Operation.CHAT: "/chat/completions",
    Operation.COMPLETIONS: "/completions",
    Operation.EMBEDDINGS: "/embeddings",
}

# --- requests ---------------------------------------------------------------------------------------------------


def to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """Patch the model (and a stream's usage switch) into the caller's own members, and apply the provider's quirks."""
    quirks = endpoint.quirks
    fields: Mapping[str, Raw] = request.fields
    if quirks.drop or quirks.rename or quirks.refuses_defaults or quirks.temperature_scale != 1.0:
        fields = _apply_quirks(fields, quirks)
    if quirks.own_temperature and request.original_shape:
        fields = {name: value for name, value in fields.items() if name != "temperature"}
    if not quirks.developer_role or quirks.message_members:
        fields = suited(fields, quirks)
    patch: dict[str, Raw] = {}
    if quirks.send_model:
        patch["model"] = Raw(msgspec.json.encode(endpoint.model))
    if request.stream and quirks.stream_options and not request.include_usage:
        patch["stream_options"] = _with_usage(fields.get("stream_options"))
    if not quirks.send_model and "model" in fields:
        fields = {name: value for name, value in fields.items() if name != "model"}
    return WireRequest(url=_url(request.operation, endpoint), body=msgspec.json.encode({**fields, **patch}))


def _url(operation: Operation, endpoint: Endpoint) -> str:
    # Azure has its API version in the query, behind the path.
    base, _, query = endpoint.base_url.partition("?")
    return f"{base}{_PATHS[operation]}?{query}" if query else f"{base}{_PATHS[operation]}"


def _with_usage(stream_options: Raw | None) -> Raw:
    """The caller's stream options with `include_usage` on: without it a stream's tokens would stay unknown."""
    if stream_options is None:
        return _TRUE_USAGE
    try:
        options = msgspec.json.decode(stream_options, type=dict[str, Raw])
    except msgspec.MsgspecError:
        return _TRUE_USAGE
    return Raw(msgspec.json.encode(options | {"include_usage": Raw(b"true")}))


def _apply_quirks(fields: Mapping[str, Raw], quirks: Quirks) -> dict[str, Raw]:
    renamed = dict(quirks.rename)
    result = {
        renamed.get(name, name): value
        for name, value in fields.items()
        if name not in quirks.drop and not (quirks.refuses_defaults and is_neutral(name, value))
    }
    if quirks.temperature_scale != 1.0 and "temperature" in result:
        temperature = msgspec.json.decode(result["temperature"])
        if isinstance(temperature, int | float):
            result["temperature"] = Raw(msgspec.json.encode(temperature * quirks.temperature_scale))
    return result


# --- usage ------------------------------------------------------------------------------------------------------


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _ServerTools(Struct):
    web_search_requests: int | None = None


class _Usage(Struct):
    """`usage` of chat completions, completions and embeddings.

    `prompt_cache_hit_tokens` is DeepSeek's; `num_search_queries` is Perplexity's, `num_sources_used` xAI's and
    `server_tool_use_details` OpenRouter's, which charge for these.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    num_search_queries: int | None = None
    num_sources_used: int | None = None
    server_tool_use_details: _ServerTools | None = None


_NO_INPUT_DETAILS = _InputDetails()
_NO_OUTPUT_DETAILS = _OutputDetails()
_NO_TOOLS = _ServerTools()


def _usage(reported: _Usage | None, tier: str | None = None, model: str | None = None) -> Usage | None:
    if reported is None or (reported.prompt_tokens is None and reported.completion_tokens is None):
        return None
    of_input = reported.prompt_tokens_details or _NO_INPUT_DETAILS
    of_output = reported.completion_tokens_details or _NO_OUTPUT_DETAILS
    cached = of_input.cached_tokens
    output, reasoning = reported.completion_tokens, of_output.reasoning_tokens
    if output is not None and reasoning and reported.total_tokens == (reported.prompt_tokens or 0) + output + reasoning:
        # xAI counts the reasoning beside the completion, others as a part of it: the total tells.
        output += reasoning
    return Usage(
        input_tokens=reported.prompt_tokens,
        output_tokens=output,
        cache_read_tokens=reported.prompt_cache_hit_tokens if cached is None else cached,
        cache_write_tokens=of_input.cache_write_tokens,
        reasoning_tokens=reasoning,
        input_audio_tokens=of_input.audio_tokens,
        output_audio_tokens=of_output.audio_tokens,
        web_searches=_searches(reported, model or ""),
        service_tier=service_tier(tier),
    )


def _searches(reported: _Usage, model: str) -> int | None:
    """The searches that are charged beside tokens, as counted or, where the vendor does not count, as known."""
    tools = reported.server_tool_use_details or _NO_TOOLS
    counted = (reported.num_search_queries, reported.num_sources_used, tools.web_search_requests)
    known = [count for count in counted if count is not None]
    return sum(known) if known else searches_by_itself(model) or None


def searches_by_itself(model: str) -> int | None:
    """How often a model searches unasked; None where it decides: OpenAI's search models do once, and report it nowhere."""
    if "-search-preview" in model or "-search-api" in model:
        return 1
    return None if "sonar-deep-research" in model else 0


# --- whole replies ----------------------------------------------------------------------------------------------


class _Choice(Struct):
    finish_reason: str | None = None


class _ChatReply(Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: _Usage | None = None


class _EmbeddingsReply(Struct):
    data: list[Raw]
    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None


class _Called(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None

    @property
    def chars(self) -> int:
        return len(self.name or "") + len(self.arguments or self.input or "")


_NOT_CALLED = _Called()


class _Call(Struct):
    index: int | None = None
    function: _Called = _NOT_CALLED
    custom: _Called = _NOT_CALLED


class _Said(Struct):
    """A message, or a streamed piece of one. Some servers write their thoughts into two members."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Called | None = None

    @property
    def chars(self) -> int:
        """How many characters were generated for it."""
        chars = len(self.content or "")
        if thought := self.reasoning_content or self.reasoning:
            chars += len(thought)
        if self.refusal:
            chars += len(self.refusal)
        if self.tool_calls:
            chars += sum(call.function.chars + call.custom.chars for call in self.tool_calls)
        return chars if self.function_call is None else chars + self.function_call.chars


class _ContentChoice(Struct):
    message: _Said | None = None
    text: str | None = None


class _ContentReply(Struct):
    choices: list[_ContentChoice] = []


_CHAT_REPLY = msgspec.json.Decoder(_ChatReply)
_EMBEDDINGS_REPLY = msgspec.json.Decoder(_EmbeddingsReply)
_CONTENT_REPLY = msgspec.json.Decoder(_ContentReply)


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """Read what is measured from a chat or text completion; the body itself is forwarded untouched."""
    try:
        reply = decode_measured(_CHAT_REPLY, body)
    except UpstreamError as error:
        raise reported_error(body, ErrorType.PROVIDER_ERROR) or error from None
    usage = _usage(reply.usage, reply.service_tier, reply.model)
    return ModelReply(
        body=body,
        usage=usage,
        response_model=reply.model,
        response_id=reply.id,
        finish_reasons=tuple(choice.finish_reason for choice in reply.choices if choice.finish_reason),
        output_chars=_content_chars(body) if usage is None else 0,
    )


def _content_chars(body: bytes) -> int:
    try:
        reply = _CONTENT_REPLY.decode(body)
    except msgspec.MsgspecError:
        return len(body)
    return sum(choice.message.chars if choice.message else len(choice.text or "") for choice in reply.choices)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """Read what is measured from embeddings; their output tokens are 0, since nothing is generated."""
    reply = decode_measured(_EMBEDDINGS_REPLY, body)
    usage = _usage(reply.usage)
    if usage is not None:
        usage = msgspec.structs.replace(usage, output_tokens=0)
    return ModelReply(body=body, usage=usage, response_model=reply.model, response_id=reply.id)


# --- streams ----------------------------------------------------------------------------------------------------


class _StreamChoice(Struct):
    index: int = 0
    delta: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _GroqExtra(Struct):
    usage: _Usage | None = None


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_StreamChoice] | None = None
    usage: _Usage | None = None
    error: Raw = Raw()
    x_groq: _GroqExtra | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class OpenAIStream:
    """Forwards chunks as they came (calls numbered) and reads usage, finish and content length from each (about 1 us a chunk).

    The usage chunk that the gateway asked for is withheld from callers who did not.
    """

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()
        self._keep_usage_chunk = request.include_usage or not endpoint.quirks.stream_options
        self._numbers = CallNumbers()
        self._finishes: dict[int, str] = {}

    def feed(self, event: StreamEvent) -> bytes:
        """Forward one event; raises UpstreamError for an error event and for data that is no JSON object."""
        summary = self.summary
        data = event.data
        if data == b"[DONE]":
            summary.finished = True
            return b""
        if not data:
            return b""
        chunk = decode_measured(_CHUNK, data)
        if summary.response_id is None and chunk.id:
            # Azure begins with a chunk about the prompt, whose id and model are empty.
            summary.response_id = chunk.id
            summary.response_model = chunk.model
        reported = chunk.usage or (chunk.x_groq.usage if chunk.x_groq else None)
        if reported is not None:
            # Some providers report a running total in every chunk: the last one stands.
            summary.usage = _usage(reported, chunk.service_tier, chunk.model) or summary.usage
        if chunk.error and chunk.error != _NULL:
            # OpenRouter says beside the error what the reply took so far.
            raise stream_error(data)
        if not chunk.choices:
            return event.raw if reported is None or self._keep_usage_chunk else b""
        unnumbered = False
        for choice in chunk.choices:
            if choice.delta is not None:
                summary.output_chars += choice.delta.chars
                if choice.delta.tool_calls and not unnumbered:
                    unnumbered = any(call.index is None for call in choice.delta.tool_calls)
            elif choice.text:
                summary.output_chars += len(choice.text)
            if choice.finish_reason:
                # OpenRouter repeats the reason beside the usage.
                self._finishes[choice.index] = choice.finish_reason
                summary.finish_reasons = tuple(self._finishes.values())
                summary.finished = True
        return self._numbers.numbered(data) if unnumbered else event.raw

    def close(self) -> bytes:
        """Nothing is held back, so nothing is left."""
        return b""


DIALECT = Dialect(
    name="openai",
    codecs={
        Operation.CHAT: Codec(to_wire=to_wire, from_wire=chat_from_wire, open_stream=OpenAIStream),
        Operation.COMPLETIONS: Codec(to_wire=to_wire, from_wire=chat_from_wire, open_stream=OpenAIStream),
        Operation.EMBEDDINGS: Codec(to_wire=to_wire, from_wire=embeddings_from_wire),
        Operation.RESPONSES: RESPONSES,
    },
)
