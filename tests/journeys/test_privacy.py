"""Forty secrets are planted wherever a request can carry one, and none is found in any signal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry.setup import TraceExport
from tests.collector import Collector, attributes_of, running_collector
from tests.openai_replies import openai_chat, openai_error, openai_stream
from tests.running_gateway import running_gateway
from tests.upstream import ScriptedUpstream


class Canaries:
    """Makes secrets that nothing else contains, each in the look of a credential or as plain words."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def key(self) -> str:
        """One that looks like a provider's key."""
        self.planted.append(f"sk-canary{len(self.planted):02d}abcdefghijklmnop")
        return self.planted[-1]

    def words(self) -> str:
        """One that no pattern can know: only not recording it helps."""
        self.planted.append(f"canary number {len(self.planted):02d} sings")
        return self.planted[-1]


CONFIG = """
telemetry: {{redact: ['canary number \\d+ sings']}}
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    content: {{to: {to}}}
    model:
      provider: openai
      name: m
      config: {{openai_api_key: {key}, openai_api_base: "{base}", openai_organization: {organization}}}
"""


def _headers(canaries: Canaries) -> dict[str, str]:
    names = (
        "authorization", "x-api-key", "api-key", "cookie", "x-forwarded-for", "x-custom", "openai-organization",
        "anthropic-api-key", "proxy-authorization", "x-goog-api-key", "referer", "baggage", "tracestate",
    )  # fmt: skip
    return {name: canaries.key() for name in names} | {"user-agent": f"app/1.0 {canaries.key()}"}


def _body(canaries: Canaries, *, stream: bool = False) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": canaries.words()},
            {"role": "user", "content": f"{canaries.words()} and {canaries.key()}", "name": canaries.key()},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"k": canaries.key()})}}
            ]},
            {"role": "tool", "tool_call_id": "c", "content": canaries.words()},
        ],
        "stop": [canaries.words()],
        "user": canaries.words(),
        "metadata": {"secret": canaries.key()},
        "tools": [{"type": "function", "function": {"name": "f", "description": canaries.words()}}],
        "stream": stream,
    }  # fmt: skip


async def _sing(canaries: Canaries, to: str, log_descriptor: int) -> str:
    """Send requests that succeed, stream, fail and are refused; the text of the last scrape."""
    async with ScriptedUpstream() as upstream:
        port = upstream.port
        base = f"http://{canaries.key()}:{canaries.key()}@127.0.0.1:{port}/v1?token={canaries.key()}"
        config = CONFIG.format(to=to, key=canaries.key(), base=base, organization=canaries.key())
        async with running_gateway(config, export=TraceExport.OTLP, log_descriptor=log_descriptor) as gateway:
            url = f"/endpoints/chat/invocations?api_key={canaries.key()}"
            replies = (
                openai_chat(f"{canaries.words()} {canaries.key()}"),
                openai_stream([canaries.words(), canaries.key()]),
                openai_error(401, f"Incorrect API key provided: {canaries.key()}"),
                openai_error(500, canaries.words()),
            )
            for number, reply in enumerate(replies):
                upstream.script(reply)
                body = _body(canaries, stream=number == 1)
                await gateway.client.post(url, json=body, headers=_headers(canaries))
            for path, content in (
                (url, b'{"broken": "' + canaries.key().encode()),
                (f"/endpoints/{canaries.key()}/invocations", b"{}"),
                (url, json.dumps({"messages": canaries.words()}).encode()),
            ):
                await gateway.client.post(path, content=content, headers=_headers(canaries))
            await gateway.records.wait(7)
            return "".join(gateway.telemetry.exposition.pieces(openmetrics=True))


def _everything(collector: Collector, scraped: str, log: Path, process_log: str) -> dict[str, str]:
    return {
        "spans": repr([(span.name, attributes_of(span), span.events, span.status) for span in collector.spans]),
        "log records": repr(collector.logs),
        "pushed metrics": repr(collector.metrics),
        "scrape": scraped,
        "request log": log.read_text(),
        "process log": process_log,
    }


@pytest.mark.parametrize("to", ["none", "span", "event"])
def test_no_secret_is_in_any_signal(to: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Spans, log records, metrics, the request log and the process's own log hold none of the planted secrets, whether
    content is captured or not.
    """
    canaries = Canaries()
    log = tmp_path / "requests.jsonl"
    with running_collector() as collector, pytest.MonkeyPatch.context() as patch, log.open("wb") as file:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        patch.setenv("OTEL_LOGS_EXPORTER", "otlp")
        scraped = asyncio.run(_sing(canaries, to, file.fileno()))
    signals = _everything(collector, scraped, log, caplog.text)
    assert len(canaries.planted) >= 40
    found = [(where, canary) for where, text in signals.items() for canary in canaries.planted if canary in text]
    assert found == []
    # The signals are there, and content is where it was asked for.
    assert len(collector.spans) == 3 * 4 + 3
    assert ("gen_ai.input.messages" in signals["spans"]) == (to == "span")
    assert ("gen_ai.input.messages" in signals["log records"]) == (to == "event")
