"""Canonical chats in the words of Bedrock's Converse: one body for every model.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import re
from typing import Any

import msgspec
from msgspec import Raw

from gateway.providers.anthropic_thinking import add_thinking, remembers_thoughts, samples_itself
from gateway.providers.bedrock_invoke import model_url
from gateway.providers.canonical_request import (
    ChatView,
    Message,
    Part,
    ThinkingBlock,
    ToolChoice,
    call_arguments,
    call_id,
    data_url,
    functions_of,
    functions_spoken_of,
    invalid,
    members,
    parts_of,
    present,
    read_chat,
    schema_of,
    stop_list,
    text_of,
)
from gateway.providers.hints import hint
from gateway.providers.parameters import encode
from gateway.providers.spec import Endpoint
from gateway.types.model_io import ModelRequest, WireRequest

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
_DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_NO_NAME_LETTER = re.compile(r"[^a-zA-Z0-9 ()\[\]-]+")
_CACHE_POINT = {"cachePoint": {"type": "default"}}
_DEFAULT_MAX_TOKENS = 8192
"""What is asked for where thinking needs a limit and the caller gave none."""
_NO_PARAMETERS = {"type": "object", "properties": {}}
_JSON_ONLY = "Answer with one JSON object and nothing else."

_Block = dict[str, Any]


def to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/converse`, or `/converse-stream`."""
    view, extras = read_chat(request)
    if view.n not in (None, 1):
        raise invalid(f"Parameter n must be 1 for Amazon Bedrock, got {view.n}.", "n")
    system, messages = _conversation(view)
    body: dict[str, Any] = {"messages": messages}
    sampling = members(
        temperature=view.temperature,
        topP=view.top_p,
        maxTokens=view.token_limit,
        stopSequences=stop_list(view.stop),
    )
    if tools := _tool_config(view):
        body["toolConfig"] = tools
    _add_format(body, system, view)
    if system:
        body["system"] = system
    body |= {name: extras[name] for name in _NATIVE if name in extras}
    if samples_itself(endpoint.model):
        sampling.pop("temperature", None)
        sampling.pop("topP", None)
    if effort := hint(request, "reasoning_effort"):
        _add_thinking(body, sampling, view, effort, endpoint.model)
    if sampling:
        body["inferenceConfig"] = sampling
    return WireRequest(url=model_url(endpoint, "converse-stream" if request.stream else "converse"), body=encode(body))


def _add_thinking(body: dict[str, Any], sampling: dict[str, Any], view: ChatView, effort: str, model: str) -> None:
    """Claude's thinking, which AWS passes on to it in `additionalModelRequestFields`; other models have none."""
    if "anthropic." not in model or "additionalModelRequestFields" in body:
        return
    choice = body.get("toolConfig", {}).get("toolChoice", {})
    claude: dict[str, Any] = {"max_tokens": view.token_limit or _DEFAULT_MAX_TOKENS}
    claude["tool_choice"] = {"type": next(iter(choice), "auto")}
    limited = view.token_limit is not None
    add_thinking(claude, effort, model, limited=limited, remembers=remembers_thoughts(view))
    fields = {name: claude[name] for name in ("thinking", "output_config") if name in claude}
    if fields:
        body["additionalModelRequestFields"] = fields
        sampling["maxTokens"] = claude["max_tokens"]
        # Claude thinks at its own temperature only.
        sampling.pop("temperature", None)
        sampling.pop("topP", None)


