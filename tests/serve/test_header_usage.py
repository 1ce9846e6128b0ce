"""Token counts in the headers of a reply, which Bedrock sends where its bodies have none."""

import json
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.scripted_upstream import BytesReply, ScriptedUpstream

COHERE = {"embeddings": [[0.1, 0.2], [0.3, 0.4]], "id": "e", "response_type": "embeddings_floats"}
CLAUDE = {"completion": " blue", "stop_reason": "stop_sequence"}
TITAN = {"embedding": [0.1], "inputTextTokenCount": 5}


def config(base: str, kind: str, model: str) -> str:
    aws = "{aws_region: us-east-1, aws_bearer_token: t}"
    return (
        f"endpoints: [{{name: r, endpoint_type: llm/v1/{kind}, model: {{provider: bedrock, name: '{model}', "
        f"config: {{aws_config: {aws}, bedrock_api_base: '{base}'}}}}}}]"
    )


@pytest.mark.parametrize(
    ("kind", "model", "body", "reply", "counts", "usage", "recorded"),
    [
        (
            "embeddings",
            "cohere.embed-english-v3",
            {"input": ["a", "b"]},
            COHERE,
            {"input": "7", "output": "0"},
            {"prompt_tokens": 7, "total_tokens": 7},
            (7, 0),
        ),
        (
            "completions",
            "anthropic.claude-v2",
            {"prompt": "The sky is"},
            CLAUDE,
            {"input": "11", "output": "3"},
            {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
            (11, 3),
        ),
        (
            "embeddings",
            "amazon.titan-embed-text-v2:0",
            {"input": "a"},
            TITAN,
            {"input": "99"},
            {"prompt_tokens": 5, "total_tokens": 5},
            (5, 0),
        ),
        (
            "completions",
            "anthropic.claude-v2",
            {"prompt": "The sky is"},
            CLAUDE,
            {"input": "many"},
            {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
            None,
        ),
    ],
)
async def test_counts_in_headers(
    upstream: ScriptedUpstream,
    start_gateway: StartGateway,
    kind: str,
    model: str,
    body: dict[str, Any],
    reply: dict[str, Any],
    counts: dict[str, str],
    usage: dict[str, int | None],
    recorded: tuple[int, int] | None,
) -> None:
    """They are told to the caller and measured where the body has none; the body's own go first, and junk is nothing."""
    gateway = await start_gateway(config(upstream.url, kind, model))
    headers = [(f"X-Amzn-Bedrock-{name}-Token-Count", count) for name, count in counts.items()]
    upstream.script(BytesReply(json.dumps(reply).encode(), headers=headers))
    answer = await gateway.client.post("/endpoints/r/invocations", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"] == usage
    attempt = (await gateway.records.last()).attempts[0]
    if recorded is None:
        assert attempt.usage is None or attempt.usage.source == "estimated"
    else:
        assert attempt.usage is not None
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == recorded
