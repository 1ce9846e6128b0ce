"""The OpenAPI document: valid, and the same as what is really served."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from gateway.api import application, native
from gateway.api.openai import AZURE_CALLS
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_completion, openai_embeddings
from tests.replies import json_reply
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

_VENDORS = """
  - name: claude
    endpoint_type: llm/v1/chat
    model: {{provider: anthropic, name: claude-sonnet-4-5, config: {{anthropic_api_key: k, anthropic_api_base: '{base}/v1'}}}}
  - name: gemini
    endpoint_type: llm/v1/chat
    model: {{provider: gemini, name: gemini-2.5-flash, config: {{gemini_api_key: k, gemini_api_base: '{base}/v1beta/models'}}}}
  - name: vectors
    endpoint_type: llm/v1/embeddings
    model: {{provider: gemini, name: gemini-embedding-001, config: {{gemini_api_key: k, gemini_api_base: '{base}/v1beta/models'}}}}
"""


_TRAFFIC = """
  - {name: split, task_type: llm/v1/chat, destinations: [{name: new-chat, traffic_percentage: 100}]}
"""


def config(base: str) -> str:
    """Routes in both shapes, one that shares traffic out, and one for each vendor's own API."""
    endpoints = routes_yaml(base, "endpoints").replace("- name: ", "- name: new-")
    return routes_yaml(base) + _TRAFFIC + endpoints + _VENDORS.format(base=base)


@pytest.fixture
async def document(start_gateway: StartGateway) -> dict[str, Any]:
    """The document of a gateway that has every kind of route."""
    gateway = await start_gateway(config("http://127.0.0.1:9"))
    found: dict[str, Any] = (await gateway.client.get("/openapi.json")).json()
    return found


async def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """It is OpenAPI 3.1, its references resolve, and each operation has its own id."""
    validate(document)
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(set(ids)) == len(ids)


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"components": document["components"]}


async def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    """What a page offers to try is a request that its schema allows."""
    for path, operations in document["paths"].items():
        if "post" in operations:
            content = operations["post"]["requestBody"]["content"]["application/json"]
            Draft202012Validator(resolved(document, content["schema"])).validate(content["example"])
            assert operations["post"]["responses"]["200"]["content"]["application/json"]["schema"], path


async def test_the_document_is_what_is_served(document: dict[str, Any]) -> None:
    """Every surface of the dispatch table stands in the document, and every path of the document has its surface."""
    surfaces = {*application.FIXED, *(surface.path for surface in AZURE_CALLS.values())}
    for calls in native.GEMINI_CALLS.values():
        surfaces |= {surface.path for surface in calls.values()}
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    routes = {path for path in posts if path.endswith("/invocations")}
    assert posts - routes == surfaces
    assert len(routes) == 2 * 10
    for path in posts:
        found = application.find_surface(re.sub(r"\{\w+\}", "claude", path))
        assert found is not None, path
        assert path in routes or found[0].path == path


async def test_the_pages_are_served(start_gateway: StartGateway) -> None:
    """Every page of the document answers, and so does the page of one route for each name that it offers."""
    gateway = await start_gateway(config("http://127.0.0.1:9"))
    document = (await gateway.client.get("/openapi.json")).json()
    offered: set[str] = set()
    for path, operations in document["paths"].items():
        for name in operations["get"]["parameters"][0]["schema"]["enum"] if path.endswith("/{name}") else [""]:
            offered |= {path.replace("{name}", name)} if "get" in operations else set()
    assert {"/health", "/v1beta/models/gemini", "/api/3.0/gateway/route/split"} <= offered
    for path in offered:
        assert (await gateway.client.get(path)).status_code == 200, path


_NATIVE_REPLIES = {
    "/v1/chat/completions": openai_chat(),
    "/v1/completions": openai_completion(),
    "/v1/embeddings": openai_embeddings(),
    "/v1/messages": json_reply({"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}),
    "/v1/messages/count_tokens": json_reply({"input_tokens": 3}),
    "/v1beta/models/{model}:generateContent": json_reply({"candidates": [], "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 1}}),
}  # fmt: skip


@pytest.mark.parametrize("path", _NATIVE_REPLIES)
async def test_an_example_can_be_tried(upstream: ScriptedUpstream, start_gateway: StartGateway, path: str) -> None:
    """The example of a path is served as it stands, and the reply and an error fit their schemas."""
    gateway = await start_gateway(config(upstream.url))
    document = (await gateway.client.get("/openapi.json")).json()
    operation = document["paths"][path]["post"]
    for parameter in operation.get("parameters", ()):
        path = path.replace(f"{{{parameter['name']}}}", parameter["schema"]["enum"][0])
    upstream.always(
        _NATIVE_REPLIES[next(known for known in _NATIVE_REPLIES if document["paths"][known]["post"] is operation)]
    )
    content = operation["requestBody"]["content"]["application/json"]
    replies = {
        "200": await gateway.client.post(path, json=content["example"]),
        "4XX": await gateway.client.post(path, content=b"{"),
    }
    for status, reply in replies.items():
        assert str(reply.status_code)[0] == status[0], reply.text
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        Draft202012Validator(resolved(document, schema)).validate(reply.json())
