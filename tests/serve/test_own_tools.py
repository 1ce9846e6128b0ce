"""How often a vendor may run its own tools is read, or said to it, before it is asked."""

from typing import Any

import pytest

from gateway.serve.charging import capped, charge_facts
from gateway.spend.ledger import Caps
from gateway.spend.settle import RESULT_TOKENS
from gateway.store.spec import Payer
from gateway.types.model_io import ModelRequest
from gateway.types.route import Operation
from tests.serve.test_charging import request, sent

MESSAGES, RESPONSES, CHAT = Operation.MESSAGES, Operation.RESPONSES, Operation.CHAT
GEMINI = Operation.GENERATE_CONTENT
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FETCH = {"type": "web_fetch_20250910", "name": "web_fetch"}
CODE = {"type": "code_execution_20250825", "name": "code_execution"}
MINE = {"name": "now", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "name": "now", "parameters": {}}


def read(given: ModelRequest, model: str = "m") -> tuple[int, int]:
    """The calls that the caller allows, and the limits that it leaves out."""
    payer = Payer(team="", key_id="", route="chat", provider="p", model=model)
    tools = charge_facts(given, payer, "r", 1).tools
    return tools.calls, tools.unlimited


@pytest.mark.parametrize(
    ("operation", "model", "body", "calls", "unlimited"),
    [
        (MESSAGES, "claude", {}, 0, 0),
        (MESSAGES, "claude", {"tools": [MINE, {"type": "bash_20250124", "name": "bash"}]}, 0, 0),
        (MESSAGES, "claude", {"tools": [SEARCH | {"max_uses": 3}, MINE]}, 3, 0),
        (MESSAGES, "claude", {"tools": [SEARCH | {"max_uses": 3}, FETCH, CODE | {"max_uses": 1}]}, 3, 2),
        (MESSAGES, "claude", {"tools": [SEARCH | {"max_uses": "3"}, SEARCH | {"schema": 1}]}, 0, 2),
        (MESSAGES, "claude", {"tools": [{"type": 7}, 7]}, 0, 2),
        (MESSAGES, "claude", {"mcp_servers": [{"type": "url"}]}, 0, 1),
        (RESPONSES, "gpt-5", {"tools": [FUNCTION, {"type": "custom", "name": "x"}], "max_tool_calls": 9}, 0, 0),
        (RESPONSES, "gpt-5", {"tools": [{"type": "web_search"}, {"type": "file_search"}]}, 0, 1),
        (RESPONSES, "gpt-5", {"tools": [{"type": "web_search"}, FUNCTION], "max_tool_calls": 9}, 9, 0),
        (RESPONSES, "gpt-5", {"tools": [{"type": "mcp"}], "max_tool_calls": 0}, 0, 1),
        (CHAT, "gpt-4o", {"tools": [{"type": "function", "function": {"name": "f"}}]}, 0, 0),
        (CHAT, "gpt-5-search-api", {}, 1, 0),
        (CHAT, "gpt-5-search-api", {"web_search_options": {}}, 1, 0),
        (CHAT, "sonar-deep-research", {}, 0, 1),
        (GEMINI, "gemini-2.5-pro", {"tools": [{"google_search": {}}]}, 1, 0),
        (GEMINI, "gemini-3-pro", {"tools": [{"googleSearch": {}}]}, 0, 1),
        (GEMINI, "gemini-2.5-pro", {"tools": [{"functionDeclarations": []}, {"codeExecution": {}, "urlContext": {}}]},
         0, 2),
    ],
)  # fmt: skip
def test_limits_of_tools_are_read_where_each_vendor_has_them(
    operation: Operation, model: str, body: dict[str, Any], calls: int, unlimited: int
) -> None:
    """Each vendor's fields count for its own tools alone; a value that is no limit counts as none."""
    assert read(request(operation, **body), model) == (calls, unlimited)


def test_larger_results_are_held_as_they_are_asked_for() -> None:
    """A fetch of many tokens and a file search of many pieces bring more than the usual bound."""
    for operation, tool, tokens in (
        (MESSAGES, FETCH | {"max_content_tokens": 90_000}, 90_000),
        (MESSAGES, FETCH | {"max_content_tokens": 9}, RESULT_TOKENS),
        (RESPONSES, {"type": "file_search", "max_num_results": 50}, 40_000),
    ):
        payer = Payer(team="", key_id="", route="chat", provider="p", model="m")
        assert charge_facts(request(operation, tools=[tool]), payer, "r", 1).tools.result_tokens == tokens


@pytest.mark.parametrize(
    ("operation", "body", "changed"),
    [
        (MESSAGES, {"tools": [MINE, SEARCH, CODE]}, {"tools": [MINE, SEARCH | {"max_uses": 5}, CODE]}),
        (MESSAGES, {"tools": [SEARCH | {"max_uses": 99}]}, {}),
        (MESSAGES, {"tools": [SEARCH | {"max_uses": None}]}, {"tools": [SEARCH | {"max_uses": 5}]}),
        (MESSAGES, {"tools": [FETCH | {"max_uses": 1}]},
         {"tools": [FETCH | {"max_uses": 1, "max_content_tokens": RESULT_TOKENS}]}),
        (RESPONSES, {"tools": [{"type": "web_search"}]}, {"max_tool_calls": 5}),
        (RESPONSES, {"tools": [{"type": "web_search"}], "max_tool_calls": 2}, {}),
        (RESPONSES, {"tools": [{"type": "web_search"}], "max_tool_calls": "2"}, {"max_tool_calls": 5}),
        (GEMINI, {"tools": [{"googleSearch": {}}]}, {}),
        (CHAT, {"web_search_options": {}}, {}),
    ],
)  # fmt: skip
def test_a_limit_that_is_missing_goes_upstream(
    operation: Operation, body: dict[str, Any], changed: dict[str, Any]
) -> None:
    """What is held is what the vendor is told; the caller's own limits stay as they are."""
    told = capped(request(operation, **body), Caps(tool_calls=5), "p")
    assert sent(told) == body | changed
    if operation in {MESSAGES, RESPONSES} and CODE not in body["tools"]:
        assert read(told)[1] == 0
