"""The ASGI server around the application: uvicorn on uvloop and httptools (docs/adr/0001 has the measurement)."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any

import uvicorn

from gateway.http_protocol import HttpProtocol
from gateway.listening import BACKLOG

GRACE_S = 25
"""How long requests in flight may go on after SIGTERM: within Kubernetes' 30 s."""
KEEP_ALIVE_S = 75
"""How long a caller's idle connection is kept: longer than load balancers keep theirs (60 s, mostly), since a request
that meets a closing connection is lost."""
_LOG = logging.getLogger(__name__)
_END_S = 2.0
_TICKS = 50

Running = Callable[[], AbstractAsyncContextManager[None]]
"""Enters the state in which an application can serve."""


class Server(uvicorn.Server):
    """A uvicorn server whose signals drain and exit 0, and which says so once.

    What `running` raises leaves `run` and `serve` as it is: ASGI's lifespan would make a traceback's text of it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        running: Running,
        signals: bool,
        on_started: Callable[[], None],
        on_hangup: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._running = running
        self._signals = (signal.SIGTERM, signal.SIGINT) if signals else ()
        self._on_started = on_started
        self._on_hangup = on_hangup

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        with self.capture_signals():
            async with self._running():
                await self._serve(sockets)
                await self._end_requests()

    async def _end_requests(self) -> None:
        """Requests that the drain did not wait for have to tell their callers, and to be charged, while all is there."""
        tasks = list(self.server_state.tasks)
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        if tasks:
            _, unheard = await asyncio.wait(tasks, timeout=_END_S)
            if unheard:
                # Their callers read nothing, so they cannot be told.
                for connection in list(self.server_state.connections):
                    connection.transport.abort()
                await asyncio.wait(unheard, timeout=_END_S)

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn calls this ten times a second; true ends the server."""
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.leave_if_stuck(now)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who asked."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT. Uvicorn's own version raises the signal again, which would not exit 0."""
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self._drain, number)
        if self._on_hangup is not None:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            if self._on_hangup is not None:
                loop.remove_signal_handler(signal.SIGHUP)
            for number in self._signals:
                loop.remove_signal_handler(number)

    def _drain(self, number: int) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        _LOG.info("draining: no new connections, requests in flight have %s s", GRACE_S)


def make_server(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    running: Running = nullcontext,
    signals: bool = True,
    on_started: Callable[[], None] = lambda: None,
    on_hangup: Callable[[], None] | None = None,
) -> Server:
    """A server for one process, on an address or on the sockets that it is run with.

    With `signals` it drains on SIGTERM and SIGINT; else whoever made it stops it. It serves inside `running`, calls
    `on_started` once it accepts connections, and `on_hangup` on SIGHUP.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )
    return Server(config, running=running, signals=signals, on_started=on_started, on_hangup=on_hangup)
