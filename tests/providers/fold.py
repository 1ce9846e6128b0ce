"""Folds the chunks of a stream into the reply that the same request would have had without streaming."""

import json
from typing import Any

_OBJECTS = {"chat.completion.chunk": "chat.completion", "text_completion": "text_completion"}


def fold(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """One canonical reply from canonical chunks: texts concatenated, calls joined by index, the last usage kept."""
    reply: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        if not reply:
            reply = {name: value for name, value in chunk.items() if name not in {"choices", "usage"}}
            reply |= {"object": _OBJECTS[chunk["object"]], "usage": None}
        if chunk.get("usage"):
            reply["usage"] = chunk["usage"]
        for piece in chunk["choices"]:
            _fold_choice(choices, piece)
    reply["choices"] = [choices[index] for index in sorted(choices)]
    return normalized(reply)


def _fold_choice(choices: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    index = piece["index"]
    if "text" in piece:
        choice = choices.setdefault(index, {"index": index, "text": "", "logprobs": None, "finish_reason": None})
        choice["text"] += piece["text"]
    else:
        empty = {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
        choice = choices.setdefault(index, empty)
        _fold_delta(choice["message"], piece["delta"])
        if piece.get("logprobs"):
            choice.setdefault("logprobs", {"content": [], "refusal": None})["content"] += piece["logprobs"]["content"]
    if piece["finish_reason"]:
        assert choice["finish_reason"] is None, "a choice finishes once"
        choice["finish_reason"] = piece["finish_reason"]


def _fold_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name) is not None:
            message[name] = (message.get(name) or "") + delta[name]
    for thought in delta.get("thinking_blocks") or ():
        thoughts: list[dict[str, Any]] = message.setdefault("thinking_blocks", [])
        assert thought["index"] == len(thoughts), "a thought comes whole"
        thoughts.append({name: value for name, value in thought.items() if name != "index"})
    message.setdefault("images", []).extend(delta.get("images") or ())
    if not message["images"]:
        del message["images"]
    for piece in delta.get("tool_calls") or ():
        calls: list[dict[str, Any]] = message.setdefault("tool_calls", [])
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": piece["type"], "function": {"name": "", "arguments": ""}})
        call = calls[piece["index"]]
        call["function"]["name"] += piece["function"].get("name", "")
        call["function"]["arguments"] += piece["function"].get("arguments", "")
        call |= {name: piece[name] for name in ("thought_signature",) if name in piece}


def normalized(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply with the arguments of its calls as JSON values: their spacing means nothing."""
    for choice in reply.get("choices", ()):
        for call in (choice.get("message") or {}).get("tool_calls") or ():
            if isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return reply
