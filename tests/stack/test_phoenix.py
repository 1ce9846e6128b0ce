"""A second backend, made by others, understands the spans from their attributes alone: arize-phoenix."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.telemetry.setup import TraceExport
from tests.openai_replies import openai_chat, openai_error, openai_stream, openai_usage
from tests.proving import Proof
from tests.running_gateway import running_gateway
from tests.scripted_upstream import ScriptedUpstream
from tests.stack.processes import free_port

VERSION = "20.26.1"
PROGRAM = Path(__file__).parents[2] / "build" / "phoenix" / "bin" / "phoenix"
_START_S = 300.0
_ARRIVE_S = 60.0
SPANS = """{projects {edges {node {name
  costSummary {total {cost tokens}}
  spans(first: 100) {edges {node {
    name spanKind statusCode trace {traceId} parentId attributes
    tokenCountPrompt tokenCountCompletion costSummary {total {cost}}
  }}}
}}}}"""


@pytest.fixture(scope="module")
def program() -> str:
    """Phoenix's program: GAUGEWAY_PHOENIX, or a virtual environment of its own, made here where there is none."""
    chosen = os.environ.get("GAUGEWAY_PHOENIX")
    if chosen:
        return chosen
    if not PROGRAM.exists():
        folder = PROGRAM.parents[1]
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", f"arize-phoenix=={VERSION}"],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"arize-phoenix cannot be installed here: {done.stderr.strip()[-300:]}")
    return str(PROGRAM)


@asynccontextmanager
async def running_phoenix(program: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Phoenix on a free port, with an empty store."""
    port = free_port()
    own = {
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "phoenix.log").open("wb") as log:
        process = subprocess.Popen([program, "serve"], stdout=log, stderr=log, env=os.environ | own)  # noqa: ASYNC220 - it returns at once
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            async with asyncio.timeout(_START_S):
                while not await _is_up(client):
                    assert process.poll() is None, (folder / "phoenix.log").read_text()[-2000:]
                    await asyncio.sleep(0.5)
            yield client
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


async def _is_up(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def _spans(client: httpx.AsyncClient, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The project and its spans, once there are `count`."""
    async with asyncio.timeout(_ARRIVE_S):
        while True:
            reply = await client.post("/graphql", json={"query": SPANS})
            [edge] = reply.json()["data"]["projects"]["edges"]
            spans = [span["node"] for span in edge["node"]["spans"]["edges"]]
            if len(spans) >= count:
                return edge["node"], spans
            await asyncio.sleep(0.5)


@pytest.mark.prove(share=0.5)
@pytest.mark.timeout(900)
async def test_phoenix_shows_models_tokens_messages_and_cost(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proof: Proof
) -> None:
    """A unary call, and a stream after a retry: each attempt is an LLM span with its model, its tokens, its messages and
    its failure, in one trace with its request; and the cost by Phoenix's own prices is the gateway's, to the nano-dollar.
    """
    async with running_phoenix(program, tmp_path) as phoenix, ScriptedUpstream() as upstream:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(phoenix.base_url).rstrip("/"))
        account = {"openai_api_key": "sk-test", "openai_api_base": f"{upstream.url}/v1"}
        model = {"provider": "openai", "name": "gpt-4o-mini", "config": account}
        route = {
            "name": "chat",
            "endpoint_type": "llm/v1/chat",
            "retries": 1,
            "content": {"to": "span"},
            "model": model,
        }
        async with running_gateway(json.dumps({"endpoints": [route]}), export=TraceExport.OTLP) as gateway:
            busy = openai_error(503, headers=[("retry-after-ms", "1")])
            upstream.script(openai_chat("Paris", usage=openai_usage(1000, 500)))
            upstream.script(busy, openai_stream(["Ber", "lin"], usage=openai_usage(2000, 100)))
            body = {"messages": [{"role": "user", "content": "Which capital?"}]}
            for stream in (False, True):
                reply = await gateway.client.post("/endpoints/chat/invocations", json=body | {"stream": stream})
                assert reply.status_code == 200
            records = await gateway.records.wait(2)
        project, spans = await _spans(phoenix, 2 + 3 + 3)
    assert {span["trace"]["traceId"] for span in spans} == {record.trace.trace_id_hex for record in records}
    attempts = [span for span in spans if span["spanKind"] == "llm"]
    assert {span["name"] for span in attempts} == {"chat gpt-4o-mini"}
    told = sorted(
        (span["statusCode"], span["tokenCountPrompt"] or 0, span["tokenCountCompletion"] or 0) for span in attempts
    )
    assert told == [("ERROR", 0, 0), ("UNSET", 1000, 500), ("UNSET", 2000, 100)]
    shown = [json.loads(span["attributes"])["llm"] for span in attempts if span["statusCode"] == "UNSET"]
    for llm in shown:
        assert (llm["model_name"], llm["provider"]) == ("gpt-4o-mini", "openai")
        assert llm["input_messages"][0]["message"]["content"] == "Which capital?"
    assert {llm["output_messages"][0]["message"]["content"] for llm in shown} == {"Paris", "Berlin"}
    ours_usd = sum(record.cost_nano_usd or 0 for record in records) / 1e9
    theirs_usd = project["costSummary"]["total"]["cost"]
    assert theirs_usd == pytest.approx(ours_usd, abs=1e-9)
    proof.found(spans=len(spans), tokens=int(project["costSummary"]["total"]["tokens"]), cost_usd=theirs_usd)
