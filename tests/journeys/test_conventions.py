"""Each provider's attempts in each generation of the GenAI conventions, as files that a reviewer can read.

`tests/golden/<provider>.json` has, for a unary call, a stream, a refusal and a caller who leaves, the attempt's span
and the samples of the conventions' metrics. Write them anew with GAUGEWAY_WRITE_GOLDEN=1, and read the difference.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from msgspec import Struct, structs
from opentelemetry.sdk.resources import Resource

from gateway.config.schema import Semconv
from gateway.providers.registry import PROVIDERS, canonical_name
from gateway.providers.spec import Framing
from gateway.serve.routing import BoundRoute, BoundTarget
from gateway.telemetry.cells import Block
from gateway.telemetry.metric import Kind
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.names import EVERY_FAMILY
from gateway.telemetry.spans import SpanMaker
from gateway.types.auth import HeaderAuth
from gateway.types.records import RequestRecord
from gateway.types.route import Operation, Route, Target
from tests.clocks import ManualClock
from tests.providers.cases import CASES, Case
from tests.replies import BytesReply, Reply, StreamReply
from tests.running_gateway import RunningGateway, routes_yaml, running_gateway
from tests.scripted_upstream import ScriptedUpstream

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted({case.path.parent.name for case in CASES})
PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
}
CONTENT_TYPES = {
    Framing.SSE: "text/event-stream",
    Framing.NDJSON: "application/x-ndjson",
    Framing.AWS_EVENT_STREAM: "application/vnd.amazon.eventstream",
}
VARYING = {"gateway.connect_s", "gateway.cost.usd", "gateway.cost.nano_usd"}
"""Real time, and what changes with the packaged prices."""


class Journey(Struct, frozen=True):
    """One request: the account and the request of `case`, answered with the fixture of `answer`."""

    name: str
    case: Case
    answer: Case


def _usable(case: Case) -> bool:
    return case.file.operation in PATHS and not case.file.original_shape and case.has("request.json")


def _first(provider: str, file: str, operation: Operation | None = None) -> Case | None:
    """The provider's first case that has a file; of a chat where there is one."""
    found = [
        case
        for case in CASES
        if case.path.parent.name == provider
        and _usable(case)
        and case.has(file)
        and not case.has("refusal.json")
        and not case.has("stream_error.json")
        and operation in (None, case.file.operation)
    ]
    return min(found, key=lambda case: (case.file.operation is not Operation.CHAT, case.id), default=None)


def journeys(provider: str) -> list[Journey]:
    """What is asked of a provider: what its page says, or for a new page what there is."""
    page = GOLDEN / f"{provider}.json"
    if not page.exists():
        return _new_journeys(provider)
    by_id = {case.id: case for case in CASES}
    return [Journey(name, by_id[told["case"]], by_id[told["answer"]]) for name, told in _read(page).items()]


