"""Streams whose callers leave, where the target's policy is to read them to their end. Over real HTTP, a real ledger."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from gateway.config.errors import ConfigError
from gateway.spend.opening import Ledgers
from gateway.store.spec import Entry
from gateway.store.sqlite import open_sqlite, read_sqlite
from gateway.types.errors import ErrorType
from gateway.types.records import Basis
from gateway.types.usage import Usage
from tests.conftest import StartGateway
from tests.openai_replies import openai_stream, openai_usage
from tests.replies import Reply, SilentReply
from tests.running_gateway import RunningGateway, running_gateway, settings_of
from tests.scripted_upstream import ScriptedUpstream

BODY = {"model": "chat", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 10, "stream": True}
USAGE = openai_usage(9, 3)
EXACT_NANO_USD = 9 * 2_500 + 3 * 10_000


def _config(url: str, retries: object = 0, **policy: object) -> str:
    target = {
        "provider": "openai",
        "name": "house-model",
        "config": {"openai_api_key": "sk-test", "openai_api_base": f"{url}/v1"},
        **policy,
    }
    route = {"name": "chat", "endpoint_type": "llm/v1/chat", "retries": retries, "targets": [target]}
    price = {"model": "house-model", "input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}
    budget = {"name": "all", "amount_usd": 5, "window": "none"}
    return json.dumps({"endpoints": [route], "prices": [price], "budgets": [budget]})


async def _leave(gateway: RunningGateway, reply: Reply, *, after: str | None) -> None:
    """Ask for a stream, and leave once `after` has come (None: once the provider has the request)."""
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        if after is None:
            asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY))
            await reply.started.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            async with client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
                async for line in answer.aiter_lines():
                    if after in line:
                        break
    # The loop that serves these sees the end of the other connection first.
    for _ in range(2):
        assert (await gateway.client.get("/health")).status_code == 200


async def _line(gateway: RunningGateway) -> Entry:
    """The one line of the ledger, with nothing held any more."""
    accounts = gateway.gateway.accounts
    assert accounts is not None
    await gateway.records.wait(1)
    (entry,) = await accounts.call(lambda store: list(store.entries()))
    assert await accounts.call(lambda store: store.holds()) == []
    return entry


@pytest.mark.parametrize("after", [None, "word"])
async def test_a_drained_stream_is_charged_exactly(
    upstream: ScriptedUpstream, start_gateway: StartGateway, after: str | None
) -> None:
    """The provider's last chunk is read though nobody listens: its usage is the charge."""
    gateway = await start_gateway(_config(upstream.url, on_caller_left="drain"))
    gate = asyncio.Event()
    reply = openai_stream([gate, "word", " more"] if after is None else ["word", gate, " more"], usage=USAGE)
    upstream.script(reply)
    await _leave(gateway, reply, after=after)
    gate.set()
    entry = await _line(gateway)
    assert (entry.basis, entry.nano_usd) == (Basis.DRAINED, EXACT_NANO_USD)
    assert isinstance(entry.usage, Usage)
    assert (entry.usage.input_tokens, entry.usage.output_tokens) == (9, 3)
    assert reply.finished.is_set()
    record = await gateway.records.last()
    assert record.error_type is ErrorType.CALLER_LEFT
    assert [attempt.error_type for attempt in record.attempts] == [ErrorType.CALLER_LEFT]


async def test_a_drain_ends_at_its_bound(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A provider that goes on for longer than `drain_s` is left, and what came is charged."""
    gateway = await start_gateway(_config(upstream.url, on_caller_left="drain", drain_s=0.05))
    reply = openai_stream(["word", asyncio.Event(), "unseen"], usage=USAGE)
    upstream.script(reply)
    await _leave(gateway, reply, after="word")
    await asyncio.wait_for(reply.peer_left.wait(), 5)
    entry = await _line(gateway)
    assert entry.basis is Basis.PARTIAL
    assert entry.nano_usd is not None
    assert 0 < entry.nano_usd < EXACT_NANO_USD
    assert (await gateway.records.last()).error_type is ErrorType.CALLER_LEFT


async def test_without_the_policy_the_provider_is_left_at_once(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """By default nobody pays for tokens that nobody reads: the provider's connection ends with the caller's."""
    gateway = await start_gateway(_config(upstream.url))
    reply = openai_stream(["word", asyncio.Event(), "unseen"], usage=USAGE)
    upstream.script(reply)
    await _leave(gateway, reply, after="word")
    await asyncio.wait_for(reply.peer_left.wait(), 5)
    assert (await _line(gateway)).basis is Basis.PARTIAL


async def test_nothing_is_tried_again_for_a_caller_who_left(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A provider that fails while it is drained is charged as it failed, and no retry follows."""
    gateway = await start_gateway(_config(upstream.url, retries=3, on_caller_left="drain"))
    gate = asyncio.Event()
    reply = SilentReply(gate)
    upstream.script(reply)
    await _leave(gateway, reply, after=None)
    gate.set()
    assert (await _line(gateway)).basis is Basis.UNKNOWN
    record = await gateway.records.last()
    assert record.error_type is ErrorType.CALLER_LEFT
    assert [attempt.error_type for attempt in record.attempts] == [ErrorType.CONNECTION_LOST]
    assert upstream.hits == 1


async def test_a_shutdown_ends_a_drain_and_charges_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """A drain counts as a request in flight: at the end of the grace it is broken off, and its charge is on disk."""
    path = tmp_path / "ledger.db"
    ledgers = Ledgers(write=lambda: open_sqlite(path), read=lambda: read_sqlite(path))
    reply = openai_stream(["word", asyncio.Event(), "unseen"], usage=USAGE)
    upstream.script(reply)
    async with running_gateway(_config(upstream.url, on_caller_left="drain", drain_s=600), ledgers=ledgers) as gateway:
        await _leave(gateway, reply, after="word")
    store = read_sqlite(path)
    (entry,) = store.entries()
    assert entry.basis is Basis.PARTIAL
    assert store.holds() == []
    store.close()
    await asyncio.wait_for(reply.peer_left.wait(), 5)


@pytest.mark.parametrize(
    ("policy", "path"),
    [({"on_caller_left": "ignore"}, "on_caller_left"), ({"drain_s": 0}, "drain_s"), ({"drain_s": -1}, "drain_s")],
)
def test_a_policy_that_is_none_is_refused(policy: dict[str, object], path: str) -> None:
    """A word that is no policy, and a bound that is none, do not start; the refusal names the field."""
    with pytest.raises(ConfigError) as refused:
        settings_of(_config("http://127.0.0.1:9", **policy))
    assert refused.value.path == f"endpoints[0].targets[0].{path}"
