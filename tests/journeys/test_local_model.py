"""A real language model answers through the gateway, and one trace id joins all that is said of its answer."""

import json
import os
from pathlib import Path

import pytest

from gateway.telemetry.setup import TraceExport
from tests.collector import attributes_of, running_collector
from tests.local_model_process import LocalModel
from tests.running_gateway import running_gateway


def _config(model: LocalModel) -> str:
    def route(name: str, base: str) -> dict[str, object]:
        target = {"provider": "llamacpp", "name": "smollm2-135m-instruct", "config": {"llamacpp_api_base": base}}
        return {"name": name, "route_type": f"llm/v1/{name}", "model": target}

    routes = [route("chat", model.chat), route("completions", model.chat), route("embeddings", model.embeddings)]
    return json.dumps({"routes": routes})


@pytest.mark.model
async def test_one_trace_id_joins_reply_log_span_and_exemplar(
    local_model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply's trace id stands in its log line, its spans and an exemplar; the token counts of all of them agree."""
    log = tmp_path / "requests.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with running_gateway(_config(local_model), export=TraceExport.OTLP, log_descriptor=descriptor) as gateway:
            body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16}
            reply = await gateway.client.post("/gateway/chat/invocations", json=body, timeout=60)
            await gateway.records.wait(1)
            exemplars = [
                sample.exemplar.labels["trace_id"]
                for family in gateway.registry.collect()
                for sample in family.samples
                if sample.exemplar is not None
            ]
        spans = [(span.trace_id.hex(), attributes_of(span)) for span in collector.spans]
    os.close(descriptor)
    trace_id = reply.headers["x-gateway-trace-id"]
    assert reply.json()["candidates"][0]["message"]["content"]
    usage = reply.json()["metadata"]
    [line] = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["trace_id"], *(trace for trace, _ in spans), *exemplars} == {trace_id}
    [attempt] = [facts for _, facts in spans if "gen_ai.operation.name" in facts]
    counts = (usage["input_tokens"], usage["output_tokens"])
    assert counts == (line["input_tokens"], line["output_tokens"])
    assert counts == (attempt["gen_ai.usage.input_tokens"], attempt["gen_ai.usage.output_tokens"])
    assert attempt["gateway.route"] == "chat"


@pytest.mark.model
async def test_completions_and_embeddings_are_real(local_model: LocalModel) -> None:
    """The other two routes answer from the model as well: text, and vectors of one length."""
    async with running_gateway(_config(local_model)) as gateway:
        text = await gateway.client.post(
            "/gateway/completions/invocations", json={"prompt": "The sky is", "max_tokens": 8}, timeout=60
        )
        vectors = await gateway.client.post(
            "/gateway/embeddings/invocations", json={"text": ["a lighthouse", "a gateway"]}, timeout=60
        )
    assert text.json()["candidates"][0]["text"].strip()
    first, second = vectors.json()["embeddings"]
    assert len(first) == len(second) > 100
    assert first != second
