"""Starts real gateways fast: a process that has imported everything forks one for each order.

What runs in the fork is the command line itself, `gateway start`, with its own ports, threads and files; only the two
seconds of imports are spared. That makes thousands of kill -9 affordable. Orders are JSON lines on standard input:
`{"start": [arguments], "log": path}` is answered with the process's id, `{"wait": id}` with how it ended.
"""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.running_gateway import PLAIN, until

ROOT = Path(__file__).parents[2]
_WAIT_S = 30.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Nursery:
    """Gives orders to the forking process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._starts = 0

    async def _order(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the nursery has ended"
        return int(line)

    async def start(self, config: Path) -> "Child":
        """Start a gateway with a configuration file; it serves when this returns."""
        port = free_port()
        arguments = ["start", "--config-path", str(config), "--port", str(port), "--metrics-port", "0"]
        # A port may come again after thousands of starts: each has a log of its own.
        self._starts += 1
        log = config.with_name(f"{config.stem}-{self._starts}.log")
        child = Child(self, await self._order(start=arguments, log=str(log)), f"http://127.0.0.1:{port}", log)
        await child.serves()
        return child


class Child:
    """One gateway process."""

    def __init__(self, nursery: Nursery, pid: int, url: str, log: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self.url = url
        self.log = log

    async def serves(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(_WAIT_S), httpx.AsyncClient(trust_env=False, verify=PLAIN) as client:
            while True:
                try:
                    await client.get(f"{self.url}/health")
                except httpx.TransportError:
                    await asyncio.sleep(0.01)
                else:
                    return

    async def spent_nano_usd(self) -> int:
        """What its only budget's gauge says was spent."""
        # The log is written by a thread of its own: it may come to say so after the first request was served.
        said = re.compile(rf" on {self.url},.* metrics on ([^,]+)")
        await until(lambda: said.search(self.log.read_text()), "the log's line about this start")
        found = said.search(self.log.read_text())
        assert found is not None
        async with httpx.AsyncClient(trust_env=False, verify=PLAIN) as client:
            text = (await client.get(found[1])).text
        (value,) = re.findall(r"^gateway_budget_spent_usd\{[^}]*\} (\S+)$", text, re.MULTILINE)
        return round(float(value) * 1e9)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end: the exit status, or minus the signal that killed it."""
        os.kill(self.pid, number)
        return await self._nursery._order(wait=self.pid)


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """The forking process, while the context lasts. Gateways that are still there then are killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.journeys.nursery",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def main() -> None:
    """Fork on order."""
    import gateway.app
    import gateway.cli
    import gateway.process

    children: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            children.discard(order["wait"])
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                with Path(order["log"]).open("ab") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                gateway.cli.main(order["start"])
                os._exit(0)
            children.add(answer)
        print(answer, flush=True)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
