"""`make stack`: what is installed of the stack comes up, works together, and leaves nothing behind."""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from otel.stack import TOUR
from tests.servers import require
from tests.stack.processes import free_port

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parents[2]
NAMES = ("gateway", "metrics", "prometheus", "alertmanager", "providers")
_WAIT_S = 60.0


def _start(folder: Path, ports: dict[str, int]) -> "subprocess.Popen[str]":
    config = folder / "tour.yaml"
    config.write_text(TOUR.read_text("utf-8").replace(":8090", f":{ports['providers']}"))
    chosen = ", ".join(f"{name}={port}" for name, port in ports.items())
    code = (
        "import os, pathlib, signal, sys; from otel.stack import Ports, run;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.exit(run(pathlib.Path({str(folder / 'state')!r}), Ports({chosen}),"
        f" ('start', '--config-path', {str(config)!r}), os.environ, tour=True))"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def _until(client: httpx.AsyncClient, url: str, wanted: str) -> str:
    """What `url` says once it says `wanted`; AssertionError after a minute."""
    said = ""
    try:
        async with asyncio.timeout(_WAIT_S):
            while wanted not in said:
                try:
                    said = (await client.get(url)).text
                except httpx.TransportError as error:
                    said = repr(error)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{url} never said {wanted}, but {said[:2_000]}") from None
    return said


async def test_the_stack_comes_up_and_goes(tmp_path: Path) -> None:
    """Providers answer callers through the gateway, Prometheus has targets, rules and Alertmanager; Ctrl-C ends it all."""
    for program in ("prometheus", "alertmanager"):
        require(program)
    ports = {name: free_port() for name in NAMES}
    process = await asyncio.to_thread(_start, tmp_path, ports)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            url = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
            await _until(client, f"{url['metrics']}/metrics", 'gateway_attempts_total{route="support",provider="groq"')
            rules = await _until(client, f"{url['prometheus']}/api/v1/rules", "GaugewayErrorBudgetBurn")
            assert "GaugewayLedgerOrphans" in rules
            await _until(client, f"{url['prometheus']}/api/v1/alertmanagers", f"{url['alertmanager']}/api/v2/alerts")
            await _until(client, f"{url['prometheus']}/api/v1/targets", f'"{url["metrics"]}/metrics"')
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, said
    for name, port in ports.items():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"{name} still listens"
    assert not list((tmp_path / "state").glob("*/lock")), "a server was killed"
