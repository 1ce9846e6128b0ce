"""Canonical requests in Anthropic's words: the Messages API, and the older Text Completions API.

Source: https://platform.claude.com/docs/en/api/messages and, for the texts of refusals, the `anthropic` provider of
mlflow 2.5 to 3.18.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from gateway.providers.anthropic_thinking import SAMPLING, add_thinking, remembers_thoughts, samples_itself
from gateway.providers.canonical_request import (
    ChatView,
    Message,
    Part,
    call_arguments,
    call_id,
    data_url,
    decode_member,
    functions_of,
    functions_spoken_of,
    parts_of,
    present,
    read_chat,
    read_completion,
    schema_of,
    stop_list,
    text_of,
)
from gateway.providers.hints import hint
from gateway.providers.spec import Endpoint
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelRequest, WireRequest

Send = Callable[[dict[str, Any], ModelRequest, Endpoint], WireRequest]
"""Addresses a Messages body: where the model, the version and the stream's switch go differs between hosts of Claude."""

_DEFAULT_MAX_TOKENS = 8192
_ORIGINAL_MAX_TOKENS = 200_000
_MAXIMUM_MAX_TOKENS = 1_000_000
# The canonical range of the temperature is 0 to 2, Anthropic's 0 to 1.
_TEMPERATURE_SCALE = 0.5
_JSON_INSTRUCTION = (
    "Respond with only a single valid JSON object. Do not include any explanatory text, markdown, or code fences before "
    "or after the JSON object."
)
_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')


def messages_body(request: ModelRequest, model: str) -> dict[str, Any]:
    """A chat request as a Messages body, without the member `model`; RequestError for what Claude cannot do."""
    view, extras = read_chat(request)
    _refuse_choices(request, view.n)
    if view.temperature is not None and view.top_p is not None:
        raise RequestError(
            ErrorType.INVALID_REQUEST, "Cannot set both 'temperature' and 'top_p' parameters.", param="top_p"
        )
    body: dict[str, Any] = dict(extras)
    # Which seed was used is of no use to Claude, nor to a reply that cannot be repeated.
    body.pop("seed", None)
    if user := hint(request, "user") or _user_of_metadata(request):
        body["metadata"] = {"user_id": user}
    if hint(request, "service_tier") == "standard_only":
        # The one word of Claude's that OpenAI has not.
        body["service_tier"] = "standard_only"
    body["max_tokens"] = _max_tokens(view.token_limit, _DEFAULT_MAX_TOKENS)
    system, messages = _conversation(view)
    body["messages"] = messages
    if view.temperature is not None:
        body["temperature"] = view.temperature * _TEMPERATURE_SCALE
    if view.top_p is not None:
        body["top_p"] = view.top_p
    if (stop := stop_list(view.stop)) is not None:
        body["stop_sequences"] = stop
    if request.stream:
        body["stream"] = True
    _add_tools(body, view)
    instruction = _add_format(body, view)
    if instruction:
        system.append({"type": "text", "text": instruction})
    if system:
        body["system"] = _system(system)
    if samples_itself(model):
        body = {name: value for name, value in body.items() if name not in SAMPLING}
    if effort := hint(request, "reasoning_effort"):
        add_thinking(body, effort, model, limited=view.token_limit is not None, remembers=remembers_thoughts(view))
    return body


def _user_of_metadata(request: ModelRequest) -> str | None:
    """The one member of `metadata` that Claude's API has; OpenAI's has any."""
    try:
        metadata = msgspec.json.decode(request.fields.get("metadata", Raw(b"{}")))
    except msgspec.DecodeError:
        return None
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user if isinstance(user, str) else None


def _refuse_choices(request: ModelRequest, n: int | None) -> None:
    if n not in (None, 1):
        name = "candidate_count" if request.original_shape else "n"
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            f"'{name}' must be '1' for the Anthropic provider. Received value: '{n}'.",
            param=name,
        )


def _max_tokens(given: int | None, default: int) -> int:
    if given is not None and given > _MAXIMUM_MAX_TOKENS:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            f"Invalid value for max_tokens: cannot exceed {_MAXIMUM_MAX_TOKENS}.",
            param="max_tokens",
        )
    return default if given is None else given


# --- messages ---------------------------------------------------------------------------------------------------

_Block = dict[str, Any] | Raw


