"""The real gateway inside the test process: real HTTP on a free port, all signals real, its records captured.

    async with ScriptedUpstream() as upstream, running_gateway(routes_yaml(upstream.url)) as gateway:
        upstream.script(openai_chat("hi"))
        reply = await gateway.client.post("/gateway/chat/invocations", json={...})
        record = await gateway.records.last()

It shares the test's event loop, so a blocking client (requests, a vendor's synchronous SDK) belongs into
`asyncio.to_thread`. The fixture `start_gateway` in conftest.py does the same for tests that take fixtures.
"""

import asyncio
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, nullcontext
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from gateway.app import Gateway
from gateway.cli import SystemClock
from gateway.config.load import load_file, load_text
from gateway.config.reload import Reloader
from gateway.config.settings import Settings
from gateway.providers.registry import find_provider
from gateway.server import Server, make_server
from gateway.spend.opening import Ledgers, passing_ledgers
from gateway.telemetry.metric import Metric
from gateway.telemetry.setup import Telemetry, TraceExport
from gateway.types.clock import Clock, Rng
from gateway.types.records import RequestRecord

_WAIT_S = 30.0
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that only ask `http://` addresses: httpx would read all of the system's authorities, for 20 ms each."""
ENVIRONMENT: Mapping[str, str] = {"OPENAI_API_KEY": "sk-test"}
"""The variables that configurations may name unless a test gives its own."""


class Records:
    """A sink that keeps every finished request."""

    name = "test"

    def __init__(self) -> None:
        self.all: list[RequestRecord] = []
        self._changed = asyncio.Event()

    def record(self, record: RequestRecord) -> None:
        self.all.append(record)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, count: int) -> list[RequestRecord]:
        """The records, once there are `count`: a record is made after its reply has gone out."""
        try:
            async with asyncio.timeout(_WAIT_S):
                while len(self.all) < count:
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{count} records did not come within {_WAIT_S:.0f} s, only {self.all}") from None
        return self.all

    async def last(self) -> RequestRecord:
        """The newest record, once there is one."""
        return (await self.wait(1))[-1]


class RunningGateway:
    """A started gateway.

    Args:
        url: where callers reach it, without a trailing slash.
        client: an HTTP client for it that follows no redirects.
    """

    def __init__(
        self,
        gateway: Gateway,
        telemetry: Telemetry,
        records: Records,
        url: str,
        client: httpx.AsyncClient,
        reloader: Reloader | None,
        server: Server,
    ) -> None:
        self._reloader = reloader
        self._server = server
        self.gateway = gateway
        self.telemetry = telemetry
        self.records = records
        self.url = url
        self.client = client

    @property
    def connections(self) -> int:
        """How many callers are connected."""
        return len(self._server.server_state.connections)

    @property
    def blocked(self) -> int:
        """How many connections take no more bytes: what their callers do not read has filled every buffer."""
        return sum(bool(connection.flow.write_paused) for connection in self._server.server_state.connections)

    @asynccontextmanager
    async def reload(self) -> AsyncIterator[None]:
        """Edit the file inside; at the end the gateway has looked at it, and taken it or not."""
        assert self._reloader is not None
        before = self._reloader.state
        yield
        deadline = time.monotonic() + _WAIT_S
        while self._reloader.state is before:
            assert time.monotonic() < deadline, "the edit was not looked at"
            await asyncio.sleep(0.005)

    @property
    def registry(self) -> CollectorRegistry:
        """What Prometheus would scrape."""
        return self.telemetry.registry

    def metric(self, metric: Metric, suffix: str = "", **labels: str) -> float:
        """The sum of a family's samples whose labels include `labels`; `suffix` such as `_count` for histograms."""
        name = metric.name + suffix
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {_WAIT_S:.0f} s"
        await asyncio.sleep(0.002)


def settings_of(config: str, environment: Mapping[str, str] = ENVIRONMENT) -> Settings:
    """The settings that a configuration's text means; raises ConfigError."""
    return load_text(config, find_provider, environment)


@asynccontextmanager
async def running_gateway(
    config: str,
    *,
    environment: Mapping[str, str] = ENVIRONMENT,
    clock: Clock | None = None,
    rng: Rng | None = None,
    export: TraceExport = TraceExport.NONE,
    log_descriptor: int | None = None,
    ledgers: Ledgers | None = None,
    config_path: Path | None = None,
) -> AsyncIterator[RunningGateway]:
    """Start the gateway with a configuration's text; `log_descriptor` gets its request log (default: nowhere).

    With `config_path` the text is written there, and edits of that file are taken up within milliseconds.
    """
    clock = clock or SystemClock()
    rng = rng or random.Random(20_260_101)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    reloader = None
    if config_path is None:
        settings = settings_of(config, environment)
    else:
        path = config_path
        await asyncio.to_thread(path.write_text, config)
        reloader = Reloader(path, lambda: load_file(path, find_provider, environment), clock, interval_s=0.01)
        settings = reloader.first()
    telemetry = Telemetry(
        settings.telemetry, export, clock, rng, log_descriptor=nowhere if log_descriptor is None else log_descriptor
    )
    records = Records()
    telemetry.observer.sinks = (*telemetry.observer.sinks, records)
    stack = ExitStack()
    gateway = Gateway(
        settings, telemetry, clock, rng, ledgers or stack.enter_context(passing_ledgers()), reloader=reloader
    )
    started = asyncio.Event()
    server = make_server(gateway.app, running=gateway.running, on_started=started.set)
    # The signals are pytest's.
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]
    # Tests that leave a request open on purpose must not wait for it.
    server.config.timeout_graceful_shutdown = 1
    serving = asyncio.create_task(server.serve())
    try:
        starting = asyncio.create_task(started.wait())
        await asyncio.wait({serving, starting}, timeout=_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        assert server.started, "the gateway did not start; its log says why"
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=_WAIT_S, verify=PLAIN) as client:
            yield RunningGateway(gateway, telemetry, records, url, client, reloader, server)
    finally:
        server.should_exit = True
        await serving
        telemetry.close()
        stack.close()
        os.close(nowhere)


def routes_yaml(base_url: str, section: str = "routes", extra: str = "") -> str:
    """The three routes chat, completions and embeddings, of provider openai at `base_url`/v1.

    `section` is `routes` (original shape) or `endpoints`; `extra` are lines for every route, not indented.
    """
    key = "route_type" if section == "routes" else "endpoint_type"
    lines = [f"{section}:"]
    for name, model in (
        ("chat", "gpt-4o-mini"),
        ("completions", "gpt-3.5-turbo-instruct"),
        ("embeddings", "text-embedding-3-small"),
    ):
        lines += [
            f"  - name: {name}",
            f"    {key}: llm/v1/{name}",
            "    model:",
            "      provider: openai",
            f"      name: {model}",
            f"      config: {{openai_api_key: $OPENAI_API_KEY, openai_api_base: {base_url}/v1}}",
            *(f"    {line}" for line in extra.splitlines()),
        ]
    return "\n".join(lines) + "\n"
