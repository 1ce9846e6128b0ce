"""Members of OpenAI's requests that other vendors refuse by name, though an answer is right without them.

Source: https://platform.openai.com/docs/api-reference/chat/create and .../completions/create
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.types.model_io import ModelRequest

HINTS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "safety_identifier",
        "prediction",
        "reasoning_effort",
        "verbosity",
    }
)
"""OpenAI's members about accounting, caching and effort: an answer is right without them, and other vendors refuse them."""
_NEUTRAL: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "modalities": ["text"],
    "best_of": 1,
    "echo": False,
}
"""Values that ask for what happens anyway. Clients send them by default, to vendors who refuse the very names."""


def says_nothing(name: str, value: Raw) -> bool:
    """Whether a vendor other than OpenAI may be spared the member."""
    return name in HINTS or is_neutral(name, value)


def is_neutral(name: str, value: Raw) -> bool:
    """Whether the member asks for what happens without it."""
    if name not in _NEUTRAL:
        return False
    try:
        return bool(msgspec.json.decode(value) == _NEUTRAL[name])
    except msgspec.DecodeError:
        # A number out of every range is the vendor's to refuse.
        return False


def hint(request: ModelRequest, name: str) -> str | None:
    """A member of `HINTS`, where it is a string, for dialects that have a word for it."""
    try:
        value = msgspec.json.decode(request.fields.get(name, Raw(b"null")))
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, str) else None
