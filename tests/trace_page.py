"""Records docs/trace.md: one request through a real gateway, as a tree of its spans and as its log line.

    python -m tests.trace_page

Time is moved by hand and ids come from a fixed seed, so the page changes only with what the gateway tells.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.telemetry.setup import TraceExport
from tests.clocks import ManualClock
from tests.collector import attributes_of, running_collector
from tests.openai_replies import openai_error, openai_stream, openai_usage
from tests.replies import RecordedRequest, Reply
from tests.running_gateway import running_gateway
from tests.scripted_upstream import ScriptedUpstream

PAGE = Path(__file__).parents[1] / "docs" / "trace.md"
_START_S = 1_767_261_600
_HEAD = """\
# A trace

One streamed request whose first target is overloaded twice, and whose second one answers: a first attempt, a retry and a
fallback. Recorded by `python -m tests.trace_page` from a real gateway and drift-tested; the upstream is a stand-in on the loopback
(ports are written as `PORT`), its delays are made up, and so are the prices. What each attribute means is in
[instrumentation.md](instrumentation.md).

Each line is a span: when it began, how long it took, its name and its kind. `!` is the status ERROR.

"""
_VARYING = frozenset({"gateway.connect_s"})
"""Real time, which no clock of a test moves."""


class _Provider:
    """Answers as told, each time after a delay on the gateway's clock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def busy(self, request: RecordedRequest) -> Reply:
        """Overloaded, after 120 ms."""
        self._clock.advance(0.12)
        return openai_error(503, "The model is overloaded.", headers=[("retry-after-ms", "1")])

    def stream(self, gates: tuple[asyncio.Event, asyncio.Event]) -> Any:
        """Headers after 80 ms; two texts, each behind a gate."""

        def answer(request: RecordedRequest) -> Reply:
            self._clock.advance(0.08)
            texts = [gates[0], "Par", gates[1], "is."]
            return openai_stream(texts, usage=openai_usage(420, 41, cached=256), model="llama-3.3-70b-versatile")

        return answer


def _config(url: str) -> str:
    def target(provider: str, model: str, tier: int) -> dict[str, Any]:
        config = {f"{provider}_api_key": "sk-example", f"{provider}_api_base": f"{url}/v1"}
        return {"provider": provider, "name": model, "tier": tier, "config": config}

    route = {
        "name": "chat",
        "endpoint_type": "llm/v1/chat",
        "retries": 1,
        "targets": [target("openai", "gpt-4o-mini", 0), target("groq", "llama-3.3-70b-versatile", 1)],
    }
    price = {"model": "llama-3.3-70b-versatile", "input_usd_per_mtok": 0.59, "output_usd_per_mtok": 0.79}
    return json.dumps({"endpoints": [route], "prices": [price]})


async def _record(log_descriptor: int) -> None:
    clock = ManualClock(_START_S)
    provider, gates = _Provider(clock), (asyncio.Event(), asyncio.Event())
    async with ScriptedUpstream() as upstream:
        upstream.script(provider.busy, provider.busy, provider.stream(gates))
        async with running_gateway(
            _config(upstream.url), clock=clock, export=TraceExport.OTLP, log_descriptor=log_descriptor
        ) as gateway:
            asked = {
                "messages": [{"role": "user", "content": "Capital of France?"}],
                "stream": True,
                "temperature": 0.2,
            }
            headers = {"user-agent": "example-app/1.0"}
            request = gateway.client.stream("POST", "/endpoints/chat/invocations", json=asked, headers=headers)
            async with request as reply:
                lines = (line async for line in reply.aiter_lines() if line)
                await anext(lines)
                clock.advance(0.3)
                gates[0].set()
                await anext(lines)
                clock.advance(0.6)
                gates[1].set()
                async for _ in lines:
                    pass
            await gateway.records.wait(1)


def page() -> str:
    """The page as it is now."""
    with (
        tempfile.TemporaryFile() as log,
        running_collector() as collector,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        asyncio.run(_record(log.fileno()))
        log.seek(0)
        line = msgspec.json.format(log.read(), indent=2).decode()
        spans = collector.spans
    tree = "\n".join(_tree(spans))
    return f"{_HEAD}```text\n{tree}\n```\n\nThe same request in the log:\n\n```json\n{line.strip()}\n```\n"


def _tree(spans: list[Span]) -> Iterator[str]:
    [root] = [span for span in spans if not span.parent_span_id]
    yield f"trace {root.trace_id.hex()}"
    yield from _branch(root, spans, root.start_time_unix_nano, "")


def _branch(span: Span, spans: list[Span], begin_ns: int, indent: str) -> Iterator[str]:
    offset_s = (span.start_time_unix_nano - begin_ns) / 1e9
    took_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    failed = " !" if span.status.code == Status.STATUS_CODE_ERROR else ""
    kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
    yield f"{indent}+{offset_s:.2f} s  {took_s:.2f} s  {span.name}  {kind}{failed}"
    facts = attributes_of(span)
    for name in sorted(facts.keys() - _VARYING):
        yield f"{indent}      {name} = {_shown(name, facts[name])}"
    below = [child for child in spans if child.parent_span_id == span.span_id]
    for child in sorted(below, key=lambda child: child.start_time_unix_nano):
        yield from _branch(child, spans, begin_ns, indent + "    ")


def _shown(name: str, value: Any) -> str:
    if name.endswith(".port"):
        return "PORT"
    if name == "url.full":
        return str(value).replace(str(value).split(":")[2].split("/")[0], "PORT")
    return json.dumps(round(value, 9) if isinstance(value, float) else value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