def _read(page: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(page.read_text())
    return read


def _new_journeys(provider: str) -> list[Journey]:
    """Those that speak OpenAI's dialect and have no answers of their own get OpenAI's."""
    asked = _first(provider, "upstream_reply.json") or _first(provider, "request.json")
    assert asked is not None, provider
    answer = asked if asked.has("upstream_reply.json") else _first("openai", "upstream_reply.json", Operation.CHAT)
    assert answer is not None
    found = [Journey("unary", asked, answer), Journey("error", asked, answer)]
    streams = [name for name in ("upstream.sse", "upstream.ndjson", "upstream.aws.json") if _first(provider, name)]
    streamed = _first(provider, streams[0]) if streams else None
    if streamed is None and asked.endpoint().dialect.name == "openai" and asked.codec().open_stream is not None:
        stream = _first("openai", "upstream.sse", Operation.CHAT)
        assert stream is not None
        found += [Journey("stream", asked, stream), Journey("cancel", asked, stream)]
    elif streamed is not None:
        found += [Journey("stream", streamed, streamed), Journey("cancel", streamed, streamed)]
    return found


def bound(case: Case, base_url: str) -> BoundRoute:
    """The case's account as a route, sent to the test's upstream; signals name the vendor's own address."""
    endpoint = case.endpoint()
    vendor = urlsplit(endpoint.base_url)
    provider = PROVIDERS[canonical_name(case.path.parent.name)]
    moved = structs.replace(endpoint, base_url=base_url + vendor.path, auth=HeaderAuth())
    route = Route(
        name="r",
        route_type=case.file.operation.route_type,
        original_shape=False,
        targets=(Target(provider=provider.name, model=case.file.model, config=None),),
    )
    target = BoundTarget(
        target=route.targets[0],
        endpoint=moved,
        provider_title=provider.name,
        gen_ai_provider=provider.gen_ai_name,
        server_address=vendor.hostname or "",
        server_port=vendor.port or (80 if vendor.scheme == "http" else 443),
    )
    return BoundRoute(route=route, targets=(target,))


def _reply(journey: Journey) -> Reply:
    case = journey.answer
    if journey.name == "unary":
        return BytesReply(case.bytes("upstream_reply.json"))
    if journey.name == "error":
        return BytesReply(b'{"error": {"message": "slow down"}}', status=429)
    name = case.stream_name
    assert name is not None
    content_type = CONTENT_TYPES[journey.case.endpoint().dialect.framing]
    whole = case.bytes(name)
    if journey.name == "stream":
        return StreamReply([whole], content_type=content_type)
    # Until the first text is surely there; the rest never comes.
    return StreamReply([whole[: len(whole) * 3 // 4], asyncio.Event()], content_type=content_type)


async def _record(gateway: RunningGateway, upstream: ScriptedUpstream, journey: Journey) -> RequestRecord:
    case = journey.case
    gateway.gateway.routes = {"r": bound(case, upstream.url)}
    asked = case.json("request.json") | {"model": "r"}
    body = {name: value for name, value in asked.items() if name not in {"stream", "stream_options"}}
    if journey.name in {"stream", "cancel"}:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    upstream.script(_reply(journey))
    before = len(gateway.records.all)
    request = gateway.client.stream("POST", PATHS[case.file.operation], json=body)
    async with request as reply:
        if journey.name == "cancel":
            await anext(reply.aiter_bytes())
        else:
            await reply.aread()
            assert (reply.status_code == 200) == (journey.name != "error"), (case.id, reply.text)
    return (await gateway.records.wait(before + 1))[-1]


def told(record: RequestRecord) -> dict[str, Any]:
    """The attempt's span and the conventions' samples: what every generation has, and what each has beside it."""
    spans: dict[Semconv, dict[str, Any]] = {}
    samples: dict[Semconv, dict[str, Any]] = {}
    labels: dict[str, str] = {}
    for semconv in Semconv:
        _, span, *_ = SpanMaker(Resource({}), semconv).spans_of(record)
        spans[semconv] = {"name": span.name, "kind": span.kind.name, "status": span.status.status_code.name}
        spans[semconv] |= {key: value for key, value in (span.attributes or {}).items() if key not in VARYING}
        metrics = Metrics(Block.private(), semconv)
        metrics.record(record)
        samples[semconv], labels = _samples(metrics)
    common = {key: value for key, value in spans[Semconv.BOTH].items() if all(key in spans[s] for s in Semconv)}
    alone = {s: {k: v for k, v in spans[s].items() if common.get(k) != v} for s in (Semconv.V1_41, Semconv.LATEST)}
    # `both` is all of the two, and no more.
    assert spans[Semconv.BOTH] == common | alone[Semconv.LATEST] | alone[Semconv.V1_41]
    assert samples[Semconv.BOTH] == samples[Semconv.V1_41] | samples[Semconv.LATEST]
    assert not samples[Semconv.V1_41].keys() & samples[Semconv.LATEST].keys()
    return {
        "span": common,
        "labels": labels,
        **{
            semconv.value: {"span": alone[semconv], "metrics": samples[semconv]}
            for semconv in (Semconv.V1_41, Semconv.LATEST)
        },
    }


def _samples(metrics: Metrics) -> tuple[dict[str, Any], dict[str, str]]:
    """`<family>` (and the labels that only some families have) to a counter's value, or a histogram's sum and count;
    and the labels that all have.
    """
    found: dict[str, Any] = {}
    common: dict[str, str] = {}
    reading = metrics.read()
    for metric in EVERY_FAMILY:
        if metric.semconv is None:
            continue
        for values, series in reading.get(metric.name, {}).items():
            labels = dict(zip(metric.labels, values, strict=True))
            own = {name: labels.pop(name) for name in ("gen_ai_token_type", "gen_ai_token_modality") if name in labels}
            common = common or labels
            assert labels == common
            name = metric.name + "".join(f"{{{key}={value}}}" for key, value in own.items())
            if metric.kind is Kind.COUNTER:
                found[name] = series.values[0]
            else:
                found[name] = {"sum": series.values[0], "count": sum(series.values[1:])}
    return found, common


async def _all() -> dict[str, dict[str, Any]]:
    pages: dict[str, dict[str, Any]] = {}
    async with (
        ScriptedUpstream() as upstream,
        running_gateway(routes_yaml(upstream.url, "endpoints"), clock=ManualClock()) as gateway,
    ):
        for provider in NAMES:
            pages[provider] = {
                journey.name: {"case": journey.case.id, "answer": journey.answer.id}
                | told(await _record(gateway, upstream, journey))
                for journey in journeys(provider)
            }
    return pages


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Every provider's page as it is now."""
    made = asyncio.run(_all())
    texts = {
        name: msgspec.json.format(msgspec.json.encode(page), indent=1).decode() + "\n" for name, page in made.items()
    }
    if os.environ.get("GAUGEWAY_WRITE_GOLDEN"):
        for name, text in texts.items():
            (GOLDEN / f"{name}.json").write_text(text)
    return texts


@pytest.mark.parametrize("provider", NAMES)
def test_a_providers_page_is_current(pages: dict[str, str], provider: str) -> None:
    """Unary, streamed, refused and abandoned, its spans and metrics are those that were read and agreed to."""
    assert json.loads(pages[provider]) == _read(GOLDEN / f"{provider}.json")


def test_no_page_is_left_over() -> None:
    """Each file is of a provider that there is."""
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == NAMES
