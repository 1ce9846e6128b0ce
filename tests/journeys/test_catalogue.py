"""Every family of the catalogue comes out of a running gateway: none is a promise that nobody keeps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import structs
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.fleet import Fleet
from gateway.telemetry.listener import Exposition
from gateway.telemetry.metric import DEFAULT_MAX_SERIES, Kind
from gateway.telemetry.names import EVERY_FAMILY
from gateway.telemetry.setup import TraceExport
from tests.collector import running_collector
from tests.journeys.streaming_apis import STREAMING
from tests.openai_replies import openai_chat, openai_usage
from tests.replies import StreamReply, json_reply
from tests.running_gateway import RunningGateway, running_gateway, until
from tests.scripted_upstream import ScriptedUpstream


def config(url: str) -> str:
    """OpenAI and Anthropic, a budget, both generations of conventions."""
    accounts = {
        "chat": ("openai", {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"}),
        "claude": ("anthropic", {"anthropic_api_key": "sk-test", "anthropic_api_base": f"{url}/v1"}),
        "unpriced": ("openai", {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"}),
    }
    routes = [
        {
            "name": name,
            "endpoint_type": "llm/v1/chat",
            "model": {"provider": provider, "name": f"m-{name}", "config": account},
        }
        for name, (provider, account) in accounts.items()
    ]
    price = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15, "cache_read_usd_per_mtok": 0.3}
    sections = {
        "prices": [{"model": f"m-{name}", "cache_write_usd_per_mtok": 3.75, **price} for name in ("chat", "claude")],
        "budgets": [{"name": "all", "amount_usd": 5, "enforcement": "soft"}],
        "telemetry": {"semconv": "both"},
    }
    return json.dumps({"endpoints": routes, **sections})


class Failing:
    """A sink on fire."""

    name = "failing"

    def record(self, record: object) -> None:
        raise RuntimeError


async def _ask(gateway: RunningGateway, path: str, body: dict[str, Any]) -> None:
    assert (await gateway.client.post(path, json=body)).status_code == 200


async def _emitted() -> set[str]:
    async with (
        ScriptedUpstream() as upstream,
        running_gateway(config(upstream.url), export=TraceExport.OTLP) as gateway,
    ):
        gateway.telemetry.observer.sinks = (*gateway.telemetry.observer.sinks, Failing())
        left = [("x-ratelimit-remaining-requests", "59")]
        chat = {"messages": [{"role": "user", "content": "x"}]}
        usage = openai_usage(11, 7, cached=3, reasoning=2)
        upstream.script(openai_chat(usage=usage, headers=left), openai_chat(usage=usage, model="nobody-knows"))
        await _ask(gateway, "/endpoints/chat/invocations", chat)
        await _ask(gateway, "/endpoints/unpriced/invocations", chat)
        message = {
            "id": "m", "type": "message", "role": "assistant", "model": "m-claude", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "hi"}], "stop_sequence": None,
            "usage": {
                "input_tokens": 5, "output_tokens": 3, "cache_creation_input_tokens": 9, "cache_read_input_tokens": 4,
                "server_tool_use": {"web_search_requests": 1},
            },
        }  # fmt: skip
        upstream.script(json_reply(message))
        await _ask(gateway, "/v1/messages", {"model": "claude", "max_tokens": 9, **chat})
        [stream] = [api for api in STREAMING if api.name == "endpoint"]
        upstream.script(StreamReply(stream.events))
        await _ask(gateway, stream.path, dict(stream.body))
        await gateway.records.wait(4)
        signals = gateway.gateway.signals
        assert signals is not None
        await until(lambda: "gateway_event_loop_lag_seconds_count 1" in _text(gateway.telemetry.exposition), "a sample")
        signals.update()
        await until(lambda: gateway.metric(names.SPANS_EXPORTED) == 3 * 4, "the spans' export")
        _overflow(gateway)
        text = _text(gateway.telemetry.exposition)
    fleet = Fleet()
    fleet.joined(0, Block.private(), 1)
    return {family.name for part in (text, _text(fleet.exposition)) for family in text_string_to_metric_families(part)}


def _overflow(gateway: RunningGateway) -> None:
    """More callers' teams than a family keeps apart."""
    record = gateway.records.all[-1]
    for number in range(DEFAULT_MAX_SERIES + 1):
        team = structs.replace(record.caller, team=f"t{number}")
        gateway.telemetry.metrics.record(structs.replace(record, caller=team, attempts=()))


def _text(exposition: Exposition) -> str:
    return "".join(exposition.pieces(openmetrics=True))


def test_every_family_is_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few requests in one gateway, and one supervisor, feed every family that the catalogue names, and no other."""
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        emitted = asyncio.run(_emitted())
    ours = {name for name in emitted if not name.startswith(("process_", "python_"))}
    expected = {
        metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name for metric in EVERY_FAMILY
    }
    assert ours == expected
