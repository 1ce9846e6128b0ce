"""Finished records for tests of the sinks, every field of which a test may change."""

from __future__ import annotations

from gateway.types.errors import ErrorType, Outcome
from gateway.types.records import (
    AttemptKind,
    AttemptRecord,
    Basis,
    Caller,
    Cost,
    HttpExchange,
    Phases,
    RequestParameters,
    RequestRecord,
    TraceContext,
)
from gateway.types.route import Operation, RouteType
from gateway.types.usage import Usage

START_NS = 1_700_000_000_000_000_000
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C


def http(**changes: object) -> HttpExchange:
    """The exchange of one attempt, answered with 200 unless changed."""
    facts: dict[str, object] = {
        "method": "POST",
        "url": "https://api.openai.com:443/v1/chat/completions",
        "server_address": "api.openai.com",
        "server_port": 443,
        "span_id": 0xC0FFEE,
        "start_ns": START_NS + 2_000_000,
        "end_ns": START_NS + 400_000_000,
        "status_code": 200,
    }
    return HttpExchange(**(facts | changes))  # type: ignore[arg-type]


def attempt(**changes: object) -> AttemptRecord:
    """A successful chat attempt at OpenAI."""
    error_type = changes.get("error_type")
    facts: dict[str, object] = {
        "number": 1,
        "kind": AttemptKind.FIRST,
        "operation": Operation.CHAT,
        "provider": "openai",
        "gen_ai_provider": "openai",
        "request_model": "gpt-4o-mini",
        "server_address": "api.openai.com",
        "server_port": 443,
        "span_id": 0xBEEF,
        "start_ns": START_NS + 1_000_000,
        "end_ns": START_NS + 501_000_000,
        "duration_s": 0.5,
        "outcome": Outcome.OK if error_type is None else ErrorType(str(error_type)).outcome,
        "status_code": 200,
        "usage": Usage(input_tokens=100, output_tokens=21, cache_read_tokens=40, reasoning_tokens=5),
        "cost": Cost(nano_usd=27_600, basis=Basis.PROVIDER_USAGE),
        "response_model": "gpt-4o-mini-2024-07-18",
        "response_id": "chatcmpl-1",
        "finish_reasons": ("stop",),
        "parameters": RequestParameters(max_tokens=64, temperature=0.2),
        "connect_s": 0.03,
        "first_byte_s": 0.4,
        "http": http(),
    }
    return AttemptRecord(**(facts | changes))  # type: ignore[arg-type]


def streamed(**changes: object) -> AttemptRecord:
    """A stream of 21 tokens: the first after 0.3 s, the last after 0.5 s, hence 10 ms a token."""
    facts = {"stream": True, "first_byte_s": 0.25, "first_chunk_s": 0.3, "last_chunk_s": 0.5, "chunks": 21}
    return attempt(**(facts | changes))


def request(*attempts: AttemptRecord, **changes: object) -> RequestRecord:
    """A request with these attempts (one successful one if none is given and no error is)."""
    error_type = changes.get("error_type")
    facts: dict[str, object] = {
        "request_id": "req_0af7651916cd43dd8448eb21",
        "trace": trace(),
        "caller": Caller(team="search", key_id="key_1"),
        "method": "POST",
        "path_template": "/gateway/{route}/invocations",
        "scheme": "http",
        "server_address": "127.0.0.1",
        "server_port": 5000,
        "route": "chat",
        "route_type": RouteType.CHAT.value,
        "outcome": Outcome.OK if error_type is None else ErrorType(str(error_type)).outcome,
        "status_code": 200,
        "start_ns": START_NS,
        "end_ns": START_NS + 510_000_000,
        "duration_s": 0.51,
        "phases": Phases(admit_s=0.001, encode_s=0.0002, upstream_s=0.5, settle_s=0.003, caller_s=0.004),
        "attempts": attempts or ((attempt(),) if error_type is None else ()),
        "user_agent": "openai-python/2.0",
        "client_address": "10.0.0.9",
    }
    return RequestRecord(**(facts | changes))  # type: ignore[arg-type]


def trace(**changes: object) -> TraceContext:
    """A sampled root."""
    facts: dict[str, object] = {"trace_id": TRACE_ID, "span_id": 0xB7AD6B7169203331, "sampled": True}
    return TraceContext(**(facts | changes))  # type: ignore[arg-type]
