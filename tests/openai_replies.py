"""Replies in OpenAI's shapes for `tests.scripted_upstream`.

Source of the shapes: https://platform.openai.com/docs/api-reference (chat, chat streaming, completions, embeddings).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.replies import BytesReply, Header, StreamReply, json_reply

CREATED = 1_700_000_000


def openai_usage(
    prompt: int, completion: int = 0, *, cached: int | None = None, reasoning: int | None = None
) -> dict[str, Any]:
    """A usage object; the detail objects are there only when asked for."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


DEFAULT_USAGE: Mapping[str, Any] = openai_usage(9, 3)


def openai_chat(
    text: str = "Hello there.",
    *,
    usage: Mapping[str, Any] | None = DEFAULT_USAGE,
    model: str = "gpt-4o-mini-2024-07-18",
    finish_reason: str = "stop",
    headers: Sequence[Header] = (),
    hold: asyncio.Event | None = None,
    **extra: object,
) -> BytesReply:
    """A chat.completion with one choice; `usage=None` leaves usage out; `extra` becomes top-level fields."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    body = _body("chat.completion", "chatcmpl-test", model, [choice], usage) | extra
    return json_reply(body, headers=headers, hold=hold)


def openai_completion(
    text: str = "Hello there.",
    *,
    usage: Mapping[str, Any] | None = DEFAULT_USAGE,
    model: str = "gpt-3.5-turbo-instruct",
    finish_reason: str = "stop",
) -> BytesReply:
    """A text_completion with one choice."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return json_reply(_body("text_completion", "cmpl-test", model, [choice], usage))


def openai_embeddings(
    *vectors: Sequence[float], prompt_tokens: int = 5, model: str = "text-embedding-3-small"
) -> BytesReply:
    """An embeddings list, one item for each vector."""
    data = [{"object": "embedding", "index": i, "embedding": list(v)} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return json_reply({"object": "list", "data": data, "model": model, "usage": usage})


def openai_error(
    status: int,
    message: str = "scripted error",
    *,
    kind: str = "scripted_error",
    code: str | None = None,
    headers: Sequence[Header] = (),
) -> BytesReply:
    """An error object with a status, for example 429 with a retry-after header."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json_reply({"error": error}, status=status, headers=headers)


def sse(value: object) -> bytes:
    """One SSE event with a JSON payload."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


SSE_DONE = b"data: [DONE]\n\n"


def openai_stream(
    texts: Sequence[str | asyncio.Event],
    *,
    usage: Mapping[str, Any] | None = None,
    model: str = "gpt-4o-mini-2024-07-18",
    finish_reason: str = "stop",
    cut_after: int | None = None,
    reset: bool = False,
    terminated: bool = True,
    done: bool = True,
    headers: Sequence[Header] = (),
) -> StreamReply:
    """chat.completion.chunk events: the role, one event a text, the finish, usage when given, [DONE].

    An event among the texts is a gate. The pieces, as `cut_after` counts them, are those events: 1 is the role alone.
    `done=False` leaves out [DONE].
    """
    pieces: list[bytes | asyncio.Event] = [_chunk(model, {"role": "assistant", "content": ""}, None)]
    pieces += [text if isinstance(text, asyncio.Event) else _chunk(model, {"content": text}, None) for text in texts]
    pieces.append(_chunk(model, {}, finish_reason))
    if usage is not None:
        pieces.append(sse(_body("chat.completion.chunk", "chatcmpl-test", model, [], usage)))
    if done:
        pieces.append(SSE_DONE)
    return StreamReply(pieces, cut_after=cut_after, reset=reset, terminated=terminated, headers=headers)


def _chunk(model: str, delta: Mapping[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return sse(_body("chat.completion.chunk", "chatcmpl-test", model, [choice], None))


def _body(
    kind: str, identity: str, model: str, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None
) -> dict[str, Any]:
    body = {"id": identity, "object": kind, "created": CREATED, "model": model, "choices": list(choices)}
    return body if usage is None else body | {"usage": dict(usage)}
