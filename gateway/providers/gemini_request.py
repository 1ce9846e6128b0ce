"""Canonical requests in Gemini's words: `generateContent` and the embeddings calls.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/embeddings and, for the texts of refusals,
the `gemini` provider of mlflow 3.18.
"""

from typing import Any

import msgspec
from msgspec import Raw

from gateway.providers.canonical_request import (
    ChatView,
    CompletionView,
    Extras,
    Message,
    Part,
    call_arguments,
    data_url,
    decode_member,
    functions_of,
    parts_of,
    present,
    read_chat,
    read_completion,
    refuse_native,
    schema_of,
    stop_list,
    text_of,
)
from gateway.providers.gemini_thinking import NO_SIGNATURE, add_thinking, wants_signatures
from gateway.providers.hints import hint
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelRequest

_NATIVE = {
    "stop": "stopSequences",
    "n": "candidateCount",
    "max_tokens": "maxOutputTokens",
    "top_k": "topK",
    "top_p": "topP",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
}
# Members of `generationConfig` that no other dialect rebuilds: they arrive as extras, values untouched.
_CONFIG_EXTRAS = {
    "top_k": "topK",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "seed": "seed",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_MIME_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
}
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mp3"}

Body = dict[str, Any]


def chat_body(request: ModelRequest, model: str, *, call_ids: bool) -> Body:
    """A chat request as a `generateContent` body; RequestError for what Gemini cannot do.

    `call_ids` says whether calls and their results carry ids, which Vertex AI refuses.
    """
    view, extras = read_chat(request)
    body = _with_config(view, extras)
    system, contents = _Conversation(call_ids=call_ids, signs=wants_signatures(model)).read(view.messages)
    body["contents"] = contents
    if system:
        body["system_instruction"] = {"parts": system}
    _add_tools(body, view)
    _add_format(body, view)
    if effort := hint(request, "reasoning_effort"):
        add_thinking(body.setdefault("generationConfig", {}), effort, model)
    return body


def completion_body(request: ModelRequest) -> Body:
    """A completion request as the one turn of a user; an extra `system_prompt` is the system's."""
    view, extras = read_completion(request)
    system = extras.pop("system_prompt", None)
    body = _with_config(view, extras)
    body["contents"] = [{"role": "user", "parts": [{"text": view.prompt}]}]
    if system is not None:
        body["system_instruction"] = {"parts": [{"text": decode_member(system, str, "system_prompt")}]}
    return body


def _with_config(view: ChatView | CompletionView, extras: Extras) -> Body:
    """The caller's own Gemini members, and `generationConfig` from all that canonical fields say."""
    refuse_native(extras, _NATIVE)
    config: Body = {}
    if (given := extras.pop("generationConfig", None)) is not None:
        config.update(decode_member(given, dict[str, Raw], "generationConfig"))
    for name, theirs in _CONFIG_EXTRAS.items():
        if (value := extras.pop(name, None)) is not None:
            config[theirs] = value
    if (modalities := extras.pop("modalities", None)) is not None:
        config["responseModalities"] = [name.upper() for name in decode_member(modalities, list[str], "modalities")]
    limit = view.token_limit if isinstance(view, ChatView) else view.max_tokens
    values = {
        "temperature": view.temperature,
        "topP": view.top_p,
        "candidateCount": view.n,
        "maxOutputTokens": limit,
        "stopSequences": stop_list(view.stop),
    }
    config.update({name: value for name, value in values.items() if value is not None})
    body: Body = dict(extras)
    if config:
        body["generationConfig"] = config
    return body


# --- messages ---------------------------------------------------------------------------------------------------


