"""Gemini's replies and streams turned into canonical ones, or forwarded as they came."""

from msgspec import UNSET

from gateway.providers.canonical_reply import (
    ChatChoice,
    ChunkWriter,
    Message,
    TextChoice,
    chat_reply,
    completion_reply,
    decode_reply,
)
from gateway.providers.gemini_facts import (
    REPLY,
    TOKEN_COUNT,
    Reader,
    candidates_of,
    finish_reason,
    is_blocked,
    read_candidate,
    usage_of,
)
from gateway.providers.spec import NOTHING, Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent
from gateway.types.usage import Usage

# --- whole replies ----------------------------------------------------------------------------------------------


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A chat completion: texts joined, thoughts as `reasoning_content`, a blocked prompt as a filtered choice."""
    reply = decode_reply(REPLY, body)
    choices = []
    for index, candidate in candidates_of(reply):
        piece = read_candidate(candidate, request, index, stream=False)
        message = Message(
            content=piece.content or None,
            reasoning_content=piece.reasoning or UNSET,
            images=piece.images or UNSET,
            tool_calls=piece.calls or UNSET,
        )
        reason = finish_reason(candidate.finish_reason or "STOP", called=bool(piece.calls))
        choices.append(ChatChoice(index=index, message=message, logprobs=piece.logprobs or UNSET, finish_reason=reason))
    if is_blocked(reply):
        choices.append(ChatChoice(index=0, message=Message(), finish_reason="content_filter"))
    if not choices:
        raise _no_candidate()
    return chat_reply(
        request,
        choices,
        model=endpoint.model,
        usage=usage_of(reply, endpoint.model),
        response_id=reply.response_id,
        response_model=reply.model_version,
    )


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A text completion."""
    reply = decode_reply(REPLY, body)
    choices = []
    for index, candidate in candidates_of(reply):
        text = read_candidate(candidate, request, index, stream=False).content
        reason = finish_reason(candidate.finish_reason or "STOP", called=False)
        choices.append(TextChoice(index=index, text=text, finish_reason=reason))
    if is_blocked(reply):
        choices.append(TextChoice(index=0, text="", finish_reason="content_filter"))
    if not choices:
        raise _no_candidate()
    return completion_reply(
        request,
        choices,
        model=endpoint.model,
        usage=usage_of(reply, endpoint.model),
        response_id=reply.response_id,
        response_model=reply.model_version,
    )


def _no_candidate() -> UpstreamError:
    # It happens, and a client would look for the first choice.
    return UpstreamError(ErrorType.UNREADABLE_REPLY, "The provider's reply holds no candidate, and no reason why.")


def native_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """What is measured of a `generateContent` or `countTokens` reply; the bytes stay."""
    if request.path_suffix.startswith(":countTokens"):
        decode_reply(TOKEN_COUNT, body)
        # Counting consumes no tokens, which is known and not a guess.
        return ModelReply(body=body, usage=Usage(input_tokens=0, output_tokens=0))
    reply = decode_reply(REPLY, body)
    reader = Reader(request)
    reader.take(reply)
    summary = reader.summary
    return ModelReply(
        body=body,
        usage=summary.usage,
        response_model=summary.response_model,
        response_id=summary.response_id,
        finish_reasons=reader.reasons(),
        output_chars=0 if summary.usage else summary.output_chars,
    )


# --- streams ----------------------------------------------------------------------------------------------------


class NativeStream:
    """Forwards a `streamGenerateContent` stream as it came (passthrough), and reads what is measured."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self._reader = Reader(request)
        self.summary = self._reader.summary

    def feed(self, event: StreamEvent) -> bytes:
        """The event's own bytes; raises UpstreamError for an error event."""
        if event.data in NOTHING:
            return b""
        self._reader.read(event.data)
        self.summary.finish_reasons = self._reader.reasons()
        return event.raw

    def close(self) -> bytes:
        """Nothing is held back."""
        return b""


class CanonicalStream:
    """Turns a stream into chat chunks, or text chunks for a completion."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self._reader = Reader(request)
        self.summary = self._reader.summary
        self._writer = ChunkWriter(request, endpoint.model)

    def feed(self, event: StreamEvent) -> bytes:
        """The chunks of one event; raises UpstreamError for an error event."""
        if event.data in NOTHING:
            return b""
        pieces = self._reader.read(event.data)
        self.summary.finish_reasons = self._reader.reasons()
        writer = self._writer
        writer.response_id = self.summary.response_id
        writer.response_model = self.summary.response_model
        return b"".join(
            writer.delta(
                index,
                content=piece.content or None,
                reasoning_content=piece.reasoning or None,
                images=piece.images or None,
                tool_calls=piece.calls or None,
                logprobs=piece.logprobs,
            )
            for index, piece in pieces
            if piece.content or ((piece.reasoning or piece.calls or piece.images) and not writer.writes_text)
        )

    def close(self) -> bytes:
        """The finish reasons, and the usage for callers who asked."""
        finishes = b"".join(
            self._writer.delta(index, finish_reason=reason) for index, reason in self._reader.finishes()
        )
        return finishes + self._writer.usage(self.summary.usage)
