"""The canonical (OpenAI-like) request as values, for dialects that must rebuild it in their vendor's words.

A view names the fields that more than one vendor has a word for; everything else a caller sent comes back beside it,
byte for byte, so that vendor parameters reach their vendor. A field that is null counts as absent, and so do hints to
OpenAI and values that change nothing.

Source: https://platform.openai.com/docs/api-reference (chat, completions and embeddings: create);
`thinking_blocks` and `cache_control` are how OpenAI's clients speak of Claude's.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from gateway.providers.hints import says_nothing
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelRequest

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_DATA_URL = re.compile(r"data:(?P<media_type>[^;,]+)(?:;[^,]*)?;base64,(?P<data>.*)", re.DOTALL)
_NULL = Raw(b"null")
_NO_ID_LETTER = re.compile(r"[^a-zA-Z0-9_-]")

Extras = dict[str, Raw]

_SYSTEM_ROLES = ("system", "developer")

ORIGINAL_NAMES: Mapping[str, str] = {"n": "candidate_count", "input": "text"}
"""Canonical names that the original surface (MLflow 2.5 to 2.8) spells differently."""


class FunctionCall(Struct, frozen=True):
    """A call that the model asked for; `arguments` is JSON text."""

    name: str
    arguments: str = ""


class _GoogleContent(Struct, frozen=True):
    thought_signature: str | None = None


class _ExtraContent(Struct, frozen=True):
    google: _GoogleContent | None = None


class ToolCall(Struct, frozen=True):
    """One entry of an assistant message's `tool_calls`; both spellings of Gemini's thought signature are read."""

    id: str
    function: FunctionCall
    thought_signature: str | None = None
    extra_content: _ExtraContent | None = None

    @property
    def signature(self) -> str | None:
        """Gemini's signature of the thought behind this call, which it wants back."""
        if self.thought_signature is None and self.extra_content is not None and self.extra_content.google is not None:
            return self.extra_content.google.thought_signature
        return self.thought_signature


