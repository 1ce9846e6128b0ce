"""OpenAI's Responses API, passed through: only the model changes, and what is measured is read on the way.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming; for Azure
https://learn.microsoft.com/azure/ai-services/openai/how-to/responses
"""

import msgspec
from msgspec import Raw, Struct

from gateway.providers.measured import decode_measured
from gateway.providers.spec import NOTHING, Codec, Endpoint
from gateway.types.errors import ErrorType, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.usage import Usage, service_tier

_COUNT = "/input_tokens"
_CALLS = ("", "/compact", _COUNT)
_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_RETRYABLE = {
    "rate_limit_exceeded": (ErrorType.PROVIDER_RATE_LIMITED, 429),
    "server_is_overloaded": (ErrorType.PROVIDER_OVERLOADED, 503),
}


class ResponsesAddress(Struct, frozen=True):
    """Where an account has its Responses API, if not beside its other calls: Azure has it outside the deployment."""

    base_url: str
    model: str


def _to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    if request.path_suffix not in _CALLS:
        raise RequestError(ErrorType.UNSUPPORTED_OPERATION, f"'/responses{request.path_suffix}' is not passed through.")
    base, model = endpoint.base_url, endpoint.model
    if isinstance(endpoint.options, ResponsesAddress):
        base, model = endpoint.options.base_url, endpoint.options.model
    body = request.fields | {"model": Raw(msgspec.json.encode(model))}
    # An API version stands in the base's query.
    base, mark, query = base.partition("?")
    url = f"{base}/responses{request.path_suffix}{mark}{query}"
    return WireRequest(url=url, body=msgspec.json.encode(body))


# --- shapes -----------------------------------------------------------------------------------------------------


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Action(Struct):
    type: str = ""


class _Item(Struct):
    type: str = ""
    name: str | None = None
    action: Raw = Raw()


class _Incomplete(Struct):
    reason: str | None = None


class _Error(Struct):
    code: str | None = None
    message: str | None = None


class _Response(Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    service_tier: str | None = None
    output: list[_Item] = []
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    error: _Error | None = None


class _Event(Struct):
    type: str
    response: _Response | None = None
    item: _Item | None = None
    delta: Raw = Raw()
    code: str | None = None
    message: str | None = None


class _TokenCount(Struct):
    input_tokens: int


class _Text(Struct):
    text: str | None = None


class _ContentItem(Struct):
    content: list[_Text] | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None

    @property
    def chars(self) -> int:
        text = sum(len(part.text or "") for part in self.content or ())
        return text + len(self.name or "") + len(self.arguments or self.input or "")


class _Content(Struct):
    output: list[_ContentItem] = []


_CONTENT = msgspec.json.Decoder(_Content)
_RESPONSE = msgspec.json.Decoder(_Response)
_EVENT = msgspec.json.Decoder(_Event)
_TOKEN_COUNT = msgspec.json.Decoder(_TokenCount)
_ACTION = msgspec.json.Decoder(_Action)
_OTHER_TOOLS = {"code_interpreter_call", "image_generation_call", "shell_call"}
"""Calls of tools whose use is charged by the container or the image."""
_TEXT = msgspec.json.Decoder(str)


def _usage(response: _Response) -> Usage | None:
    reported = response.usage
    if reported is None or (reported.input_tokens is None and reported.output_tokens is None):
        return None
    kinds = [item.type for item in response.output]
    of_input = reported.input_tokens_details or _InputDetails()
    of_output = reported.output_tokens_details or _OutputDetails()
    return Usage(
        input_tokens=reported.input_tokens,
        output_tokens=reported.output_tokens,
        cache_read_tokens=of_input.cached_tokens,
        cache_write_tokens=of_input.cache_write_tokens,
        reasoning_tokens=of_output.reasoning_tokens,
        web_searches=sum(_searches(item) for item in response.output) or None,
        file_searches=kinds.count("file_search_call") or None,
        other_tool_calls=sum(kind in _OTHER_TOOLS for kind in kinds) or None,
        service_tier=service_tier(response.service_tier),
    )


def _searches(item: _Item) -> bool:
    """Whether an item is a search that is charged: opening a page, and finding something in it, are not."""
    if item.type != "web_search_call":
        return False
    try:
        return _ACTION.decode(item.action).type in {"", "search"} if item.action else True
    except msgspec.MsgspecError:
        return True


def _finish_reasons(response: _Response) -> tuple[str, ...]:
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return (_FINISH_REASONS.get(reason or "", "stop"),)
    if response.status != "completed":
        return ()
    return ("tool_calls" if any(item.type == "function_call" for item in response.output) else "stop",)


# --- replies ----------------------------------------------------------------------------------------------------


def _from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """What is measured of a response; the bytes stay."""
    if request.path_suffix == _COUNT:
        decode_measured(_TOKEN_COUNT, body)
        # Counting consumes no tokens, which is known and not a guess.
        return ModelReply(body=body, usage=Usage(input_tokens=0, output_tokens=0))
    response = decode_measured(_RESPONSE, body)
    return ModelReply(
        body=body,
        usage=_usage(response),
        response_model=response.model,
        response_id=response.id,
        finish_reasons=_finish_reasons(response),
        output_chars=_content_chars(body) if response.usage is None else 0,
    )


def _content_chars(body: bytes) -> int:
    try:
        response = _CONTENT.decode(body)
    except msgspec.MsgspecError:
        return len(body)
    return sum(item.chars for item in response.output)


class ResponsesStream:
    """Forwards a response's events as they came, and reads what is measured."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()

    def feed(self, event: StreamEvent) -> bytes:
        """The event's own bytes; raises UpstreamError for an error, and for a response that failed."""
        if event.data in NOTHING:
            return b""
        read = decode_measured(_EVENT, event.data)
        summary = self.summary
        if read.response is not None:
            summary.response_id = read.response.id or summary.response_id
            summary.response_model = read.response.model or summary.response_model
            summary.usage = _usage(read.response) or summary.usage
        match read.type:
            case "error":
                raise _stream_error(_Error(code=read.code, message=read.message))
            case "response.failed":
                raise _stream_error((read.response and read.response.error) or _Error())
            case "response.completed" | "response.incomplete" if read.response is not None:
                summary.finish_reasons = _finish_reasons(read.response)
                summary.finished = True
            case "response.output_item.added" if read.item is not None:
                summary.output_chars += len(read.item.name or "")
            case _ if bytes(read.delta).startswith(b'"'):
                summary.output_chars += len(decode_measured(_TEXT, bytes(read.delta)))
        return event.raw

    def close(self) -> bytes:
        """Nothing is held back."""
        return b""


def _stream_error(error: _Error) -> UpstreamError:
    message = error.message or "The provider reported an error inside its stream."
    # Inside a stream an error has no status of its own; these invite another try.
    error_type, status = _RETRYABLE.get(error.code or "", (ErrorType.STREAM_ERROR, None))
    return UpstreamError(error_type, message, retryable=status is not None, status=status)


RESPONSES = Codec(to_wire=_to_wire, from_wire=_from_wire, open_stream=ResponsesStream)
