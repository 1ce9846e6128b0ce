"""The metrics listener: its own port and threads, so that a slow scrape never waits for, or delays, a request.

OpenMetrics (with exemplars) or the text format, by the Accept header; compressed where the scraper takes gzip.
"""

import logging
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from gateway.listening import listen
from gateway.telemetry.exposition import OPENMETRICS_TYPE, TEXT_TYPE, render
from gateway.telemetry.readings import Families

_LOG = logging.getLogger(__name__)
_BREATH_S = 0.001
"""A scrape holds the interpreter for a piece of its text, then lets requests go on for at least this long."""
_END = "# EOF\n"
MOST_SCRAPERS = 64
"""Connections at once, each with a thread and a descriptor that callers could have had."""
_FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Exposition:
    """What one scrape gets.

    Args:
        read: the catalogue's families.
        registries: further families, which must not stand in the catalogue.
    """

    def __init__(self, read: Callable[[], Families], registries: Sequence[CollectorRegistry] = ()) -> None:
        self._read = read
        self._registries = registries

    def pieces(self, *, openmetrics: bool) -> Iterator[str]:
        """The text, in pieces of some hundred lines."""
        yield from render(self._read(), openmetrics=openmetrics)
        for registry in self._registries:
            generate = generate_openmetrics if openmetrics else generate_latest
            yield generate(registry).decode().removesuffix(_END)
        if openmetrics:
            yield _END


class MetricsListener:
    """Serves an exposition on `/metrics` from threads. Raises StartError when the port is taken."""

    def __init__(self, exposition: Exposition, host: str, port: int) -> None:
        self._server = _Server((host, port), exposition)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics-listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use, which differs from the asked one when that was 0."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A scrape that hangs must not hold the end of the process.
    block_on_close = False

    def __init__(self, address: tuple[str, int], exposition: Exposition) -> None:
        self.exposition = exposition
        self._room = threading.BoundedSemaphore(MOST_SCRAPERS)
        super().__init__(address, _Scrape, bind_and_activate=False)
        self.socket.close()
        self.socket = listen(*address, "--metrics-port")
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or refuse it at once when there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            # Nothing was written to it before: these bytes fit, and nobody is waited for.
            request.sendall(_FULL)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a scraper that left or is too slow (an OSError); log any other failure, and serve on."""
        failure = sys.exception()
        if not isinstance(failure, OSError):
            _LOG.error("a scrape failed", exc_info=failure)


class _Scrape(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "gaugeway"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path.split("?")[0] not in ("/metrics", "/"):
            self.send_error(404)
            return
        openmetrics = "application/openmetrics-text" in self.headers.get("accept", "")
        compress = "gzip" in self.headers.get("accept-encoding", "")
        self.send_response(200)
        self.send_header("content-type", OPENMETRICS_TYPE if openmetrics else TEXT_TYPE)
        self.send_header("transfer-encoding", "chunked")
        if compress:
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        pieces = (piece.encode() for piece in self.server.exposition.pieces(openmetrics=openmetrics))
        for piece in _compressed(pieces) if compress else pieces:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(_BREATH_S)
        # Without it, a scrape that was broken off would look whole.
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: scrapes come several times a minute."""


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # The fastest level takes nine tenths off already; 31 asks for gzip's own header and check.
    compress = zlib.compressobj(level=1, wbits=31)
    for piece in pieces:
        yield compress.compress(piece)
    yield compress.flush()
