"""The endpoint family, MLflow 2.9 and later: OpenAI-like bodies on both paths, streams, and its own 422s."""

import json
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_completion, openai_embeddings, openai_stream, openai_usage
from tests.replies import json_reply
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

USER = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("family", ["endpoints", "gateway"])
async def test_chat(upstream: ScriptedUpstream, start_gateway: StartGateway, family: str) -> None:
    """On an endpoint both paths take and give OpenAI's shape; members of the request go upstream as they came."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_chat("hi", usage=openai_usage(13, 7)))
    body = {"messages": USER, "temperature": 1.5, "n": 1, "stop": ["x"], "seed": 3}
    reply = await gateway.client.post(f"/{family}/chat/invocations", json=body)
    assert upstream.requests[0].json() == body | {"model": "gpt-4o-mini"}
    answer = reply.json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert answer["usage"]["total_tokens"] == 20


async def test_completions_keep_their_own_api(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """An endpoint's completions go to /completions, since it names a model that completes."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_completion("blue"))
    reply = await gateway.client.post("/endpoints/completions/invocations", json={"prompt": "The sky is"})
    assert upstream.requests[0].path == "/v1/completions"
    assert (reply.json()["object"], reply.json()["choices"][0]["text"]) == ("text_completion", "blue")


@pytest.mark.parametrize("text", ["a", ["a", "b"], [1, 2], [[1, 2], [3]]])
async def test_embeddings(upstream: ScriptedUpstream, start_gateway: StartGateway, text: object) -> None:
    """Embeddings take text, texts, tokens and lists of tokens."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_embeddings([0.1]))
    reply = await gateway.client.post("/endpoints/embeddings/invocations", json={"input": text})
    assert upstream.requests[0].json()["input"] == text
    assert reply.json()["data"][0]["embedding"] == [0.1]


def events(body: str) -> list[Any]:
    return [json.loads(line[6:]) for line in body.split("\n\n") if line.startswith("data: {")]


@pytest.mark.parametrize("usage", [None, {"include_usage": True}])
async def test_stream(upstream: ScriptedUpstream, start_gateway: StartGateway, usage: object) -> None:
    """A stream comes as SSE frames with [DONE] at the end; the usage chunk reaches only callers who asked for it."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_stream(["he", "llo"], usage=openai_usage(3, 2)))
    body: dict[str, Any] = {"messages": USER, "stream": True} | ({"stream_options": usage} if usage else {})
    reply = await gateway.client.post("/endpoints/chat/invocations", json=body)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.text.endswith("data: [DONE]\n\n")
    chunks = events(reply.text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "hello"
    assert (chunks[-1].get("usage") is not None) == (usage is not None)
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    record = await gateway.records.last()
    assert record.attempts[0].usage is not None
    assert record.attempts[0].usage.input_tokens == 3


async def test_completions_of_the_original_form_stream_as_text(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A route in the original form is asked as chat, and streams text completions on the newer path."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_stream(["bl", "ue"], usage=openai_usage(3, 2)))
    reply = await gateway.client.post(
        "/endpoints/completions/invocations", json={"prompt": "The sky is", "stream": True}
    )
    assert upstream.requests[0].path == "/v1/chat/completions"
    chunks = events(reply.text)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "blue"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]


@pytest.mark.parametrize(
    ("route", "body", "kind", "location"),
    [
        ("chat", {}, "missing", ["messages"]),
        ("chat", {"messages": []}, "too_short", ["messages"]),
        ("chat", {"messages": [{"content": "a"}]}, "missing", ["messages", 0, "role"]),
        ("chat", {"messages": USER, "temperature": 2.5}, "less_than_equal", ["temperature"]),
        ("chat", {"messages": USER, "n": 0}, "greater_than_equal", ["n"]),
        ("chat", {"messages": USER, "max_tokens": 0}, "greater_than_equal", ["max_tokens"]),
        ("chat", {"messages": USER, "stop": []}, "too_short", ["stop"]),
        ("chat", {"messages": USER, "stream": "perhaps"}, "bool_parsing", ["stream"]),
        ("chat", {"messages": USER, "n": None}, "int_type", ["n"]),
        ("chat", {"messages": USER, "top_p": 3}, "less_than_equal", ["top_p"]),
        ("chat", {"messages": USER, "presence_penalty": -5}, "greater_than_equal", ["presence_penalty"]),
        ("chat", {"messages": USER, "max_tokens": 5.5}, "int_from_float", ["max_tokens"]),
        ("chat", {"messages": USER, "temperature": "hot"}, "float_parsing", ["temperature"]),
        ("chat", {"messages": USER, "tools": "x"}, "list_type", ["tools"]),
        ("chat", {"messages": USER, "response_format": {"type": "xml"}}, "literal_error", ["response_format", "type"]),
        ("chat", None, "missing", []),
        ("completions", {"prompt": 1}, "string_type", ["prompt"]),
        ("embeddings", {"input": {}}, "string_type", ["input", "str"]),
        ("embeddings", {"input": ["a", 1]}, "string_type", ["input", "str"]),
        ("embeddings", {}, "missing", ["input"]),
    ],
)
async def test_refused_bodies(
    upstream: ScriptedUpstream,
    start_gateway: StartGateway,
    route: str,
    body: object,
    kind: str,
    location: list[str | int],
) -> None:
    """A wrong body is 422 with FastAPI's list, and nothing goes upstream."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    reply = await gateway.client.post(f"/endpoints/{route}/invocations", json=body)
    assert reply.status_code == 422
    assert (reply.json()["detail"][0]["type"], reply.json()["detail"][0]["loc"]) == (kind, ["body", *location])
    assert upstream.hits == 0


async def test_every_wrong_field_is_told(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The list has an item for each wrong field, and for each alternative of one, at pydantic's locations."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    body = {"messages": [{}, 5], "temperature": "hot", "n": 0}
    detail = (await gateway.client.post("/endpoints/chat/invocations", json=body)).json()["detail"]
    assert [(item["type"], item["loc"]) for item in detail] == [
        ("greater_than_equal", ["body", "n"]),
        ("float_parsing", ["body", "temperature"]),
        ("missing", ["body", "messages", 0, "role"]),
        ("model_attributes_type", ["body", "messages", 1]),
    ]
    detail = (await gateway.client.post("/endpoints/embeddings/invocations", json={"input": ["a", 1]})).json()["detail"]
    assert [(item["type"], item["loc"]) for item in detail] == [
        ("string_type", ["body", "input", "str"]),
        ("string_type", ["body", "input", "list[str]", 1]),
        ("int_parsing", ["body", "input", "list[int]", 0]),
        ("list_type", ["body", "input", "list[list[int]]", 0]),
        ("list_type", ["body", "input", "list[list[int]]", 1]),
    ]


async def test_a_flood_of_faults_is_cut(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A body with very many faults is answered with the first hundred."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    reply = await gateway.client.post("/endpoints/chat/invocations", json={"messages": [{}] * 5000})
    assert (reply.status_code, len(reply.json()["detail"])) == (422, 100)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"n": 1}),
        ({"n": 2}, {"n": 2}),
        ({"temperature": "0.5", "n": "2", "max_tokens": 5.0}, {"temperature": 0.5, "n": 2, "max_tokens": 5}),
        ({"temperature": None, "stop": None, "user": None}, {"n": 1}),
        ({"stop": "x"}, {"n": 1, "stop": "x"}),
    ],
)
async def test_defaults_and_spellings(
    upstream: ScriptedUpstream, start_gateway: StartGateway, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    """As pydantic did: `n` is always sent, nulls never, and numbers in texts as numbers."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_chat())
    reply = await gateway.client.post("/endpoints/chat/invocations", json={"messages": USER} | given)
    assert reply.status_code == 200, reply.text
    assert upstream.requests[0].json() == {"messages": USER, "model": "gpt-4o-mini"} | sent


async def test_replies_have_every_member(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """What a provider leaves out is null, never missing; what else it says stays."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    message = {"role": "assistant", "content": "hi", "reasoning_content": "hm"}
    upstream.script(json_reply({"created": 1, "model": "m", "choices": [{"message": message}], "x": 1}))
    reply = await gateway.client.post("/endpoints/chat/invocations", json={"messages": USER})
    assert reply.json() == {
        "id": None,
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": message | {"tool_calls": None, "refusal": None},
                "finish_reason": None,
            }
        ],
        "usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        "x": 1,
    }
    upstream.script(json_reply({"object": "list", "model": "m", "data": [], "usage": None}))
    reply = await gateway.client.post("/endpoints/embeddings/invocations", json={"input": "a"})
    assert reply.json()["usage"] == {"prompt_tokens": None, "total_tokens": None}


async def test_completions_in_the_shape_of_a_chat(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A provider that answers completions with a chat's messages gives text all the same, as in MLflow."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_chat("blue"))
    reply = await gateway.client.post("/gateway/completions/invocations", json={"prompt": "The sky is"})
    assert reply.json()["object"] == "text_completion"
    choice = reply.json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("blue", "stop")
    assert "message" not in choice


async def test_model_is_not_permitted(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """The path names the endpoint, so a `model` in the body is refused in MLflow's words."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    reply = await gateway.client.post("/endpoints/chat/invocations", json={"messages": USER, "model": "gpt-4"})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("The parameter 'model' is not permitted to be passed.")


async def test_one_file_may_hold_both_forms(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Routes and endpoints stand side by side, and each answers /gateway in its own shape and /endpoints alike."""
    both = routes_yaml(upstream.url) + routes_yaml(upstream.url, "endpoints").replace("name: chat", "name: chat2", 1)
    both = both.replace("name: completions\n    endpoint", "name: completions2\n    endpoint")
    both = both.replace("name: embeddings\n    endpoint", "name: embeddings2\n    endpoint")
    gateway = await start_gateway(both)
    upstream.always(openai_chat("hi"))
    shapes = {}
    for name in ("chat", "chat2"):
        for family in ("gateway", "endpoints"):
            reply = await gateway.client.post(f"/{family}/{name}/invocations", json={"messages": USER})
            shapes[name, family] = "candidates" in reply.json()
    assert shapes == {
        ("chat", "gateway"): True,
        ("chat", "endpoints"): False,
        ("chat2", "gateway"): False,
        ("chat2", "endpoints"): False,
    }
