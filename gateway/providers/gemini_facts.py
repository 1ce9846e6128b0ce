"""What Gemini says in a reply, and over the events of a stream: pieces, token counts, finish reasons, errors.

A stream's events are whole replies, each with the counts so far. Some models name a finish reason in every event, so
the reasons are held until the stream's end.

Source: https://ai.google.dev/api/generate-content (GenerateContentResponse, FinishReason, UsageMetadata)
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, field, structs

from gateway.providers.canonical_reply import Function, Image, Logprobs, ToolCall, arguments_text, decode_reply
from gateway.providers.gemini_logprobs import LogprobsResult, logprobs_of
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelRequest, StreamSummary
from gateway.types.usage import Usage, service_tier

_CONTENT_FILTER = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "ESCALATION",
        "MODEL_ARMOR",
    }
)
ERROR_TYPES = {
    "INVALID_ARGUMENT": ErrorType.PROVIDER_INVALID_REQUEST,
    "FAILED_PRECONDITION": ErrorType.PROVIDER_INVALID_REQUEST,
    "OUT_OF_RANGE": ErrorType.PROVIDER_INVALID_REQUEST,
    "UNAUTHENTICATED": ErrorType.PROVIDER_AUTH,
    "PERMISSION_DENIED": ErrorType.PROVIDER_AUTH,
    "NOT_FOUND": ErrorType.PROVIDER_NOT_FOUND,
    "RESOURCE_EXHAUSTED": ErrorType.PROVIDER_RATE_LIMITED,
    "UNAVAILABLE": ErrorType.PROVIDER_OVERLOADED,
    "INTERNAL": ErrorType.PROVIDER_ERROR,
    "UNKNOWN": ErrorType.PROVIDER_ERROR,
    "DEADLINE_EXCEEDED": ErrorType.PROVIDER_ERROR,
}
"""What `error.status`, a google.rpc.Code, means."""
_RETRYABLE = {"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}


class _FunctionCall(Struct, rename="camel"):
    name: str = ""
    id: str | None = None
    args: Raw = Raw()
    thought_signature: str | None = None


class _Blob(Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class _Part(Struct, rename="camel"):
    text: str | None = None
    inline_data: _Blob | None = None
    thought: bool = False
    function_call: _FunctionCall | None = None
    thought_signature: str | None = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Grounding(Struct, rename="camel"):
    web_search_queries: list[str] | None = None


class Candidate(Struct, rename="camel"):
    """One answer."""

    content: _Content | None = None
    finish_reason: str | None = None
    index: int | None = None
    logprobs_result: LogprobsResult | None = None
    grounding_metadata: _Grounding | None = None


class _Modality(Struct, rename="camel"):
    modality: str = ""
    token_count: int = 0


class _UsageMetadata(Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    total_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None
    service_tier: str | None = None
    traffic_type: str | None = None


class _PromptFeedback(Struct, rename="camel"):
    block_reason: str | None = None


class _Error(Struct):
    code: int = 0
    message: str = "The provider reported an error inside its stream."
    status: str = ""


class Reply(Struct, rename="camel"):
    """A whole reply, or one event of a stream; an event may hold an error instead."""

    candidates: list[Candidate] | None = None
    usage_metadata: _UsageMetadata | None = None
    prompt_feedback: _PromptFeedback | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: _Error | None = None


class _TokenCount(Struct):
    total_tokens: int = field(name="totalTokens")


REPLY = msgspec.json.Decoder(Reply)
TOKEN_COUNT = msgspec.json.Decoder(_TokenCount)


def _tokens(reported: _UsageMetadata | None) -> Usage | None:
    if reported is None:
        return None
    # A prompt whose file Gemini fetched itself is sometimes not counted.
    prompt, tool_use = reported.prompt_token_count, reported.tool_use_prompt_token_count or 0
    generated = (reported.candidates_token_count, reported.thoughts_token_count)
    output: int | None = sum(count or 0 for count in generated)
    if generated == (None, None):
        if prompt is None:
            return None
        # Gemini leaves zeros out: the total tells whether nothing was generated, or nothing is known yet.
        total = reported.total_token_count
        output = None if total is None else max(0, total - prompt - tool_use)
    return Usage(
        input_tokens=None if prompt is None else prompt + tool_use,
        output_tokens=output,
        cache_read_tokens=reported.cached_content_token_count,
        reasoning_tokens=reported.thoughts_token_count,
        input_audio_tokens=_audio(reported.prompt_tokens_details),
        output_audio_tokens=_audio(reported.candidates_tokens_details),
        service_tier=service_tier(reported.service_tier) or service_tier(_kind_of_traffic(reported)),
    )


def _kind_of_traffic(reported: _UsageMetadata) -> str:
    """Vertex AI's word for a tier: ON_DEMAND_PRIORITY is Gemini's `priority`."""
    return (reported.traffic_type or "").removeprefix("ON_DEMAND_").removeprefix("TRAFFIC_TYPE_UNSPECIFIED")


def _queries(reply: Reply) -> set[str]:
    """What was searched for; empty queries are not charged (https://ai.google.dev/gemini-api/docs/google-search)."""
    grounded = [candidate.grounding_metadata for candidate in reply.candidates or ()]
    return {query for found in grounded if found is not None for query in found.web_search_queries or () if query}


def _with_searches(usage: Usage | None, queries: set[str], model: str) -> Usage | None:
    if usage is None or not queries:
        return usage
    return structs.replace(usage, web_searches=1 if searches_by_prompt(model) else len(queries))


def searches_by_prompt(model: str) -> bool:
    """Whether a model's searches are charged once a prompt: up to Gemini 2.5. Later they are by the query."""
    return model.startswith(("gemini-1", "gemini-2"))


def usage_of(reply: Reply, model: str) -> Usage | None:
    """The usage of a whole reply by `model`, searches included; None where it tells no token count."""
    return _with_searches(_tokens(reply.usage_metadata), _queries(reply), model)


def _audio(details: Sequence[_Modality] | None) -> int | None:
    counts = [detail.token_count for detail in details or () if detail.modality == "AUDIO"]
    return sum(counts) if counts else None


def finish_reason(reason: str, *, called: bool) -> str:
    """The canonical finish reason of a candidate that did, or did not, call tools; one that is new to us is a stop."""
    if reason == "MAX_TOKENS":
        return "length"
    if reason in _CONTENT_FILTER:
        return "content_filter"
    # Gemini says STOP for a turn that ends in calls.
    return "tool_calls" if called else "stop"


def candidates_of(reply: Reply) -> list[tuple[int, Candidate]]:
    """Each candidate behind the index of its choice, which is its place where it names none."""
    return [
        (position if candidate.index is None else candidate.index, candidate)
        for position, candidate in enumerate(reply.candidates or ())
    ]


def is_blocked(reply: Reply) -> bool:
    """A blocked prompt has no candidate, and says why."""
    return not reply.candidates and reply.prompt_feedback is not None and bool(reply.prompt_feedback.block_reason)


class Piece(Struct):
    """What one candidate said in one reply."""

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = []
    images: list[Image] = []
    logprobs: Logprobs | None = None


def read_candidate(
    candidate: Candidate,
    request: ModelRequest,
    index: int,
    *,
    stream: bool,
    calls_before: int = 0,
    images_before: int = 0,
) -> Piece:
    """What a candidate says in one reply.

    Calls without an id get one by request, choice `index` and place, which follows the calls that the choice made in
    earlier events, as images do. Calls are numbered in a `stream` alone.
    """
    piece = Piece(logprobs=logprobs_of(candidate.logprobs_result))
    for part in (candidate.content.parts if candidate.content else None) or ():
        if part.function_call is not None:
            number = calls_before + len(piece.calls)
            piece.calls.append(
                _call(part, part.function_call, f"{request.request_id}_{index}_{number}", number, stream)
            )
        elif part.inline_data is not None:
            blob = part.inline_data
            if blob.mime_type.startswith("image/") and not part.thought:
                piece.images.append(Image.inline(images_before + len(piece.images), blob.mime_type, blob.data))
        elif part.thought:
            piece.reasoning += part.text or ""
        else:
            piece.content += part.text or ""
    return piece


def _call(part: _Part, call: _FunctionCall, own_id: str, number: int, stream: bool) -> ToolCall:
    signature = part.thought_signature or call.thought_signature
    return ToolCall(
        index=number if stream else UNSET,
        id=call.id or f"call_{own_id}",
        function=Function(name=call.name, arguments=arguments_text(call.args)),
        thought_signature=signature or UNSET,
    )


class Reader:
    """Takes a stream's replies and keeps its summary."""

    def __init__(self, request: ModelRequest) -> None:
        self.summary = StreamSummary()
        self._request = request
        self._queries: set[str] = set()
        self._reasons: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        self._images: dict[int, int] = {}

    def read(self, data: bytes) -> list[tuple[int, Piece]]:
        """What each candidate says in one event; raises UpstreamError for an error and for data that is no reply."""
        reply = decode_reply(REPLY, data)
        if reply.error is not None:
            raise _stream_error(reply.error)
        return self.take(reply)

    def take(self, reply: Reply) -> list[tuple[int, Piece]]:
        """Count one reply, and give what each candidate says in it."""
        summary = self.summary
        summary.response_id = summary.response_id or reply.response_id
        summary.response_model = summary.response_model or reply.model_version
        self._queries |= _queries(reply)
        usage = _tokens(reply.usage_metadata) or summary.usage
        summary.usage = _with_searches(usage, self._queries, summary.response_model or "")
        if is_blocked(reply):
            self._reasons[0] = "SAFETY"
            summary.finished = True
        pieces = []
        for index, candidate in candidates_of(reply):
            calls_before = self._calls.get(index, 0)
            images_before = self._images.get(index, 0)
            piece = read_candidate(
                candidate,
                self._request,
                index,
                stream=True,
                calls_before=calls_before,
                images_before=images_before,
            )
            self._calls[index] = calls_before + len(piece.calls)
            self._images[index] = images_before + len(piece.images)
            if candidate.finish_reason:
                self._reasons[index] = candidate.finish_reason
                summary.finished = True
            summary.output_chars += len(piece.content) + len(piece.reasoning)
            summary.output_chars += sum(call.function.chars for call in piece.calls)
            pieces.append((index, piece))
        return pieces

    def reasons(self) -> tuple[str, ...]:
        """The canonical finish reasons so far, by choice."""
        return tuple(reason for _, reason in self.finishes())

    def finishes(self) -> list[tuple[int, str]]:
        """(choice, canonical finish reason) so far."""
        return [
            (index, finish_reason(reason, called=bool(self._calls.get(index))))
            for index, reason in sorted(self._reasons.items())
        ]


def _stream_error(error: _Error) -> UpstreamError:
    # Inside a stream an error has no status of its own; these two invite another try.
    status = _RETRYABLE.get(error.status)
    if status is None:
        return UpstreamError(ErrorType.STREAM_ERROR, error.message)
    return UpstreamError(ERROR_TYPES[error.status], error.message, retryable=True, status=status)
