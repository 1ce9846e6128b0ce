"""Which HTTP status and body an error becomes: decided here and nowhere else.

Each surface words errors as its clients expect: `{"detail": ...}` as FastAPI did for the MLflow gateway, or OpenAI's
`{"error": {...}}`. Both carry the closed `error_type` and the trace id. MLflow's clients send every 429, 500, 502 and
503 again, so none of those stands for what a retry cannot mend.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway.api.schema_error import SchemaError
from gateway.types.errors import (
    ErrorType,
    GatewayError,
    Outcome,
    UpstreamError,
    is_unsupported,
    unsupported_content_type,
)

_STATUSES: Mapping[ErrorType, int] = {
    ErrorType.INVALID_JSON: 400,
    ErrorType.INVALID_REQUEST: 400,
    ErrorType.REQUEST_TOO_LARGE: 413,
    ErrorType.UNKNOWN_ROUTE: 404,
    ErrorType.WRONG_ROUTE_TYPE: 400,
    ErrorType.UNSUPPORTED_OPERATION: 404,
    ErrorType.METHOD_NOT_ALLOWED: 405,
    ErrorType.CALLER_LEFT: 499,
    ErrorType.UNAUTHENTICATED: 401,
    ErrorType.FORBIDDEN_ROUTE: 403,
    ErrorType.RATE_LIMITED: 429,
    ErrorType.BUDGET_EXCEEDED: 429,
    ErrorType.PRICE_UNKNOWN: 403,
    ErrorType.CONNECT_FAILED: 502,
    ErrorType.CONNECT_TIMEOUT: 504,
    ErrorType.FIRST_BYTE_TIMEOUT: 504,
    ErrorType.STREAM_TIMEOUT: 504,
    ErrorType.TOTAL_TIMEOUT: 504,
    ErrorType.CONNECTION_LOST: 502,
    ErrorType.STREAM_CUT: 502,
    ErrorType.STREAM_ERROR: 502,
    ErrorType.UNREADABLE_REPLY: 502,
    ErrorType.PROVIDER_INVALID_REQUEST: 400,
    ErrorType.PROVIDER_AUTH: 401,
    ErrorType.PROVIDER_NOT_FOUND: 404,
    ErrorType.PROVIDER_RATE_LIMITED: 429,
    ErrorType.PROVIDER_OVERLOADED: 503,
    ErrorType.PROVIDER_ERROR: 502,
    ErrorType.SHUTTING_DOWN: 503,
    ErrorType.LEDGER_UNAVAILABLE: 503,
    ErrorType.CREDENTIAL_UNAVAILABLE: 502,
    ErrorType.INTERNAL: 500,
}

_OPENAI_TYPES = {
    Outcome.CALLER: "invalid_request_error",
    Outcome.POLICY: "policy_error",
    Outcome.PROVIDER: "provider_error",
    Outcome.GATEWAY: "gateway_error",
}
_OPENAI_TYPE_OVERRIDES = {
    ErrorType.UNAUTHENTICATED: "authentication_error",
    ErrorType.FORBIDDEN_ROUTE: "permission_error",
    ErrorType.RATE_LIMITED: "rate_limit_error",
    ErrorType.PROVIDER_RATE_LIMITED: "rate_limit_error",
    ErrorType.BUDGET_EXCEEDED: "budget_exceeded",
}


def status_of(error: GatewayError) -> int:
    """The status of an error: what the upstream answered where it answered, else by the table."""
    if isinstance(error, UpstreamError) and error.status is not None and 400 <= error.status < 600:
        if error.status >= 500 and error.error_type is ErrorType.PROVIDER_INVALID_REQUEST:
            # A provider that calls the caller's mistake its own failure; 5xx would be sent again.
            return _STATUSES[error.error_type]
        # 529 is Anthropic's own; clients know 503.
        return 503 if error.status == 529 else error.status
    return _STATUSES[error.error_type]


def mlflow_status_of(error: GatewayError) -> int:
    """The status on the MLflow surfaces: FastAPI said 422 where OpenAI says 400."""
    if error.error_type in (ErrorType.INVALID_JSON, ErrorType.INVALID_REQUEST):
        return 422
    status = status_of(error)
    if isinstance(error, UpstreamError) and status == 400 and error.status is not None and error.status >= 500:
        return 422
    # A server's error page (HTML, mostly) was 502. A refusal (4xx) and a "later" (503, 504) keep their status, since
    # MLflow's clients would send a 502 again.
    if status >= 500 and status not in (503, 504) and _is_unsupported(error):
        return 502
    return status


def endpoints_status_of(error: GatewayError) -> int:
    """The status on `/endpoints/...`: as on the other MLflow surface, but 501 for what a provider does not have."""
    return 501 if error.error_type is ErrorType.UNSUPPORTED_OPERATION else mlflow_status_of(error)


def error_headers(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """Headers that go with an error: its type, and Retry-After where trying again can help."""
    headers = [(b"x-gateway-error-type", error.error_type.value.encode())]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(0, -int(-error.retry_after_s // 1))).encode()))
    if error.error_type is ErrorType.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"POST"))
    if error.error_type is ErrorType.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def openai_body(error: GatewayError, trace_id: str | None) -> bytes:
    """`{"error": {message, type, param, code, error_type, trace_id}}`.

    `code` is the provider's own where it gave one, such as `context_length_exceeded`, since apps act on it; otherwise it
    is the closed error type, which stands apart, too. A page that fails has no trace: its `trace_id` is null. Of a
    request that the provider refuses, its `_REASONS` are kept.
    """
    error_type = error.error_type
    code = error.code if isinstance(error, UpstreamError) else None
    return msgspec.json.encode(
        {
            "error": _reasons(error)
            | {
                "message": error.message,
                "type": _OPENAI_TYPE_OVERRIDES.get(error_type) or _OPENAI_TYPES[error_type.outcome],
                "param": error.param,
                "code": code or error_type.value,
                "error_type": error_type.value,
                "trace_id": trace_id,
            }
        }
    )


_REASONS = ("innererror", "failed_generation", "metadata")
"""Members of errors on which apps act: Azure's filters, the call that Groq's model failed at, OpenRouter's provider."""


