"""The request log: one JSON line a request, whole whatever happens, without what must not be in it."""

from __future__ import annotations

import json
import os
from collections import Counter
from select import PIPE_BUF
from typing import Any

import pytest

from gateway.telemetry.logs import RequestLine, RequestLog, request_line
from gateway.types.errors import ErrorType
from gateway.types.records import Basis, Caller, Cost
from tests.telemetry import facts


def line(record: facts.RequestRecord) -> dict[str, Any]:
    """The one line of a record, parsed."""
    data = request_line(record)
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def test_a_successful_request() -> None:
    """Ids, place, times, tokens and cost, in seconds and nano-dollars."""
    assert line(facts.request(facts.streamed(), stream=True)) == {
        "time": "2023-11-14T22:13:20.510+00:00",
        "level": "INFO",
        "message": "request",
        "request_id": "req_0af7651916cd43dd8448eb21",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "method": "POST",
        "path": "/gateway/{route}/invocations",
        "route": "chat",
        "status": 200,
        "outcome": "ok",
        "duration_s": 0.51,
        "overhead_s": 0.006,
        "team": "search",
        "key_id": "key_1",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "stream": True,
        "attempts": 1,
        "input_tokens": 100,
        "output_tokens": 21,
        "first_chunk_s": 0.3,
        "cost_nano_usd": 27_600,
        "cost_basis": "provider_usage",
    }


def test_what_is_unknown_is_absent() -> None:
    """A refusal has no tokens, no cost and no provider, rather than zeros."""
    parsed = line(facts.request(error_type=ErrorType.UNAUTHENTICATED, status_code=401, caller=Caller()))
    assert parsed["error_type"] == "unauthenticated"
    assert not parsed.keys() & {"input_tokens", "output_tokens", "cost_nano_usd", "provider", "key_id", "first_chunk_s"}
    unpriced = line(facts.request(facts.attempt(cost=Cost(nano_usd=None, basis=Basis.UNKNOWN))))
    assert unpriced["cost_basis"] == "unknown"
    assert "cost_nano_usd" not in unpriced


def test_a_failure_is_an_error() -> None:
    """Statuses from 500 on have the level ERROR; a caller's mistake has not."""
    assert line(facts.request(error_type=ErrorType.PROVIDER_ERROR, status_code=502))["level"] == "ERROR"
    assert line(facts.request(error_type=ErrorType.INVALID_JSON, status_code=400))["level"] == "INFO"


def test_no_text_breaks_a_line() -> None:
    """Line ends, terminal codes and quotes in what a provider says stay inside their JSON string."""
    evil = 'm\n{"level":"INFO"}\r\x1b[31m"\u2028'
    data = request_line(facts.request(facts.attempt(response_model=evil)))
    assert data.count(b"\n") == 1
    assert b"\x1b" not in data
    assert json.loads(data)["response_model"] == evil


class Log:
    """A request log over a descriptor, and what it said of its lines."""

    def __init__(self, descriptor: int) -> None:
        self.written = 0
        self.lost: Counter[str] = Counter()
        self.log = RequestLog(descriptor, on_write=self._write, on_drop=self._drop)

    def _write(self, count: int) -> None:
        self.written += count

    def _drop(self, reason: str, count: int) -> None:
        self.lost[reason] += count


def test_lines_of_several_workers_do_not_mix() -> None:
    """A pipe gets whole lines in writes that the kernel does not split, and all of them in order."""
    # Such a pipe keeps writes apart: each read gives one of them.
    reader, writer = os.pipe2(os.O_DIRECT)
    log = Log(writer)
    records = [facts.request(request_id=f"req_{n}") for n in range(100)]
    for record in records:
        log.log.record(record)
    log.log.close(10.0)
    os.close(writer)
    written = list(iter(lambda: os.read(reader, 1 << 20), b""))
    os.close(reader)
    assert len(written) > 1
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in written)
    lines = b"".join(written).splitlines()
    assert [json.loads(text)["request_id"] for text in lines] == [record.request_id for record in records]
    assert (log.written, log.lost) == (100, {})


def test_a_closed_pipe_is_a_counted_loss() -> None:
    """Whoever reads the log may go: lines are lost and counted, requests are not."""
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(writer)
    for _ in range(3):
        log.log.record(facts.request())
    log.log.close(10.0)
    os.close(writer)
    assert (log.written, log.lost) == (0, {"write_failed": 3})


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_nobody_reads_is_counted_to_the_line(blocking: bool) -> None:
    """Whatever the pipe holds was counted as written, all else as lost, and nothing waited for its reader."""
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    log = Log(writer)
    for number in range(10_000):
        log.log.record(facts.request(request_id=f"req_{number}"))
    log.log.close(0.1)
    os.set_blocking(reader, False)
    held = os.read(reader, 1 << 20)
    # The thread still holds its end: what it is writing now comes too late to count.
    assert log.written == held.count(b"\n") > 0
    assert log.lost["queue_full"] > 0
    assert log.lost["shutdown"] > 0
    assert log.written + log.lost.total() == 10_000
    os.close(reader)
    log.log.queue._thread.join(10.0)
    os.close(writer)


def test_a_full_disk_is_a_counted_loss() -> None:
    """Lines that the system refuses are lost and counted."""
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        log = Log(full.fileno())
        for _ in range(100):
            log.log.record(facts.request())
        log.log.close(10.0)
    assert (log.written, log.lost) == (0, {"write_failed": 100})


def test_the_fields_are_the_documented_ones() -> None:
    """A field of the line is a field of the Struct, which the documents are made of."""
    assert set(line(facts.request(facts.streamed(), stream=True))) <= set(RequestLine.__struct_fields__)
