"""The binary event stream of AWS and newline-delimited JSON, cut anywhere."""

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import StreamEvent
from gateway.upstream.aws_event_stream import AwsEventStreamDecoder
from gateway.upstream.ndjson import NdjsonDecoder
from tests.aws_events import message


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def decoded(pieces: list[bytes]) -> list[StreamEvent]:
    decoder = AwsEventStreamDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()


NAMES = st.sampled_from(["messageStart", "contentBlockDelta", "metadata"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=80)), max_size=5), st.lists(st.integers(0, 10_000)))
def test_aws_messages_survive_any_split(messages: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """However the bytes arrive, the events are the messages, in order."""
    data = b"".join(message(name, payload) for name, payload in messages)
    assert [(event.name, event.data) for event in decoded(split(data, cuts))] == messages


@given(st.binary(max_size=200))
def test_aws_messages_are_read_as_botocore_reads_them(payload: bytes) -> None:
    """The decoder agrees with botocore's on headers and payload, whatever types the headers have."""
    extra = b"\x04flag\x00" + b"\x03num\x04" + struct.pack(">i", -5) + b"\x01b\x06\x00\x02hi" + b"\x01t\x08" + bytes(8)
    data = message("chunk", payload, extra_headers=extra)
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    theirs = next(buffer)
    (ours,) = AwsEventStreamDecoder().feed(data)
    assert (ours.name, ours.data) == (theirs.headers[":event-type"], theirs.payload)


def test_aws_exceptions_and_errors_carry_their_type_as_name() -> None:
    """A failure inside the stream is told apart by its name."""
    data = message("throttlingException", b'{"message":"slow down"}', kind="exception")
    data += message("InternalServer", b"", kind="error", text="it broke")
    throttled, broken = AwsEventStreamDecoder().feed(data)
    assert throttled.name == "throttlingException"
    assert (broken.name, broken.data) == ("InternalServerError", b"it broke")


@pytest.mark.parametrize("place", [0, 5, 9, 14, -6, -1])
def test_a_damaged_aws_message_is_refused(place: int) -> None:
    """One wrong byte anywhere is noticed by a checksum."""
    data = bytearray(message("messageStart", b'{"role":"assistant"}'))
    data[place] ^= 0xFF
    with pytest.raises(UpstreamError) as caught:
        AwsEventStreamDecoder().feed(bytes(data))
    assert caught.value.error_type is ErrorType.UNREADABLE_REPLY


@pytest.mark.parametrize(("total", "headers_length"), [(25 * 1024 * 1024, 0), (16, 100)])
def test_an_impossible_aws_length_is_refused(total: int, headers_length: int) -> None:
    """Lengths that no message can have are refused before anything is kept."""
    prelude = struct.pack(">II", total, headers_length)
    with pytest.raises(UpstreamError):
        AwsEventStreamDecoder().feed(prelude + struct.pack(">I", crc32(prelude)))


def test_an_aws_stream_cut_inside_a_message_is_an_error() -> None:
    """A stream that ends in the middle of a message was cut."""
    decoder = AwsEventStreamDecoder()
    assert decoder.feed(message("messageStart", b"{}")[:-1]) == []
    with pytest.raises(UpstreamError) as caught:
        decoder.close()
    assert caught.value.error_type is ErrorType.STREAM_CUT


LINES = st.lists(
    st.binary(min_size=1, max_size=20).map(lambda line: b"x" + line.replace(b"\n", b"") + b"x"), max_size=6
)


@given(LINES, st.lists(st.integers(0, 1000)), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.booleans())
def test_lines_survive_any_split(lines: list[bytes], cuts: list[int], end: bytes, ended: bool) -> None:
    """However the bytes arrive, the events are the non-empty lines, with or without a last newline."""
    data = end.join(lines) + (end if ended else b"")
    decoder = NdjsonDecoder()
    events = [event for piece in split(data, cuts) for event in decoder.feed(piece)] + decoder.close()
    assert [event.data for event in events] == lines
