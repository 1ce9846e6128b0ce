"""Every path that costs money asks for a key, obeys the budget, and refuses in its own API's words."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from litestar.routes import ASGIRoute, HTTPRoute

from gateway.api.application import _FAMILIES, FIXED, Application, find_surface
from gateway.api.endpoints import ENDPOINTS
from gateway.api.native import GEMINI_CALLS
from gateway.api.openai import AZURE_CALLS
from gateway.api.original import ORIGINAL
from gateway.types.errors import ErrorType
from tests.conftest import StartGateway
from tests.journeys.books import balanced, budget, chat, configuration, entries_of
from tests.journeys.ledgers import JourneyLedger
from tests.openai_replies import openai_chat, openai_usage
from tests.replies import json_reply
from tests.running_gateway import running_gateway
from tests.scripted_upstream import ScriptedUpstream

KEY = "gwk_alpha_0123456789abcdef"
SAID = [{"role": "user", "content": "Hello?"}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hello?"}]}]}
Shape = Callable[[Any], str]


def mlflow_code(body: Any) -> str:
    """The closed error type in MLflow's shape, whose words stand under `detail`."""
    assert isinstance(body["detail"], str)
    return str(body["error_type"])


def openai_code(body: Any) -> str:
    """The closed error type in OpenAI's shape."""
    assert body["error"]["message"]
    return str(body["error"]["code"])


def anthropic_code(body: Any) -> str:
    """The closed error type in Anthropic's shape, whose `type` its SDK raises by."""
    assert body["type"] == "error"
    assert body["error"]["type"] in {"rate_limit_error", "authentication_error"}
    return str(body["error"]["code"])


def gemini_code(body: Any) -> str:
    """The closed error type in Google's shape, whose `status` its SDK raises by."""
    assert body["error"]["status"] in {"RESOURCE_EXHAUSTED", "UNAUTHENTICATED"}
    return str(body["error"]["details"][0]["reason"])


# One line a call that a caller can make: the path, a body, the error's shape.
CALLS: list[tuple[str, Mapping[str, Any], Shape]] = [
    ("/gateway/chat/invocations", {"messages": SAID}, mlflow_code),
    ("/gateway/completions/invocations", {"prompt": "Hello?"}, mlflow_code),
    ("/gateway/embeddings/invocations", {"text": ["Hello?"]}, mlflow_code),
    ("/endpoints/chat/invocations", {"messages": SAID}, mlflow_code),
    ("/endpoints/chat/invocations", {"messages": SAID, "stream": True}, mlflow_code),
    ("/endpoints/completions/invocations", {"prompt": "Hello?"}, mlflow_code),
    ("/endpoints/embeddings/invocations", {"input": "Hello?"}, mlflow_code),
    ("/endpoints/claude/invocations", {"messages": SAID}, mlflow_code),
    ("/endpoints/gemini/invocations", {"messages": SAID}, mlflow_code),
    ("/v1/chat/completions", chat(), openai_code),
    ("/v1/chat/completions", chat(stream=True), openai_code),
    ("/v1/completions", {"model": "completions", "prompt": "Hello?"}, openai_code),
    ("/v1/embeddings", {"model": "embeddings", "input": "Hello?"}, openai_code),
    ("/v1/responses", {"model": "chat", "input": "Hello?"}, openai_code),
    ("/v1/responses/compact", {"model": "chat", "input": "Hello?"}, openai_code),
    ("/openai/deployments/chat/chat/completions", {"messages": SAID}, openai_code),
    ("/openai/deployments/completions/completions", {"prompt": "Hello?"}, openai_code),
    ("/openai/deployments/embeddings/embeddings", {"input": "Hello?"}, openai_code),
    ("/v1/messages", {"model": "claude", "max_tokens": 9, "messages": SAID}, anthropic_code),
    *(
        (f"{prefix}/gemini:{call}", CONTENTS, gemini_code)
        for prefix in ("/v1beta/models", "/v1/models")
        for call in ("generateContent", "streamGenerateContent")
    ),
    *(
        (f"{prefix}/vectors:{call}", {"content": {"parts": [{"text": "Hello?"}]}}, gemini_code)
        for prefix in ("/v1beta/models", "/v1/models")
        for call in ("embedContent", "batchEmbedContents")
    ),
]
FREE = [
    (
        "/v1/responses/input_tokens",
        {"model": "chat", "input": "Hello?"},
        json_reply({"object": "response.input_tokens", "input_tokens": 14}),
        openai_code,
    ),
    (
        "/v1/messages/count_tokens",
        {"model": "claude", "messages": SAID},
        json_reply({"input_tokens": 14}),
        anthropic_code,
    ),
    *(
        (f"{prefix}/gemini:countTokens", CONTENTS, json_reply({"totalTokens": 14}), gemini_code)
        for prefix in ("/v1beta/models", "/v1/models")
    ),
]
"""Calls that their vendors do not charge."""
NO_MODEL = {"/api/2.0/gateway/limits", "/api/2.0/endpoints/limits"}
"""Paths that take a POST and ask no provider."""


