"""What calls return: OpenAI's shapes, with the gateway's own facts beside them. Unknown members are left out."""

from decimal import Decimal
from typing import Any

from msgspec import Struct


class RouteModel(Struct, frozen=True):
    """The model of a route's first target."""

    name: str
    provider: str


class RouteLimit(Struct, frozen=True):
    """`calls` a `renewal_period`."""

    calls: int
    renewal_period: str
    key: str | None = None


class Route(Struct, frozen=True):
    """A configured route. `route_url` is absolute."""

    name: str
    route_type: str
    model: RouteModel
    route_url: str
    limit: RouteLimit | None = None


class Usage(Struct, frozen=True):
    """Token counts, as the provider reported them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class FunctionCall(Struct, frozen=True):
    """What the model wants called; `arguments` is JSON."""

    name: str | None = None
    arguments: str = ""


class ToolCall(Struct, frozen=True):
    """One call. In a chunk, `index` says to which call the piece belongs."""

    id: str | None = None
    index: int | None = None
    type: str = "function"
    function: FunctionCall = FunctionCall()


class Message(Struct, frozen=True):
    """A message, or in a chunk a piece of one."""

    role: str | None = None
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


class ChatChoice(Struct, frozen=True):
    """One answer."""

    message: Message
    index: int = 0
    finish_reason: str | None = None


class _Facts(Struct, frozen=True, kw_only=True):
    """What the gateway says of a reply. `cost_usd` is None where it keeps no account of the call."""

    trace_id: str = ""
    cost_usd: Decimal | None = None


class ChatReply(_Facts, frozen=True, kw_only=True):
    """A chat reply."""

    choices: tuple[ChatChoice, ...]
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The first answer's text; empty where it has only calls."""
        return (self.choices[0].message.content or "") if self.choices else ""


class ChunkChoice(Struct, frozen=True):
    """A piece of one answer."""

    delta: Message = Message()
    index: int = 0
    finish_reason: str | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """A piece of a streamed chat; the last one may have the usage and no choice."""

    choices: tuple[ChunkChoice, ...] = ()
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The first answer's new text."""
        return (self.choices[0].delta.content or "") if self.choices else ""


class TextChoice(Struct, frozen=True):
    """One completion, or in a chunk a piece of one."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None


class TextReply(_Facts, frozen=True, kw_only=True):
    """A completions reply."""

    choices: tuple[TextChoice, ...]
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The first completion."""
        return self.choices[0].text if self.choices else ""


class TextChunk(Struct, frozen=True, kw_only=True):
    """A piece of a streamed completion."""

    choices: tuple[TextChoice, ...] = ()
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The first completion's new text."""
        return self.choices[0].text if self.choices else ""


class Embedding(Struct, frozen=True):
    """One vector."""

    embedding: tuple[float, ...]
    index: int = 0


class EmbeddingsReply(_Facts, frozen=True, kw_only=True):
    """Vectors, in the order of the inputs."""

    data: tuple[Embedding, ...]
    model: str | None = None
    usage: Usage | None = None

    @property
    def vectors(self) -> list[tuple[float, ...]]:
        """The vectors alone."""
        return [item.embedding for item in self.data]


Body = dict[str, Any]
"""A JSON object as `query` takes and gives it."""
