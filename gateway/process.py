"""One serving process, alone or as one worker of several, from its settings to the end of its drain."""

import gc
import ipaddress
import logging
import os
import random
import socket
import sys
from contextlib import ExitStack

from msgspec import Struct

from gateway.app import Gateway
from gateway.config.reload import Reloader
from gateway.config.settings import Settings
from gateway.listening import listen, url_of
from gateway.server import make_server
from gateway.spend.opening import Ledgers
from gateway.telemetry.cells import Block
from gateway.telemetry.listener import MetricsListener
from gateway.telemetry.setup import Telemetry, TraceExport
from gateway.types.clock import Clock

_LOG = logging.getLogger("gateway")


class Handed(Struct, frozen=True, kw_only=True):
    """What a supervisor hands to a worker: its number, and as file descriptors the bound socket, the memory of its
    metrics, and a pipe that the worker writes to once it serves.
    """

    number: int
    listen: int
    block: int
    ready: int


def serve(
    settings: Settings,
    reloader: Reloader,
    ledgers: Ledgers,
    export: TraceExport,
    clock: Clock,
    address: tuple[str, int],
    metrics_address: tuple[str, int],
) -> int:
    """Serve on (host, port) until SIGTERM or SIGINT, with a metrics listener on the other; the exit status.

    Raises StartError and ConfigError.
    """
    (host, port), (metrics_host, metrics_port) = address, metrics_address
    rng = new_rng()
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port, "--port"))
        telemetry = Telemetry(settings.telemetry, export, clock, rng)
        stack.callback(telemetry.close)
        listener = MetricsListener(telemetry.exposition, metrics_host, metrics_port)
        stack.callback(listener.close)
        gateway = Gateway(settings, telemetry, clock, rng, ledgers, reloader=reloader, reachable=not _is_loopback(host))

        def announce() -> None:
            _LOG.info(
                "serving %d routes on %s, documentation on /docs, metrics on %s/metrics, traces: %s",
                len(settings.routes),
                url_of(host, listening.getsockname()[1]),
                url_of(metrics_host, listener.port),
                export.value,
            )

        server = make_server(gateway.app, running=gateway.running, on_started=announce, on_hangup=reloader.ask)
        _tune_interpreter()
        server.run([listening])
    _LOG.info("stopped")
    return 0


def work(
    settings: Settings, reloader: Reloader, ledgers: Ledgers, export: TraceExport, clock: Clock, handed: Handed
) -> int:
    """Serve as one worker of several; its supervisor reads its metrics. The exit status; raises as `serve` does."""
    rng = new_rng()
    telemetry = Telemetry(settings.telemetry, export, clock, rng, block=Block.attach(handed.block))
    listening = socket.socket(fileno=handed.listen)
    gateway = Gateway(
        settings,
        telemetry,
        clock,
        rng,
        ledgers,
        reloader=reloader,
        # One of the workers answers the administrators: their port is one.
        administers=handed.number == 0,
        reachable=not _is_loopback(listening.getsockname()[0]),
    )
    server = make_server(
        gateway.app, running=gateway.running, on_started=lambda: _tell(handed.ready), on_hangup=reloader.ask
    )
    _tune_interpreter()
    try:
        server.run(sockets=[listening])
    finally:
        telemetry.close()
    return 0


def new_rng() -> random.Random:
    """The fast generator, seeded by the system: ids must be unique, not secret."""
    return random.Random(random.SystemRandom().getrandbits(256))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tell(descriptor: int) -> None:
    os.write(descriptor, b"ready")
    os.close(descriptor)


def _tune_interpreter() -> None:
    # What has been imported and built stays for good: the collector need not walk it again with every full pass.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    # Each time that the loop has waited for the network, a thread that is encoding metrics or committing charges may
    # keep the interpreter for so long. The default, 5 ms, is more than all that the gateway does for a request.
    sys.setswitchinterval(0.0005)