def _conversation(view: ChatView) -> tuple[list[_Block], list[dict[str, Any]]]:
    """The system's blocks, and turns of alternating roles: neighbours of one role are one turn, as AWS demands."""
    system: list[_Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(view.messages):
        path = f"messages[{index}]"
        if message.role in ("system", "developer"):
            system += _system(message, path)
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


def _system(message: Message, path: str) -> list[_Block]:
    marks = [part.cache_control for part, _ in parts_of(message, path)]
    text = text_of(message, path)
    # AWS refuses empty texts.
    return _marked({"text": text}, *marks, message.cache_control) if text else []


def _marked(block: _Block, *cache_controls: Raw) -> list[_Block]:
    """The block, and after it the point up to which AWS caches the prompt, where a mark of Claude's asks for it."""
    return [block, _CACHE_POINT] if any(present(mark) for mark in cache_controls) else [block]


def _blocks(message: Message, path: str) -> list[_Block]:
    match message.role:
        case "user":
            said = [
                block
                for n, (part, _) in enumerate(parts_of(message, path))
                if part.type != "text" or part.text
                for block in _marked(_part(part, f"{path}.content[{n}]"), part.cache_control)
            ]
            return [*said, _CACHE_POINT] if present(message.cache_control) else said
        case "assistant":
            text = text_of(message, path)
            calls = message.tool_calls or []
            # AWS refuses blank texts, which clients leave beside calls.
            blocks: list[_Block] = [_thought(block) for block in message.thinking_blocks or ()]
            blocks += [{"text": text}] if text.strip() else []
            for number, call in enumerate(calls):
                if not call.function.name.strip():
                    raise invalid(
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
            raise invalid(
                f"{path}.role is '{role}'; it must be system, developer, user, assistant or tool.", f"{path}.role"
            )


def _thought(block: ThinkingBlock) -> _Block:
    if isinstance(block.data, str):
        return {"reasoningContent": {"redactedContent": block.data}}
    text = {"text": block.thinking or ""} | ({"signature": block.signature} if block.signature else {})
    return {"reasoningContent": {"reasoningText": text}}


def _part(part: Part, path: str) -> _Block:
    if part.type == "text" and part.text is not None:
        return {"text": part.text}
    if part.type == "file" and part.file is not None and part.file.file_data is not None:
        return _document(part.file.file_data, part.file.filename or "document", path)
    address = part.image_address
    if part.type != "image_url" or address is None:
        raise invalid(f"{path} is of type '{part.type}'; Amazon Bedrock takes text, image_url and file.", path)
    image = data_url(address)
    if image is None:
        raise invalid(f"{path}.image_url.url must be a data: URL; Amazon Bedrock fetches no addresses.", path)
    media_type, data = image
    if media_type not in _IMAGE_FORMATS:
        raise invalid(f"{path} is {media_type}; Amazon Bedrock takes {', '.join(_IMAGE_FORMATS)}.", path)
    return {"image": {"format": _IMAGE_FORMATS[media_type], "source": {"bytes": data}}}


def _document(url: str, filename: str, path: str) -> _Block:
    inline = data_url(url)
    if inline is None or inline[0] not in _DOCUMENT_FORMATS:
        param = f"{path}.file.file_data"
        raise invalid(f"{param} must be a data: URL of one of {', '.join(_DOCUMENT_FORMATS)}.", param)
    name = _NO_NAME_LETTER.sub(" ", filename.rpartition(".")[0] or filename)
    return {"document": {"format": _DOCUMENT_FORMATS[inline[0]], "name": name, "source": {"bytes": inline[1]}}}


def _tool_config(view: ChatView) -> dict[str, Any] | None:
    """`tools` and `tool_choice`. AWS has no `none`: the tools are left out, unless earlier turns speak of them."""
    spoken_of = functions_spoken_of(view)
    if not view.tools:
        # AWS refuses a conversation with calls and no tools.
        return {"tools": [_bare_tool(name) for name in spoken_of]} if spoken_of else None
    if view.tool_choice == "none" and not spoken_of:
        return None
    tools: list[dict[str, Any]] = []
    for function, tool in zip(functions_of(view), view.tools, strict=True):
        spec = members(
            name=function.name,
            # AWS refuses an empty description.
            description=function.description or None,
            inputSchema={"json": function.parameters if present(function.parameters) else _NO_PARAMETERS},
            strict=function.strict,
        )
        tools += _marked({"toolSpec": spec}, tool.cache_control)
    match view.tool_choice:
        case "required":
            return {"tools": tools, "toolChoice": {"any": {}}}
        case "auto":
            return {"tools": tools, "toolChoice": {"auto": {}}}
        case ToolChoice(function=named) if named is not None:
            return {"tools": tools, "toolChoice": {"tool": {"name": named.name}}}
        case _:
            return {"tools": tools}


def _bare_tool(name: str) -> dict[str, Any]:
    return {"toolSpec": {"name": name, "inputSchema": {"json": _NO_PARAMETERS}}}


def _add_format(body: dict[str, Any], system: list[_Block], view: ChatView) -> None:
    wanted = view.response_format
    if wanted is None:
        return
    if wanted.type == "json_object":
        system.append({"text": _JSON_ONLY})
    elif wanted.json_schema is not None and (schema := schema_of(view)) is not None:
        # AWS wants the schema as text.
        definition = {"schema": msgspec.json.format(bytes(schema), indent=-1).decode()} | members(
            name=wanted.json_schema.name or None
        )
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}
