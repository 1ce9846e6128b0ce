"""A gateway with several teams, providers and budgets, and requests of every kind for it."""

import json
import random
from collections.abc import Mapping
from typing import Any

from tests.openai_replies import (
    openai_chat,
    openai_completion,
    openai_embeddings,
    openai_error,
    openai_stream,
    openai_usage,
)
from tests.replies import RecordedRequest, Reply
from tests.running_gateway import RunningGateway

SEARCH, SUPPORT = "gwk_search_0123456789abcdef", "gwk_support_0123456789abcdef"
TEAMS = {"search": SEARCH, "support": SUPPORT}
GOOD, FALLBACK, FAILING, LIMITED, UNPRICED = "house-large", "house-small", "house-broken", "house-limited", "house-free"
_LEFT = [("x-ratelimit-remaining-requests", "7"), ("x-ratelimit-remaining-tokens", "40000")]
_MESSAGES = [{"role": "user", "content": "Hello?"}]


def config(upstream_url: str, budget_usd: float = 10.0, **sections: object) -> str:
    """The configuration: JSON, which is YAML too. Every provider is the scripted upstream."""

    def target(provider: str, model: str, **more: object) -> dict[str, object]:
        access = {f"{provider}_api_key": "sk-test", f"{provider}_api_base": f"{upstream_url}/v1"}
        return {"provider": provider, "name": model, "config": access, **more}

    def route(name: str, kind: str, *targets: dict[str, object], **more: object) -> dict[str, object]:
        return {"name": name, "endpoint_type": f"llm/v1/{kind}", "targets": list(targets), **more}

    document = {
        "endpoints": [
            route("chat", "chat", target("openai", GOOD)),
            route("support", "chat", target("groq", FAILING), target("openai", FALLBACK, tier=1), retries=1),
            route("limited", "chat", target("groq", LIMITED)),
            route("free", "chat", target("mistral", UNPRICED)),
            route("completions", "completions", target("openai", GOOD)),
            route("embeddings", "embeddings", target("openai", GOOD)),
        ],
        "prices": [
            {"model": model, "input_usd_per_mtok": 250, "cache_read_usd_per_mtok": 125, "output_usd_per_mtok": 1000}
            for model in (GOOD, FALLBACK, FAILING, LIMITED)
        ],
        "keys": [{"secret": secret, "team": team} for team, secret in TEAMS.items()],
        "budgets": [
            {"name": "teams", "amount_usd": budget_usd, "scope": {"team": "*"}, "enforcement": "soft", "webhooks": []},
            {"name": "everybody", "amount_usd": 100 * budget_usd, "window": "day", "enforcement": "soft"},
        ],
    }
    return json.dumps(document | sections)


class Answers:
    """What the upstream says, by the model that is asked for. The broken one fails two times in five."""

    def __init__(self) -> None:
        self._rng = random.Random(20_260_101)

    def __call__(self, request: RecordedRequest) -> Reply:
        body: Mapping[str, Any] = request.json()
        model = body["model"]
        if model == FAILING and self._rng.random() < 0.4:
            return openai_error(503)
        if model == LIMITED:
            return openai_error(429, headers=_LEFT)
        if request.path.endswith("/embeddings"):
            return openai_embeddings([0.1, 0.2], prompt_tokens=8, model=model)
        if request.path.endswith("/chat/completions"):
            usage = openai_usage(400, 60, cached=100, reasoning=10)
            if body.get("stream"):
                # No usage at all: the gateway has to estimate.
                silent = body.get("seed") == 1
                return openai_stream(["Hel", "lo ", "there"], usage=None if silent else usage, model=model)
            return openai_chat(usage=usage, model=model, headers=_LEFT)
        return openai_completion(usage=openai_usage(50, 20), model=model)


async def send_round(gateway: RunningGateway) -> int:
    """One request of every kind, by every team; returns how many were sent."""
    sent = 0
    for secret in TEAMS.values():
        headers = {"authorization": f"Bearer {secret}"}
        for model, more in (
            ("chat", {}),
            ("chat", {"stream": True}),
            ("chat", {"stream": True, "seed": 1}),
            ("support", {}),
            ("support", {"stream": True}),
            ("support", {"messages": "nonsense"}),
            ("limited", {}),
            ("free", {}),
            ("no-such-route", {}),
        ):
            body = {"model": model, "messages": _MESSAGES, **more}
            await gateway.client.post("/v1/chat/completions", json=body, headers=headers)
            sent += 1
        await gateway.client.post("/v1/completions", json={"model": "completions", "prompt": "x"}, headers=headers)
        await gateway.client.post("/v1/embeddings", json={"model": "embeddings", "input": "x"}, headers=headers)
        await gateway.client.post("/v1/chat/completions", content=b"{", headers=headers)
        sent += 3
    await gateway.client.post(
        "/v1/chat/completions",
        json={"model": "chat", "messages": _MESSAGES},
        headers={"authorization": "Bearer gwk_nobody_0123456789abcdef"},
    )
    return sent + 1
