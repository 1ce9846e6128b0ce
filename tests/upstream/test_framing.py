"""Server-sent events are read as the standard says, however their bytes arrive."""

import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.types.errors import ErrorType, UpstreamError
from gateway.upstream.framing import MAX_EVENT_BYTES, SseDecoder


def by_the_standard(text: str) -> list[tuple[str, str]]:
    """(name, data) of each event, as the standard's algorithm has it, line by line.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    events = []
    data, name = "", ""
    # What stands behind the last line's end is no line yet.
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        if not line:
            if data:
                events.append((name, data.removesuffix("\n")))
            data, name = "", ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data += value + "\n"
            elif field == "event":
                name = value
    return events


def decoded(data: bytes, cuts: list[int]) -> list[tuple[str, str]]:
    """What the decoder makes of the bytes, cut at these places, without what only `close` brings."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    decoder = SseDecoder()
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [(event.name, event.data.decode()) for event in events]


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
LINES = st.one_of(
    st.builds("data: {}".format, VALUES),
    st.builds("data:{}".format, VALUES),
    st.builds("event: {}".format, VALUES),
    st.builds(":{}".format, VALUES),
    st.builds("id: {}".format, VALUES),
    st.builds("retry: {}".format, VALUES),
    st.just("data"),
    st.just(""),
    VALUES,
)
STREAMS = st.builds(
    lambda mark, lines: mark + "".join(line + end for line, end in lines),
    st.sampled_from(["", "\ufeff"]),
    st.lists(st.tuples(LINES, ENDS), max_size=14),
)
CUTS = st.lists(st.integers(0, 2000), max_size=12)


@given(STREAMS, CUTS)
@example("data: a\n\rdata: b\n\n", [])
@example("data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10])
@example("data: a\r\rdata: b\r\r", [8, 9])
@example("\ufeffdata: a\n\n\ufeffdata: b\n\n", [1, 2])
@example("data\n\ndata\ndata\n\ndata:", [])
def test_any_stream_is_read_as_the_standard_says(text: str, cuts: list[int]) -> None:
    """Whatever line ends, comments, fields and marks a stream has, and however it is cut, its events are the standard's."""
    assert decoded(text.encode(), cuts) == by_the_standard(text)


@given(STREAMS, CUTS)
def test_raws_joined_are_the_same_stream(text: str, cuts: list[int]) -> None:
    """The raw events, forwarded one behind the other, are a stream of the same events with LF alone."""
    data = text.encode()
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    decoder = SseDecoder()
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    raw = b"".join(event.raw for piece in pieces for event in decoder.feed(piece))
    assert b"\r" not in raw
    assert by_the_standard(raw.decode()) == by_the_standard(text)


@pytest.mark.parametrize("text", ["data: a\r", "data: a\r\r", "event: x\rdata: a\r\n\r", "data: a\n\r"])
def test_an_event_does_not_wait_for_the_rest_of_a_line_end(text: str) -> None:
    """A carriage return ends a line at once: whether a line feed follows it changes nothing."""
    assert decoded(text.encode(), []) == by_the_standard(text)


@given(st.lists(st.tuples(LINES, ENDS), max_size=6), VALUES, CUTS)
def test_the_last_event_needs_no_blank_line(lines: list[tuple[str, str]], value: str, cuts: list[int]) -> None:
    """Some providers leave the last blank line out: their last event counts, as if it were there."""
    text = "".join(line + end for line, end in lines) + f"\n\ndata: {value}"
    decoder = SseDecoder()
    data = text.encode()
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        decoder.feed(data[start:end])
    [last] = decoder.close()
    assert last.data.decode() == value
    assert last.raw.endswith(b"\n\n")
    assert decoder.close() == []


def test_a_stream_of_one_marked_event_without_an_end() -> None:
    """A byte order mark is no part of the first field, not even where the first event is the unfinished last."""
    decoder = SseDecoder()
    assert decoder.feed(codecs.BOM_UTF8 + b"data: a") == []
    assert [(event.data, event.raw) for event in decoder.close()] == [(b"a", b"data: a\n\n")]


def test_forwarded_bytes_hold_no_mark() -> None:
    """The mark of the first event is not forwarded: clients take it for a part of the first field."""
    [event] = SseDecoder().feed(codecs.BOM_UTF8 + b"event: e\ndata: a\n\n")
    assert event.raw == b"event: e\ndata: a\n\n"


@pytest.mark.parametrize("size", [1, 65_536, MAX_EVENT_BYTES + 100], ids=["byte-wise", "usual", "at-once"])
def test_an_event_over_16_mib_is_refused(size: int) -> None:
    """An event without end does not fill the memory, in whatever pieces it comes."""
    decoder = SseDecoder()
    data = b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n"
    if size == 1:
        decoder.feed(data[: MAX_EVENT_BYTES - 100])
        data = data[MAX_EVENT_BYTES - 100 :]
    with pytest.raises(UpstreamError) as refused:
        for start in range(0, len(data), size):
            decoder.feed(data[start : start + size])
    assert refused.value.error_type is ErrorType.UNREADABLE_REPLY


def test_many_large_events_are_no_large_event() -> None:
    """The bound is on one event, not on a stream."""
    decoder = SseDecoder()
    event = b"data: " + b"x" * (MAX_EVENT_BYTES - 100) + b"\n\n"
    assert sum(len(decoder.feed(event)) for _ in range(3)) == 3


def test_an_event_in_many_pieces_is_joined_once() -> None:
    """The work for an event grows with its length, not with the square of it: its pieces are kept, not joined anew."""
    decoder = SseDecoder()
    piece = b"x" * 1000
    decoder.feed(b"data: ")
    for _ in range(5000):
        decoder.feed(piece)
    assert len(decoder._pending) == 5001
    [event] = decoder.feed(b"\n\n")
    assert len(event.data) == 5_000_000
    assert decoder._pending == []
