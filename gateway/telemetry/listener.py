"""The metrics listener: its own port and threads, so that a slow scrape never waits for, or delays, a request.

OpenMetrics (with exemplars) or the text format, by the Accept header.
"""

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server


class MetricsListener:
    """Serves one registry on `/metrics` from threads. Raises OSError when the port is taken."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server: WSGIServer
        self._thread: threading.Thread
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)

    @property
    def port(self) -> int:
        """The port in use, which differs from the asked one when that was 0."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
