"""The original surface, MLflow 2.5 to 2.8: what a body becomes upstream, and what the caller gets back."""

from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_embeddings, openai_usage
from tests.replies import Reply, json_reply
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

USER = [{"role": "user", "content": "hello"}]
PATHS = {name: f"/gateway/{name}/invocations" for name in ("chat", "completions", "embeddings")}


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"messages": USER}, {"messages": USER, "n": 1, "temperature": 0.0}),
        (
            {"messages": USER, "temperature": 0.4, "candidate_count": 3, "stop": ["a"], "max_tokens": 7},
            {"messages": USER, "temperature": 0.8, "n": 3, "stop": ["a"], "max_tokens": 7},
        ),
        ({"messages": USER, "temperature": "0.5"}, {"messages": USER, "n": 1, "temperature": 1.0}),
        (
            {"messages": USER, "stop": None, "max_tokens": None},
            {"messages": USER, "n": 1, "temperature": 0.0},
        ),
        (
            {"messages": [{"role": "user", "content": "x", "name": "ann"}], "top_p": 0.25, "seed": 7},
            {
                "messages": [{"role": "user", "content": "x", "name": "ann"}],
                "top_p": 0.25,
                "seed": 7,
                "n": 1,
                "temperature": 0.0,
            },
        ),
    ],
)
async def test_chat_request(
    upstream: ScriptedUpstream, start_gateway: StartGateway, body: dict[str, Any], sent: dict[str, Any]
) -> None:
    """Defaults are filled in, `candidate_count` is `n`, the temperature doubles, and other members go as they came."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat())
    reply = await gateway.client.post(PATHS["chat"], json=body)
    assert reply.status_code == 200, reply.text
    request = upstream.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.json() == sent | {"model": "gpt-4o-mini"}
    assert request.header("authorization") == "Bearer sk-test"
    assert request.header("content-type") == "application/json"


async def test_completions_are_asked_as_chat(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """OpenAI's completions go to chat/completions with the prompt as the user's message, and come back as text."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("blue", usage=openai_usage(13, 7), model="gpt-3.5-turbo-0613"))
    reply = await gateway.client.post(PATHS["completions"], json={"prompt": "The sky is", "max_tokens": 5})
    assert upstream.requests[0].path == "/v1/chat/completions"
    assert upstream.requests[0].json() == {
        "model": "gpt-3.5-turbo-instruct",
        "messages": [{"role": "user", "content": "The sky is"}],
        "max_tokens": 5,
        "n": 1,
        "temperature": 0.0,
    }
    assert reply.json() == {
        "candidates": [{"text": "blue", "metadata": {"finish_reason": "stop"}}],
        "metadata": {
            "input_tokens": 13,
            "output_tokens": 7,
            "total_tokens": 20,
            "model": "gpt-3.5-turbo-0613",
            "route_type": "llm/v1/completions",
        },
    }


@pytest.mark.parametrize("text", ["a", ["a", "b"]])
async def test_embeddings(upstream: ScriptedUpstream, start_gateway: StartGateway, text: str | list[str]) -> None:
    """`text` is sent as `input`, other members as they came; output tokens are 0."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_embeddings([0.1, 0.2], prompt_tokens=8))
    reply = await gateway.client.post(PATHS["embeddings"], json={"text": text, "user": "u"})
    assert upstream.requests[0].path == "/v1/embeddings"
    assert upstream.requests[0].json() == {"model": "text-embedding-3-small", "input": text, "user": "u"}
    assert reply.json() == {
        "embeddings": [[0.1, 0.2]],
        "metadata": {
            "input_tokens": 8,
            "output_tokens": 0,
            "total_tokens": 8,
            "model": "text-embedding-3-small",
            "route_type": "llm/v1/embeddings",
        },
    }


async def test_chat_reply(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A chat reply has its candidates with role, content and finish reason, and the five members of metadata."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("hi", usage=openai_usage(13, 7), model="gpt-4o-mini-2024-07-18"))
    reply = await gateway.client.post(PATHS["chat"], json={"messages": USER})
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {
        "candidates": [{"message": {"role": "assistant", "content": "hi"}, "metadata": {"finish_reason": "stop"}}],
        "metadata": {
            "input_tokens": 13,
            "output_tokens": 7,
            "total_tokens": 20,
            "model": "gpt-4o-mini-2024-07-18",
            "route_type": "llm/v1/chat",
        },
    }


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("upstream_reply", "candidate"),
    [
        (
            openai_chat("", finish_reason="content_filter"),
            {"message": {"role": "assistant", "content": ""}, "metadata": {"finish_reason": "content_filter"}},
        ),
        (
            json_reply(
                {
                    "choices": [
                        {
                            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
                            "finish_reason": "tool_calls",
                        }
                    ]
                }
            ),
            {
                "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
                "metadata": {"finish_reason": "tool_calls"},
            },
        ),
    ],
)
async def test_what_broke_the_original(
    upstream: ScriptedUpstream, start_gateway: StartGateway, upstream_reply: Reply, candidate: object
) -> None:
    """Tool calls, null content and a content filter pass, where the original answered 500."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(upstream_reply)
    reply = await gateway.client.post(PATHS["chat"], json={"messages": USER})
    assert (reply.status_code, reply.json()["candidates"]) == (200, [candidate])


