"""Which HTTP status and body an error becomes: decided here and nowhere else.

Each surface words errors as its clients expect: `{"detail": ...}` as FastAPI did for the MLflow gateway, or OpenAI's
`{"error": {...}}`. Both carry the closed `error_type` and the trace id. MLflow's clients send every 429, 500, 502 and
503 again, so none of those stands for what a retry cannot mend.
"""

from collections.abc import Mapping

import msgspec

from gateway.types.errors import ErrorType, GatewayError, Outcome, UpstreamError

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
    ErrorType.CIRCUIT_OPEN: 503,
    ErrorType.SHUTTING_DOWN: 503,
    ErrorType.OVERLOADED: 503,
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
        # 529 is Anthropic's own; clients know 503.
        return 503 if error.status == 529 else error.status
    return _STATUSES[error.error_type]


def mlflow_status_of(error: GatewayError) -> int:
    """The status on the MLflow surfaces: FastAPI said 422 where OpenAI says 400."""
    if error.error_type in (ErrorType.INVALID_JSON, ErrorType.INVALID_REQUEST):
        return 422
    return status_of(error)


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


def openai_body(error: GatewayError, trace_id: str) -> bytes:
    """`{"error": {message, type, param, code, trace_id}}`; `code` is the closed error type."""
    error_type = error.error_type
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": _OPENAI_TYPE_OVERRIDES.get(error_type) or _OPENAI_TYPES[error_type.outcome],
                "param": error.param,
                "code": error_type.value,
                "trace_id": trace_id,
            }
        }
    )


def mlflow_body(error: GatewayError, trace_id: str) -> bytes:
    """`{"detail": ..., error_type, trace_id}`; a body that failed its schema has FastAPI's list as its detail."""
    detail = getattr(error, "detail", None) or error.message
    return msgspec.json.encode({"detail": detail, "error_type": error.error_type.value, "trace_id": trace_id})
