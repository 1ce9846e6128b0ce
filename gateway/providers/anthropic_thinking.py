"""OpenAI's `reasoning_effort` in Claude's words: an effort for the models that think by themselves, a budget for older ones.

Source: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking and .../extended-thinking
"""

import re
from typing import Any

from gateway.providers.canonical_request import ChatView

_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_BUDGETS = {"low": 1024, "medium": 8192, "high": 24_576, "max": 24_576}
"""Tokens of thought of the models that take a budget; Google translates the same words into these."""
_SMALLEST_BUDGET = 1024
_NEVER_THINKS = re.compile(r"claude-(?:instant|v?2|3(?!-7))")
_TAKES_BUDGET = re.compile(r"claude-(?:3-7|(?:opus|sonnet|haiku)-4(?!-(?:[6-9]|\d\d)(?!\d)))")
"""Claude 3.7 to 4.5; what follows a version may be a date."""
_SAMPLES_ITSELF = re.compile(r"claude-(?:mythos|[a-z]+-(?:4-(?:[7-9]|\d\d)|[5-9]|\d\d)(?!\d))")
"""Claude 4.7 and later, which refuse every sampling parameter."""
SAMPLING = ("temperature", "top_k", "top_p")
_FORCED = ("any", "tool")


def add_thinking(body: dict[str, Any], effort: str, model: str, *, limited: bool, remembers: bool) -> None:
    """Put the effort into a Messages body, unless the caller speaks of `thinking` or the model cannot think.

    Claude does not think where it must call a tool, nor with a budget where the thoughts behind earlier calls are gone
    (`remembers` is false): such requests go without. A budget comes on top of the default token limit; with a limit of
    the caller's own (`limited`) it takes at most half of it.
    """
    wanted = _EFFORTS.get(effort)
    forced = body.get("tool_choice", {}).get("type") in _FORCED
    if wanted is None or "thinking" in body or _NEVER_THINKS.search(model) or forced:
        return
    if not _TAKES_BUDGET.search(model):
        body["thinking"] = {"type": "adaptive"}
        if effort == "xhigh" and samples_itself(model):
            # Claude 4.6 has no word between high and max.
            wanted = effort
        config = body.get("output_config", {})
        # As the caller's own bytes it has the caller's own effort, or none on purpose.
        body["output_config"] = {"effort": wanted} | config if isinstance(config, dict) else config
    else:
        budget = min(_BUDGETS[wanted], body["max_tokens"] // 2) if limited else _BUDGETS[wanted]
        if budget < _SMALLEST_BUDGET or not remembers:
            return
        if not limited:
            body["max_tokens"] += budget
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    # Claude thinks at its own temperature only.
    for name in SAMPLING:
        body.pop(name, None)


def samples_itself(model: str) -> bool:
    """Whether the model refuses a temperature, which older apps always send, and so does MLflow's original form."""
    return _SAMPLES_ITSELF.search(model) is not None


def remembers_thoughts(view: ChatView) -> bool:
    """Whether each of the assistant's calls since the user last spoke comes with the thoughts that led to it."""
    for message in reversed(view.messages):
        if message.role == "user":
            break
        if message.role == "assistant" and message.tool_calls and not message.thinking_blocks:
            return False
    return True
