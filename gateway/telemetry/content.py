"""Prompts and replies, for the routes that ask for it: in the GenAI conventions' form, redacted and cut before a record
is made. Without such a route nothing here runs.

Source of the form: gen-ai-input-messages.json and gen-ai-output-messages.json of
https://github.com/open-telemetry/semantic-conventions-genai
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.telemetry.redact import Redactor
from gateway.types.model_io import ModelRequest
from gateway.types.records import Content
from gateway.types.route import ContentCapture, Operation

_CUT = "…"
_DATA = b"data: "


class ContentMaker:
    """Makes a record's content of a canonical request and its canonical reply."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def make(
        self, capture: ContentCapture, request: ModelRequest, reply: bytes | Sequence[bytes] | None
    ) -> Content | None:
        """The content of one attempt: `reply` is a whole body, or the events of a stream, or None when none came.

        None for operations that are a vendor's own: their bodies are not in canonical form.
        """
        reader = _READERS.get(request.operation)
        if reader is None:
            return None
        budget = _Budget(self._redactor, capture.max_bytes)
        asked = {name: _decoded(bytes(raw)) for name, raw in request.fields.items() if name in reader.fields}
        told = reader.asked(asked, budget)
        answers = []
        if reply is not None:
            whole = _decoded(reply) if isinstance(reply, bytes) else _folded(reply)
            answers = reader.answered(whole, budget) if isinstance(whole, dict) else []
        return Content(
            to=capture.to,
            input_messages=msgspec.json.encode(told).decode() if told else None,
            output_messages=msgspec.json.encode(answers).decode() if answers else None,
            cut=budget.cut,
        )


class _Budget:
    """Redacts every text, and cuts what is over the size."""

    def __init__(self, redactor: Redactor, left: int) -> None:
        self._redactor = redactor
        self._left = left
        self.cut = False

    def text(self, value: object) -> str:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        # Whole first: half a secret is no longer recognised.
        data = self._redactor.text(text).encode()
        if len(data) > self._left:
            self.cut = True
            data = data[: self._left].decode(errors="ignore").encode() + _CUT.encode()
        self._left = max(0, self._left - len(data))
        return data.decode()


class _Chat:
    fields = frozenset({"messages"})

    @staticmethod
    def asked(fields: Mapping[str, Any], budget: _Budget) -> list[dict[str, Any]]:
        messages = fields.get("messages")
        return [_message(m, budget) for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []

    @staticmethod
    def answered(reply: Mapping[str, Any], budget: _Budget) -> list[dict[str, Any]]:
        return [
            _message(choice.get("message") or {}, budget, role="assistant")
            | {"finish_reason": choice.get("finish_reason") or ""}
            for choice in _choices(reply)
        ]


class _Completions:
    fields = frozenset({"prompt"})

    @staticmethod
    def asked(fields: Mapping[str, Any], budget: _Budget) -> list[dict[str, Any]]:
        prompt = fields.get("prompt")
        return [_text("user", part, budget) for part in (prompt if isinstance(prompt, list) else [prompt]) if part]

    @staticmethod
    def answered(reply: Mapping[str, Any], budget: _Budget) -> list[dict[str, Any]]:
        return [
            _text("assistant", choice.get("text") or "", budget) | {"finish_reason": choice.get("finish_reason") or ""}
            for choice in _choices(reply)
        ]


class _Embeddings:
    fields = frozenset({"input"})

    @staticmethod
    def asked(fields: Mapping[str, Any], budget: _Budget) -> list[dict[str, Any]]:
        inputs = fields.get("input")
        return [_text("user", part, budget) for part in (inputs if isinstance(inputs, list) else [inputs]) if part]

    @staticmethod
    def answered(reply: Mapping[str, Any], budget: _Budget) -> list[dict[str, Any]]:
        # Vectors are no message.
        return []


_READERS: Mapping[Operation, type[_Chat] | type[_Completions] | type[_Embeddings]] = {
    Operation.CHAT: _Chat,
    Operation.COMPLETIONS: _Completions,
    Operation.EMBEDDINGS: _Embeddings,
}


def _message(message: Mapping[str, Any], budget: _Budget, role: str = "") -> dict[str, Any]:
    role = str(message.get("role") or role)
    if role == "tool":
        response = budget.text(message.get("content") or "")
        part = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": response}
        return {"role": role, "parts": [part]}
    parts: list[dict[str, Any]] = []
    if reasoning := message.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": budget.text(reasoning)})
    content = message.get("content")
    if isinstance(content, str):
        parts.append({"type": "text", "content": budget.text(content)})
    elif isinstance(content, list):
        parts += [_part(part, budget) for part in content if isinstance(part, dict)]
    for call in _dicts(message.get("tool_calls")):
        function = call.get("function") or {}
        arguments = budget.text(function.get("arguments") or "")
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": arguments})
    return {"role": role, "parts": parts}


def _part(part: Mapping[str, Any], budget: _Budget) -> dict[str, Any]:
    kind = str(part.get("type"))
    if kind == "text":
        return {"type": "text", "content": budget.text(part.get("text") or "")}
    # Pictures and sounds are named and not kept.
    modality = "image" if "image" in kind else "audio" if "audio" in kind else "document"
    return {"type": "blob", "modality": modality, "content": ""}


def _text(role: str, value: object, budget: _Budget) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": budget.text(value)}]}


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _choices(reply: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return _dicts(reply.get("choices"))


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None


def _folded(pieces: Sequence[bytes]) -> dict[str, Any]:
    """The events of a canonical stream as the reply that they add up to."""
    choices: dict[int, dict[str, Any]] = {}
    for line in b"".join(pieces).split(b"\n"):
        event = _decoded(line[len(_DATA) :]) if line.startswith(_DATA) else None
        if not isinstance(event, dict):
            continue
        for piece in _choices(event):
            choice = choices.setdefault(piece.get("index") or 0, {"message": {"content": ""}, "text": ""})
            choice["text"] += piece.get("text") or ""
            if piece.get("finish_reason"):
                choice["finish_reason"] = piece["finish_reason"]
            _fold_delta(choice["message"], piece.get("delta") or {})
    return {"choices": [choices[index] for index in sorted(choices)]}


def _fold_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if isinstance(delta.get(name), str):
            message[name] = message.get(name, "") + delta[name]
    calls: list[dict[str, Any]] = message.setdefault("tool_calls", [])
    for piece in _dicts(delta.get("tool_calls")):
        index = piece.get("index") or 0
        while len(calls) <= index:
            calls.append({"id": None, "function": {"name": "", "arguments": ""}})
        call, function = calls[index], piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
