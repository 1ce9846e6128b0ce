"""The request log: one JSON line a request.

A line holds no prompt, no key and no header. msgspec escapes control characters, so a line is always one line.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from select import PIPE_BUF, select
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.telemetry.queue import BackgroundQueue
from gateway.types.records import RequestRecord

WRITE_FAILED = "write_failed"


class RequestLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The log line of one request. Times in seconds, money in nano-dollars; absent means unknown or none."""

    time: Annotated[str, Meta(description="When the request ended, in UTC.")]
    level: Annotated[str, Meta(description="`INFO`, or `ERROR` for statuses from 500 on.")]
    message: Annotated[str, Meta(description="Always `request`: tells these lines from the process's own messages.")]
    request_id: Annotated[str, Meta(description="As in the reply's `x-gateway-request-id`.")]
    trace_id: Annotated[str, Meta(description="As in the reply's `x-gateway-trace-id`, the spans and the exemplars.")]
    span_id: Annotated[str, Meta(description="The SERVER span.")]
    method: Annotated[str, Meta(description="The caller's method.")]
    path: Annotated[str, Meta(description="The template of the path.")]
    route: Annotated[str, Meta(description="A configured route, or `_other`.")]
    status: Annotated[int, Meta(description="The status sent; 499 when the caller left.")]
    outcome: Annotated[str, Meta(description="`ok`, or whose fault: caller, policy, provider, gateway.")]
    duration_s: Annotated[float, Meta(description="From arrival to the last byte.")]
    overhead_s: Annotated[float, Meta(description="What the gateway itself added.")]
    error_type: Annotated[str | None, Meta(description="Why it failed: the closed list below.")] = None
    team: Annotated[str | None, Meta(description="Who pays.")] = None
    key_id: Annotated[str | None, Meta(description="The id of the gateway key; never the key.")] = None
    provider: Annotated[str | None, Meta(description="Of the last attempt.")] = None
    model: Annotated[str | None, Meta(description="Sent to the provider, in the last attempt.")] = None
    response_model: Annotated[str | None, Meta(description="That answered, in the last attempt.")] = None
    stream: Annotated[bool, Meta(description="Whether the caller asked for a stream.")] = False
    attempts: Annotated[int, Meta(description="How many were made.")] = 0
    input_tokens: Annotated[int | None, Meta(description="Of all attempts, cached ones included.")] = None
    output_tokens: Annotated[int | None, Meta(description="Of all attempts, reasoning included.")] = None
    first_chunk_s: Annotated[float | None, Meta(description="From the last attempt's start to its first chunk.")] = None
    cost_nano_usd: Annotated[int | None, Meta(description="Of all attempts; absent where no price is known.")] = None
    cost_basis: Annotated[str | None, Meta(description="How sure the last attempt's cost is.")] = None
    cost_unpriced: Annotated[
        tuple[str, ...] | None, Meta(description="Parts of the last attempt that nobody prices, such as `web_search`.")
    ] = None


def request_line(record: RequestRecord) -> bytes:
    """The line of a record, its newline included."""
    return msgspec.json.encode(line_of(record)) + b"\n"


def line_of(record: RequestRecord) -> RequestLine:
    """The fields of a record's line."""
    last = record.attempts[-1] if record.attempts else None
    usages = [attempt.usage for attempt in record.attempts if attempt.usage is not None]
    cost = last.cost if last is not None else None
    return RequestLine(
        time=datetime.fromtimestamp(record.end_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        level="INFO" if record.status_code < 500 else "ERROR",
        message="request",
        request_id=record.request_id,
        trace_id=record.trace.trace_id_hex,
        span_id=f"{record.trace.span_id:016x}",
        method=record.method,
        path=record.path_template,
        route=record.route,
        status=record.status_code,
        outcome=record.outcome,
        duration_s=round(record.duration_s, 6),
        overhead_s=round(record.overhead_s, 6),
        error_type=record.error_type,
        team=record.caller.team,
        key_id=record.caller.key_id,
        provider=last.provider if last is not None else None,
        model=last.request_model if last is not None else None,
        response_model=last.response_model if last is not None else None,
        stream=record.stream,
        attempts=len(record.attempts),
        input_tokens=_sum_of_known(usage.input_tokens for usage in usages),
        output_tokens=_sum_of_known(usage.output_tokens for usage in usages),
        first_chunk_s=last.first_chunk_s if last is not None else None,
        cost_nano_usd=record.cost_nano_usd,
        cost_basis=cost.basis if cost is not None else None,
        cost_unpriced=cost.unpriced or None if cost is not None else None,
    )


def _sum_of_known(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


class RequestLog:
    """The log sink: lines are made and written on a thread, so a slow disk or pipe delays no request."""

    name = "log"

    def __init__(
        self, descriptor: int, *, on_write: Callable[[int], None], on_drop: Callable[[str, int], None]
    ) -> None:
        self._descriptor = descriptor
        self.queue: BackgroundQueue[RequestRecord] = BackgroundQueue(
            "request-log",
            self._write,
            lambda reason, records: on_drop(reason, len(records)),
            lambda records: on_write(len(records)),
            failure=WRITE_FAILED,
        )

    def record(self, record: RequestRecord) -> None:
        """Queue the record's line."""
        self.queue.put(record)

    def close(self, timeout_s: float) -> None:
        """Write what is queued, for at most `timeout_s` seconds."""
        self.queue.close(timeout_s)

    def _write(self, records: Sequence[RequestRecord]) -> Iterator[int]:
        return write_lines(self._descriptor, map(request_line, records))


def write_lines(descriptor: int, lines: Iterable[bytes]) -> Iterator[int]:
    """Write whole lines, as many at once as a pipe takes in one piece; yields how many were written. Raises OSError.

    Several workers write to one pipe, and what is not over PIPE_BUF stands in it undivided.
    """
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > PIPE_BUF:
            yield _write_all(descriptor, piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield _write_all(descriptor, piece)


def _write_all(descriptor: int, lines: Sequence[bytes]) -> int:
    rest = memoryview(b"".join(lines))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Whoever made the pipe may have made it one that does not block.
            select((), (descriptor,), ())
    return len(lines)
