"""The bytes that every variant carries: requests of 664 bytes, replies of 787, and the events of a stream.

Invariant: sizes are exact, so that results of different days and gateways compare. Shapes are OpenAI's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

CHAT_REQUEST_BYTES = 664
CHAT_REPLY_BYTES = 787
EMBEDDING_DIMENSIONS = 512
ROUTE = "chat"
EMBEDDINGS_ROUTE = "embeddings"
STAMP_DIGITS = 16
"""Width of the send time in an event, in ns of the machine's monotonic clock, which all processes share."""

STAMP = re.compile(rb'"content": ?"(\d{%d})"' % STAMP_DIGITS)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _padded(make: Callable[[str], dict[str, object]], text: str, size: int) -> bytes:
    short = _compact(make(text))
    body = _compact(make(text + "x" * (size - len(short))))
    if len(body) != size:
        raise ValueError(f"a body of {len(short)} bytes cannot be padded to {size}")
    return body


def chat_request(events: int | None = None, *, native: bool = False) -> bytes:
    """A chat request; with `events`, for a stream of so many events (asked as max_tokens).

    `native` leaves out model, which the path of the gateway's own surface carries.
    """

    def make(text: str) -> dict[str, object]:
        body: dict[str, object] = {} if native else {"model": ROUTE}
        body["messages"] = [
            {"role": "system", "content": "You are a terse assistant for site reliability engineers."},
            {"role": "user", "content": text},
        ]
        body["temperature"] = 0.2
        body["max_tokens"] = events or 256
        if events is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    question = "Summarise the incident below in two sentences. Latency of checkout rose from 80 to 900 ms. "
    return _padded(make, question, CHAT_REQUEST_BYTES)


def chat_reply() -> bytes:
    """A whole chat.completion with usage."""

    def make(text: str) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        details = {"reasoning_tokens": 0, "audio_tokens": 0}
        return {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion",
            "created": 1741569952,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 119,
                "completion_tokens": 42,
                "total_tokens": 161,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": details,
            },
            "service_tier": "default",
            "system_fingerprint": "fp_34a54ae93c",
        }

    return _padded(make, "Checkout latency rose because a connection pool was exhausted. ", CHAT_REPLY_BYTES)


def embeddings_request() -> bytes:
    """An embeddings request for one short text."""
    return _compact({"model": EMBEDDINGS_ROUTE, "input": "Latency of checkout rose from 80 to 900 ms."})


def embeddings_reply() -> bytes:
    """One vector of 512 numbers, about 11 kB."""
    vector = [round(((i * 7919) % 2000 - 1000) / 17_000, 17) for i in range(EMBEDDING_DIMENSIONS)]
    item = {"object": "embedding", "index": 0, "embedding": vector}
    usage = {"prompt_tokens": 12, "total_tokens": 12}
    return _compact({"object": "list", "data": [item], "model": "text-embedding-3-small", "usage": usage})


def _chunk(choices: list[object], usage: object = None) -> bytes:
    value = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_34a54ae93c",
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + _compact(value) + b"\n\n"


def chat_event(text: str) -> bytes:
    """One chat.completion.chunk with a piece of text."""
    return _chunk([{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}])


def chat_event_end() -> bytes:
    """The finish, the usage and [DONE]."""
    finish = _chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    usage = {"prompt_tokens": 119, "completion_tokens": 42, "total_tokens": 161}
    return finish + _chunk([], usage) + b"data: [DONE]\n\n"
