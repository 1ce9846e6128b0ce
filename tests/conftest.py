"""Fixtures for any test. They are started once a run and only if a test asks for them."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import uvicorn.server

from tests import local_model_process
from tests.proving import proof
from tests.running_gateway import RunningGateway, running_gateway
from tests.scripted_upstream import ScriptedUpstream
from tests.store.postgres_server import PostgresServer

__all__ = ["proof"]

# opentelemetry-instrumentation-httpx reads this once a process: apps that use gateway.client choose for themselves, the
# gateway always takes the stable conventions, and here both live in one process.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


class _Hasty:
    """`asyncio` for uvicorn, which looks ten times a second whether it shall end, and then waits a tenth once more.

    That was a third of the suite's time.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.005))


@pytest.fixture(scope="session", autouse=True)
def servers_end_at_once() -> Iterator[None]:
    """Servers in the test process heed their end within milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", _Hasty())
        yield


@pytest.fixture(scope="session")
def local_model() -> Iterator[local_model_process.LocalModel]:
    """The real local model (SmolLM2-135M-Instruct), on free ports of the loopback."""
    with local_model_process.local_model() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL; `postgres` of tests/store gives it to a test, and clears it up after."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A provider whose replies the test scripts."""
    async with ScriptedUpstream() as server:
        yield server


StartGateway = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
async def start_gateway() -> AsyncIterator[StartGateway]:
    """Starts gateways by the arguments of `running_gateway`; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(config: str, **arguments: object) -> RunningGateway:
            return await stack.enter_async_context(running_gateway(config, **arguments))  # type: ignore[arg-type]

        yield start
