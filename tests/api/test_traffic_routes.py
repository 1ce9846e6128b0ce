"""MLflow 3's `routes:` with destinations: requests are shared out between endpoints of the file."""

import re

import pytest

from gateway.config.errors import ConfigError
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat
from tests.running_gateway import routes_yaml, settings_of
from tests.scripted_upstream import ScriptedUpstream

_TRAFFIC = """
routes:
  - name: split
    task_type: llm/v1/chat
    destinations:
      - {name: chat, traffic_percentage: 80}
      - {name: chat2, traffic_percentage: 20}
"""
USER = [{"role": "user", "content": "hello"}]


def config(base: str, traffic: str = _TRAFFIC) -> str:
    """Two chat endpoints with a model each, and a route over both."""
    second = """  - name: chat2
    endpoint_type: llm/v1/chat
    model: {provider: openai, name: gpt-4o, config: {openai_api_key: k, openai_api_base: BASE/v1}}
"""
    return traffic + routes_yaml(base, "endpoints") + second.replace("BASE", base)


async def test_traffic_is_shared_out(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Both models serve the route in about their shares, in the endpoints' shape on both paths."""
    gateway = await start_gateway(config(upstream.url))
    upstream.always(lambda request: openai_chat("hi"))
    for number in range(100):
        family = "gateway" if number % 2 else "endpoints"
        reply = await gateway.client.post(f"/{family}/split/invocations", json={"messages": USER})
        assert reply.json()["choices"][0]["message"]["content"] == "hi"
    models = [request.json()["model"] for request in upstream.requests]
    assert set(models) == {"gpt-4o-mini", "gpt-4o"}
    # The rng of tests is seeded: 80 of 100 within three standard deviations.
    assert 68 <= models.count("gpt-4o-mini") <= 92


async def test_listings(start_gateway: StartGateway) -> None:
    """A traffic route has a path of its own and is in none of the older listings; endpoints have both."""
    gateway = await start_gateway(config("http://127.0.0.1:9"))
    route = await gateway.client.get("/api/3.0/gateway/route/split")
    assert route.json() == {
        "name": "split",
        "task_type": "llm/v1/chat",
        "destinations": [
            {"name": "chat", "traffic_percentage": 80},
            {"name": "chat2", "traffic_percentage": 20},
        ],
        "routing_strategy": "TRAFFIC_SPLIT",
    }
    endpoint = (await gateway.client.get("/api/3.0/gateway/endpoint/chat2")).json()
    assert endpoint == (await gateway.client.get("/api/2.0/endpoints/chat2")).json()
    names = [entry["name"] for entry in (await gateway.client.get("/api/2.0/endpoints/")).json()["endpoints"]]
    assert names == ["chat", "completions", "embeddings", "chat2"]
    for path, word in (
        ("/api/3.0/gateway/route/chat", "route"),
        ("/api/3.0/gateway/endpoint/split", "endpoint"),
        ("/api/2.0/endpoints/split", "endpoint"),
    ):
        missing = await gateway.client.get(path)
        assert missing.status_code == 404
        assert missing.json()["detail"].startswith(f"The {word} '")


@pytest.mark.parametrize(
    ("written", "instead", "path", "words"),
    [
        ("80", "70", "routes[0].destinations", "the traffic percentage sum of destinations must be 100"),
        ("{name: chat,", "{name: nope,", "routes[0].destinations[0].name", "has an invalid destination name 'nope'"),
        ("name: chat2", "name: embeddings", "routes[0].destinations[1].name", "got endpoint type 'llm/v1/embeddings'"),
        ("80", "180", "routes[0].destinations[0]", "percentage must between 0 and 100"),
        ("task_type", "route_type", "routes[0].route_type", "unknown field"),
    ],
)
def test_refused_files(written: str, instead: str, path: str, words: str) -> None:
    """What MLflow refuses is refused in its words, with the path."""
    with pytest.raises(ConfigError, match=re.escape(words)) as refusal:
        settings_of(config("http://127.0.0.1:9", _TRAFFIC.replace(written, instead)))
    assert str(refusal.value).startswith(f"{path}:")
