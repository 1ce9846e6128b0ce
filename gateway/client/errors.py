"""What a call can fail with: one tree, by who can do something about it.

`error_type` is the gateway's closed word (docs/api.md lists them); `trace_id` finds the call in its traces and logs.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec


class GatewayClientError(Exception):
    """A call that got no answer.

    Args:
        message: the gateway's or the provider's words.
        status: the HTTP status; None when there was none, or the stream had begun.
        error_type: the gateway's closed word; empty when the gateway did not answer.
        trace_id: 32 hexadecimal digits; empty likewise.
        retry_after_s: how long to wait, where trying again can help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_type: str = "",
        trace_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_type = error_type
        self.trace_id = trace_id
        self.retry_after_s = retry_after_s


class UnreachableError(GatewayClientError):
    """The gateway could not be reached, or did not answer in time."""


class InvalidRequestError(GatewayClientError):
    """The request is wrong as it is; the message names the field."""


class NotFoundError(GatewayClientError):
    """There is no such route, or its provider has no such model or operation."""


class UnauthenticatedError(GatewayClientError):
    """The gateway knows no such key."""


class ForbiddenError(GatewayClientError):
    """The key may not use this route, or a budget needs a price that nobody knows."""


class RateLimitedError(GatewayClientError):
    """Too many calls, by a limit of the gateway or of the provider; `retry_after_s` says when to come back."""


class BudgetExceededError(GatewayClientError):
    """A budget has no room for this request."""


class ProviderFailedError(GatewayClientError):
    """The provider refused or failed."""


class GatewayFailedError(GatewayClientError):
    """The gateway itself failed, or is stopping."""


_BY_TYPE: Mapping[str, type[GatewayClientError]] = {
    "invalid_json": InvalidRequestError,
    "invalid_request": InvalidRequestError,
    "request_too_large": InvalidRequestError,
    "wrong_route_type": InvalidRequestError,
    "method_not_allowed": InvalidRequestError,
    "provider_invalid_request": InvalidRequestError,
    "unknown_route": NotFoundError,
    "unsupported_operation": NotFoundError,
    "provider_not_found": NotFoundError,
    "unauthenticated": UnauthenticatedError,
    "forbidden_route": ForbiddenError,
    "price_unknown": ForbiddenError,
    "rate_limited": RateLimitedError,
    "provider_rate_limited": RateLimitedError,
    "budget_exceeded": BudgetExceededError,
    "shutting_down": GatewayFailedError,
    "ledger_unavailable": GatewayFailedError,
    "credential_unavailable": GatewayFailedError,
    "internal": GatewayFailedError,
}
_BY_STATUS: Mapping[int, type[GatewayClientError]] = {
    400: InvalidRequestError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidRequestError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
}


def error_of(status: int | None, headers: Mapping[str, str], body: bytes) -> GatewayClientError:
    """The error that a reply means; `status` None and no headers for an error inside a stream."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = None
    fields = fields if isinstance(fields, dict) else {}
    error_type = headers.get("x-gateway-error-type") or _text(fields.get("error_type"))
    fallback = GatewayFailedError if status is None or status >= 500 else GatewayClientError
    kind = _BY_TYPE.get(error_type) if error_type else _BY_STATUS.get(status or 0, fallback)
    # What is left of the closed list is the provider's.
    return (kind or ProviderFailedError)(
        _message(fields.get("detail")) or f"The gateway answered with status {status}.",
        status=status,
        error_type=error_type,
        trace_id=headers.get("x-gateway-trace-id") or _text(fields.get("trace_id")),
        retry_after_s=_seconds(headers.get("retry-after")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _message(detail: Any) -> str:
    """The words of a `detail`: a text, FastAPI's list, or whatever JSON a provider sent."""
    match detail:
        case str():
            return detail
        case [{"loc": list(location), "msg": str(message)}, *_]:
            return f"{'.'.join(map(str, location[1:]))}: {message}"
        case None:
            return ""
        case _:
            return msgspec.json.encode(detail).decode()


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
