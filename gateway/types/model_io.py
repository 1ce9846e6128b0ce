"""The canonical request and reply that dialects translate to and from, and the wire request that goes upstream.

Canonical means OpenAI's JSON: chat completions, completions, embeddings. A request keeps its top-level members as raw
bytes, so that a provider of the same dialect gets every value exactly as the caller wrote it.
"""

from enum import StrEnum

from msgspec import Raw, Struct

from gateway.types.errors import ErrorType
from gateway.types.route import Operation
from gateway.types.usage import Usage


class ModelRequest(Struct, frozen=True, kw_only=True):
    """What a caller asks, in canonical form (or, for a passthrough operation, in the vendor's own).

    `fields` are the top-level JSON members, byte for byte; `stream` and `include_usage` are read from them once.
    `created` (seconds since the epoch) and `request_id` are for replies of vendors that send none.
    `path_suffix` is the part of a vendor's path that the operation does not fix, such as `:countTokens`.
    `original_shape` says that the caller used the original surface (MLflow 2.5 to 2.8): its temperature, 0 to 1, stands
    here doubled, and its defaults are filled in.
    `headers` are the vendor's own request headers that a passthrough caller sent (such as `anthropic-beta`), names in
    lower case; a codec forwards those that it knows.
    """

    operation: Operation
    fields: dict[str, Raw]
    created: int = 0
    request_id: str = ""
    stream: bool = False
    include_usage: bool = False
    path_suffix: str = ""
    original_shape: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class WireRequest(Struct, frozen=True, kw_only=True):
    """One HTTP request for an upstream. `headers` hold no credential: `gateway.upstream` adds it when it sends."""

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    method: str = "POST"


class ModelReply(Struct, frozen=True, kw_only=True):
    """A whole reply: canonical JSON bytes, and the facts that are measured and priced.

    `output_chars` counts generated characters; it is filled only where `usage` is None, to estimate from.
    """

    body: bytes
    usage: Usage | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    output_chars: int = 0


class Framing(StrEnum):
    """How an upstream cuts its stream into events."""

    SSE = "sse"
    NDJSON = "ndjson"
    AWS_EVENT_STREAM = "aws_event_stream"


class StreamEvent(Struct, frozen=True):
    """One decoded event of an upstream's stream.

    `data` is the payload (of an SSE event, its data lines joined); `raw` the bytes as they came, its end included.
    """

    data: bytes
    raw: bytes
    name: str = ""


class StreamSummary(Struct, kw_only=True):
    """What a stream has told so far. A translator fills it while it feeds; nobody else writes it.

    `output_chars` counts generated characters seen, so that an abandoned stream can be estimated.
    """

    usage: Usage | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    output_chars: int = 0
    finished: bool = False
    """The provider has said that the reply is complete."""


class Fault(Struct, frozen=True, kw_only=True):
    """What an upstream's error body says: public text, and a cause when the body knows better than the status.

    `code` is OpenAI's word for the cause, such as `context_length_exceeded`, which apps act on. `retry_after_s` is for vendors who say in the body when another try can help.
    """

    message: str
    error_type: ErrorType | None = None
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
