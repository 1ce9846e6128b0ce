"""The vendors' own request and reply shapes, as the documentation page shows them.

They describe what most requests have; what they do not name is passed through like the rest.
Source: https://platform.openai.com/docs/api-reference/responses, https://docs.anthropic.com/en/api/messages,
https://ai.google.dev/api/generate-content, https://ai.google.dev/api/embeddings
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

# --- OpenAI: Responses ------------------------------------------------------------------------------------------


class ResponsesRequest(Struct, omit_defaults=True):
    """What a response is asked for. `model` is the route's name."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    stream: bool = False


class ResponsesUsage(Struct):
    """Token counts."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ResponsesReply(Struct):
    """A response: its items are messages, calls and reasoning."""

    id: str
    object: Literal["response"]
    created_at: float
    model: str
    status: str
    output: list[dict[str, Any]]
    usage: ResponsesUsage | None = None


class CompactReply(Struct):
    """A conversation made shorter, to be the input of what follows."""

    id: str
    object: Literal["response.compaction"]
    created_at: float
    output: list[dict[str, Any]]
    usage: ResponsesUsage | None = None


class InputTokensReply(Struct):
    """How many tokens an input has."""

    object: Literal["response.input_tokens"]
    input_tokens: int


# --- Anthropic: Messages ----------------------------------------------------------------------------------------


class AnthropicMessage(Struct):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


class CountTokensRequest(Struct, omit_defaults=True):
    """What is counted. `model` is the route's name."""

    model: str
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None


class MessagesRequest(Struct, omit_defaults=True):
    """What a message is asked for. `model` is the route's name."""

    model: str
    max_tokens: Annotated[int, Meta(ge=1)]
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    stream: bool = False


class MessagesUsage(Struct):
    """Token counts; those of the cache are not part of `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class MessagesReply(Struct):
    """A message of Claude's."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessagesUsage


class CountTokensReply(Struct):
    """How many tokens the messages have."""

    input_tokens: int


class AnthropicErrorDetail(Struct):
    """What went wrong; `code` is the closed error type."""

    type: str
    message: str
    code: str
    trace_id: str


class AnthropicError(Struct):
    """An error on Anthropic's paths."""

    type: Literal["error"]
    error: AnthropicErrorDetail


# --- Gemini -----------------------------------------------------------------------------------------------------


class GeminiContent(Struct, omit_defaults=True):
    """One turn, or the system's words."""

    parts: list[dict[str, Any]]
    role: Literal["user", "model"] | None = None


class GenerateContentRequest(Struct, omit_defaults=True, rename="camel"):
    """What content is generated from. The path names the route."""

    contents: Annotated[list[GeminiContent], Meta(min_length=1)]
    system_instruction: GeminiContent | None = None
    generation_config: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_config: dict[str, Any] | None = None
    safety_settings: list[dict[str, Any]] | None = None


class GeminiUsage(Struct, omit_defaults=True, rename="camel"):
    """Token counts; thoughts are not part of the candidates'."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    total_token_count: int | None = None


class GenerateContentReply(Struct, omit_defaults=True, rename="camel"):
    """Candidates; of a stream each event is one of these."""

    candidates: list[dict[str, Any]] | None = None
    usage_metadata: GeminiUsage | None = None
    model_version: str | None = None
    response_id: str | None = None


class GeminiCountRequest(Struct, omit_defaults=True, rename="camel"):
    """What is counted: contents, or a whole request."""

    contents: list[GeminiContent] | None = None
    generate_content_request: dict[str, Any] | None = None


class GeminiCountReply(Struct, rename="camel"):
    """How many tokens the contents have."""

    total_tokens: int


class EmbedContentRequest(Struct, omit_defaults=True, rename="camel"):
    """One text to embed. The path names the route."""

    content: GeminiContent
    task_type: str | None = None
    output_dimensionality: int | None = None


class EmbedContentReply(Struct):
    """One vector, under `values`."""

    embedding: dict[str, Any]


class BatchEmbedRequest(Struct):
    """Texts to embed."""

    requests: list[EmbedContentRequest]


class BatchEmbedReply(Struct):
    """Vectors, in the order of the texts."""

    embeddings: list[dict[str, Any]]


class GeminiErrorDetail(Struct):
    """What went wrong; `details` hold the closed error type and the trace."""

    code: int
    message: str
    status: str
    details: list[dict[str, Any]]


class GeminiError(Struct):
    """An error on Gemini's paths."""

    error: GeminiErrorDetail