def surfaces(paths: Iterable[str]) -> set[str]:
    """The templates of the surfaces that serve these paths."""
    return {found[0].path for path in paths if (found := find_surface(path)) is not None}


async def test_the_walk_knows_every_path(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Every surface, and every page that takes a POST, must be in this file: a new one cannot be forgotten."""
    gateway = await start_gateway(configuration(upstream.url))
    application = gateway.gateway.app
    assert isinstance(application, Application)
    every = {
        *FIXED.values(),
        ORIGINAL,
        ENDPOINTS,
        *AZURE_CALLS.values(),
        *(call for calls in GEMINI_CALLS.values() for call in calls.values()),
    }
    assert surfaces([*(call[0] for call in CALLS), *(call[0] for call in FREE)]) == {one.path for one in every}
    assert set(_FAMILIES.values()) <= every
    posts = {
        route.path
        for route in application._pages.routes
        if isinstance(route, ASGIRoute) or (isinstance(route, HTTPRoute) and "POST" in route.methods)
    }
    assert posts == NO_MODEL


async def test_an_exhausted_budget_stops_every_path(upstream: ScriptedUpstream, ledger: JourneyLedger) -> None:
    """429 `budget_exceeded` in the API's own shape, with Retry-After, and the provider is not asked."""
    upstream.script(openai_chat(usage=openai_usage(10_000, 10_000)))
    async with running_gateway(configuration(upstream.url), ledgers=ledger.ledgers) as first:
        assert (await first.client.post("/v1/chat/completions", json=chat())).status_code == 200
    # A budget counts what its window already holds: this one is exhausted when it is made.
    config = configuration(upstream.url, budgets=[budget("0.005")])
    async with running_gateway(config, ledgers=ledger.ledgers) as gateway:
        for number, (path, body, code) in enumerate(CALLS, 1):
            reply = await gateway.client.post(path, json=body)
            assert (reply.status_code, path) == (429, path), reply.text
            assert (code(reply.json()), path) == ("budget_exceeded", path)
            assert int(reply.headers["retry-after"]) > 1
            assert reply.headers["x-gateway-error-type"] == "budget_exceeded"
            record = (await gateway.records.wait(number))[-1]
            assert (record.error_type, record.attempts) == (ErrorType.BUDGET_EXCEEDED, ())
    assert upstream.hits == 1


async def test_every_path_asks_for_a_key(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """With keys configured, none and a wrong one are 401 in the API's own shape, wherever its SDK puts a key."""
    gateway = await start_gateway(configuration(upstream.url, keys=[{"secret": KEY, "team": "red"}]))
    wrong = KEY[:-1] + "0"
    tries: list[dict[str, str]] = [
        {},
        {"authorization": f"Bearer {wrong}"},
        {"authorization": "Bearer"},
        {"authorization": KEY},
        {"x-api-key": wrong},
        {"x-goog-api-key": wrong},
        {"api-key": "sk-test"},
    ]
    for path, body, code in [*CALLS, *((path, body, code) for path, body, _, code in FREE)]:
        for headers in tries:
            reply = await gateway.client.post(path, json=body, headers=headers)
            assert (reply.status_code, path, headers) == (401, path, headers), reply.text
            assert code(reply.json()) == "unauthenticated"
            assert KEY not in reply.text
        # Google's REST clients may put a key into the address, where logs would keep it: it is no key here.
        assert (await gateway.client.post(path, params={"key": KEY}, json=body)).status_code == 401
    assert upstream.hits == 0


async def test_counting_tokens_is_free_and_never_refused(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """What vendors do not charge passes an exhausted budget, goes out as it came, and is a line of 0."""
    gateway = await start_gateway(configuration(upstream.url, budgets=[budget(0)]))
    for number, (path, body, given, _) in enumerate(FREE, 1):
        upstream.script(given)
        reply = await gateway.client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        sent = upstream.requests[-1].json()
        assert {**sent, "model": ""} == {**body, "model": ""}
        await gateway.records.wait(number)
    assert await balanced(gateway) == 0
    assert [line.nano_usd for line in await entries_of(gateway)] == [0] * len(FREE)


async def test_nothing_is_generated_behind_the_reply(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A background response, whose tokens nobody would see to charge, is refused with the reason."""
    gateway = await start_gateway(configuration(upstream.url))
    reply = await gateway.client.post("/v1/responses", json={"model": "chat", "input": "x", "background": True})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "background"
    assert upstream.hits == 0
