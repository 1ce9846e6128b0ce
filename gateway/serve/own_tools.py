"""A vendor's own tools: how often a request lets them run, and the limits that it leaves out.

Searches of the web and of files, fetches, code: the vendor runs them while it answers, charges each search, and gives
the model what they found to read. The fields are those of the vendors' SDKs: `max_uses` and `max_content_tokens` in
each of Anthropic's tools (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-search-tool), one
`max_tool_calls` for a response of OpenAI's (https://platform.openai.com/docs/api-reference/responses/create). Gemini's
tools, code and MCP servers have no limit that could be sent.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from gateway.providers.gemini_facts import searches_by_prompt
from gateway.providers.openai import searches_by_itself
from gateway.spend.settle import NO_TOOLS, RESULT_TOKENS, OwnTools
from gateway.types.model_io import ModelRequest
from gateway.types.route import Operation

_DECLARED = frozenset({"", "function", "custom", "namespace"})
"""Tools that stand in the request with all that the model is told of them."""
_CALLER_RUN = ("apply_patch", "bash_", "browser_", "computer", "local_shell", "memory_", "text_editor_")
"""How the types begin of tools that a vendor describes and the caller runs."""
_MAX_USES = ("web_search_", "web_fetch_", "advisor_")
"""How the types begin of Anthropic's tools that take `max_uses`."""
_FETCHES = "web_fetch_"
_DECLARATIONS = frozenset({"functionDeclarations", "function_declarations"})
_GEMINI_CALLER_RUN = frozenset({"computerUse", "computer_use"})
_GEMINI_SEARCHES = frozenset({"googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval"})
_PIECE_TOKENS = 800
"""OpenAI cuts files so: https://platform.openai.com/docs/assistants/tools/file-search#how-it-works."""


class _Tool(Struct):
    """What is read of one tool; `type` is the key that names it in Gemini's form."""

    type: str = ""
    max_uses: Raw = Raw()
    max_content_tokens: Raw = Raw()
    max_num_results: Raw = Raw()

    @property
    def described(self) -> bool:
        """Whether the vendor tells the model more of it than the request does."""
        return self.type not in _DECLARED

    @property
    def run(self) -> bool:
        """Whether the vendor runs it."""
        return self.described and not self.type.startswith(_CALLER_RUN)

    @property
    def result_tokens(self) -> int:
        """The most that one of its calls brings."""
        asked = positive(self.max_content_tokens) or (positive(self.max_num_results) or 0) * _PIECE_TOKENS
        return max(RESULT_TOKENS, asked)


_ITEMS = msgspec.json.Decoder(list[Raw])
_TOOL = msgspec.json.Decoder(_Tool)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_UNREADABLE = _Tool(type="unreadable")


def own_tools(request: ModelRequest, model: str) -> OwnTools:
    """What a request lets its vendor's tools do. Cheap where it offers none."""
    fields, operation = request.fields, request.operation
    searches = 1 if "web_search_options" in fields else searches_by_itself(model)
    if searches == 0 and "tools" not in fields and "mcp_servers" not in fields:
        return NO_TOOLS
    tools = _tools(fields, operation)
    run = [tool for tool in tools if tool.run]
    if operation is Operation.RESPONSES:
        limits = [positive(fields.get("max_tool_calls"))] if run else []
    else:
        limits = [_calls(tool, operation, model) for tool in run]
        if "mcp_servers" in fields:
            limits.append(None)
    if searches != 0:
        limits.append(searches)
    calls = sum(limit for limit in limits if limit is not None)
    return OwnTools(
        offered=len(tools),
        described=sum(tool.described for tool in tools),
        calls=calls,
        unlimited=limits.count(None),
        result_tokens=max((tool.result_tokens for tool in run), default=RESULT_TOKENS),
    )


def limited(request: ModelRequest, calls: int) -> Mapping[str, Raw]:
    """The request's fields with the limits that it leaves out; those of a request without such tools as they are."""
    fields = request.fields
    limit = Raw(str(calls).encode())
    if request.operation is Operation.RESPONSES and positive(fields.get("max_tool_calls")) is None:
        return {**fields, "max_tool_calls": limit}
    if request.operation is Operation.MESSAGES and "tools" in fields:
        tools = [_with_limits(raw, limit) for raw in _items(fields)]
        return {**fields, "tools": Raw(msgspec.json.encode(tools))}
    return fields


def positive(raw: Raw | None) -> int | None:
    """A JSON integer above 0, however large; anything else ("1e9", 1.5, null) is no limit."""
    text = b"" if raw is None else bytes(raw).strip()
    # Beyond 30 digits the value no longer matters, and converting it would cost time.
    return int(text) or None if text.isdigit() and len(text) <= 30 else None


def _tools(fields: Mapping[str, Raw], operation: Operation) -> list[_Tool]:
    if "tools" not in fields:
        return []
    if operation is Operation.GENERATE_CONTENT:
        return [tool for raw in _items(fields) for tool in _gemini_tools(raw)]
    return [_tool(raw) for raw in _items(fields)]


def _items(fields: Mapping[str, Raw]) -> list[Raw]:
    try:
        return _ITEMS.decode(fields["tools"])
    except msgspec.MsgspecError:
        return []


def _tool(raw: Raw) -> _Tool:
    try:
        return _TOOL.decode(raw)
    except msgspec.MsgspecError:
        return _UNREADABLE


def _gemini_tools(raw: Raw) -> list[_Tool]:
    """Gemini's form: an object with a member for each tool, and one for all functions."""
    try:
        names = _OBJECT.decode(raw)
    except msgspec.MsgspecError:
        return [_UNREADABLE]
    return [_Tool(type="function" if name in _DECLARATIONS else name) for name in names]


def _calls(tool: _Tool, operation: Operation, model: str) -> int | None:
    """How often a tool may run, None where nothing says so."""
    if operation is Operation.MESSAGES and tool.type.startswith(_MAX_USES):
        return positive(tool.max_uses)
    return 1 if tool.type in _GEMINI_SEARCHES and searches_by_prompt(model) else None


def _with_limits(raw: Raw, calls: Raw) -> Raw:
    tool = _tool(raw)
    if not tool.type.startswith(_MAX_USES):
        return raw
    limits = {}
    if positive(tool.max_uses) is None:
        limits["max_uses"] = calls
    if tool.type.startswith(_FETCHES) and positive(tool.max_content_tokens) is None:
        limits["max_content_tokens"] = Raw(str(RESULT_TOKENS).encode())
    return Raw(msgspec.json.encode(_OBJECT.decode(raw) | limits)) if limits else raw
