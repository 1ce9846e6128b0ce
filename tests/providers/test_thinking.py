"""How OpenAI's word for effort reaches the models of other vendors, by the names that models really have."""

import pytest

from gateway.providers.anthropic_thinking import add_thinking as add_claude
from gateway.providers.anthropic_thinking import samples_itself
from gateway.providers.gemini_thinking import add_thinking as add_gemini
from gateway.providers.gemini_thinking import wants_signatures


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-3-haiku-20240307", None),
        ("claude-3-5-sonnet-20241022", None),
        ("claude-3-7-sonnet-20250219", "enabled"),
        ("claude-opus-4-20250514", "enabled"),
        ("claude-sonnet-4@20250514", "enabled"),
        ("claude-opus-4-1-20250805", "enabled"),
        ("claude-sonnet-4-5", "enabled"),
        ("claude-haiku-4-5-20251001", "enabled"),
        ("claude-sonnet-4-6", "adaptive"),
        ("claude-opus-4-6-v1", "adaptive"),
        ("claude-opus-4-10", "adaptive"),
        ("claude-opus-5", "adaptive"),
        ("claude-fable-5-1", "adaptive"),
    ],
)
def test_each_claude_thinks_as_its_generation_does(model: str, thinking: str | None) -> None:
    """Models before 3.7 never think, up to 4.5 they take a budget, later ones decide by themselves."""
    body: dict[str, object] = {"max_tokens": 8192}
    add_claude(body, "high", model, limited=False, remembers=True)
    found = body.get("thinking")
    assert (found["type"] if isinstance(found, dict) else None) == thinking


@pytest.mark.parametrize(
    ("model", "itself"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-opus-4-6", False),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", False),
        ("claude-opus-4-7", True),
        ("claude-opus-4-10", True),
        ("anthropic.claude-opus-5", True),
        ("claude-fable-5-1", True),
        ("claude-mythos-preview", True),
        ("gpt-5", False),
    ],
)
def test_who_refuses_a_temperature(model: str, itself: bool) -> None:
    """Claude 4.7 and later choose their own sampling."""
    assert samples_itself(model) is itself


@pytest.mark.parametrize(("model", "effort"), [("claude-opus-4-6", "max"), ("claude-opus-4-7", "xhigh")])
def test_the_highest_effort_has_the_models_word(model: str, effort: str) -> None:
    """`xhigh` is a word of Claude 4.7 and later; before, the next one is `max`."""
    body: dict[str, object] = {"max_tokens": 8192}
    add_claude(body, "xhigh", model, limited=False, remembers=True)
    assert body["output_config"] == {"effort": effort}


@pytest.mark.parametrize("effort", ["none", "", "enormous"])
def test_other_words_change_nothing(effort: str) -> None:
    """No effort, and words that are not OpenAI's, leave each model its default."""
    body: dict[str, object] = {"max_tokens": 8192, "temperature": 0.5}
    add_claude(body, effort, "claude-sonnet-4-5", limited=False, remembers=True)
    assert body == {"max_tokens": 8192, "temperature": 0.5}


def test_what_the_caller_says_of_thinking_stands() -> None:
    """Claude's own member wins over the translated one."""
    body: dict[str, object] = {"max_tokens": 8192, "thinking": {"type": "disabled"}}
    add_claude(body, "high", "claude-sonnet-4-5", limited=False, remembers=True)
    assert body == {"max_tokens": 8192, "thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("gemini-2.0-flash", {}),
        ("gemini-2.5-flash-lite", {"thinkingBudget": 1024}),
        ("gemini-3-pro-preview", {"thinkingLevel": "low"}),
        ("gemini-flash-latest", {"thinkingLevel": "low"}),
        ("models/gemini-10-pro", {"thinkingLevel": "low"}),
    ],
)
def test_each_gemini_thinks_as_its_generation_does(model: str, config: dict[str, object]) -> None:
    """Models before 2.5 never think, those take a budget, later ones a level, and want their signatures back."""
    body: dict[str, object] = {}
    add_gemini(body, "low", model)
    assert body == ({"thinkingConfig": config} if config else {})
    assert wants_signatures(model) is ("thinkingLevel" in config)