class _Refusal(Struct):
    error: dict[str, Any]


def _reasons(error: GatewayError) -> dict[str, Any]:
    answer = error.answer if isinstance(error, UpstreamError) else None
    refused = error.error_type is ErrorType.PROVIDER_INVALID_REQUEST
    if answer is None or not refused or len(answer.body) > _MAX_SHOWN_BYTES:
        return {}
    try:
        stated = msgspec.json.decode(answer.body, type=_Refusal).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: stated[name] for name in _REASONS if name in stated}


def mlflow_body(error: GatewayError, trace_id: str | None) -> bytes:
    """`{"detail": ..., error_type, trace_id}`; a rate limit's words stand under `error` too, as slowapi put them."""
    body = {"detail": mlflow_detail(error), "error_type": error.error_type.value, "trace_id": trace_id}
    if error.error_type is ErrorType.RATE_LIMITED:
        body["error"] = error.message
    return msgspec.json.encode(body)


def mlflow_detail(error: GatewayError) -> Any:
    """What the MLflow gateway put under `detail`.

    A body that failed its schema has FastAPI's list. A provider's refusal has its `error.message`, else its whole JSON,
    else `{"message": <text>}`; another content type is named instead of shown. All else has the error's message.
    """
    if isinstance(error, SchemaError):
        return error.detail
    answer = error.answer if isinstance(error, UpstreamError) else None
    if answer is None or not answer.content_type or len(answer.body) > _MAX_SHOWN_BYTES:
        return error.message
    if is_unsupported(answer.content_type):
        return unsupported_content_type(answer.content_type)
    if "text/plain" in answer.content_type:
        return {"message": answer.body.decode("utf-8", "replace")}
    try:
        shown = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error.message
    # Some vendors wrap the object into a list.
    first = shown[0] if isinstance(shown, list) and shown else shown
    return error.message if isinstance(first, dict) and "error" in first else shown


_MAX_SHOWN_BYTES = 64 * 1024


def _is_unsupported(error: GatewayError) -> bool:
    return isinstance(error, UpstreamError) and error.answer is not None and is_unsupported(error.answer.content_type)
