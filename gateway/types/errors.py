"""The error tree: what can go wrong with a request, and whose fault it is.

`message` is public text: it goes to the caller. Nothing secret and nothing internal is ever put into it.
Which HTTP status an error becomes is decided in one place, `gateway.api.errors`.
"""

from enum import StrEnum

from msgspec import Struct


class Outcome(StrEnum):
    """Who decided how a request or an attempt ended."""

    OK = "ok"
    CALLER = "caller"
    POLICY = "policy"
    PROVIDER = "provider"
    GATEWAY = "gateway"


class ErrorType(StrEnum):
    """Why, in a closed list: the same word stands in the reply, the span, the metric and the log line."""

    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    REQUEST_TOO_LARGE = "request_too_large"
    UNKNOWN_ROUTE = "unknown_route"
    WRONG_ROUTE_TYPE = "wrong_route_type"
    UNSUPPORTED_OPERATION = "unsupported_operation"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CALLER_LEFT = "caller_left"

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN_ROUTE = "forbidden_route"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXCEEDED = "budget_exceeded"
    PRICE_UNKNOWN = "price_unknown"

    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    STREAM_TIMEOUT = "stream_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    CONNECTION_LOST = "connection_lost"
    STREAM_CUT = "stream_cut"
    STREAM_ERROR = "stream_error"
    UNREADABLE_REPLY = "unreadable_reply"
    PROVIDER_INVALID_REQUEST = "provider_invalid_request"
    PROVIDER_AUTH = "provider_auth"
    PROVIDER_NOT_FOUND = "provider_not_found"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_OVERLOADED = "provider_overloaded"
    PROVIDER_ERROR = "provider_error"

    SHUTTING_DOWN = "shutting_down"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    CREDENTIAL_UNAVAILABLE = "credential_unavailable"
    INTERNAL = "internal"

    @property
    def outcome(self) -> Outcome:
        """The fault domain of this error."""
        return _OUTCOMES[self]


_CALLER = (
    ErrorType.INVALID_JSON,
    ErrorType.INVALID_REQUEST,
    ErrorType.REQUEST_TOO_LARGE,
    ErrorType.UNKNOWN_ROUTE,
    ErrorType.WRONG_ROUTE_TYPE,
    ErrorType.UNSUPPORTED_OPERATION,
    ErrorType.METHOD_NOT_ALLOWED,
    ErrorType.CALLER_LEFT,
    ErrorType.PROVIDER_INVALID_REQUEST,
)
_POLICY = (
    ErrorType.UNAUTHENTICATED,
    ErrorType.FORBIDDEN_ROUTE,
    ErrorType.RATE_LIMITED,
    ErrorType.BUDGET_EXCEEDED,
    ErrorType.PRICE_UNKNOWN,
)
_GATEWAY = (
    ErrorType.SHUTTING_DOWN,
    ErrorType.LEDGER_UNAVAILABLE,
    ErrorType.CREDENTIAL_UNAVAILABLE,
    ErrorType.INTERNAL,
)
_OUTCOMES = {
    error_type: Outcome.CALLER
    if error_type in _CALLER
    else Outcome.POLICY
    if error_type in _POLICY
    else Outcome.GATEWAY
    if error_type in _GATEWAY
    else Outcome.PROVIDER
    for error_type in ErrorType
}


class GatewayError(Exception):
    """The root: a request or an attempt that failed for a known reason.

    Args:
        error_type: the closed cause.
        message: public text that names the field and the remedy.
        param: the request field that is wrong, as a JSON path such as `messages[0].role`.
        retry_after_s: when trying again can help, in seconds.
    """

    def __init__(
        self,
        error_type: ErrorType,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class RequestError(GatewayError):
    """The caller's request cannot be served as it is."""


class PolicyError(GatewayError):
    """A key, a limit or a budget refused the request."""


class UpstreamAnswer(Struct, frozen=True):
    """The body of a provider's refusal, which the MLflow surfaces show to their callers as the original did."""

    content_type: str
    """As the provider sent it; empty when it sent none."""
    body: bytes


def is_unsupported(content_type: str) -> bool:
    """Whether a reply of this content type is neither JSON nor plain text; a missing one may be either."""
    return bool(content_type) and "json" not in content_type and "text/plain" not in content_type


def unsupported_content_type(content_type: str) -> str:
    """The MLflow gateway's words for such a reply."""
    return (
        "The returned data type from the route service is not supported. "
        f"Received content type: {content_type.partition(';')[0].strip()}"
    )


class UpstreamError(GatewayError):
    """One attempt failed at, or on the way to, the provider.

    Args:
        retryable: whether the same request may be sent again: nothing reached the upstream, or it said so.
        status: the upstream's HTTP status, where it gave one.
        sent: whether request bytes may have reached the upstream (then it may have charged for them).
        code: the cause in OpenAI's words, where the provider named it.
        answer: the refusal as it came.
        connect_s: seconds spent on opening a connection, also where that failed; None where none was opened.
    """

    def __init__(
        self,
        error_type: ErrorType,
        message: str,
        *,
        retryable: bool = False,
        status: int | None = None,
        sent: bool = True,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
        answer: UpstreamAnswer | None = None,
        connect_s: float | None = None,
    ) -> None:
        super().__init__(error_type, message, param=param, retry_after_s=retry_after_s)
        self.retryable = retryable
        self.status = status
        self.sent = sent
        self.code = code
        self.answer = answer
        self.connect_s = connect_s


class ServiceError(GatewayError):
    """The gateway itself cannot serve: it is stopping, or a part of it failed."""
