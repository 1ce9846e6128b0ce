"""Vendors' own APIs, for apps that use a vendor's SDK: OpenAI's Responses, Anthropic's Messages, Gemini's generateContent.

A request goes to a provider of the same vendor with only the model replaced, and the reply comes back as it came; both
are measured, limited and priced like all else. Errors take the vendor's shape, so that its SDK raises its own types.

Sources: https://platform.openai.com/docs/api-reference/responses, https://docs.anthropic.com/en/api/messages,
https://docs.anthropic.com/en/api/errors, https://ai.google.dev/api/generate-content
"""

from functools import partial

import msgspec
from msgspec import Raw

from gateway.api import errors
from gateway.api.fields import wants_stream
from gateway.api.openai import canonical_body, no_such_model, require_route_type, route_from_model, route_from_path
from gateway.api.surface import Fields, Surface
from gateway.serve.routing import BoundRoute
from gateway.types.errors import ErrorType, GatewayError, RequestError
from gateway.types.model_io import ModelRequest
from gateway.types.route import Operation


def _read(operation: Operation, fields: Fields, route: BoundRoute) -> ModelRequest:
    require_route_type(route, operation)
    return ModelRequest(operation=operation, fields=fields, stream=wants_stream(fields))


_TRUE = Raw(b"true")


# --- OpenAI: Responses ------------------------------------------------------------------------------------------


def _responses_stream_error(error_body: bytes) -> bytes:
    # https://platform.openai.com/docs/api-reference/responses-streaming/error
    fields = msgspec.json.decode(error_body)["error"]
    event = {"type": "error", "code": fields["code"], "message": fields["message"], "param": fields["param"]}
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


def _read_responses(call: str, fields: Fields, route: BoundRoute) -> ModelRequest:
    if fields.get("background") == _TRUE:
        # It would be generated after its reply, which nobody could then fetch through here, measure or charge.
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "'background' is not available through this gateway. Use 'stream' for long responses.",
            param="background",
        )
    return msgspec.structs.replace(_read(Operation.RESPONSES, fields, route), path_suffix=call)


def _responses(call: str) -> Surface:
    return Surface(
        path=f"/v1/responses{call}",
        route_name=route_from_model,
        read=partial(_read_responses, call),
        whole=canonical_body,
        error_body=errors.openai_body,
        status=errors.status_of,
        unknown_route=no_such_model,
        stream_error=_responses_stream_error,
        stream_end=b"",
    )


RESPONSES = _responses("")
COMPACT = _responses("/compact")
INPUT_TOKENS = _responses("/input_tokens")

# --- Anthropic: Messages ----------------------------------------------------------------------------------------

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
ANTHROPIC_HEADERS = frozenset({b"anthropic-version", b"anthropic-beta"})


def anthropic_body(error: GatewayError, trace_id: str | None) -> bytes:
    """`{"type": "error", "error": {type, message, code, trace_id}}`; `code` is the closed error type."""
    status = errors.status_of(error)
    return msgspec.json.encode(
        {
            "type": "error",
            "error": {
                "type": _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error"),
                "message": error.message,
                "code": error.error_type.value,
                "trace_id": trace_id,
            },
        }
    )


def _anthropic_stream_error(error_body: bytes) -> bytes:
    return b"event: error\ndata: " + error_body + b"\n\n"


def _anthropic(path: str, operation: Operation) -> Surface:
    return Surface(
        path=path,
        route_name=route_from_model,
        read=partial(_read, operation),
        whole=canonical_body,
        error_body=anthropic_body,
        status=errors.status_of,
        unknown_route=no_such_model,
        forwarded_headers=ANTHROPIC_HEADERS,
        stream_error=_anthropic_stream_error,
        stream_end=b"",
        request_id_header=b"request-id",
    )


MESSAGES = _anthropic("/v1/messages", Operation.MESSAGES)
COUNT_TOKENS = _anthropic("/v1/messages/count_tokens", Operation.COUNT_TOKENS)

# --- Gemini: generateContent ------------------------------------------------------------------------------------

_GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def gemini_body(error: GatewayError, trace_id: str | None) -> bytes:
    """`{"error": {code, message, status, details}}`; the details name the closed error type and the trace."""
    status = errors.status_of(error)
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error.error_type.value,
        "domain": "gaugeway",
        "metadata": {"trace_id": trace_id},
    }
    return msgspec.json.encode(
        {
            "error": {
                "code": status,
                "message": error.message,
                "status": _GOOGLE_STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL"),
                "details": [info],
            }
        }
    )


def _read_gemini(
    call: str, operation: Operation, fields: Fields, route: BoundRoute, *, stream: bool = False
) -> ModelRequest:
    require_route_type(route, operation)
    return ModelRequest(operation=operation, fields=fields, stream=stream, path_suffix=call)


def _gemini(prefix: str, call: str, operation: Operation = Operation.GENERATE_CONTENT) -> Surface:
    return Surface(
        path=f"{prefix}/{{model}}{call}",
        route_name=route_from_path,
        read=partial(_read_gemini, call, operation),
        whole=canonical_body,
        error_body=gemini_body,
        status=errors.status_of,
        unknown_route=no_such_model,
        stream_end=b"",
        # google-genai takes every line for an event.
        stream_comments=False,
    )


def _gemini_stream(prefix: str) -> Surface:
    """Its streams are events for who asks with `alt=sse`, and one JSON array for others."""
    call = ":streamGenerateContent"
    read = partial(_read_gemini, call, Operation.GENERATE_CONTENT, stream=True)
    events = msgspec.structs.replace(_gemini(prefix, call), read=read)
    return msgspec.structs.replace(events, array=msgspec.structs.replace(events, stream_array=True))


GEMINI_CALLS = {
    prefix: {
        ":generateContent": _gemini(prefix, ":generateContent"),
        ":streamGenerateContent": _gemini_stream(prefix),
        ":countTokens": _gemini(prefix, ":countTokens"),
        ":embedContent": _gemini(prefix, ":embedContent", Operation.EMBED_CONTENT),
        ":batchEmbedContents": _gemini(prefix, ":batchEmbedContents", Operation.EMBED_CONTENT),
    }
    for prefix in ("/v1beta/models", "/v1/models")
}
"""By the prefix of their paths, the surface of each call that may stand behind a model's name.

Google's SDKs began with v1beta; newer ones ask v1.
"""

FIXED = (RESPONSES, COMPACT, INPUT_TOKENS, MESSAGES, COUNT_TOKENS)
