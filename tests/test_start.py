"""`gateway start` as a process: it takes up edits and SIGHUP, and SIGTERM ends it cleanly."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

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


async def start(file: Path) -> Started:
    command = [sys.executable, "-m", "gateway", "start", "--config-path", str(file), "--port", "0"]
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