async def test_unknown_usage_is_null(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Tokens that the provider did not report are null, never 0."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("hi", usage=None))
    metadata = (await gateway.client.post(PATHS["chat"], json={"messages": USER})).json()["metadata"]
    assert (metadata["input_tokens"], metadata["output_tokens"], metadata["total_tokens"]) == (None, None, None)


MODEL_NOT_PERMITTED = (
    "The parameter 'model' is not permitted to be passed. The route being queried already defines a model instance."
)


def item(kind: str, location: list[str | int], message: str, wrong: object, **ctx: object) -> dict[str, Any]:
    result: dict[str, Any] = {"type": kind, "loc": ["body", *location], "msg": message, "input": wrong}
    return result | ({"ctx": ctx} if ctx else {})


@pytest.mark.parametrize(
    ("route", "body", "detail"),
    [
        ("chat", {}, [item("missing", ["messages"], "Field required", {})]),
        (
            "chat",
            {"messages": []},
            [
                item(
                    "too_short",
                    ["messages"],
                    "List should have at least 1 item after validation, not 0",
                    [],
                    field_type="List",
                    min_length=1,
                    actual_length=0,
                )
            ],
        ),
        (
            "chat",
            {"messages": [{"role": "user"}]},
            [item("missing", ["messages", 0, "content"], "Field required", {"role": "user"})],
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": 1}]},
            [item("string_type", ["messages", 0, "content"], "Input should be a valid string", 1)],
        ),
        ("chat", {"messages": "hi"}, [item("list_type", ["messages"], "Input should be a valid list", "hi")]),
        (
            "chat",
            {"messages": USER, "temperature": 1.5},
            [item("less_than_equal", ["temperature"], "Input should be less than or equal to 1", 1.5, le=1.0)],
        ),
        (
            "chat",
            {"messages": USER, "temperature": -1},
            [item("greater_than_equal", ["temperature"], "Input should be greater than or equal to 0", -1, ge=0.0)],
        ),
        (
            "chat",
            {"messages": USER, "candidate_count": 6},
            [item("less_than_equal", ["candidate_count"], "Input should be less than or equal to 5", 6, le=5.0)],
        ),
        (
            "chat",
            {"messages": USER, "max_tokens": 0},
            [item("greater_than_equal", ["max_tokens"], "Input should be greater than or equal to 1", 0, ge=1.0)],
        ),
        ("chat", {"messages": USER, "stop": "a"}, [item("list_type", ["stop"], "Input should be a valid list", "a")]),
        (
            "completions",
            {"prompt": ["a"]},
            [item("string_type", ["prompt"], "Input should be a valid string", ["a"])],
        ),
        (
            "embeddings",
            {"text": 3},
            [
                item("string_type", ["text", "str"], "Input should be a valid string", 3),
                item("list_type", ["text", "list[str]"], "Input should be a valid list", 3),
            ],
        ),
        (
            "embeddings",
            {"text": ["a", 3]},
            [
                item("string_type", ["text", "str"], "Input should be a valid string", ["a", 3]),
                item("string_type", ["text", "list[str]", 1], "Input should be a valid string", 3),
            ],
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": 1}, {"content": "x"}], "temperature": 5, "stop": "x"},
            [
                item("less_than_equal", ["temperature"], "Input should be less than or equal to 1", 5, le=1.0),
                item("list_type", ["stop"], "Input should be a valid list", "x"),
                item("string_type", ["messages", 0, "content"], "Input should be a valid string", 1),
                item("missing", ["messages", 1, "role"], "Field required", {"content": "x"}),
            ],
        ),
        (
            "chat",
            [1],
            [
                item(
                    "model_attributes_type",
                    [],
                    "Input should be a valid dictionary or object to extract fields from",
                    [1],
                )
            ],
        ),
        (
            "chat",
            {"model": "gpt-4", "messages": USER},
            MODEL_NOT_PERMITTED,
        ),
        ("chat", {"messages": USER, "n": 1}, "Invalid parameter `n`. Use `candidate_count` instead."),
        ("completions", {"prompt": "a", "n": 1}, "Invalid parameter `n`. Use `candidate_count` instead."),
        ("embeddings", {"text": "a", "input": "a"}, "Invalid parameter input. Use text instead."),
    ],
)
async def test_refused_bodies(
    upstream: ScriptedUpstream, start_gateway: StartGateway, route: str, body: object, detail: object
) -> None:
    """A wrong body is 422 with FastAPI's list, or the original's sentence; nothing goes upstream, and it is counted."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    reply = await gateway.client.post(PATHS[route], json=body)
    assert (reply.status_code, reply.json()["detail"]) == (422, detail)
    assert reply.json()["error_type"] == "invalid_request"
    record = await gateway.records.last()
    assert reply.json()["trace_id"] == record.trace.trace_id_hex == reply.headers["x-gateway-trace-id"]
    assert (record.route, record.status_code, record.attempts) == (route, 422, ())
    assert upstream.hits == 0


@pytest.mark.parametrize(
    ("content", "kind", "location"),
    [(b'{"messages": [', "json_invalid", 14), (b"{'a'}", "json_invalid", 1), (b"", "missing", None)],
)
async def test_malformed_json(
    upstream: ScriptedUpstream, start_gateway: StartGateway, content: bytes, kind: str, location: int | None
) -> None:
    """What is no JSON is 422 `json_invalid` with the byte where reading stopped."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    reply = await gateway.client.post(PATHS["chat"], content=content)
    assert reply.status_code == 422
    body = reply.json()
    assert body["error_type"] == "invalid_json"
    assert body["detail"][0]["type"] == kind
    assert body["detail"][0]["loc"] == (["body"] if location is None else ["body", location])


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("POST", "/gateway/nope/invocations", 404, "Not Found"),
        ("GET", "/gateway/nope/invocations", 404, "Not Found"),
        ("GET", "/gateway/chat/invocations", 405, "Method Not Allowed"),
        ("PUT", "/endpoints/chat/invocations", 405, "Method Not Allowed"),
        ("POST", "/endpoints/nope/invocations", 404, "Not Found"),
    ],
)
async def test_wrong_path_or_method(
    upstream: ScriptedUpstream, start_gateway: StartGateway, method: str, path: str, status: int, detail: str
) -> None:
    """An unknown route is 404 and a wrong method 405 with Allow, in FastAPI's words."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    reply = await gateway.client.request(method, path)
    assert (reply.status_code, reply.json()["detail"]) == (status, detail)
    assert reply.headers.get("allow") == ("POST" if status == 405 else None)


async def test_stream_is_refused(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """There is no stream in this API: 422 that names the paths that have one, instead of a 502 that clients repeat."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    for stream in (True, "true"):
        reply = await gateway.client.post(PATHS["chat"], json={"messages": USER, "stream": stream})
        assert reply.status_code == 422
        assert reply.json()["detail"].startswith("Setting the 'stream' parameter to 'true' is not supported")
    assert "/v1" in reply.json()["detail"]
    assert upstream.hits == 0


