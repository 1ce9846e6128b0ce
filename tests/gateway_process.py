"""The `gateway` command as a user runs it: a process of its own, its two outputs read line by line."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_ADDRESSES = re.compile(r"on (http://\S+:\d+), .* metrics on (http://\S+)/metrics")
_WAIT_S = 30.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process without what would change a gateway, and with `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "GATEWAY", "MLFLOW"))}
    return kept | {"OPENAI_API_KEY": "sk-test"} | dict(extra or {})


def run_gateway(*arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=environment(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class GatewayProcess:
    """A gateway that has said that it serves.

    Args:
        process: its outputs must be pipes.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._errors = process.stderr
        self._output = process.stdout
        self.messages: list[str] = []
        """What it wrote to standard error so far, line by line."""
        self.url = ""
        self.metrics_url = ""

    async def until_message(self, text: str) -> str:
        """The next line of standard error that holds `text`. AssertionError when it ends without."""
        async with asyncio.timeout(_WAIT_S):
            while line := (await self._errors.readline()).decode():
                self.messages.append(line.rstrip("\n"))
                if text in line:
                    return line
        raise AssertionError(f"the gateway ended without saying {text!r}: {self.messages}")

    async def until_serving(self) -> None:
        """Wait until it says that it serves, and where."""
        line = await self.until_message("serving ")
        found = _ADDRESSES.search(json.loads(line)["message"])
        assert found is not None, line
        self.url, self.metrics_url = found.groups()

    async def log_line(self) -> dict[str, Any]:
        """The next line of the request log."""
        async with asyncio.timeout(_WAIT_S):
            line: dict[str, Any] = json.loads(await self._output.readline())
        return line

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, with the rest of what it said in `messages`."""
        async with asyncio.timeout(_WAIT_S):
            self.messages += (await self._errors.read()).decode().splitlines()
            return await self._process.wait()


@asynccontextmanager
async def gateway_process(
    config: str | None, folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[GatewayProcess]:
    """Start a gateway on free ports with a configuration's text, kept in `folder`; it is killed at the end.

    With None for the configuration, `arguments` or `env` must name it.
    """
    if config is not None:
        path = folder / "config.yaml"
        path.write_text(config)
        arguments = ("--config-path", str(path), *arguments)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "start", "--port", "0", "--metrics-port", "0", *arguments),
        env=environment(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        running = GatewayProcess(process)
        await running.until_serving()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        # The transports of its pipes are closed by the loop's next turn, which a test's end would not wait for.
        await process.communicate()
