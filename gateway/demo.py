"""`gateway demo`: a local model, a gateway in front of it, and what to try next.

Three processes at most, each on a leash (gateway/leash.py), so that nothing is left running however the demo ends:
the model (gateway/local_model.py), the gateway as any user would start it, and the traffic, if asked for
(gateway/traffic.py). They stop in the reverse order, so that the gateway drains while the model still answers.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gateway import local_model

READY_WITHIN_S = 60.0
# Longer than the gateway takes to drain.
STOPPED_WITHIN_S = 30.0
POLL_S = 0.05
LOCAL_CONFIG = Path("examples/local.yaml")
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


class DemoError(Exception):
    """The demo cannot run. The text says why and what to do, for a person."""


@dataclass(frozen=True)
class Addresses:
    """Where the demo's gateway listens: the API on (host, port), the metrics on (host, metrics_port)."""

    host: str
    port: int
    metrics_port: int

    @property
    def reachable_host(self) -> str:
        """The host that a caller on this machine uses; every address listens on the loopback too."""
        return ANY_ADDRESS.get(self.host, self.host)

    @property
    def api_url(self) -> str:
        """The gateway's base URL, without a slash at the end."""
        return f"http://{_bracketed(self.reachable_host)}:{self.port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus scrapes."""
        return f"http://{_bracketed(self.reachable_host)}:{self.metrics_port}/metrics"


def run(host: str, port: int, metrics_port: int, traffic: bool, config: Path | None = None) -> int:
    """Run the demo until SIGINT or SIGTERM, or until one of its processes ends by itself; the exit status.

    `config` is a file like examples/local.yaml (the default); its URLs say where the model is to listen.
    0 after a signal, 1 if something could not start or died, with the reason on standard error.
    """
    addresses = Addresses(host, port, metrics_port)
    try:
        return asyncio.run(_run(addresses, config or find_config(), traffic=traffic))
    except DemoError as error:
        print(f"gateway demo: {error}", file=sys.stderr)
        return 1


def find_config() -> Path:
    """The demo's config: inside the installed package, or in the checkout beside it.

    Raises: DemoError.
    """
    package = Path(__file__).parent
    for folder in (package, package.parent):
        if (folder / LOCAL_CONFIG).is_file():
            return folder / LOCAL_CONFIG
    raise DemoError(f"{LOCAL_CONFIG} is neither in {package} nor in {package.parent}. Reinstall gaugeway.")


