"""Every call of `mlflow.gateway` (2.8.1) against the URI in the arguments; prints what they gave. Not run by pytest."""

import json
import sys
from collections.abc import Callable
from typing import Any

from mlflow.gateway import (  # type: ignore[import-not-found]
    MlflowGatewayClient,
    create_route,
    delete_route,
    get_gateway_uri,
    get_limits,
    get_route,
    query,
    search_routes,
    set_gateway_uri,
    set_limits,
)


def failure(call: Callable[[], Any]) -> str:
    """The type and words of the exception that a call raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def main(uri: str) -> dict[str, Any]:
    set_gateway_uri(gateway_uri=uri)
    client = MlflowGatewayClient()
    messages = [{"role": "user", "content": "hello"}]
    return {
        "uri": get_gateway_uri(),
        "client_uri": client.gateway_uri,
        "route": get_route("chat").dict(),
        "client_route": client.get_route("chat").dict(),
        "routes": [route.name for route in search_routes()],
        "client_routes": [route.name for route in client.search_routes()],
        "chat": query("chat", {"messages": messages, "temperature": 0.4}),
        "completions": query("completions", {"prompt": "The sky is"}),
        "embeddings": query("embeddings", {"text": ["a", "b"]}),
        "client_query": client.query("chat", {"messages": messages}),
        "after_a_retry": query("chat", {"messages": messages}),
        "wrong_body": failure(lambda: query("chat", {"messages": []})),
        "refused_by_the_provider": failure(lambda: query("chat", {"messages": messages})),
        "unknown_route": failure(lambda: get_route("nope")),
        "query_of_unknown_route": failure(lambda: query("nope", {})),
        "set_limits": failure(lambda: set_limits("chat", [{"calls": 1, "key": None, "renewal_period": "minute"}])),
        "get_limits": failure(lambda: get_limits("chat")),
        "create_route": failure(lambda: create_route("x", "llm/v1/chat", {"name": "m", "provider": "openai"})),
        "delete_route": failure(lambda: delete_route("x")),
    }


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
