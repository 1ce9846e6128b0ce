"""Forty secrets are planted wherever a request can carry one, and none is found in any signal."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from gateway.api.admin import Admin, admin_app
from gateway.cli import SystemClock
from gateway.spend.keys import Keyring
from gateway.spend.opening import Ledgers
from gateway.store.sqlite import open_sqlite, read_sqlite
from gateway.telemetry.content_hook import CapturedContent
from gateway.telemetry.redact import REDACTED
from gateway.telemetry.setup import TraceExport
from gateway.types.secret import Secret
from tests.collector import Collector, attributes_of, running_collector
from tests.journeys.streaming_apis import STREAMING, TEXTS
from tests.openai_replies import openai_chat, openai_error, openai_stream
from tests.replies import BytesReply, GarbageReply, Reply, StreamReply
from tests.running_gateway import RunningGateway, running_gateway
from tests.scripted_upstream import ScriptedUpstream


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


ADMIN_PAGES = ("/keys", "/budgets", "/ledger")
HOOKED: list[str] = []


def hook(content: CapturedContent) -> None:
    """Keeps all that a hook is given."""
    HOOKED.append(repr(content))


def _of_all_surfaces(canaries: Canaries, url: str, to: str) -> str:
    """A route for each vendor, guarded by keys, with an administrators' listener; every secret of it is planted."""
    vendors = {
        "chat": ("openai", {"openai_api_key": canaries.key(), "openai_api_base": f"{url}/v1"}),
        "claude": ("anthropic", {"anthropic_api_key": canaries.key(), "anthropic_api_base": f"{url}/v1"}),
        "gemini": ("gemini", {"gemini_api_key": canaries.key(), "gemini_api_base": f"{url}/v1beta/models"}),
    }
    vendors["completions"] = vendors["vectors"] = vendors["chat"]
    types = {"completions": "completions", "vectors": "embeddings"}
    routes = [
        {
            "name": name,
            "endpoint_type": f"llm/v1/{types.get(name, 'chat')}",
            "content": {"to": to},
            "model": {"provider": provider, "name": "m", "config": config},
        }
        for name, (provider, config) in vendors.items()
    ]
    key = f"gwk_app_canary{canaries.key()}".replace("-", "")
    canaries.planted.append(key)
    telemetry = {"redact": [r"canary number \d+ sings"], "content_hook": f"{__name__}:hook"}
    admin = {"token": canaries.key(), "port": 0}
    sections = {"keys": [{"secret": key}], "telemetry": telemetry, "admin": admin}
    return json.dumps({"endpoints": routes, **sections})