def model_ports(config: Path) -> tuple[int, int]:
    """The ports of the local model that a config's routes point at: (chat and completions, embeddings).

    Raises: DemoError when the config has no such routes.
    """
    ports = {}
    try:
        for route in yaml.safe_load(config.read_bytes())["routes"]:
            base = route["model"]["config"]["llamacpp_api_base"]
            ports[route["route_type"]] = urlsplit(base).port or 80
        return ports["llm/v1/chat"], ports["llm/v1/embeddings"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DemoError(f"{config} has no chat and embeddings routes to a local model ({error!r}).") from error


def welcome(addresses: Addresses, config: Path) -> str:
    """What a new user reads once all is up: three requests to try, and where to look."""
    url = addresses.api_url

    def curl(route: str, body: str) -> str:
        return f"  curl -s {url}/gateway/{route}/invocations -H 'content-type: application/json' \\\n       -d '{body}'"

    question = '{"messages": [{"role": "user", "content": "What is a gateway?"}], "max_tokens": 60}'
    return "\n".join(
        [
            "",
            f"The gateway answers on {url}, with {local_model.MODEL} behind it ({config}).",
            "",
            "Try, in another terminal:",
            "",
            curl("chat", question),
            curl("completions", '{"prompt": "Once upon a time", "max_tokens": 40}'),
            curl("embeddings", '{"text": ["a lighthouse", "a gateway"]}'),
            "",
            f"  API documentation   {url}/docs",
            f"  OpenAI's API        {url}/v1   (model: chat, completions or embeddings)",
            f"  Metrics             {addresses.metrics_url}",
            "",
            "Ctrl-C stops all of it.",
            "",
        ]
    )


async def _run(addresses: Addresses, config: Path, *, traffic: bool) -> int:
    chat_port, embeddings_port = model_ports(config)
    for port, host, purpose, remedy in (
        (addresses.port, addresses.host, "the gateway", 'choose another, as in make run ARGS="--port 5050"'),
        (
            addresses.metrics_port,
            addresses.host,
            "the metrics listener",
            'choose another, as in make run ARGS="--metrics-port 9465"',
        ),
        (chat_port, local_model.HOST, "the local model", f"free it, or change it in {config}"),
        (embeddings_port, local_model.HOST, "the local model's embeddings", f"free it, or change it in {config}"),
    ):
        _check_free(host, port, purpose, remedy)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    async with contextlib.AsyncExitStack() as stack:
        print(f"Starting {local_model.MODEL} ...", flush=True)
        serve = ["gateway.local_model", "--port", str(chat_port), "--embeddings-port", str(embeddings_port)]
        model = await stack.enter_async_context(_child(serve, stdout=asyncio.subprocess.PIPE))
        if not await _until(_model_ready(model), model, stop, "the local model"):
            return 0
        print("Starting the gateway ...", flush=True)
        start = ["gateway", "start", "--config-path", str(config), "--host", addresses.host]
        start += ["--port", str(addresses.port)]
        start += ["--metrics-host", addresses.host, "--metrics-port", str(addresses.metrics_port)]
        gateway = await stack.enter_async_context(_child(start))
        if not await _until(_healthy(addresses), gateway, stop, "the gateway"):
            return 0
        print(welcome(addresses, config), flush=True)
        if traffic:
            aim = ["--host", addresses.reachable_host, "--port", str(addresses.port)]
            await stack.enter_async_context(_child(["gateway.traffic", *aim]))
        await _watch({"the local model": model, "the gateway": gateway}, stop)
        print("Stopping ...", flush=True)
    return 0


@contextlib.asynccontextmanager
async def _child(command: Sequence[str], *, stdout: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of this interpreter on the leash; at the end it gets SIGTERM, and SIGKILL if it does not heed it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.leash",
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        # Ctrl-C goes to the terminal's whole group. The children are stopped in order instead.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOPPED_WITHIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until(
    ready: Coroutine[Any, Any, None], process: asyncio.subprocess.Process, stop: asyncio.Event, name: str
) -> bool:
    """Wait until `ready` returns: True; False if the user stopped the demo first.

    Raises: DemoError when the process ends or is not ready in time.
    """
    tasks = [asyncio.create_task(ready), asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if tasks[2] in done:
            return False
        if tasks[1] in done:
            raise DemoError(f"{name} ended at once, with status {process.returncode}; its reason stands above.")
        if tasks[0] not in done:
            raise DemoError(f"{name} was not ready within {READY_WITHIN_S:.0f} seconds.")
        await tasks[0]
        return True
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(processes: dict[str, asyncio.subprocess.Process], stop: asyncio.Event) -> None:
    """Return when the user stops the demo. Raises: DemoError when one of the processes ends by itself."""
    ended = {asyncio.create_task(process.wait()): name for name, process in processes.items()}
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, *ended], return_when=asyncio.FIRST_COMPLETED)
        for task, name in ended.items():
            if task in done and stopped not in done:
                raise DemoError(f"{name} ended by itself, with status {task.result()}.")
    finally:
        for task in (stopped, *ended):
            task.cancel()
        await asyncio.gather(stopped, *ended, return_exceptions=True)


async def _model_ready(model: asyncio.subprocess.Process) -> None:
    """Return once the model has said so on its standard output, which must be a pipe."""
    if model.stdout is None or not await model.stdout.readline():
        # It is on its way out; its exit status is what the caller waits for as well.
        await asyncio.Event().wait()


async def _healthy(addresses: Addresses) -> None:
    """Return once `/health` says 200."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(addresses.reachable_host, addresses.port)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
                if b" 200 " in await reader.readline():
                    return
            finally:
                writer.close()
                await writer.wait_closed()
        await asyncio.sleep(POLL_S)


def _check_free(host: str, port: int, purpose: str, remedy: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DemoError(f"{purpose} needs port {port} on {host}, which is not free ({error}): {remedy}.") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
