"""`limit:` is held on every surface with one count, is shown in the listings, and is measured."""

from pathlib import Path

import httpx
import pytest

from gateway.telemetry import names
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat
from tests.running_gateway import ENVIRONMENT, RunningGateway, routes_yaml
from tests.scripted_upstream import ScriptedUpstream
from tests.store.test_windows import redis_server

USER = [{"role": "user", "content": "hello"}]
CALLS = (
    ("/gateway/chat/invocations", {"messages": USER}),
    ("/endpoints/chat/invocations", {"messages": USER}),
    ("/v1/chat/completions", {"model": "chat", "messages": USER}),
)
WORDS = "Rate limit exceeded: 2 per 1 hour"


async def call(gateway: RunningGateway, number: int) -> httpx.Response:
    path, body = CALLS[number % len(CALLS)]
    return await gateway.client.post(path, json=body)


async def test_one_count_for_all_surfaces(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Two calls an hour are two over all paths; the third is 429 on each, with the wait, and reaches no provider."""
    gateway = await start_gateway(routes_yaml(upstream.url, extra="limit: {calls: 2, renewal_period: hour}"))
    upstream.always(openai_chat())
    replies = [await call(gateway, number) for number in range(6)]
    assert [reply.status_code for reply in replies] == [200, 200, 429, 429, 429, 429]
    assert all(0 < int(reply.headers["retry-after"]) <= 3600 for reply in replies[2:])
    v1, mlflow = replies[2].json(), replies[3].json()
    assert (v1["error"]["message"], v1["error"]["type"], v1["error"]["code"]) == (
        WORDS,
        "rate_limit_error",
        "rate_limited",
    )
    assert (mlflow["error"], mlflow["detail"], mlflow["error_type"]) == (WORDS, WORDS, "rate_limited")
    assert upstream.hits == 2
    await gateway.records.wait(6)
    assert gateway.metric(names.REQUESTS, route="chat", outcome="policy", error_type="rate_limited") == 4


async def test_routes_have_counts_of_their_own(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A route that is used up leaves the others alone."""
    gateway = await start_gateway(routes_yaml(upstream.url, extra="limit: {calls: 1, renewal_period: hour}"))
    upstream.always(openai_chat())
    assert [(await call(gateway, 0)).status_code for _ in range(2)] == [200, 429]
    other = await gateway.client.post("/gateway/completions/invocations", json={"prompt": "a"})
    assert other.status_code == 200


async def test_wrong_bodies_are_not_counted(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A body that is refused takes no call away."""
    gateway = await start_gateway(routes_yaml(upstream.url, extra="limit: {calls: 1, renewal_period: hour}"))
    upstream.always(openai_chat())
    assert (await gateway.client.post("/gateway/chat/invocations", json={})).status_code == 422
    assert (await call(gateway, 0)).status_code == 200


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/api/2.0/gateway/routes/chat", "limit"), ("/api/2.0/endpoints/chat", "limit")],
)
async def test_listings_show_the_limit(start_gateway: StartGateway, path: str, shown: str) -> None:
    """The listings have the limit as the file has it."""
    gateway = await start_gateway(
        routes_yaml("http://provider.invalid", extra="limit: {calls: 5, renewal_period: minute, key: user}")
    )
    entry = (await gateway.client.get(path)).json()
    assert entry[shown] == {"calls": 5, "renewal_period": "minute", "key": "user"}


@pytest.mark.stack
async def test_two_gateways_share_a_redis(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Two gateways count together in a real server; when it dies each counts on, callers are served, and it shows."""
    upstream.always(openai_chat())
    with redis_server(tmp_path) as (url, process):
        config = "limits: {storage: $REDIS_URL}\n" + routes_yaml(
            upstream.url, extra="limit: {calls: 3, renewal_period: hour}"
        )
        environment = {**ENVIRONMENT, "REDIS_URL": url}
        one = await start_gateway(config, environment=environment)
        two = await start_gateway(config, environment=environment)
        codes = [(await call(gateway, 0)).status_code for gateway in (one, two, one, two, one)]
        assert codes == [200, 200, 200, 429, 429]
        process.kill()
        process.wait()
        assert [(await call(one, 0)).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert one.metric(names.LIMIT_STORAGE_ERRORS) >= 1
        assert two.metric(names.LIMIT_STORAGE_ERRORS) == 0


async def test_a_key_has_its_own_limit_over_all_routes(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """`calls_per_minute` of a gateway key counts over routes and surfaces; another key is not touched by it."""
    first, second = "gwk_aaaaaaaaaaaa_" + "s" * 43, "gwk_bbbbbbbbbbbb_" + "t" * 43
    keys = f"keys:\n  - {{secret: {first}, calls_per_minute: 2}}\n  - {{secret: {second}}}\n"
    gateway = await start_gateway(keys + routes_yaml(upstream.url, "endpoints"))
    upstream.always(openai_chat())

    async def code(key: str, path: str, body: object) -> int:
        reply = await gateway.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})
        return reply.status_code

    assert await code(first, *CALLS[0]) == 200
    assert await code(first, "/endpoints/completions/invocations", {"prompt": "a"}) == 200
    assert await code(first, *CALLS[2]) == 429
    assert await code(second, *CALLS[2]) == 200
