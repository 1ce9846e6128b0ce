"""The OpenAI-like request and reply shapes, as the documentation page shows them.

They describe; they do not restrict: members that they do not name reach the provider as they came.
Source: https://platform.openai.com/docs/api-reference
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class Message(Struct, omit_defaults=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatRequest(Struct, omit_defaults=True):
    """A chat request. Other members of OpenAI's API are forwarded."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: float | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None


class CompletionsRequest(Struct, omit_defaults=True):
    """A completions request. Other members of OpenAI's API are forwarded."""

    prompt: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False


class EmbeddingsRequest(Struct, omit_defaults=True):
    """An embeddings request."""

    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None


class Usage(Struct):
    """Token counts; null where the provider reported none."""

    prompt_tokens: int | None
    total_tokens: int | None
    completion_tokens: int | None = None


class ChatChoice(Struct):
    """One answer."""

    index: int
    message: Message
    finish_reason: str | None


class ChatReply(Struct):
    """A chat reply."""

    id: str | None
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None = None


class CompletionsChoice(Struct):
    """One answer."""

    index: int
    text: str
    finish_reason: str | None


class CompletionsReply(Struct):
    """A completions reply."""

    id: str | None
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionsChoice]
    usage: Usage | None = None


class EmbeddingItem(Struct):
    """One vector."""

    index: int
    embedding: list[float]
    object: Literal["embedding"]


class EmbeddingsReply(Struct):
    """Vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: Usage | None = None


class OriginalMetadata(Struct):
    """What the original API says of a reply."""

    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    model: str
    route_type: str


class OriginalChatCandidate(Struct):
    """One answer of a chat."""

    message: Message
    metadata: dict[str, Any]


class OriginalChatReply(Struct):
    """A chat reply in the original shape."""

    candidates: list[OriginalChatCandidate]
    metadata: OriginalMetadata


class OriginalTextCandidate(Struct):
    """One completion."""

    text: str
    metadata: dict[str, Any]


class OriginalCompletionsReply(Struct):
    """A completions reply in the original shape."""

    candidates: list[OriginalTextCandidate]
    metadata: OriginalMetadata


class OriginalEmbeddingsReply(Struct):
    """An embeddings reply in the original shape."""

    embeddings: list[list[float]]
    metadata: OriginalMetadata


class MlflowError(Struct):
    """An error on the MLflow paths."""

    detail: str | list[dict[str, Any]]
    error_type: str
    trace_id: str


class OpenAIErrorDetail(Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str
    error_type: str
    trace_id: str


class OpenAIError(Struct):
    """An error on the `/v1` paths."""

    error: OpenAIErrorDetail
