"""Hugging Face's Text Generation Inference server: completions and their streams, with exact token counts.

Chats are better asked of its OpenAI-compatible API: provider `openai-compatible`.

Source: https://huggingface.github.io/text-generation-inference; the provider of the same name in mlflow
"""

from typing import Any

import msgspec
from msgspec import Struct, UnsetType

from gateway.providers.canonical_reply import ChunkWriter, TextChoice, completion_reply, decode_reply
from gateway.providers.canonical_request import ORIGINAL_NAMES
from gateway.providers.parameters import encode, one_choice_only, parameters
from gateway.providers.spec import NOTHING, Codec, Dialect, Endpoint, Provider, Quirks
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent, StreamSummary, WireRequest
from gateway.types.route import Operation
from gateway.types.usage import Usage

_NAME = "huggingface-text-generation-inference"
_NAMES = {"max_tokens": "max_new_tokens"}
_LOWEST_TEMPERATURE = 1e-3
_FINISH_REASONS = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}


class HuggingFaceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `huggingface-text-generation-inference`."""

    hf_server_url: str


def to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/generate` or `/generate_stream`; a temperature of 0, which the server refuses, becomes a very low one."""
    rest: dict[str, Any] = parameters(request, endpoint, _NAMES)
    one_choice_only(
        request, "'{name}' must be '1' for the Text Generation Inference provider. Received value: '{value}'."
    )
    choices = rest.pop("n", None)
    if request.original_shape and choices is not None:
        rest[ORIGINAL_NAMES["n"]] = choices
    if "temperature" in rest:
        rest["temperature"] = max(rest["temperature"], _LOWEST_TEMPERATURE)
    body = {"inputs": rest.pop("prompt", ""), "parameters": rest | {"details": True}}
    if request.stream:
        return WireRequest(url=f"{endpoint.base_url}/generate_stream", body=encode(body))
    # Only a whole reply can tell the prompt's tokens one by one; a stream tells their number.
    body["parameters"]["decoder_input_details"] = True
    return WireRequest(url=f"{endpoint.base_url}/generate", body=encode(body))


class _Details(Struct):
    generated_tokens: int
    finish_reason: str | None = None
    seed: int | None = None
    prefill: list[msgspec.Raw] = []
    input_length: int | None = None


class _Reply(Struct):
    generated_text: str
    details: _Details


_REPLY = msgspec.json.Decoder(_Reply)


class SeededChoice(TextChoice, frozen=True, kw_only=True):
    """A choice that tells its sampling seed, which only the original shape has a place for."""

    seed: str | UnsetType = msgspec.UNSET


def from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The text as the only choice. In the original shape finish reason and seed stay as the server words them."""
    reply = decode_reply(_REPLY, body)
    details = reply.details
    reason = details.finish_reason
    seed: str | UnsetType = msgspec.UNSET
    if not request.original_shape:
        reason = None if reason is None else _FINISH_REASONS.get(reason, "stop")
    elif details.seed is not None:
        seed = str(details.seed)
    choice = SeededChoice(index=0, text=reply.generated_text, finish_reason=reason, seed=seed)
    usage = Usage(input_tokens=len(details.prefill), output_tokens=details.generated_tokens)
    return completion_reply(request, [choice], model=endpoint.model, usage=usage)


class _Token(Struct, frozen=True):
    text: str = ""
    special: bool = False


class _Event(Struct):
    token: _Token = _Token()
    generated_text: str | None = None
    details: _Details | None = None
    error: str | None = None


_EVENT = msgspec.json.Decoder(_Event)


class GenerateStream:
    """Turns tokens into chunks; special tokens, which are no text, are left out as in a whole reply."""

    def __init__(self, request: ModelRequest, endpoint: Endpoint) -> None:
        self.summary = StreamSummary()
        self._writer = ChunkWriter(request, endpoint.model)

    def feed(self, event: StreamEvent) -> bytes:
        """One token; raises UpstreamError for an error inside the stream and for data that is no token."""
        if event.data in NOTHING:
            return b""
        read = decode_reply(_EVENT, event.data)
        if read.error is not None:
            raise UpstreamError(ErrorType.STREAM_ERROR, read.error)
        text = "" if read.token.special else read.token.text
        self.summary.output_chars += len(text)
        chunks = self._writer.delta(content=text) if text else b""
        if read.generated_text is None:
            return chunks
        return chunks + self._end(read.details)

    def _end(self, details: _Details | None) -> bytes:
        self.summary.finished = True
        reason = "stop"
        if details is not None:
            reason = _FINISH_REASONS.get(details.finish_reason or "", "stop")
            # Older servers do not tell a stream's number of input tokens.
            self.summary.usage = Usage(input_tokens=details.input_length, output_tokens=details.generated_tokens)
        self.summary.finish_reasons = (reason,)
        return self._writer.delta(finish_reason=reason) + self._writer.usage(self.summary.usage)

    def close(self) -> bytes:
        """Nothing is held back, so nothing is left."""
        return b""


DIALECT = Dialect(
    name="text_generation_inference",
    codecs={Operation.COMPLETIONS: Codec(to_wire=to_wire, from_wire=from_wire, open_stream=GenerateStream)},
)


def _connect(config: HuggingFaceConfig, model: str) -> Endpoint:
    return Endpoint(
        provider=_NAME,
        dialect=DIALECT,
        base_url=config.hf_server_url.rstrip("/"),
        model=model,
        # The server takes 0 to 100: releases since 2.9 stretch the range over it, the original did not.
        quirks=Quirks(temperature_scale=50.0, original_temperature_scale=0.5),
    )


HUGGINGFACE = Provider(
    name=_NAME,
    title="Hugging Face Text Generation Inference",
    gen_ai_name=_NAME,
    config=HuggingFaceConfig,
    connect=_connect,
)
