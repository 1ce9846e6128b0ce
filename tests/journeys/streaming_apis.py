"""The APIs that stream: what a caller sends, and the events that their vendor answers with.

Every event but the last ones (`hidden`) reaches the caller as one event; those are the usage and the end that the
gateway asked for or writes itself. Sources: the vendors' streaming references, as in `tests/fixtures`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.openai_replies import SSE_DONE, sse

TEXTS = ("Once ", "upon ", "a ", "time")


@dataclass(frozen=True)
class StreamingApi:
    """One way to ask for a stream.

    `input_tokens` and `output_tokens` are what the vendor reports at the stream's end, `reported_at` the number of
    events after which the input is known, `finished_at` after which the vendor has said that the reply is complete.
    """

    name: str
    path: str
    body: Mapping[str, Any]
    events: tuple[bytes, ...]
    hidden: int
    reported_at: int
    finished_at: int
    input_tokens: int = 1000
    output_tokens: int = 4

    @property
    def visible(self) -> int:
        """How many of the events the caller sees."""
        return len(self.events) - self.hidden


def _named(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + sse({"type": kind, **fields})


def _chunks(kind: str, *choices: Mapping[str, Any]) -> tuple[bytes, ...]:
    frame = {"id": "c-1", "object": kind, "created": 1, "model": "m"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 4, "total_tokens": 1004}
    return (
        *(sse(frame | {"choices": [{"index": 0, "finish_reason": None} | choice]}) for choice in choices),
        sse(frame | {"choices": [], "usage": usage}),
        SSE_DONE,
    )


_CHAT = _chunks(
    "chat.completion.chunk",
    {"delta": {"role": "assistant", "content": ""}},
    *({"delta": {"content": text}} for text in TEXTS),
    {"delta": {}, "finish_reason": "stop"},
)
# The provider is asked to chat, since its completions API is no more.
_COMPLETION = _chunks(
    "chat.completion.chunk", *({"delta": {"content": text}} for text in TEXTS), {"delta": {}, "finish_reason": "stop"}
)


def _response(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "output": [], **more}


_RESPONSES = (
    _named("response.created", sequence_number=0, response=_response("in_progress", usage=None)),
    *(
        _named(
            "response.output_text.delta", sequence_number=n, item_id="i", output_index=0, content_index=0, delta=text
        )
        for n, text in enumerate(TEXTS, 1)
    ),
    _named(
        "response.completed",
        sequence_number=5,
        response=_response("completed", usage={"input_tokens": 1000, "output_tokens": 4, "total_tokens": 1004}),
    ),
)

_MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 1000, "output_tokens": 1},
}  # fmt: skip
_MESSAGES = (
    _named("message_start", message=_MESSAGE),
    _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    *(_named("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in TEXTS),
    _named("content_block_stop", index=0),
    _named("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 4}),
    _named("message_stop"),
)


def _generated(text: str, output: int, **more: Any) -> bytes:
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": output, "totalTokenCount": 1000 + output}
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}
    return sse({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"})


_GENERATED = (
    *(_generated(text, n) for n, text in enumerate(TEXTS[:-1], 1)),
    _generated(TEXTS[-1], 4, finishReason="STOP"),
)

_SAID = [{"role": "user", "content": "Hello?"}]

STREAMING = (
    StreamingApi("chat", "/v1/chat/completions", {"model": "chat", "messages": _SAID, "stream": True}, _CHAT, 2, 7, 6),
    StreamingApi("endpoint", "/endpoints/chat/invocations", {"messages": _SAID, "stream": True}, _CHAT, 2, 7, 6),
    StreamingApi(
        "completions", "/v1/completions", {"model": "completions", "prompt": "Hello?", "stream": True},
        _COMPLETION, 2, 6, 5,
    ),
    StreamingApi(
        "responses", "/v1/responses", {"model": "chat", "input": "Hello?", "stream": True}, _RESPONSES, 0, 6, 6
    ),
    StreamingApi(
        "messages", "/v1/messages", {"model": "claude", "max_tokens": 64, "messages": _SAID, "stream": True},
        _MESSAGES, 0, 1, 9,
    ),
    StreamingApi(
        "gemini", "/v1beta/models/gemini:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hello?"}]}]},
        _GENERATED, 0, 1, 4,
    ),
)  # fmt: skip


def events_of(text: str) -> list[dict[str, Any]]:
    """The JSON events of a stream as its caller reads them; comments and OpenAI's end are none."""
    lines = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in lines if line != "[DONE]"]
