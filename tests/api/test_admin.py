"""The administrators' API: denied by default, and true to the ledger."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from litestar import Litestar
from litestar.testing import AsyncTestClient

from gateway.api.admin import Admin, admin_app
from gateway.cli import main
from gateway.config.money import LedgerFile
from gateway.server import make_server
from gateway.spend.budgets import BudgetBook
from gateway.spend.keys import Keyring
from gateway.spend.ledger import Accounts
from gateway.spend.prices import PriceBook
from gateway.spend.settle import Ending
from gateway.store.sqlite import open_sqlite, read_sqlite
from gateway.types.errors import PolicyError
from gateway.types.secret import Secret
from gateway.types.usage import Usage
from tests.spend.accounts import NOON_NS, SetClock, budget, facts, prices

__all__ = ["prices"]

TOKEN = {"authorization": "Bearer admin-token"}
Client = AsyncTestClient[Litestar]


@pytest.fixture
async def admin(tmp_path: Path, prices: PriceBook) -> AsyncIterator[Admin]:
    """Accounts with one budget, behind the API."""
    clock = SetClock()
    path = tmp_path / "ledger.db"
    accounts = Accounts(lambda: open_sqlite(path), prices, BudgetBook([budget(10**9)]), LedgerFile(), clock)
    await accounts.start()
    count = iter(range(1, 1000))
    yield Admin(
        accounts,
        Keyring(),
        clock,
        lambda size: next(count).to_bytes(size, "big"),
        lambda: read_sqlite(path),
        lambda: ["chat", "embed"],
    )
    await accounts.close()


@pytest.fixture
async def client(admin: Admin) -> AsyncIterator[Client]:
    """A client of the API."""
    async with AsyncTestClient(admin_app(admin, Secret("admin-token"))) as client:
        yield client


def paths(app: Litestar) -> list[tuple[str, str]]:
    """Every method and path that the application answers, its own description included."""
    return [
        (method, route.path.replace("{key_id:str}", "k"))
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    ]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "admin-token"}])
async def test_every_path_is_denied_without_the_token(client: Client, headers: dict[str, str]) -> None:
    """The route table is walked: no path answers anybody but administrators."""
    walked = paths(client.app)
    assert len(walked) >= 8
    for method, path in walked:
        reply = await client.request(method, path, headers=headers)
        assert reply.status_code == 401, (method, path, reply.text)


async def test_without_a_configured_token_everything_is_denied(admin: Admin) -> None:
    """No token in the configuration means no API, not an open one."""
    for token in (None, Secret("")):
        async with AsyncTestClient(admin_app(admin, token)) as client:
            for method, path in paths(client.app):
                reply = await client.request(method, path, headers={"authorization": "Bearer "})
                assert reply.status_code == 403, (method, path)


async def test_a_key_lives_from_creation_to_revocation(client: Client, admin: Admin) -> None:
    """A created key opens the gateway at once, a rotated one replaces it, a revoked one is refused at once."""
    made = (await client.post("/keys", json={"team": "red", "routes": ["chat"]}, headers=TOKEN)).json()
    key = admin.keyring.authenticate(made["token"], NOON_NS)
    assert (key.id, key.team, key.routes) == (made["id"], "red", ("chat",))
    rotated = (await client.post(f"/keys/{key.id}/rotate", headers=TOKEN)).json()
    admin.keyring.authenticate(rotated["token"], NOON_NS)
    with pytest.raises(PolicyError):
        admin.keyring.authenticate(made["token"], NOON_NS)
    (listed,) = (await client.get("/keys", headers=TOKEN)).json()
    assert (listed["id"], listed["state"]) == (key.id, "valid")
    assert "hash" not in str(listed)
    assert (await client.delete(f"/keys/{key.id}", headers=TOKEN)).status_code == 204
    with pytest.raises(PolicyError):
        admin.keyring.authenticate(rotated["token"], NOON_NS)
    assert (await client.post(f"/keys/{key.id}/rotate", headers=TOKEN)).status_code == 400


async def test_wrong_requests_are_told(client: Client) -> None:
    """Unknown keys, unknown fields and unknown dimensions are 4xx with a reason."""
    assert (await client.delete("/keys/nobody", headers=TOKEN)).status_code == 404
    assert (await client.post("/keys", json={"team": "red", "budget": 9}, headers=TOKEN)).status_code == 400
    assert (await client.post("/keys", json={"team": ""}, headers=TOKEN)).status_code == 400
    reply = await client.get("/spend?by=user", headers=TOKEN)
    assert (reply.status_code, "team" in reply.text) == (400, True)


@pytest.mark.parametrize(
    ("member", "field", "text"),
    [
        ({"routes": ["chat", "caht"]}, "routes", "no route is named 'caht'; there are chat, embed"),
        ({"team": " "}, "team", "a team has a name"),
        ({"expires_ns": NOON_NS // 10**9}, "expires_ns", "have passed"),
    ],
)
async def test_a_key_that_could_never_be_used_is_refused(
    client: Client, admin: Admin, member: dict[str, object], field: str, text: str
) -> None:
    """A slip in a route's name, a nameless team and an expiry in seconds are 400 with the field, and nothing is stored."""
    reply = await client.post("/keys", json={"team": "red"} | member, headers=TOKEN)
    assert reply.status_code == 400
    assert text in reply.json()["detail"]
    assert [wrong["key"] for wrong in reply.json()["extra"]] == [field]
    assert admin.keyring.is_open