ANTHROPIC = """
routes:
  - name: embed
    route_type: llm/v1/embeddings
    model: {provider: anthropic, name: claude-3, config: {anthropic_api_key: k}}
endpoints:
  - name: embed2
    endpoint_type: llm/v1/embeddings
    model: {provider: anthropic, name: claude-3, config: {anthropic_api_key: k}}
"""


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/gateway/embed/invocations", {"text": "a"}, 404, "available"),
        ("/gateway/embed2/invocations", {"input": "a"}, 501, "implemented"),
        ("/endpoints/embed2/invocations", {"input": "a"}, 501, "implemented"),
    ],
)
async def test_operation_that_the_provider_lacks(
    start_gateway: StartGateway, path: str, body: object, status: int, word: str
) -> None:
    """A route whose provider has no such operation says so: 404 on routes, 501 on endpoints."""
    gateway = await start_gateway(ANTHROPIC)
    reply = await gateway.client.post(path, json=body)
    assert reply.status_code == status
    assert reply.json()["detail"] == f"The embeddings route is not {word} for Anthropic models."


NATIVE = {
    "cohere": ("command", "{cohere_api_key: k}", {"stop_sequences": "stop", "num_generations": "candidate_count"}),
    "ai21labs": (
        "j2-ultra",
        "{ai21labs_api_key: k}",
        {"stopSequences": "stop", "numResults": "candidate_count", "maxTokens": "max_tokens"},
    ),
    "mosaicml": ("mpt-7b", "{mosaicml_api_key: k}", {"max_new_tokens": "max_tokens"}),
    "palm": (
        "text-bison-001",
        "{palm_api_key: k}",
        {"stopSequences": "stop", "candidateCount": "candidate_count", "maxOutputTokens": "max_tokens"},
    ),
    "huggingface-text-generation-inference": (
        "m",
        "{hf_server_url: 'http://x.invalid'}",
        {"max_new_tokens": "max_tokens"},
    ),
}


