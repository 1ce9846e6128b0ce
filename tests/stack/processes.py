"""Real servers of the stack for tests: on free ports, with the shipped configuration, sped up so that tests stay quick."""

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from otel.stack import Ports, prometheus_folder
from tests.servers import require

ALERTMANAGER = Path(__file__).parents[2] / "otel" / "alertmanager"
SCRAPE_S = 0.25
RATE_INTERVAL = "5s"
_WAIT_S = 30.0
_POLL_S = 0.05


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Server:
    """A running server's HTTP API."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.client = client
        self.url = url

    async def data(self, path: str, **parameters: str | list[str]) -> Any:
        """The `data` of a Prometheus API reply; AssertionError with the server's words for a refused query."""
        reply = await self.client.get(f"{self.url}/api/v1/{path}", params=parameters)
        document = reply.json()
        assert document["status"] == "success", f"{document.get('error')}: {parameters}"
        return document["data"]

    async def instant(self, expr: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        return list((await self.data("query", query=expr))["result"])

    async def until(self, expr: str, holds: Callable[[list[dict[str, Any]]], bool] = bool) -> list[dict[str, Any]]:
        """The series of an expression once `holds` is true of them; AssertionError after 30 s."""
        try:
            async with asyncio.timeout(_WAIT_S):
                while not holds(series := await self.instant(expr)):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise AssertionError(f"{expr}: still {await self.instant(expr)} after {_WAIT_S:.0f} s") from None
        return series


@asynccontextmanager
async def running_prometheus(
    folder: Path, metrics_port: int, *, alertmanager_port: int = 9, faster: int = 1
) -> AsyncIterator[Server]:
    """Prometheus with the shipped configuration and rules, scraping one gateway four times a second.

    `faster` shortens the windows and waits of the rules: with 120, a rule over an hour looks at half a minute.
    """
    program = require("prometheus")
    config = prometheus_folder(folder, Ports(metrics=metrics_port, alertmanager=alertmanager_port))
    _speed_up(config, faster)
    port = free_port()
    arguments = [
        f"--config.file={config / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    async with _running([program, *arguments], folder / "prometheus.log", f"http://127.0.0.1:{port}") as server:
        yield server


@asynccontextmanager
async def running_alertmanager(folder: Path, webhook: str) -> AsyncIterator[Server]:
    """Alertmanager as the stack starts it, whose receivers post to `webhook`/NAME, without waiting for company."""
    program = require("alertmanager")
    config = folder / "shipped-alertmanager.yml"
    shipped = (ALERTMANAGER / "alertmanager.yml").read_text("utf-8")
    config.write_text(re.sub(r"(group_wait|group_interval): \S+", r"\1: 200ms", shipped))
    secret = folder / "teams-webhook"
    secret.write_text(f"{webhook}/teams\n")
    environment = {
        "ON_CALL_WEBHOOK_URL": f"{webhook}/on-call",
        "WORKING_HOURS_WEBHOOK_URL": f"{webhook}/working-hours",
        "TEAMS_WEBHOOK_URL_FILE": str(secret),
        "RENDERED_FOLDER": str(folder),
    }
    port = free_port()
    arguments = [
        f"--storage.path={folder / 'alertmanager-data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    command = ["sh", str(ALERTMANAGER / "start.sh"), str(config), program, *arguments]
    url = f"http://127.0.0.1:{port}"
    async with _running(command, folder / "alertmanager.log", url, {**os.environ, **environment}) as server:
        yield server


@asynccontextmanager
async def _running(
    command: list[str], log: Path, url: str, environment: dict[str, str] | None = None
) -> AsyncIterator[Server]:
    process = await asyncio.to_thread(_start, command, log, environment)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_WAIT_S) as client:
            await _ready(process, client, f"{url}/-/ready", log)
            yield Server(client, url)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def _start(command: list[str], log: Path, environment: dict[str, str] | None) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


async def _ready(process: "subprocess.Popen[bytes]", client: httpx.AsyncClient, url: str, log: Path) -> None:
    async with asyncio.timeout(_WAIT_S):
        while True:
            assert process.poll() is None, await asyncio.to_thread(log.read_text, "utf-8")
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(_POLL_S)


def _speed_up(folder: Path, faster: int) -> None:
    config = folder / "prometheus.yml"
    text = config.read_text("utf-8")
    text = re.sub(r"scrape_interval: \S+", f"scrape_interval: {SCRAPE_S * 1_000:.0f}ms", text)
    config.write_text(re.sub(r"evaluation_interval: \S+", "evaluation_interval: 500ms", text))
    rules = folder / "rules" / "gaugeway.yml"
    text = re.sub(r"interval: \S+", "interval: 500ms", rules.read_text("utf-8"))
    if faster > 1:
        text = re.sub(r"(?<=\[)(\d+)([smhd])(?=\])", lambda m: _shorter(m[1], m[2], faster), text)
        text = re.sub(r"(?<=for: )(\d+)([smhd])", lambda m: _shorter(m[1], m[2], faster), text)
    rules.write_text(text)


def _shorter(number: str, unit: str, faster: int) -> str:
    seconds = int(number) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[unit]
    return f"{seconds * 1_000 // faster}ms"
