"""`gateway start` as a process: it takes up edits and SIGHUP, and SIGTERM ends it cleanly."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.running_gateway import ENVIRONMENT, routes_yaml


class Started:
    """A `gateway start` process and its log lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, part: str) -> str:
        """The next message on stderr that has `part` in it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            while raw := await self.process.stderr.readline():
                message = str(json.loads(raw)["message"])
                if part in message:
                    return message
        raise AssertionError(f"the process ended without saying '{part}'")

    async def lines_until(self, part: str) -> list[str]:
        """The messages on stderr up to the one that has `part` in it."""
        assert self.process.stderr is not None
        messages: list[str] = []
        async with asyncio.timeout(30):
            while raw := await self.process.stderr.readline():
                messages.append(str(json.loads(raw)["message"]))
                if part in messages[-1]:
                    return messages
        raise AssertionError(f"the process ended without saying '{part}', but {messages}")


async def start(file: Path, *arguments: str) -> Started:
    command = [sys.executable, "-m", "gateway", "start", "--config-path", str(file), "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--metrics-port",
        "0",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
    )
    return Started(process)


async def test_edits_and_signals(tmp_path: Path) -> None:
    """An edited file is in use, SIGHUP loads it although it has not changed, and SIGTERM exits 0."""
    file = tmp_path / "gateway.yaml"
    config = routes_yaml("http://127.0.0.1:9")
    file.write_text(config)
    gateway = await start(file)
    try:
        await gateway.line("serving 3 routes")
        file.write_text(config[: config.index("  - name: embeddings")])
        assert (await gateway.line("is in use")).endswith("2 routes")
        gateway.process.send_signal(signal.SIGHUP)
        assert (await gateway.line("is in use")).endswith("2 routes")
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await gateway.process.wait() == 0
    finally:
        if gateway.process.returncode is None:
            gateway.process.kill()
            await gateway.process.wait()


KEYS = "keys:\n  - {secret: gwk_ci_0123456789abcdef, team: ci}\n"
OPEN = "anybody who reaches this gateway can spend"


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [("0.0.0.0", "", True), ("0.0.0.0", KEYS, False), ("127.0.0.1", "", False)],
    ids=["open", "with a key", "on the loopback"],
)
async def test_an_open_gateway_that_others_reach_says_so(tmp_path: Path, host: str, keys: str, warned: bool) -> None:
    """Without a key, and only beyond the loopback, the start warns that anybody can spend."""
    file = tmp_path / "gateway.yaml"
    file.write_text(routes_yaml("http://127.0.0.1:9") + keys)
    gateway = await start(file, "--host", host)
    try:
        await gateway.line("serving 3 routes")
        # An edit is taken up only by a gateway that serves.
        file.write_text(file.read_text() + "# edited\n")
        lines = await gateway.lines_until("is in use")
        assert any(OPEN in line for line in lines) is warned
    finally:
        gateway.process.kill()
        await gateway.process.wait()


async def test_a_model_without_a_price_is_told(tmp_path: Path) -> None:
    """At the start, and again when an edit brings one: what it costs nobody knows, and a hard budget refuses it."""
    file = tmp_path / "gateway.yaml"
    file.write_text(routes_yaml("http://127.0.0.1:9"))
    gateway = await start(file)
    try:
        assert not [line for line in await gateway.lines_until("serving 3 routes") if "no price" in line]
        file.write_text(file.read_text().replace("gpt-4o-mini", "nobody-prices-this"))
        told = [line for line in await gateway.lines_until("is in use") if "no price" in line]
        assert len(told) == 1
        assert "model 'nobody-prices-this' of provider 'openai'" in told[0]
    finally:
        gateway.process.kill()
        await gateway.process.wait()


async def test_several_workers_refuse_a_ledger_of_one_process(tmp_path: Path) -> None:
    """`--workers 2` over an SQLite ledger does not start: its writer is one process, and two files were two budgets."""
    file = tmp_path / "gateway.yaml"
    file.write_text(routes_yaml("http://127.0.0.1:9"))
    gateway = await start(file, "--workers", "2")
    assert gateway.process.stderr is not None
    async with asyncio.timeout(30):
        said = await gateway.process.stderr.read()
        assert await gateway.process.wait() == 2
    assert b"set `ledger: {postgres: $LEDGER_URL}`" in said
