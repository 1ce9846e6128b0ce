"""The genuine MLflow clients of the past and the present find what they expect behind the one URI that apps change."""

import pytest

from tests.conftest import StartGateway
from tests.journeys.mlflow_environments import run_client
from tests.openai_replies import openai_chat, openai_completion, openai_embeddings, openai_error, openai_usage
from tests.replies import Reply
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.stack
HI = openai_usage(13, 7)


def last_replies() -> list[Reply]:
    """A retry that helps (429, then an answer), and a refusal that no retry would mend."""
    return [
        openai_error(429, "Slow down.", headers=[("retry-after", "0")]),
        openai_chat("second try", usage=HI),
        openai_error(401, "Incorrect API key provided."),
    ]


async def test_the_original_client(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """All calls of mlflow.gateway 2.8.1, fluent and client: results, retries and the errors that it raises."""
    gateway = await start_gateway(routes_yaml(upstream.url, extra="limit: {calls: 1000, renewal_period: minute}"))
    upstream.script(
        openai_chat("hi", usage=HI),
        openai_chat("blue", usage=HI),
        openai_embeddings([0.1], [0.2], prompt_tokens=8),
        openai_chat("again", usage=HI),
        *last_replies(),
    )
    got = await run_client("2.8", "mlflow_fluent_calls.py", gateway.url)

    assert got["uri"] == got["client_uri"] == gateway.url
    assert got["route"] == got["client_route"]
    assert got["route"]["name"] == "chat"
    assert got["route"]["route_type"] == "llm/v1/chat"
    assert got["route"]["model"] == {"name": "gpt-4o-mini", "provider": "openai"}
    assert got["route"]["route_url"] == f"{gateway.url}/gateway/chat/invocations"
    assert got["routes"] == got["client_routes"] == ["chat", "completions", "embeddings"]

    assert got["chat"]["candidates"][0] == {
        "message": {"role": "assistant", "content": "hi"},
        "metadata": {"finish_reason": "stop"},
    }
    assert got["chat"]["metadata"]["total_tokens"] == 20
    assert upstream.requests[0].json()["temperature"] == 0.8
    assert got["completions"]["candidates"][0]["text"] == "blue"
    assert got["embeddings"]["embeddings"] == [[0.1], [0.2]]
    assert got["client_query"]["candidates"][0]["message"]["content"] == "again"
    assert got["after_a_retry"]["candidates"][0]["message"]["content"] == "second try"

    assert "422" in got["wrong_body"]
    assert "too_short" in got["wrong_body"]
    assert "401" in got["refused_by_the_provider"]
    assert "Incorrect API key provided." in got["refused_by_the_provider"]
    assert "is not present or active on the server" in got["unknown_route"]
    assert "404" in got["query_of_unknown_route"]
    assert "The set_limits API is not available" in got["set_limits"]
    assert "The get_limits API is not available" in got["get_limits"]
    assert "nothing was raised" not in (got["create_route"], got["delete_route"])
    # Nothing was sent again but the 429.
    assert upstream.hits == 7


@pytest.mark.parametrize("release", ["2.22", "3"])
async def test_the_deployments_client(upstream: ScriptedUpstream, start_gateway: StartGateway, release: str) -> None:
    """All calls of mlflow.deployments against an http target, of the last 2.x and of 3.x."""
    gateway = await start_gateway(
        routes_yaml(upstream.url, "endpoints", extra="limit: {calls: 1000, renewal_period: minute}")
    )
    upstream.script(
        openai_chat("hi", usage=HI),
        openai_completion("blue"),
        openai_embeddings([0.1], [0.2], prompt_tokens=8),
        *last_replies(),
    )
    got = await run_client(release, "mlflow_deployments_calls.py", gateway.url)

    assert got["endpoint"] == {
        "name": "chat",
        "endpoint_type": "llm/v1/chat",
        "model": {"name": "gpt-4o-mini", "provider": "openai"},
        "endpoint_url": f"{gateway.url}/gateway/chat/invocations",
        "limit": {"calls": 1000, "key": None, "renewal_period": "minute"},
    }
    assert got["endpoints"] == ["chat", "completions", "embeddings"]
    assert got["chat"]["choices"][0]["message"]["content"] == "hi"
    assert got["chat"]["usage"]["total_tokens"] == 20
    assert upstream.requests[0].json()["temperature"] == 1.5
    assert got["completions"]["choices"][0]["text"] == "blue"
    assert [item["embedding"] for item in got["embeddings"]["data"]] == [[0.1], [0.2]]
    assert got["after_a_retry"]["choices"][0]["message"]["content"] == "second try"
    assert "422" in got["wrong_body"]
    assert "Incorrect API key provided." in got["refused_by_the_provider"]
    assert "is not present or active on the server" in got["unknown_endpoint"]
    assert got["predict_stream"].startswith("NotImplementedError")
    assert upstream.hits == 6


async def test_the_original_client_finds_endpoints_too(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """An `endpoints:` file is listed to the old client as well: both families show every route."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    for path, key in (("/api/2.0/gateway/routes/", "routes"), ("/api/2.0/endpoints/", "endpoints")):
        listed = (await gateway.client.get(path)).json()[key]
        assert [item["name"] for item in listed] == ["chat", "completions", "embeddings"]