class _Conversation:
    """Turns messages into contents. Gemini names the function in a result, so calls are remembered by id."""

    def __init__(self, *, call_ids: bool, signs: bool) -> None:
        self._call_ids = call_ids
        self._signs = signs
        self._names: dict[str, str] = {}
        self._system: list[Body] = []
        self._contents: list[Body] = []

    def read(self, messages: list[Message]) -> tuple[list[Body], list[Body]]:
        """The system's parts, and the contents."""
        for index, message in enumerate(messages):
            path = f"messages[{index}]"
            match message.role:
                case "system" | "developer":
                    self._system += [{"text": text}] if (text := text_of(message, path)) else []
                case "user":
                    self._contents.append({"role": "user", "parts": _parts(message, path) or [{"text": ""}]})
                case "assistant":
                    self._contents.append({"role": "model", "parts": self._assistant(message, path)})
                case "tool":
                    self._add_result(message, path)
                case _:
                    raise RequestError(
                        ErrorType.INVALID_REQUEST,
                        f"{path}.role is '{message.role}'; it must be system, developer, user, assistant or tool.",
                        param=f"{path}.role",
                    )
        return self._system, self._contents

    def _assistant(self, message: Message, path: str) -> list[Body | Raw]:
        parts: list[Body | Raw] = [part for part in _parts(message, path) if part != {"text": ""}]
        for index, call in enumerate(message.tool_calls or ()):
            self._names[call.id] = call.function.name
            function: Body = {"id": call.id} if self._call_ids else {}
            function |= {
                "name": call.function.name,
                "args": call_arguments(call, f"{path}.tool_calls[{index}]"),
            }
            part: Body = {"functionCall": function}
            if call.signature is not None:
                part["thoughtSignature"] = call.signature
            elif self._signs and index == 0:
                part["thoughtSignature"] = NO_SIGNATURE
            parts.append(part)
        return parts or [{"text": ""}]

    def _add_result(self, message: Message, path: str) -> None:
        """Append a tool's result; the results of one turn's calls must share one content."""
        name = self._names.get(message.tool_call_id or "")
        if name is None:
            raise RequestError(
                ErrorType.INVALID_REQUEST,
                f"Invalid tool message: tool_call_id={message.tool_call_id} does not match any tool call in a preceding "
                "assistant message.",
                param=f"{path}.tool_call_id",
            )
        response: Body = {"id": message.tool_call_id} if self._call_ids else {}
        response |= {"name": name, "response": _result(text_of(message, path))}
        part = {"functionResponse": response}
        last = self._contents[-1] if self._contents else None
        if last is not None and all(isinstance(p, dict) and "functionResponse" in p for p in last["parts"]):
            last["parts"].append(part)
        else:
            self._contents.append({"role": "user", "parts": [part]})


def _result(text: str) -> Body | Raw:
    """A tool's text as the object that Gemini requires: JSON objects as they are, anything else as `result`."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return {"result": text}
    return Raw(msgspec.json.format(text.encode(), indent=-1)) if isinstance(value, dict) else {"result": value}


def _parts(message: Message, path: str) -> list[Body | Raw]:
    return [_part(part, raw, f"{path}.content[{i}]") for i, (part, raw) in enumerate(parts_of(message, path))]


def _part(part: Part, raw: Raw, path: str) -> Body | Raw:
    match part.type:
        case "text":
            return {"text": part.text or ""}
        case "image_url" if part.image_address is not None:
            return _media(part.image_address)
        case "file" if part.file is not None and part.file.file_data is not None:
            return _media(part.file.file_data)
        case "input_audio" if part.input_audio is not None:
            audio = part.input_audio
            media_type = _AUDIO_TYPES.get(audio.format, f"audio/{audio.format}")
            return {"inlineData": {"mimeType": media_type, "data": audio.data}}
        case "image_url" | "file" | "input_audio":
            param = f"{path}.{part.type}"
            raise RequestError(ErrorType.INVALID_REQUEST, f"{param} is required.", param=param)
        case _:
            # Whatever Gemini names itself, such as `fileData`.
            return raw


def _media(url: str) -> Body:
    if inline := data_url(url):
        return {"inlineData": {"mimeType": inline[0], "data": inline[1]}}
    extension = url.partition("?")[0].rpartition(".")[2].lower()
    media_type = _MIME_TYPES.get(extension)
    return {"fileData": ({"mimeType": media_type} if media_type else {}) | {"fileUri": url}}


# --- tools and formats ------------------------------------------------------------------------------------------


def _add_tools(body: Body, view: ChatView) -> None:
    if not view.tools:
        return
    declarations = []
    for function in functions_of(view):
        declaration: Body = {"name": function.name}
        if function.description is not None:
            declaration["description"] = function.description
        if present(function.parameters):
            declaration["parametersJsonSchema"] = function.parameters
        declarations.append(declaration)
    body["tools"] = [{"functionDeclarations": declarations}]
    choice = view.tool_choice
    calling: Body
    if choice is None or choice == "auto":
        return
    if not isinstance(choice, str) and choice.function is not None:
        calling = {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    elif choice in {"none", "required"}:
        calling = {"mode": "NONE" if choice == "none" else "ANY"}
    else:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "tool_choice must be none, auto, required or a function's name.",
            param="tool_choice",
        )
    body["toolConfig"] = {"functionCallingConfig": calling}


def _add_format(body: Body, view: ChatView) -> None:
    wanted = view.response_format
    if wanted is None or wanted.type == "text":
        return
    config = body.setdefault("generationConfig", {})
    schema = schema_of(view)
    if wanted.type == "json_schema" and schema is not None:
        config["responseJsonSchema"] = schema
    config["responseMimeType"] = "application/json"
