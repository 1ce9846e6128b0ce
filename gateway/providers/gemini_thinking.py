"""How much Gemini thinks, and the signatures by which it knows its thoughts again.

Source: https://ai.google.dev/gemini-api/docs/thinking, .../openai (`reasoning_effort`) and .../thought-signatures
"""

import re
from typing import Any

NO_SIGNATURE = "skip_thought_signature_validator"
"""What Google's documentation has for calls whose signature is lost, or that another vendor's model made."""

_LEVELS = {"none": "low", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
"""Tokens of thought, as Google's own translation of OpenAI's words has them."""
_SMALLEST_PRO_BUDGET = 128
_GEMINI_3 = re.compile(r"gemini-(?:[3-9]|\d\d)|gemini-[a-z-]+-latest")
_GEMINI_2_5 = re.compile(r"gemini-2\.5-")


def wants_signatures(model: str) -> bool:
    """Whether the model refuses a conversation whose calls are not signed."""
    return _GEMINI_3.search(model) is not None


def add_thinking(config: dict[str, Any], effort: str, model: str) -> None:
    """Put OpenAI's `reasoning_effort` into a `generationConfig`, unless the caller's own is there.

    Models before 2.5 do not think; words that are not OpenAI's leave the model its default.
    """
    if "thinkingConfig" in config or effort not in _LEVELS:
        return
    if _GEMINI_3.search(model):
        config["thinkingConfig"] = {"thinkingLevel": _LEVELS[effort]}
    elif _GEMINI_2_5.search(model):
        least = _SMALLEST_PRO_BUDGET if "pro" in model else 0
        config["thinkingConfig"] = {"thinkingBudget": max(least, _BUDGETS[effort])}
