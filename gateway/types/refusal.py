"""What a provider's refusal means: its status, and what its body says."""

from gateway.types.errors import ErrorType, UpstreamAnswer, UpstreamError
from gateway.types.model_io import Fault

_RETRYABLE = frozenset({429, 503, 529})
"""The statuses by which a provider says that it did not do the work and may be asked again."""
_ERROR_TYPES = {
    401: ErrorType.PROVIDER_AUTH,
    403: ErrorType.PROVIDER_AUTH,
    404: ErrorType.PROVIDER_NOT_FOUND,
    408: ErrorType.FIRST_BYTE_TIMEOUT,
    429: ErrorType.PROVIDER_RATE_LIMITED,
    503: ErrorType.PROVIDER_OVERLOADED,
    529: ErrorType.PROVIDER_OVERLOADED,
}


def refusal(
    status: int, fault: Fault, retry_after_s: float | None = None, answer: UpstreamAnswer | None = None
) -> UpstreamError:
    """The error that a provider's status and body mean; `answer` is the body as it came."""
    error_type = fault.error_type or _ERROR_TYPES.get(status)
    if error_type is None:
        error_type = ErrorType.PROVIDER_INVALID_REQUEST if 400 <= status < 500 else ErrorType.PROVIDER_ERROR
    return UpstreamError(
        error_type,
        fault.message,
        # Money that is spent does not come back by waiting.
        retryable=status in _RETRYABLE and fault.code != "insufficient_quota",
        status=status,
        retry_after_s=retry_after_s,
        param=fault.param,
        code=fault.code,
        answer=answer,
    )
