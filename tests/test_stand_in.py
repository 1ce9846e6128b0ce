"""The stand-in providers answer like OpenAI, keep a rate limit, and have the faults that they are given."""

import json
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from gateway import stand_in, traffic
from gateway.stand_in import CHARACTERS, TOKENS_A_REQUEST, make_server
from tests.running_gateway import running_gateway

TOUR = Path(__file__).parents[1] / "examples" / "tour.yaml"
LONG = [{"role": "system", "content": "Say which page you used. " * 400}, {"role": "user", "content": "Why?"}]


class Waits:
    """Counts the seconds that would have been slept."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def __call__(self, seconds: float) -> None:
        self.total_s += seconds


@contextmanager
def stand_ins() -> Iterator[tuple[httpx.Client, Waits]]:
    waits = Waits()
    with make_server("127.0.0.1", 0, random.Random(1), lambda: 1_000.0, waits) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
                yield client, waits
        finally:
            server.shutdown()
            thread.join()


def _chat(client: httpx.Client, provider: str = "groq", **more: object) -> httpx.Response:
    return client.post(f"/{provider}/v1/chat/completions", json={"model": "m", "messages": LONG, **more})


def _usage(reply: httpx.Response) -> dict[str, Any]:
    return dict(reply.json()["usage"])


def test_usage_counts_what_came_in_and_went_out() -> None:
    """A reply says its tokens; a long beginning that was sent before is read from the cache."""
    with stand_ins() as (client, _):
        first, second = _usage(_chat(client, max_tokens=20)), _usage(_chat(client))
    assert first["prompt_tokens"] > 2_000
    assert 1 <= first["completion_tokens"] <= 20
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert 1_024 <= second["prompt_tokens_details"]["cached_tokens"] < second["prompt_tokens"]


def test_a_stream_tells_its_usage_when_asked() -> None:
    """Chunks, then usage if it was asked for (Mistral's always), then [DONE]."""
    with stand_ins() as (client, _):
        asked = _chat(client, stream=True, stream_options={"include_usage": True}).text
        silent = _chat(client, stream=True).text
        unasked = _chat(client, "mistral", stream=True).text
    events = [line.removeprefix("data: ") for line in asked.splitlines() if line]
    assert events[-1] == "[DONE]"
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in map(json.loads, events[:-2])]
    assert len([piece for piece in pieces if piece]) == json.loads(events[-2])["usage"]["completion_tokens"]
    assert '"usage"' not in silent
    assert '"usage"' in unasked


def test_a_fault_is_given_and_taken_away() -> None:
    """A provider with a fault fails and waits longer, the others do not, and it is well once the fault is taken away."""
    with stand_ins() as (client, waits):
        _chat(client)
        usual_s, waits.total_s = waits.total_s, 0.0
        assert client.put("/fault/groq?slower=100").json() == {"groq": {"slower": 100.0, "failing": 0.0}}
        _chat(client)
        assert waits.total_s > 10 * usual_s
        client.put("/fault/groq?failing=1")
        assert _chat(client).status_code == 503
        assert _chat(client, "openai").status_code == 200
        assert client.get("/").json()["groq"]["failing"] == 1
        client.delete("/fault/groq")
        assert _chat(client).status_code == 200


@pytest.mark.parametrize("path", ["/fault/nobody?slower=2", "/fault/groq?slower=much", "/fault/groq?colour=1"])
def test_a_wrong_fault_is_refused(path: str) -> None:
    """A provider, a field or a value that there is not changes nothing."""
    with stand_ins() as (client, _):
        assert client.put(path).status_code in {400, 404}
        assert all(fault == {"slower": 1.0, "failing": 0.0} for fault in client.get("/").json().values())


def test_a_minute_has_its_limit() -> None:
    """Each reply says what is left of the minute; the request after the last is refused."""
    limit = CHARACTERS["groq"].requests_a_minute
    with stand_ins() as (client, _):
        left = [int(_chat(client, max_tokens=1).headers["x-ratelimit-remaining-requests"]) for _ in range(limit)]
        refused = _chat(client)
    assert left == list(range(limit - 1, -1, -1))
    assert 0 < int(refused.headers["x-ratelimit-remaining-tokens"]) < limit * TOKENS_A_REQUEST
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


def test_nobody_else_stands_in() -> None:
    """A provider that there is not is 404, by name."""
    with stand_ins() as (client, _):
        reply = _chat(client, "nobody")
    assert reply.status_code == 404
    assert "'nobody'" in reply.text


async def test_every_caller_of_the_tour_gets_what_it_expects() -> None:
    """Through a real gateway with examples/tour.yaml, each kind of request ends as it should, and teams pay."""
    with stand_ins() as (client, _):
        text = TOUR.read_text("utf-8").replace("http://127.0.0.1:8090", str(client.base_url).rstrip("/"))
        async with running_gateway(text) as gateway:
            for scenario in traffic.TOUR:
                content = scenario.body(random.Random(1))
                headers = {"authorization": f"Bearer {scenario.key}"}
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                reply = await gateway.client.post(scenario.path, content=body, headers=headers)
                assert reply.status_code in scenario.expects, f"{scenario.name}: {reply.text}"
            records = await gateway.records.wait(len(traffic.TOUR))
    payers = {record.caller.team for record in records if record.cost_nano_usd}
    assert payers == {"search", "support", "growth", "research"}


def test_the_keys_of_the_tour_are_its_callers() -> None:
    """examples/tour.yaml knows exactly the keys that the callers send."""
    document = yaml.safe_load(TOUR.read_text("utf-8"))
    assert {one["team"]: one["secret"] for one in document["keys"]} == traffic.TOUR_KEYS


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where somebody listens already there is one line with the remedy, and no traceback."""
    with socket.create_server((stand_in.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["stand_in", "--port", str(port)])
        assert stand_in.main() == 1
    assert f"port {port} on {stand_in.HOST} cannot be used" in capsys.readouterr().err
