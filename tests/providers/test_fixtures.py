"""Every folder in tests/fixtures is a test: see `tests.providers.cases` for what one holds."""

import itertools
import json
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from gateway.providers.compatible import ROWS
from gateway.types.errors import RequestError, UpstreamError
from gateway.types.model_io import ModelReply, StreamEvent, StreamSummary
from gateway.types.route import Operation
from tests.providers.cases import CASES, DECODERS, FILES, Case, sent
from tests.providers.fold import fold, normalized

_REPLY_TYPES: dict[Operation, type[BaseModel]] = {
    Operation.CHAT: ChatCompletion,
    Operation.COMPLETIONS: Completion,
    Operation.EMBEDDINGS: CreateEmbeddingResponse,
}


def having(*names: str) -> pytest.MarkDecorator:
    """Parametrize a test with the cases whose folder holds all of the files (`stream` stands for any stream)."""
    cases = [case for case in CASES if all(case.stream_name if name == "stream" else case.has(name) for name in names)]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_holds_only_files_that_are_tested(case: Case) -> None:
    """No expectation is left out because its file's name is mistyped or its counterpart is missing."""
    names = {path.name for path in case.path.iterdir()}
    assert names <= FILES
    for given, expected in (("upstream_error.json", "fault.json"), ("upstream_reply.json", "usage.json")):
        assert (given in names) <= (expected in names), f"{given} without {expected}"
    if case.canonical:
        assert ("upstream_reply.json" in names) == ("reply.json" in names)
        assert (case.stream_name is not None) == ("chunks.json" in names)
    assert names & {"upstream_request.json", "refusal.json", "upstream_error.json"}


@pytest.mark.parametrize("provider", [row.name.replace("-", "_") for row in ROWS])
def test_each_compatible_provider_has_its_folder(provider: str) -> None:
    """Adding a compatible provider is one row and one folder: the row alone is not enough."""
    assert any(case.id == f"{provider}/chat_request" for case in CASES)


@having("upstream_request.json")
def test_the_provider_gets_what_its_documentation_asks_for(case: Case) -> None:
    """URL, headers and body that go upstream are the fixture's."""
    endpoint = case.endpoint()
    wire = case.codec().to_wire(case.request(), endpoint)
    expected = case.json("upstream_request.json")
    found = sent(wire, endpoint)
    if "auth" in expected:
        found["auth"] = {name: found["auth"][name] for name in expected["auth"]}
    assert found == expected


@having("refusal.json")
def test_a_request_that_the_provider_cannot_serve_is_refused(case: Case) -> None:
    """What the dialect cannot express is refused with a text that names the field."""
    with pytest.raises(RequestError) as refusal:
        case.codec().to_wire(case.request(), case.endpoint())
    error = refusal.value
    assert {
        "error_type": str(error.error_type),
        "message": error.message,
        "param": error.param,
    } == case.json("refusal.json")


@having("upstream_reply.json")
def test_a_whole_reply_is_read(case: Case) -> None:
    """The caller gets the canonical reply (of a passthrough: the vendor's bytes), and every fact is measured."""
    given = case.bytes("upstream_reply.json")
    reply = case.codec().from_wire(given, case.request(), case.endpoint())
    assert facts(reply) == case.json("usage.json")
    if not case.canonical:
        assert reply.body == given
        return
    found = json.loads(reply.body)
    assert found == case.json("reply.json")
    # Some vendors tell no finish reason or no tokens, and none are invented: there OpenAI's types are stricter.
    for choice in found.get("choices", ()):
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    if case.file.operation is Operation.EMBEDDINGS:
        # The client's type knows neither an unknown usage nor vectors in base64, both of which its code accepts.
        found["usage"] = found["usage"] or {"prompt_tokens": 0, "total_tokens": 0}
        found["data"] = [item for item in found["data"] if isinstance(item["embedding"], list)]
    if not case.file.original_shape:
        _REPLY_TYPES[case.file.operation].model_validate(found)


@having("stream")
def test_a_stream_is_translated(case: Case) -> None:
    """The caller gets canonical chunks (of a passthrough: the vendor's events), and every fact is measured."""
    events = decode(case, [case.bytes(case.stream_name or "")])
    output, summary, error = translate(case, events)
    assert (error is not None) == case.has("stream_error.json")
    if error is not None:
        assert {"error_type": str(error.error_type), "message": error.message} == case.json("stream_error.json")
    else:
        assert summary.finished
    if case.canonical:
        chunks = chunks_of(output)
        assert chunks == case.json("chunks.json")
        # More where thoughts are kept from a caller who asked for a completion.
        assert summary.output_chars >= sum(map(generated_chars, chunks))
        for chunk in chunks:
            if case.file.operation is Operation.CHAT:
                ChatCompletionChunk.model_validate(chunk)
    elif error is None:
        assert output == b"".join(event.raw for event in events)
    name = "stream_usage.json" if case.has("stream_usage.json") else "usage.json"
    if case.has(name):
        assert facts(summary) == case.json(name)