UNARY = (
    ("/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "Hello?"}]}),
    ("/endpoints/chat/invocations", {"messages": [{"role": "user", "content": "Hello?"}]}),
    ("/v1/completions", {"model": "completions", "prompt": "Hello?"}),
    ("/v1/embeddings", {"model": "vectors", "input": "Hello?"}),
    ("/v1/responses", {"model": "chat", "input": "Hello?", "instructions": "Hello?"}),
    ("/v1/messages", {"model": "claude", "max_tokens": 9, "system": "Hello?",
                      "messages": [{"role": "user", "content": "Hello?"}]}),
    ("/v1beta/models/gemini:generateContent", {"contents": [{"parts": [{"text": "Hello?"}]}]}),
)  # fmt: skip


async def _sing_everywhere(canaries: Canaries, to: str, log_descriptor: int, folder: Path) -> tuple[str, str]:
    """Each surface succeeds where it streams, and is answered with errors, garbage and a broken stream; the last scrape,
    and what the administrators are shown.
    """
    ledgers = Ledgers(write=lambda: open_sqlite(folder / "l.db"), read=lambda: read_sqlite(folder / "l.db"))
    async with ScriptedUpstream() as upstream:
        config = _of_all_surfaces(canaries, upstream.url, to)
        settings = json.loads(config)
        arguments = {"export": TraceExport.OTLP, "log_descriptor": log_descriptor, "ledgers": ledgers}
        async with running_gateway(config, **arguments) as gateway:  # type: ignore[arg-type]
            sent = 0

            async def ask(path: str, body: object, reply: Reply, key: str) -> None:
                nonlocal sent
                upstream.script(reply)
                text = json.dumps(body).replace("Hello?", f"{canaries.words()} {canaries.key()}")
                headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
                await gateway.client.post(f"{path}?key={canaries.key()}", content=text, headers=headers)
                sent += 1

            key = settings["keys"][0]["secret"]
            for path, body in UNARY:
                for status in (400, 401, 500):
                    await ask(path, body, openai_error(status, f"{canaries.words()} {canaries.key()}"), key)
                await ask(path, body, BytesReply(f"<html>{canaries.key()}".encode()), key)
                await ask(path, body, GarbageReply(), key)
            for api in STREAMING:
                events = [_planted(event, canaries) for event in api.events]
                await ask(api.path, api.body, StreamReply(events), key)
                await ask(api.path, api.body, StreamReply(events, cut_after=len(events) // 2), key)
            for path, body in UNARY:
                # Refused before a provider is asked: the replies stay for nobody.
                await gateway.client.post(path, json=body, headers={"x-api-key": canaries.key()})
                await gateway.client.post(path, content=canaries.key(), headers={"authorization": f"Bearer {key}"})
            await gateway.client.post(f"/{canaries.key()}/{canaries.key()}", content=canaries.key())
            await gateway.records.wait(sent + 2 * len(UNARY) + 1)
            accounts = gateway.gateway.accounts
            assert accounts is not None
            await accounts.flush()
            shown = await _administrators_see(gateway, settings["admin"]["token"], ledgers)
            return "".join(gateway.telemetry.exposition.pieces(openmetrics=True)), shown


def _planted(event: bytes, canaries: Canaries) -> bytes:
    for text in TEXTS:
        event = event.replace(json.dumps(text).encode(), json.dumps(f"{canaries.words()} ").encode())
    return event


async def _administrators_see(gateway: RunningGateway, token: str, ledgers: Ledgers) -> str:
    running = gateway.gateway
    assert running.accounts is not None
    admin = Admin(running.accounts, Keyring([]), SystemClock(), secrets.token_bytes, ledgers.read, dict)
    async with AsyncTestClient(admin_app(admin, Secret(token))) as client:
        pages = [await client.get(path, headers={"authorization": f"Bearer {token}"}) for path in ADMIN_PAGES]
    assert [page.status_code for page in pages] == [200] * len(pages)
    return "".join(page.text for page in pages)


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


@pytest.mark.parametrize("to", ["none", "span", "event", "hook"])
def test_no_surface_tells_a_secret(to: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Chat, completions, embeddings, Responses, Messages and Gemini, with errors of every kind: no signal, no ledger, no
    page of the administrators and no hook holds a planted secret.
    """
    canaries = Canaries()
    HOOKED.clear()
    log = tmp_path / "requests.jsonl"
    with running_collector() as collector, pytest.MonkeyPatch.context() as patch, log.open("wb") as file:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        patch.setenv("OTEL_LOGS_EXPORTER", "otlp")
        scraped, administered = asyncio.run(_sing_everywhere(canaries, to, file.fileno(), tmp_path))
    signals = _everything(collector, scraped, log, caplog.text)
    signals |= {
        "administrators": administered,
        "hook": "".join(HOOKED),
        "ledger": b"".join(path.read_bytes() for path in tmp_path.glob("l.db*")).decode("latin-1"),
    }
    assert len(canaries.planted) >= 40
    found = [(where, canary) for where, text in signals.items() for canary in canaries.planted if canary in text]
    assert found == []
    # Content is where it was asked for, and nowhere else; money and requests are everywhere.
    assert ("gen_ai.input.messages" in signals["spans"]) == (to == "span")
    assert ("gen_ai.input.messages" in signals["log records"]) == (to == "event")
    assert (REDACTED in signals["hook"]) == (to == "hook")
    assert "claude" in signals["ledger"]
