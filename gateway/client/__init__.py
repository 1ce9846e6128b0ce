"""A small client of the gateway: the fluent calls of the MLflow AI Gateway, and more with types, streams and async.

    from gateway.client import query, set_gateway_uri

    set_gateway_uri("http://localhost:5000")
    query("chat", {"messages": [{"role": "user", "content": "hello"}]})

    with GatewayClient("http://localhost:5000") as client:
        print(client.chat("chat", "hello").text)
        for chunk in client.stream_chat("chat", "hello"):
            print(chunk.text, end="")

Calls take part in the app's own OpenTelemetry trace, where it has one. Nothing here imports the rest of the gateway.
"""

from gateway.client.clients import AsyncGatewayClient, GatewayClient
from gateway.client.errors import (
    BudgetExceededError,
    ForbiddenError,
    GatewayClientError,
    GatewayFailedError,
    InvalidRequestError,
    NotFoundError,
    ProviderFailedError,
    RateLimitedError,
    UnauthenticatedError,
    UnreachableError,
)
from gateway.client.fluent import get_gateway_uri, get_route, query, search_routes, set_gateway_uri
from gateway.client.results import (
    ChatChunk,
    ChatReply,
    EmbeddingsReply,
    Route,
    RouteLimit,
    RouteModel,
    TextChunk,
    TextReply,
    Usage,
)

__all__ = [
    "AsyncGatewayClient",
    "BudgetExceededError",
    "ChatChunk",
    "ChatReply",
    "EmbeddingsReply",
    "ForbiddenError",
    "GatewayClient",
    "GatewayClientError",
    "GatewayFailedError",
    "InvalidRequestError",
    "NotFoundError",
    "ProviderFailedError",
    "RateLimitedError",
    "Route",
    "RouteLimit",
    "RouteModel",
    "TextChunk",
    "TextReply",
    "UnauthenticatedError",
    "UnreachableError",
    "Usage",
    "get_gateway_uri",
    "get_route",
    "query",
    "search_routes",
    "set_gateway_uri",
]