@having("stream")
def test_a_stream_may_be_split_anywhere(case: Case) -> None:
    """However the network cuts a stream, byte by byte even, the caller gets the same bytes."""
    data = case.bytes(case.stream_name or "")
    whole = translate(case, decode(case, [data]))[0]
    assert translate(case, decode(case, [data[i : i + 1] for i in range(len(data))]))[0] == whole

    @hypothesis.settings(max_examples=20, deadline=None, database=None, derandomize=True)
    @hypothesis.given(st.lists(st.integers(0, len(data)), max_size=6).map(sorted))
    def split_at(cuts: list[int]) -> None:
        edges = [0, *cuts, len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
        assert translate(case, decode(case, pieces))[0] == whole

    split_at()


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.has("upstream.sse") and not case.has("stream_error.json")],
    ids=lambda case: case.id,
)
def test_events_that_say_nothing_change_nothing(case: Case) -> None:
    """An empty event, and `[DONE]` after a vendor's own last one (Cohere's, OpenRouter's), are passed over everywhere."""
    data = case.bytes("upstream.sse")
    output, summary, error = translate(case, decode(case, [b"data:\n\n", data.rstrip(), b"\n\ndata: [DONE]\n\n"]))
    assert error is None
    assert summary.finished
    assert output == translate(case, decode(case, [data]))[0]


@having("stream", "reply.json")
def test_a_stream_equals_the_whole_reply(case: Case) -> None:
    """Folding the chunks of a stream gives the reply that the same request has without streaming."""
    output = translate(case, decode(case, [case.bytes(case.stream_name or "")]))[0]
    assert fold(chunks_of(output)) == normalized(case.json("reply.json"))


@having("upstream_error.json", "fault.json")
def test_an_error_is_read(case: Case) -> None:
    """An error's public text, cause and field come from the provider's body."""
    error = case.json("upstream_error.json")
    body = error["body"]
    raw = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    fault = case.endpoint().dialect.fault(error["status"], raw)
    found = {name: value for name, value in msgspec.to_builtins(fault).items() if value is not None}
    assert found == case.json("fault.json")


def facts(read: ModelReply | StreamSummary) -> dict[str, Any]:
    """What is measured and priced of a reply or a stream, as `usage.json` words it."""
    usage = None
    if read.usage is not None:
        usage = {name: value for name, value in msgspec.to_builtins(read.usage).items() if value not in (None, "")}
        assert usage.pop("source") == "provider"
    return {
        "usage": usage,
        "response_model": read.response_model,
        "response_id": read.response_id,
        "finish_reasons": list(read.finish_reasons),
    }


def generated_chars(chunk: dict[str, Any]) -> int:
    """The characters that a model generated for a chunk: of text, thought, refusal, and calls with their arguments."""
    chars = 0
    for choice in chunk["choices"]:
        delta = choice.get("delta", choice)
        said = [delta.get(name) for name in ("text", "content", "reasoning_content", "refusal")]
        functions = [call["function"] for call in delta.get("tool_calls", ())] + [delta.get("function_call", {})]
        said += [function.get(name) for function in functions for name in ("name", "arguments")]
        chars += sum(len(text) for text in said if text and text != "{}")
    return chars


def decode(case: Case, pieces: list[bytes]) -> list[StreamEvent]:
    """The events in a stream that came in these pieces."""
    decoder = DECODERS[case.endpoint().dialect.framing]()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def translate(case: Case, events: list[StreamEvent]) -> tuple[bytes, StreamSummary, UpstreamError | None]:
    """All bytes for the caller, the summary, and the error that ended the stream."""
    open_stream = case.codec().open_stream
    assert open_stream is not None
    translator = open_stream(case.request(streaming=True), case.endpoint())
    output = b""
    try:
        for event in events:
            output += translator.feed(event)
        output += translator.close()
    except UpstreamError as error:
        return output, translator.summary, error
    return output, translator.summary, None


def chunks_of(output: bytes) -> list[dict[str, Any]]:
    """The JSON of each event in canonical output."""
    events = output.split(b"\n\n")
    assert events.pop() == b"", "the output ends with a whole event"
    return [json.loads(event.removeprefix(b"data: ")) for event in events]