def _conversation(view: ChatView) -> tuple[list[_Block], list[dict[str, Any]]]:
    """The system's blocks, and the turns of the user and the assistant."""
    system: list[_Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(view.messages):
        path = f"messages[{index}]"
        match message.role:
            case "system" | "developer":
                system.extend(_system_blocks(message, path))
            case "user":
                turns.append({"role": "user", "content": _content(message, path)})
            case "assistant" if content := _assistant(message, path):
                turns.append({"role": "assistant", "content": content})
            case "assistant":
                # Other vendors' models sometimes say nothing, and Claude refuses to hear it.
                continue
            case "tool":
                _add_result(turns, message, path)
            case _:
                raise RequestError(
                    ErrorType.INVALID_REQUEST,
                    f"{path}.role is '{message.role}'; it must be system, developer, user, assistant or tool.",
                    param=f"{path}.role",
                )
    return system, turns


def _system_blocks(message: Message, path: str) -> list[_Block]:
    if not text_of(message, path):
        # Claude refuses empty texts.
        return []
    if isinstance(message.content, list):
        # Parts stay as they came: they may carry `cache_control`.
        return [raw for part, raw in parts_of(message, path) if part.text]
    block = _marked({"type": "text", "text": message.content}, message.cache_control)
    return [Raw(msgspec.json.encode(block))] if present(message.cache_control) else [block]


def _marked(block: dict[str, Any], cache_control: Raw) -> dict[str, Any]:
    """The block with the mark up to which Claude caches the prompt, where there is one."""
    return block | {"cache_control": cache_control} if present(cache_control) else block


def _system(blocks: list[_Block]) -> str | list[_Block]:
    texts = [block["text"] for block in blocks if isinstance(block, dict)]
    return "\n".join(texts) if len(texts) == len(blocks) else blocks


def _content(message: Message, path: str) -> str | list[_Block]:
    said = message.said
    if said is None or isinstance(said, str):
        if said and present(message.cache_control):
            return [_marked({"type": "text", "text": said}, message.cache_control)]
        return said or ""
    blocks = [
        _block(part, raw, f"{path}.content[{i}]")
        for i, (part, raw) in enumerate(parts_of(message, path))
        # Claude refuses empty texts, which clients leave beside calls.
        if part.type != "text" or part.text
    ]
    return blocks or ""


def _block(part: Part, raw: Raw, path: str) -> _Block:
    """One part as a content block; text, and whatever Anthropic names itself, has the same shape there."""
    if part.type == "image_url":
        address = part.image_address
        if address is None:
            raise RequestError(ErrorType.INVALID_REQUEST, f"{path}.image_url is required.", param=f"{path}.image_url")
        source = {"type": "url", "url": address}
        if inline := data_url(address):
            source = {"type": "base64", "media_type": inline[0], "data": inline[1]}
        return _marked({"type": "image", "source": source}, part.cache_control)
    if part.type == "file" and part.file is not None and part.file.file_data is not None:
        inline = data_url(part.file.file_data)
        if inline is None:
            param = f"{path}.file.file_data"
            raise RequestError(ErrorType.INVALID_REQUEST, f"{param} must be a base64 data URL.", param=param)
        source = {"type": "base64", "media_type": inline[0], "data": inline[1]}
        return _marked({"type": "document", "source": source}, part.cache_control)
    return raw


def _assistant(message: Message, path: str) -> str | list[_Block]:
    content = _content(message, path)
    if not message.tool_calls and not message.thinking_blocks:
        return content
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    return [
        *(Raw(msgspec.json.encode(thought)) for thought in message.thinking_blocks or ()),
        *blocks,
        *(
            {
                "type": "tool_use",
                "id": call_id(call.id),
                "name": call.function.name,
                "input": call_arguments(call, f"{path}.tool_calls[{index}]"),
            }
            for index, call in enumerate(message.tool_calls or ())
        ),
    ]


def _add_result(turns: list[dict[str, Any]], message: Message, path: str) -> None:
    """Append a tool's result; results of parallel calls must share one user turn."""
    if not message.tool_call_id:
        param = f"{path}.tool_call_id"
        raise RequestError(ErrorType.INVALID_REQUEST, f"{param} is required in a tool message.", param=param)
    content = _content(msgspec.structs.replace(message, cache_control=Raw()), path)
    block = {"type": "tool_result", "tool_use_id": call_id(message.tool_call_id), "content": content}
    block = _marked(block, message.cache_control)
    last = turns[-1]["content"] if turns and turns[-1]["role"] == "user" else None
    if isinstance(last, list) and all(isinstance(b, dict) and b["type"] == "tool_result" for b in last):
        last.append(block)
    else:
        turns.append({"role": "user", "content": [block]})


# --- tools and formats ------------------------------------------------------------------------------------------


def _add_tools(body: dict[str, Any], view: ChatView) -> None:
    if view.tools:
        body["tools"] = [
            _marked(
                {"name": function.name}
                | ({"description": function.description} if function.description is not None else {})
                | {"input_schema": function.parameters if present(function.parameters) else _NO_PARAMETERS},
                tool.cache_control,
            )
            for function, tool in zip(functions_of(view), view.tools, strict=True)
        ]
    elif names := functions_spoken_of(view):
        # Claude refuses a conversation with calls and no tools; the caller wants no more of them.
        body["tools"] = [{"name": name, "input_schema": _NO_PARAMETERS} for name in names]
        body["tool_choice"] = {"type": "none"}
        return
    choice = _tool_choice(view)
    if view.parallel_tool_calls is False and view.tools:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice:
        body["tool_choice"] = choice


def _tool_choice(view: ChatView) -> dict[str, Any] | None:
    choice = view.tool_choice
    if choice is None:
        return None
    if not isinstance(choice, str) and choice.function is not None:
        return {"type": "tool", "name": choice.function.name}
    types = {"none": "none", "auto": "auto", "required": "any"}
    if not isinstance(choice, str) or choice not in types:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "tool_choice must be none, auto, required or a function's name.",
            param="tool_choice",
        )
    return {"type": types[choice]}


