"""An edited configuration is served from the next request on; a wrong one changes nothing, and shows."""

import asyncio
from pathlib import Path

import pytest

from gateway.telemetry import names
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat
from tests.running_gateway import ENVIRONMENT, RunningGateway, routes_yaml
from tests.scripted_upstream import ScriptedUpstream

USER = [{"role": "user", "content": "hello"}]
BODY = {"messages": USER}


async def status(gateway: RunningGateway, route: str = "chat") -> int:
    return (await gateway.client.post(f"/gateway/{route}/invocations", json=BODY)).status_code


async def test_an_edit_takes_effect_and_no_request_is_dropped(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """While calls go on and one is in flight, routes change their model and their names: every call is answered."""
    file = tmp_path / "gateway.yaml"
    config = routes_yaml(upstream.url)
    second_route = config[len("routes:\n") : config.index("  - name: completions")].replace("name: chat", "name: talk")
    gateway = await start_gateway(config, config_path=file)
    hold = asyncio.Event()
    upstream.script(openai_chat("slow", hold=hold))
    slow = asyncio.create_task(gateway.client.post("/gateway/chat/invocations", json=BODY))
    await upstream.wait_requests(1)

    upstream.always(lambda request: openai_chat(model=request.json()["model"]))
    stop = asyncio.Event()
    codes: list[int] = []

    async def call_on() -> None:
        while not stop.is_set():
            codes.append(await status(gateway))

    calling = asyncio.create_task(call_on())
    for model in ("gpt-4o", "gpt-5"):
        async with gateway.reload():
            file.write_text(config.replace("gpt-4o-mini", model) + second_route)
        answer = await gateway.client.post("/gateway/chat/invocations", json=BODY)
        assert answer.json()["metadata"]["model"] == model
        assert await status(gateway, "talk") == 200
    stop.set()
    await calling
    assert set(codes) == {200}
    async with gateway.reload():
        file.write_text(config.replace("name: chat\n", "name: talk\n", 1))
    assert await status(gateway, "talk") == 200
    assert await status(gateway) == 404
    hold.set()
    assert (await slow).json()["candidates"][0]["message"]["content"] == "slow"
    listed = (await gateway.client.get("/api/2.0/gateway/routes/")).json()["routes"]
    assert [route["name"] for route in listed] == ["talk", "completions", "embeddings"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("routes: [", "is not a valid yaml file"),
        (routes_yaml("http://x").replace("provider: openai", "provider: nobody", 1), "routes[0].model.provider"),
        (routes_yaml("http://x").replace("$OPENAI_API_KEY", "$UNSET", 1), "Environment variable 'UNSET' is not set"),
        ("", "must be a mapping"),
        (None, "does not exist"),
    ],
)
async def test_a_wrong_edit_changes_nothing_and_shows(
    upstream: ScriptedUpstream,
    start_gateway: StartGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    wrong: str | None,
    reason: str,
) -> None:
    """The old configuration serves on; log, metric and health name the cause, until the file is right again."""
    file = tmp_path / "gateway.yaml"
    config = routes_yaml(upstream.url)
    gateway = await start_gateway(config, config_path=file)
    upstream.always(openai_chat())
    assert gateway.metric(names.CONFIG_RELOAD_SUCCESSFUL) == 1
    loaded = gateway.metric(names.CONFIG_RELOAD_TIMESTAMP)
    async with gateway.reload():
        if wrong is None:
            file.unlink()
        else:
            file.write_text(wrong)
    health = await gateway.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "OK")
    assert reason in health.json()["detail"]
    assert any(reason in record.getMessage() and record.levelname == "WARNING" for record in caplog.records)
    assert gateway.metric(names.CONFIG_RELOAD_SUCCESSFUL) == 0
    assert gateway.metric(names.CONFIG_RELOAD_TIMESTAMP) == loaded
    assert await status(gateway) == 200

    async with gateway.reload():
        file.write_text(config)
    assert (await gateway.client.get("/health")).json() == {"status": "OK"}
    assert gateway.metric(names.CONFIG_RELOAD_SUCCESSFUL) == 1


async def test_a_new_key_in_its_file_is_used(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Key files are watched with the configuration; one that is emptied is refused and, filled again, taken."""
    key, file = tmp_path / "key", tmp_path / "gateway.yaml"
    key.write_text("first\n")
    gateway = await start_gateway(routes_yaml(upstream.url), environment={"OPENAI_API_KEY": "unused"}, config_path=file)
    async with gateway.reload():
        file.write_text(routes_yaml(upstream.url).replace("$OPENAI_API_KEY", str(key)))
    upstream.always(openai_chat())
    await status(gateway)
    async with gateway.reload():
        key.write_text("")
    assert "the key file is empty" in (await gateway.client.get("/health")).json()["detail"]
    await status(gateway)
    async with gateway.reload():
        key.write_text("second\n")
    await status(gateway)
    sent = [request.header("authorization") for request in upstream.requests]
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]


async def test_gateway_keys_and_limits_reload(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A key that is taken out of the file opens nothing any more, and a new limit holds from the next call on."""
    file = tmp_path / "gateway.yaml"
    first, second = "gwk_aaaaaaaaaaaa_" + "s" * 43, "gwk_bbbbbbbbbbbb_" + "t" * 43
    routes = routes_yaml(upstream.url)
    gateway = await start_gateway(f"keys: [{{secret: {first}}}, {{secret: {second}}}]\n" + routes, config_path=file)
    upstream.always(openai_chat())

    async def with_key(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return (await gateway.client.post("/gateway/chat/invocations", json=BODY, headers=headers)).status_code

    assert [await with_key(first), await with_key(second)] == [200, 200]
    async with gateway.reload():
        file.write_text(
            f"keys: [{{secret: {second}}}]\n"
            + routes_yaml(upstream.url, extra="limit: {calls: 1, renewal_period: hour, key: route}")
        )
    assert [await with_key(first), await with_key(second), await with_key(second)] == [401, 200, 429]


async def test_a_wrong_gateway_key_is_refused_whole(
    upstream: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A file whose routes are right and whose keys are not changes neither."""
    file = tmp_path / "gateway.yaml"
    gateway = await start_gateway(routes_yaml(upstream.url), config_path=file)
    upstream.always(openai_chat())
    async with gateway.reload():
        file.write_text("keys: [{secret: short}]\n" + routes_yaml(upstream.url).replace("name: chat\n", "name: talk\n"))
    assert "keys[0]" in (await gateway.client.get("/health")).json()["detail"]
    assert await status(gateway) == 200


async def test_secrets_stay_out_of_health(start_gateway: StartGateway, tmp_path: Path) -> None:
    """A line that is no YAML is named by its place; what stands in it may be a key."""
    file = tmp_path / "gateway.yaml"
    gateway = await start_gateway(routes_yaml("http://x"), environment=ENVIRONMENT, config_path=file)
    async with gateway.reload():
        file.write_text("routes:\n  - openai_api_key: sk-4711: oops\n")
    detail = (await gateway.client.get("/health")).json()["detail"]
    assert "line 2" in detail
    assert "4711" not in detail
