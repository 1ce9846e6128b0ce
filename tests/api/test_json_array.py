"""Gemini's other form of a stream, one growing JSON array, over HTTP and piece by piece."""

import itertools
import json
from pathlib import Path

import pytest

from gateway.api.json_array import JsonArray
from tests.conftest import StartGateway
from tests.replies import json_reply
from tests.scripted_upstream import ScriptedUpstream, StreamReply

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemini"
STREAM = (FIXTURES / "generate_content_stream" / "upstream.sse").read_bytes()
PATH = "/v1beta/models/chat:streamGenerateContent"
BODY = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


def items(stream: bytes) -> list[object]:
    """The JSON of each event of a stream."""
    return [json.loads(line[6:]) for line in stream.replace(b"\r", b"").split(b"\n") if line.startswith(b"data: ")]


def config(base: str) -> str:
    account = f"{{gemini_api_key: k, gemini_api_base: {base}/v1beta/models}}"
    return (
        "endpoints:\n  - name: chat\n    endpoint_type: llm/v1/chat\n"
        f"    model: {{provider: gemini, name: gemini-2.5-flash, config: {account}}}\n"
    )


@pytest.mark.parametrize(
    ("query", "array"), [("", True), ("?key=k", True), ("?alt=sse", False), ("?key=k&alt=sse", False)]
)
async def test_the_query_says_the_form(
    upstream: ScriptedUpstream, start_gateway: StartGateway, query: str, array: bool
) -> None:
    """Without `alt=sse` a stream is one JSON array, with it server-sent events: the same items, measured alike."""
    gateway = await start_gateway(config(upstream.url))
    upstream.script(StreamReply([STREAM]))
    reply = await gateway.client.post(PATH + query, json=BODY)
    assert reply.headers["content-type"] == ("application/json" if array else "text/event-stream; charset=utf-8")
    assert (reply.json() if array else items(reply.content)) == items(STREAM)
    assert upstream.requests[0].query == "alt=sse"
    record = await gateway.records.last()
    assert record.attempts[0].usage is not None
    assert record.attempts[0].usage.output_tokens is not None


async def test_a_failure_ends_the_array(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """An error inside a stream is the array's last item, and the array is closed; before it, a plain error."""
    gateway = await start_gateway(config(upstream.url))
    first = STREAM[: STREAM.index(b"\n", STREAM.index(b"data: ")) + 1] + b"\n"
    upstream.script(StreamReply([first]), json_reply({"error": {"code": 400, "message": "no"}}, status=400))
    broken = (await gateway.client.post(PATH, json=BODY)).json()
    assert broken[0] == items(first)[0]
    assert broken[1]["error"]["details"][0]["reason"] == "stream_cut"
    assert len(broken) == 2
    refused = await gateway.client.post(PATH, json=BODY)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "no")


def test_events_in_any_groups() -> None:
    """However many events come at once, the array holds each once; a stream without any is an empty array."""
    events = [b"data: 1\n\n", b": a comment\n\n", b"data: [2,\ndata: 3]\n\n", b"event: x\ndata:4\n\n"]
    for size in range(1, len(events) + 1):
        array = JsonArray()
        groups = [b"".join(events[at : at + size]) for at in itertools.islice(itertools.count(0, size), len(events))]
        text = b"".join(array.feed(group) for group in groups) + array.close()
        assert json.loads(text) == [1, [2, 3], 4]
    assert JsonArray().close() == b"[]"
