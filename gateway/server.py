"""The ASGI server around the application: uvicorn on uvloop and httptools (docs/adr/0001 has the measurement)."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

GRACE_S = 25
"""How long requests in flight may go on after SIGTERM: within Kubernetes' 30 s."""
_LOG = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server whose signals drain and exit 0, and which says so once."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        signals: bool,
        on_started: Callable[[], None],
        on_hangup: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._signals = (signal.SIGTERM, signal.SIGINT) if signals else ()
        self._on_started = on_started
        self._on_hangup = on_hangup

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
    host: str,
    port: int,
    *,
    signals: bool = True,
    on_started: Callable[[], None] = lambda: None,
    on_hangup: Callable[[], None] | None = None,
) -> Server:
    """A server for one process. With `signals` it drains on SIGTERM and SIGINT; else whoever made it stops it.

    `on_started` is called once it accepts connections, `on_hangup` on SIGHUP.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=2048,
    )
    return Server(config, signals=signals, on_started=on_started, on_hangup=on_hangup)
