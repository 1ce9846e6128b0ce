"""What is left of a rate limit is read from every vendor's headers, and shown by one gauge, but not for ever."""

import json

import pytest
from multidict import CIMultiDict

from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.provider_limits import TOLD_FOR_S, ProviderLimits, RateLimitKind, remaining
from tests.clocks import ManualClock
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_error, openai_stream
from tests.running_gateway import RunningGateway
from tests.scripted_upstream import ScriptedUpstream

_REQUESTS, _TOKENS = "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"
VENDORS = {
    # https://platform.openai.com/docs/guides/rate-limits, and so Azure, Groq and xAI.
    "openai": (
        {"x-ratelimit-remaining-requests": "4999", "x-ratelimit-remaining-tokens": "159976"},
        {"requests": 4999, "tokens": 159_976},
    ),
    # https://docs.anthropic.com/en/api/rate-limits
    "anthropic": (
        {
            "anthropic-ratelimit-requests-remaining": "999",
            "anthropic-ratelimit-tokens-remaining": "96000",
            "anthropic-ratelimit-input-tokens-remaining": "80000",
            "anthropic-ratelimit-output-tokens-remaining": "16000",
        },
        {"requests": 999, "tokens": 96_000, "input_tokens": 80_000, "output_tokens": 16_000},
    ),
    # As its API answers (mistralai/client-ts, issue 169).
    "mistral": (
        {"x-ratelimit-remaining-req-minute": "717", "x-ratelimit-remaining-tokens-minute": "4999911"},
        {"requests": 717, "tokens": 4_999_911},
    ),
    # https://docs.together.ai/docs/rate-limits
    "together": (
        {"x-ratelimit-remaining": "59", "x-tokenlimit-remaining": "180000"},
        {"requests": 59, "tokens": 180_000},
    ),
    # https://docs.fireworks.ai/serverless/rate-limits
    "fireworks": (
        {"x-ratelimit-remaining-tokens-prompt": "900", "x-ratelimit-remaining-tokens-generated": "36"},
        {"input_tokens": 900, "output_tokens": 36},
    ),
    "silent": ({"content-type": "application/json"}, {}),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendors_spelling_is_read(vendor: str) -> None:
    """Headers as the vendor documents them, in any case, give what is left by kind."""
    headers, left = VENDORS[vendor]
    assert remaining(CIMultiDict({name.title(): value for name, value in headers.items()})) == left


@pytest.mark.parametrize("value", ["-1", "", "many", "1.5", "1_000", "٣", "9" * 400])
def test_what_is_no_count_is_left_out(value: str) -> None:
    """Azure's -1 for `unknown` and whatever is no whole number are not shown; the other kind still is."""
    headers = {"x-ratelimit-remaining-requests": value, "x-ratelimit-remaining-tokens": "0"}
    assert remaining(headers) == {RateLimitKind.TOKENS: 0}


def _config(url: str, http_spans: str) -> str:
    config = {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"}
    route = {
        "name": "chat",
        "endpoint_type": "llm/v1/chat",
        "model": {"provider": "openai", "name": "m", "config": config},
    }
    return json.dumps({"endpoints": [route], "telemetry": {"http_spans": http_spans}})


def _left(gateway: RunningGateway) -> dict[str, float]:
    return {
        kind: gateway.metric(names.RATELIMIT_REMAINING, provider="openai", model="m", kind=kind)
        for kind in ("requests", "tokens")
    }


@pytest.mark.parametrize("http_spans", ["light", "instrumented"])
async def test_the_gauge_has_the_last_answer_of_any_status(
    http_spans: str, upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A success, a stream and a refusal each leave their figures; an answer that says nothing leaves the last."""
    gateway = await start_gateway(_config(upstream.url, http_spans))

    async def ask(*, stream: bool) -> None:
        await gateway.client.post(
            "/endpoints/chat/invocations", json={"messages": [{"role": "user", "content": "x"}], "stream": stream}
        )

    def says(requests: int, tokens: int) -> list[tuple[str, str]]:
        return [("x-ratelimit-remaining-requests", str(requests)), ("x-ratelimit-remaining-tokens", str(tokens))]

    assert "gateway_provider_ratelimit_remaining{" not in "".join(
        gateway.telemetry.exposition.pieces(openmetrics=False)
    )
    for reply, stream, left in (
        (openai_chat(headers=says(59, 1000)), False, {"requests": 59, "tokens": 1000}),
        (openai_stream(["a"], headers=says(58, 900)), True, {"requests": 58, "tokens": 900}),
        (openai_error(429, headers=says(0, 900)), False, {"requests": 0, "tokens": 900}),
        (openai_chat(), False, {"requests": 0, "tokens": 900}),
    ):
        upstream.script(reply)
        await ask(stream=stream)
        assert _left(gateway) == left


def test_old_figures_go_and_new_ones_come_back() -> None:
    """A target's figure is taken away when no answer renewed it, another target's stays, and a new answer shows."""
    metrics, clock = Metrics(Block.private()), ManualClock()
    limits = ProviderLimits(metrics, clock)
    metrics.on_refresh(limits.refresh)

    def shown() -> dict[tuple[str, ...], float]:
        return {labels: s.values[0] for labels, s in metrics.read().get(names.RATELIMIT_REMAINING.name, {}).items()}

    limits.answered("openai", "m", {_REQUESTS: "0", _TOKENS: "7"})
    assert len(shown()) == 2
    clock.advance(TOLD_FOR_S - 1)
    limits.answered("openai", "m", {_TOKENS: "6"})
    assert shown() == {("openai", "m", "requests"): 0, ("openai", "m", "tokens"): 6}
    clock.advance(2)
    assert shown() == {("openai", "m", "tokens"): 6}
    limits.answered("openai", "m", {_REQUESTS: "60"})
    assert shown() == {("openai", "m", "requests"): 60, ("openai", "m", "tokens"): 6}