class ThinkingBlock(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of Claude's thoughts, as a reply gave it: signed, or encrypted in `data`. Claude wants it back unchanged."""

    type: str
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    data: str | UnsetType = UNSET


class Message(Struct, frozen=True):
    """One chat message. `content` is text or a list of parts, each still as raw JSON (see `Part`).

    `refusal` is what OpenAI's models say where they will not answer; it comes back with the conversation.
    """

    role: str
    content: str | list[Raw] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    cache_control: Raw = Raw()

    @property
    def said(self) -> str | list[Raw] | None:
        """The content, or the refusal to give one."""
        return self.refusal if self.content is None else self.content


class ImageUrl(Struct, frozen=True):
    """An image: a `data:` URL or an address that the provider can fetch."""

    url: str


class InputAudio(Struct, frozen=True):
    """A recording: base64 `data` in `format` wav or mp3."""

    data: str
    format: str


class InputFile(Struct, frozen=True):
    """A file: a `data:` URL in `file_data`."""

    file_data: str | None = None
    filename: str | None = None


class Part(Struct, frozen=True):
    """One part of a message's content, with the members of the types that OpenAI names, and Claude's cache mark."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None
    cache_control: Raw = Raw()

    @property
    def image_address(self) -> str | None:
        """The image's URL, which some clients write without the object around it."""
        return self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url


class FunctionSpec(Struct, frozen=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class Tool(Struct, frozen=True):
    """One entry of `tools`."""

    type: str = "function"
    function: FunctionSpec | None = None
    cache_control: Raw = Raw()


class JsonSchema(Struct, frozen=True):
    """The schema that a reply must follow."""

    name: str = ""
    schema: Raw = Raw()
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True):
    """`response_format`: `text`, `json_object` or `json_schema`."""

    type: str
    json_schema: JsonSchema | None = None


class _NamedFunction(Struct, frozen=True):
    name: str


class ToolChoice(Struct, frozen=True):
    """`tool_choice` where it names one function."""

    type: str = "function"
    function: _NamedFunction | None = None


class ChatView(Struct, frozen=True):
    """A chat request. `stream` and its options are in `ModelRequest`; `model` is the route's name, of no use here."""

    messages: list[Message]
    model: Raw = Raw()
    stream: bool | None = None
    stream_options: Raw = Raw()
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def token_limit(self) -> int | None:
        """`max_tokens`, or its newer name."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


class CompletionView(Struct, frozen=True):
    """A text completion request."""

    prompt: str
    model: Raw = Raw()
    stream: bool | None = None
    stream_options: Raw = Raw()
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None


class EmbeddingsView(Struct, frozen=True):
    """An embeddings request."""

    input: Raw
    model: Raw = Raw()
    dimensions: int | None = None
    encoding_format: str | None = None

    @property
    def texts(self) -> list[str]:
        """The inputs as text; RequestError for token ids, which only OpenAI's models understand."""
        try:
            given = msgspec.json.decode(self.input, type=str | list[str])
        except msgspec.MsgspecError:
            raise RequestError(
                ErrorType.INVALID_REQUEST,
                "'input' must be a string or a list of strings; this route's provider takes no token ids.",
                param="input",
            ) from None
        return [given] if isinstance(given, str) else given


_V = TypeVar("_V", ChatView, CompletionView, EmbeddingsView)


def read_chat(request: ModelRequest) -> tuple[ChatView, Extras]:
    """The chat request, and the members that the view does not name; RequestError names a wrong field.

    OpenAI's models answer a system's words alone, and no other vendor's do: the last of these become the user's.
    """
    view, extras = _read(request, ChatView)
    if view.messages and all(message.role in _SYSTEM_ROLES for message in view.messages):
        *before, last = view.messages
        view = structs.replace(view, messages=[*before, structs.replace(last, role="user")])
    return view, extras


def read_completion(request: ModelRequest) -> tuple[CompletionView, Extras]:
    """The completion request, and the members that the view does not name; RequestError names a wrong field."""
    return _read(request, CompletionView)


def read_embeddings(request: ModelRequest) -> tuple[EmbeddingsView, Extras]:
    """The embeddings request, and the members that the view does not name; RequestError names a wrong field."""
    return _read(request, EmbeddingsView)


def _read(request: ModelRequest, view: type[_V]) -> tuple[_V, Extras]:
    known: dict[str, Raw] = {}
    extras: Extras = {}
    names = view.__struct_encode_fields__
    for name, value in request.fields.items():
        if name in names:
            if value != _NULL:
                known[name] = value
        elif value != _NULL and not says_nothing(name, value):
            extras[name] = value
    if view is CompletionView and bytes(known.get("prompt", b"")).startswith(b"["):
        known["prompt"] = _only_prompt(known["prompt"])
    return decode_member(msgspec.json.encode(known), view, ""), extras


def _only_prompt(raw: Raw) -> Raw:
    """The prompt of a list of one, which is how many clients send it; the list itself when it is another."""
    prompts = decode_member(raw, list[Raw], "prompt")
    return prompts[0] if len(prompts) == 1 else raw


_M = TypeVar("_M")


def decode_member(data: bytes | Raw, type_: type[_M], path: str) -> _M:
    """Decode one member of a request; RequestError names the wrong field by its path below `path`."""
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _AT.search(text)
        inner = at.group(1) if at else ""
        param = f"{path}.{inner}" if path and inner and not inner.startswith("[") else path + inner
        message = text[: at.start()] if at else text
        raise RequestError(
            ErrorType.INVALID_REQUEST, f"{param}: {message}" if param else message, param=param or None
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError(
            ErrorType.INVALID_REQUEST, f"{path or 'The request'} is not valid JSON.", param=path or None
        ) from None


def parts_of(message: Message, path: str) -> list[tuple[Part, Raw]]:
    """The parts of a message's content, each with its raw JSON; text content is one text part."""
    said = message.said
    if said is None:
        return []
    if isinstance(said, str):
        return [_text_part(said)]
    parts = ((decode_member(raw, Part, f"{path}.content[{index}]"), raw) for index, raw in enumerate(said))
    return [(part, raw) if part.refusal is None else _text_part(part.refusal) for part, raw in parts]


def _text_part(text: str) -> tuple[Part, Raw]:
    return Part(type="text", text=text), Raw(msgspec.json.encode({"type": "text", "text": text}))


def text_of(message: Message, path: str) -> str:
    """A message's content where only text can stand, parts joined; RequestError for anything else."""
    said = message.said
    if said is None or isinstance(said, str):
        return said or ""
    texts = []
    for index, (part, _) in enumerate(parts_of(message, path)):
        if part.text is None:
            param = f"{path}.content[{index}]"
            raise RequestError(ErrorType.INVALID_REQUEST, f"{param} must be a text part.", param=param)
        texts.append(part.text)
    return "".join(texts)


def call_arguments(call: ToolCall, path: str) -> Raw:
    """A call's arguments as a JSON object, compact; RequestError when the text is none. Empty text is `{}`."""
    text = call.function.arguments.strip() or "{}"
    decode_member(text.encode(), dict[str, Raw], f"{path}.function.arguments")
    return Raw(msgspec.json.format(text.encode(), indent=-1))


def call_id(given: str) -> str:
    """A call's id in the letters that Anthropic and AWS allow. Other vendors' ids come along with a conversation."""
    return _NO_ID_LETTER.sub("_", given)


def data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64 data) of a `data:` URL, or None for an address."""
    match = _DATA_URL.fullmatch(url)
    return (match["media_type"], match["data"]) if match else None


def present(value: Raw) -> bool:
    """Whether a raw member was given, and not as null."""
    return bool(value) and value != _NULL


def schema_of(view: ChatView) -> Raw | None:
    """The JSON schema that a reply must follow, where one is given."""
    wanted = view.response_format
    if wanted is None or wanted.json_schema is None or not present(wanted.json_schema.schema):
        return None
    return wanted.json_schema.schema


def stop_list(stop: str | list[str] | None) -> list[str] | None:
    """`stop` as a list, or None when there is none."""
    if isinstance(stop, str):
        return [stop]
    return stop or None


def invalid(message: str, param: str) -> RequestError:
    """The refusal of a request for what its member `param` says."""
    return RequestError(ErrorType.INVALID_REQUEST, message, param=param)


def refuse_native(fields: Mapping[str, Any], ours: Mapping[str, str], *, original_shape: bool = False) -> None:
    """Refuse a vendor's own spelling of a field that has a canonical one; `ours` maps (ours, theirs).

    With `original_shape` the text names the field as the caller's surface does.
    """
    for name, theirs in ours.items():
        if theirs in fields and theirs != name:
            known = ORIGINAL_NAMES.get(name, name) if original_shape else name
            raise RequestError(
                ErrorType.INVALID_REQUEST, f"Invalid parameter {theirs}. Use {known} instead.", param=theirs
            )


def functions_of(view: ChatView) -> list[FunctionSpec]:
    """The functions of `tools`; RequestError for a tool of another type."""
    functions = []
    for index, tool in enumerate(view.tools or ()):
        if tool.type != "function" or tool.function is None:
            raise RequestError(
                ErrorType.INVALID_REQUEST,
                f"Only function calling tool is supported, but received tool type {tool.type}",
                param=f"tools[{index}]",
            )
        functions.append(tool.function)
    return functions


def functions_spoken_of(view: ChatView) -> list[str]:
    """The names of the functions that earlier turns called, for vendors who then insist on hearing of them again."""
    return list(dict.fromkeys(call.function.name for message in view.messages for call in message.tool_calls or ()))


def members(**given: Any) -> dict[str, Any]:
    """The members that are not None, for a body that leaves the others out."""
    return {name: value for name, value in given.items() if value is not None}
