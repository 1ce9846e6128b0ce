"""The fluent calls of `mlflow.gateway`, for scripts: the gateway is named once for the process.

This is the one place with state of the process, because that is what these calls promise.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any

from gateway.client.clients import GatewayClient, gateway_uri_of
from gateway.client.results import Body, Route


class _Process:
    """The process's gateway and the client for it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._uri: str | None = None
        self._client: GatewayClient | None = None

    @property
    def uri(self) -> str:
        return gateway_uri_of(self._uri)

    def use(self, uri: str) -> None:
        with self._lock:
            self._uri = uri.rstrip("/")

    def client(self) -> GatewayClient:
        with self._lock:
            uri = self.uri
            if self._client is None or self._client.gateway_uri != uri:
                if self._client is not None:
                    self._client.close()
                self._client = GatewayClient(uri)
            return self._client


_PROCESS = _Process()


def set_gateway_uri(gateway_uri: str) -> None:
    """Name the gateway, such as `http://localhost:5000`, for the calls below."""
    if not gateway_uri.startswith(("http://", "https://")):
        raise ValueError(f"The gateway uri '{gateway_uri}' must begin with http:// or https://.")
    _PROCESS.use(gateway_uri)


def get_gateway_uri() -> str:
    """The gateway in use; ValueError when none is named."""
    return _PROCESS.uri


def query(route: str, data: Mapping[str, Any]) -> Body:
    """Call a route in its own shape; raises GatewayClientError."""
    return _PROCESS.client().query(route, data)


def get_route(name: str) -> Route:
    """One route; raises NotFoundError."""
    return _PROCESS.client().get_route(name)


def search_routes() -> list[Route]:
    """All routes."""
    return _PROCESS.client().search_routes()
