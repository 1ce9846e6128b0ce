"""Every call of `mlflow.deployments` (2.22 and 3.x) against the URI in the arguments; prints what they gave.

Not run by pytest.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from mlflow.deployments import get_deploy_client  # type: ignore[import-not-found]


def failure(call: Callable[[], Any]) -> str:
    """The type and words of the exception that a call raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def main(uri: str) -> dict[str, Any]:
    client = get_deploy_client(uri)
    messages = [{"role": "user", "content": "hello"}]
    return {
        "endpoint": client.get_endpoint(endpoint="chat").dict(),
        "endpoints": [endpoint.name for endpoint in client.list_endpoints()],
        "chat": client.predict(endpoint="chat", inputs={"messages": messages, "temperature": 1.5}),
        "completions": client.predict(endpoint="completions", inputs={"prompt": "The sky is"}),
        "embeddings": client.predict(endpoint="embeddings", inputs={"input": ["a", "b"]}),
        "after_a_retry": client.predict(endpoint="chat", inputs={"messages": messages}),
        "wrong_body": failure(lambda: client.predict(endpoint="chat", inputs={"messages": []})),
        "refused_by_the_provider": failure(lambda: client.predict(endpoint="chat", inputs={"messages": messages})),
        "unknown_endpoint": failure(lambda: client.get_endpoint(endpoint="nope")),
        "predict_stream": failure(lambda: client.predict_stream(endpoint="chat", inputs={"messages": messages})),
    }


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