async def test_a_key_that_was_not_made_in_time_is_never_made(admin: Admin) -> None:
    """While the ledger takes nothing the answer is 503, and no key comes later to close an open gateway."""
    hasty = Admin(
        admin.accounts, admin.keyring, admin.clock, admin.random_bytes, admin.read_ledger, admin.route_names,
        patience_s=0.05,
    )  # fmt: skip
    release = threading.Event()
    busy = asyncio.ensure_future(admin.accounts.call(lambda store: release.wait(20)))
    await asyncio.sleep(0)
    async with AsyncTestClient(admin_app(hasty, Secret("admin-token"))) as client:
        assert (await client.post("/keys", json={"team": "red"}, headers=TOKEN)).status_code == 503
        assert (await client.get("/keys", headers=TOKEN)).status_code == 503
        release.set()
        await busy
        assert (await client.get("/keys", headers=TOKEN)).json() == []


async def test_budgets_and_spend_are_the_ledger_s(client: Client, admin: Admin) -> None:
    """What the API says is spent and held is what the ledger says, to the nano-dollar."""
    what = facts("r")
    hold = await admin.accounts.admit(what)
    (state,) = (await client.get("/budgets", headers=TOKEN)).json()
    assert hold is not None
    assert (state["held_nano_usd"], state["spent_nano_usd"]) == (hold.nano_usd, 0)
    cost, used = admin.accounts.price(what, Ending.COMPLETE, Usage(input_tokens=100, output_tokens=5), at_ns=NOON_NS)
    admin.accounts.settle(hold, what, cost, used, started_ns=NOON_NS)
    await admin.accounts.flush()
    (state,) = (await client.get("/budgets", headers=TOKEN)).json()
    assert (state["held_nano_usd"], state["spent_nano_usd"], state["spent_usd"]) == (0, 150, "0.00000015")
    assert state["resets"] == "2026-12-01T00:00:00Z"
    (row,) = (await client.get("/spend?by=team,key,route,provider,model,day", headers=TOKEN)).json()
    assert row["group"] == ["red", "k1", "chat", "openai", "m", "2026-11-23"]
    assert (row["cost_nano_usd"], row["attempts"], row["input_tokens"]) == (150, 1, 100)
    assert (await client.get("/spend?until=2026-11-23", headers=TOKEN)).json() == []
    assert (await client.get("/ledger", headers=TOKEN)).json()["lost"] == 0


async def test_the_api_is_described(client: Client) -> None:
    """The OpenAPI document names every path, for administrators."""
    document = (await client.get("/schema/openapi.json", headers=TOKEN)).json()
    assert (await client.get("/schema", headers=TOKEN)).json() == document
    assert set(document["paths"]) == {
        "/keys",
        "/keys/{key_id}",
        "/keys/{key_id}/rotate",
        "/budgets",
        "/spend",
        "/ledger",
    }


async def test_the_keys_command_asks_the_gateway_that_owns_the_ledger(admin: Admin, tmp_path: Path) -> None:
    """While a gateway runs, `gateway keys` works through its admin listener, and its keys open the gateway at once."""
    server = make_server(admin_app(admin, Secret("admin-token")), "127.0.0.1", 0, signals=False)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "routes: [{name: chat, route_type: llm/v1/chat, model: {provider: vllm, name: m}}]\n"
        f"ledger: {{path: ledger.db}}\nadmin: {{port: {listener.getsockname()[1]}, token: admin-token}}\n"
    )

    async def run(*arguments: str) -> Result:
        command = [*arguments, "--config-path", str(config)]
        return await asyncio.to_thread(CliRunner().invoke, main, command)

    try:
        made = await run("keys", "create", "--team", "red", "--route", "chat", "--expires-days", "3")
        key = admin.keyring.authenticate(made.stdout.strip(), NOON_NS)
        assert (key.team, key.routes) == ("red", ("chat",))
        assert key.expires_ns is not None
        assert f"{key.id}  team red" in (await run("keys", "list")).output
        rotated = await run("keys", "rotate", key.id)
        admin.keyring.authenticate(rotated.stdout.strip(), NOON_NS)
        assert (await run("keys", "revoke", key.id)).exit_code == 0
        with pytest.raises(PolicyError):
            admin.keyring.authenticate(rotated.stdout.strip(), NOON_NS)
        refused = await run("keys", "revoke", "nobody")
        assert refused.exit_code == 1
        assert "404" in refused.output
    finally:
        server.should_exit = True
        await serving