@pytest.mark.parametrize(
    ("provider", "theirs", "ours"),
    [(provider, theirs, ours) for provider, (_, _, names) in NATIVE.items() for theirs, ours in names.items()],
)
async def test_a_providers_own_words_are_refused(
    start_gateway: StartGateway, provider: str, theirs: str, ours: str
) -> None:
    """A parameter under its provider's name is 422 and says which name the route wants."""
    model, config, _ = NATIVE[provider]
    gateway = await start_gateway(
        f"routes: [{{name: r, route_type: llm/v1/completions, "
        f"model: {{provider: {provider}, name: {model}, config: {config}}}}}]"
    )
    reply = await gateway.client.post("/gateway/r/invocations", json={"prompt": "a", theirs: 1})
    assert (reply.status_code, reply.json()["detail"]) == (422, f"Invalid parameter {theirs}. Use {ours} instead.")


async def test_anthropics_own_words_go_as_they_came(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Anthropic's names for what has one here are forwarded, as in MLflow, and are not overwritten by defaults."""
    config = f"{{anthropic_api_key: k, anthropic_api_base: {upstream.url}/v1}}"
    gateway = await start_gateway(
        f"routes: [{{name: r, route_type: llm/v1/completions, "
        f"model: {{provider: anthropic, name: claude-2, config: {config}}}}}]"
    )
    upstream.script(json_reply({"completion": "b", "stop_reason": "stop_sequence", "model": "claude-2"}))
    own = {"max_tokens_to_sample": 7, "stop_sequences": ["x"]}
    reply = await gateway.client.post("/gateway/r/invocations", json={"prompt": "a"} | own)
    assert reply.status_code == 200, reply.text
    assert own.items() <= upstream.requests[0].json().items()


async def test_a_mistake_that_a_provider_calls_its_failure(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """MosaicML answers 500 to a prompt that is too long: callers get 422, which no client sends again."""
    config = f"{{mosaicml_api_key: k, mosaicml_api_base: {upstream.url}}}"
    gateway = await start_gateway(
        f"routes: [{{name: r, route_type: llm/v1/completions, "
        f"model: {{provider: mosaicml, name: mpt-7b-instruct, config: {config}}}}}]"
    )
    message = "Error: prompt token count (4097) cannot exceed 4096. Please reduce the length of your prompt."
    upstream.script(json_reply({"message": message}, status=500))
    reply = await gateway.client.post("/gateway/r/invocations", json={"prompt": "a"})
    assert (reply.status_code, reply.json()["error_type"]) == (422, "provider_invalid_request")
    assert reply.json()["detail"] == {"message": message}
