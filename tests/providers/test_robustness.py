"""Whatever callers and providers send, a dialect answers with a reply or with an error of ours, never with another."""

import contextlib
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import Raw

from gateway.types.errors import RequestError, UpstreamError
from gateway.types.model_io import StreamEvent
from tests.providers.cases import CASES, Case
from tests.providers.test_fixtures import decode

_SETTINGS = hypothesis.settings(max_examples=15, deadline=None, database=None, derandomize=True)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of every value inside a JSON document, the document's own first."""
    found = [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        found += _paths(item, (*path, key))
    return found


def _changed(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """The document with the value at a path replaced."""
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _changed(value[path[0]], path[1:], new)
    return copy


def mutations(document: Any) -> st.SearchStrategy[Any]:
    """Documents that differ from this one in one place."""
    return st.builds(_changed, st.just(document), st.sampled_from(_paths(document)), _JSON)


def having(name: str) -> pytest.MarkDecorator:
    """Parametrize a test with the cases whose folder holds a file."""
    return pytest.mark.parametrize("case", [c for c in CASES if c.has(name)], ids=lambda case: case.id)


@having("request.json")
def test_any_request_is_translated_or_refused(case: Case) -> None:
    """A request with any one value changed gives a wire request or a RequestError."""

    @_SETTINGS
    @hypothesis.given(mutations(case.json("request.json")))
    def check(document: Any) -> None:
        if not isinstance(document, dict):
            return
        fields = {name: Raw(msgspec.json.encode(value)) for name, value in document.items()}
        request = msgspec.structs.replace(case.request(), fields=fields)
        with contextlib.suppress(RequestError):
            msgspec.json.decode(case.codec().to_wire(request, case.endpoint()).body)

    check()


@having("upstream_reply.json")
def test_any_reply_is_read_or_called_unreadable(case: Case) -> None:
    """A reply with any one value changed gives JSON for the caller or an UpstreamError."""

    @_SETTINGS
    @hypothesis.given(mutations(case.json("upstream_reply.json")))
    def check(document: Any) -> None:
        with contextlib.suppress(UpstreamError):
            reply = case.codec().from_wire(msgspec.json.encode(document), case.request(), case.endpoint())
            msgspec.json.decode(reply.body)

    check()


@having("upstream.sse")
def test_any_event_is_translated_or_called_unreadable(case: Case) -> None:
    """A stream whose events have one value changed gives whole events for the caller or an UpstreamError."""
    events = decode(case, [case.bytes("upstream.sse")])
    documents = [None if event.data == b"[DONE]" else msgspec.json.decode(event.data) for event in events]

    @_SETTINGS
    @hypothesis.given(st.data())
    def check(data: st.DataObject) -> None:
        open_stream = case.codec().open_stream
        assert open_stream is not None
        translator = open_stream(case.request(streaming=True), case.endpoint())
        position = data.draw(st.sampled_from([i for i, document in enumerate(documents) if document is not None]))
        changed = msgspec.json.encode(data.draw(mutations(documents[position])))
        output = b""
        with contextlib.suppress(UpstreamError):
            for i, event in enumerate(events):
                mine = StreamEvent(changed, b"data: " + changed + b"\n\n", event.name) if i == position else event
                output += translator.feed(mine)
            output += translator.close()
        assert output == b"" or output.endswith(b"\n\n")

    check()


@having("upstream_error.json")
def test_any_error_body_has_a_text(case: Case) -> None:
    """An error body with any one value changed still gives a public text."""

    @_SETTINGS
    @hypothesis.given(mutations(case.json("upstream_error.json")["body"]))
    def check(document: Any) -> None:
        assert case.endpoint().dialect.fault(500, msgspec.json.encode(document)).message

    check()