def _add_format(body: dict[str, Any], view: ChatView) -> str | None:
    """Put the reply's format into the body, or give the instruction that stands in for it."""
    wanted = view.response_format
    if wanted is None or wanted.type == "text":
        return None
    raw = schema_of(view)
    if wanted.type == "json_schema" and raw is not None:
        schema = decode_member(raw, dict[str, Any], "response_format.json_schema.schema")
        if not _closes(schema):
            # Claude's structured outputs know no free-form objects: ask in words instead of failing.
            return (
                f"{_JSON_INSTRUCTION} It must follow this JSON schema: {msgspec.json.format(raw, indent=-1).decode()}"
            )
        given = body.get("output_config")
        config = decode_member(given, dict[str, Raw], "output_config") if given is not None else {}
        body["output_config"] = config | {"format": {"type": "json_schema", "schema": schema}}
        return None
    return _JSON_INSTRUCTION


def _closes(schema: Any) -> bool:
    """Set `additionalProperties: false` in every object of a schema, as Anthropic wants; False where one is free-form."""
    if isinstance(schema, list):
        return all(_closes(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        if "properties" not in schema:
            return False
        schema["additionalProperties"] = False
    return all(_closes(value) for value in schema.values())


# --- text completions -------------------------------------------------------------------------------------------


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """A completion request for `/complete`; RequestError for what that API cannot do."""
    view, extras = read_completion(request)
    if view.top_p is not None:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "Cannot set both 'temperature' and 'top_p' parameters. "
            "Please use only the temperature parameter for your query.",
            param="top_p",
        )
    if request.stream:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "Setting the 'stream' parameter to 'true' is not supported with the MLflow Gateway.",
            param="stream",
        )
    _refuse_choices(request, view.n)
    default = _ORIGINAL_MAX_TOKENS if request.original_shape else _DEFAULT_MAX_TOKENS
    body: dict[str, Any] = {
        **extras,
        "model": endpoint.model,
        "prompt": dialogue(view.prompt),
    }
    # A caller may use Anthropic's own names, which MLflow forwarded too.
    if view.max_tokens is not None or "max_tokens_to_sample" not in body:
        body["max_tokens_to_sample"] = _max_tokens(view.max_tokens, default)
    if view.temperature is not None:
        body["temperature"] = view.temperature * _TEMPERATURE_SCALE
    if (stop := stop_list(view.stop)) is not None:
        body["stop_sequences"] = stop
    return WireRequest(url=f"{endpoint.base_url}/complete", body=msgspec.json.encode(body))


def dialogue(prompt: str) -> str:
    """The prompt as the turn of a human, which Claude's older models insist on; one that has that form stays."""
    if prompt.startswith("Human: "):
        prompt = "\n\n" + prompt
    if not prompt.startswith("\n\nHuman: "):
        prompt = "\n\nHuman: " + prompt
    return prompt if prompt.endswith("\n\nAssistant:") else prompt + "\n\nAssistant:"
