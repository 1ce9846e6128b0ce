"""Errors that OpenAI's dialect reports where the status says that all is well: inside streams, and in replies of some vendors.

Source: https://openrouter.ai/docs/api-reference/errors; Groq's `tool_use_failed` and Azure's `content_filter` as recorded.
"""

import msgspec
from msgspec import Struct

from gateway.providers.measured import decode_measured
from gateway.providers.spec import default_fault
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.refusal import refusal


class _Error(Struct):
    message: str | None = None
    code: str | int | None = None
    status: str | int | None = None
    status_code: int | None = None

    @property
    def http_status(self) -> int | None:
        """The status that the error would have had, which vendors write into different members."""
        stated = (self.status_code, self.status, self.code)
        return next((status for status in stated if isinstance(status, int) and 400 <= status < 600), None)


class _Body(Struct):
    error: _Error


_BODY = msgspec.json.Decoder(_Body)


def reported_error(data: bytes, otherwise: ErrorType) -> UpstreamError | None:
    """The error in a body or an event, None where it words none; `otherwise` is its type where it states no status."""
    try:
        error = decode_measured(_BODY, data).error
    except UpstreamError:
        return None
    if not error.message:
        return None
    if error.http_status is not None:
        return refusal(error.http_status, default_fault(error.http_status, data))
    return UpstreamError(otherwise, error.message, code=error.code if isinstance(error.code, str) else None)


def stream_error(data: bytes) -> UpstreamError:
    """The error that a provider sent inside a stream."""
    unworded = UpstreamError(ErrorType.STREAM_ERROR, "The provider reported an error inside its stream.")
    return reported_error(data, ErrorType.STREAM_ERROR) or unworded
