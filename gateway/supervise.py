"""Several serving processes on one socket: started, watched, started again when they crash, and drained together.

The supervisor serves no request and imports no application, so that little can go wrong in it. It binds the socket
once, so no connection is lost while a worker is replaced, and it is the one endpoint that Prometheus scrapes.
Workers are on a leash (gateway/leash.py): they drain and end even when the supervisor is killed.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from gateway.config.schema import TelemetryFile
from gateway.listening import listen, url_of
from gateway.telemetry.cells import Block
from gateway.telemetry.fleet import Fleet
from gateway.telemetry.listener import MetricsListener
from gateway.telemetry.setup import CLOSE_TIMEOUT_S, start_push

STOPPED_WITHIN_S = 29.0
"""How long workers have from SIGTERM until they are killed: their own drain takes at most 25 s and their telemetry 3."""
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STEADY_AFTER_S = 60.0
"""A worker that ran for this long is started again at once; its earlier crashes are forgotten."""
_LOG = logging.getLogger("gateway")

Command = Callable[[int, int, int, int], Sequence[str]]
"""A worker's command line, given its number and the descriptors of its socket, its metrics' block and its ready pipe."""


def supervise(
    command: Command,
    workers: int,
    address: tuple[str, int],
    metrics_address: tuple[str, int],
    telemetry: TelemetryFile,
    environment: Mapping[str, str],
) -> int:
    """Run `workers` processes until SIGTERM or SIGINT, with one metrics listener for all; the exit status.

    Raises StartError when one of the addresses cannot be had, and VariableError when a variable of `environment` asks
    for an export that cannot be.
    """
    (host, port), (metrics_host, metrics_port) = address, metrics_address
    fleet = Fleet()
    with listen(host, port, "--port") as listening:
        listener = MetricsListener(fleet.exposition, metrics_host, metrics_port)

        push = start_push(telemetry, environment, fleet.read, fleet.push_failed)

        def announce() -> None:
            _LOG.info(
                "%d workers serve %s, metrics on %s/metrics",
                workers,
                url_of(host, listening.getsockname()[1]),
                url_of(metrics_host, listener.port),
            )

        async def run() -> int:
            return await Supervisor(command, workers, listening, fleet, on_ready=announce).run()

        try:
            return asyncio.run(run())
        finally:
            if push is not None:
                push.close(CLOSE_TIMEOUT_S)
            listener.close()
            _LOG.info("stopped")


class Supervisor:
    """Keeps `workers` processes of one command running.

    Args:
        listening: the bound socket.
        fleet: told of each worker that comes and goes.
        backoff_s: the wait before the first restart; it doubles with each crash, up to LONGEST_BACKOFF_S.
        stopped_within_s: how long workers may drain before they are killed.
        on_ready: called once all workers serve.
    """

    def __init__(
        self,
        command: Command,
        workers: int,
        listening: socket.socket,
        fleet: Fleet,
        *,
        backoff_s: float = FIRST_BACKOFF_S,
        stopped_within_s: float = STOPPED_WITHIN_S,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = command
        self._workers = workers
        self._listening = listening
        self._fleet = fleet
        self._backoff_s = backoff_s
        self._stopped_within_s = stopped_within_s
        self._on_ready = on_ready
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ever_ready: set[int] = set()
        self._killed = False
        self._failed = False

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; 0 when all workers drained in time, 1 when one could not start or was killed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._forward, signal.SIGHUP)
        await asyncio.gather(*(self._keep_running(worker) for worker in range(self._workers)))
        return 1 if self._failed or self._killed else 0

    def _stop(self) -> None:
        if not self._stopping.is_set():
            _LOG.info("draining %d workers", len(self._running))
            asyncio.get_running_loop().call_later(self._stopped_within_s, self._kill)
        self._stopping.set()
        # A second signal reaches the workers too, and means the same there: do not wait for requests in flight.
        self._forward(signal.SIGTERM)

    def _forward(self, number: int) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(number)

    def _kill(self) -> None:
        self._killed = True
        _LOG.error("%d workers did not drain within %g s and are killed", len(self._running), self._stopped_within_s)
        self._forward(signal.SIGKILL)

    async def _keep_running(self, worker: int) -> None:
        loop = asyncio.get_running_loop()
        crashes = 0
        while not self._stopping.is_set():
            begun = loop.time()
            status = await self._run_once(worker)
            if self._stopping.is_set():
                if status not in (0, -signal.SIGTERM):
                    _LOG.error("worker %d ended with status %d while draining", worker, status)
                return
            if worker not in self._ever_ready:
                # It never served: what stopped it will stop it again, and others say the same.
                _LOG.error("worker %d could not start (status %d)", worker, status)
                self._failed = True
                self._stop()
                return
            crashes = 0 if loop.time() - begun >= STEADY_AFTER_S else crashes + 1
            wait_s = min(self._backoff_s * 2.0 ** (crashes - 1), LONGEST_BACKOFF_S) if crashes else 0.0
            _LOG.error("worker %d ended with status %d; starting it again in %g s", worker, status, wait_s)
            try:
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _run_once(self, worker: int) -> int:
        block = Block.shared()
        assert block.descriptor is not None
        ready_in, ready_out = os.pipe()
        handed = (self._listening.fileno(), block.descriptor, ready_out)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "gateway.leash"),
                *self._command(worker, *handed),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=handed,
                # A terminal's Ctrl-C is for the supervisor, which tells the workers once.
                process_group=0,
            )
        finally:
            os.close(ready_out)
            block.close()
        self._running[worker] = process
        self._fleet.joined(worker, block, process.pid)
        asyncio.get_running_loop().add_reader(ready_in, self._ready, worker, ready_in)
        if self._stopping.is_set():
            process.terminate()
        status = await process.wait()
        asyncio.get_running_loop().remove_reader(ready_in)
        os.close(ready_in)
        del self._running[worker]
        self._fleet.left(worker, crashed=not self._stopping.is_set())
        return status

    def _ready(self, worker: int, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        if os.read(descriptor, 100) != b"ready":
            return
        _LOG.info("worker %d serves", worker)
        self._ever_ready.add(worker)
        if len(self._ever_ready) == self._workers:
            self._on_ready()
