"""Google's PaLM API, which its vendor has retired; the translation is kept for proxies that still speak it.

Source: https://developers.generativeai.google/api/rest/generativelanguage (v1beta3); the `palm` provider of mlflow
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.providers.canonical_reply import (
    ChatChoice,
    Message,
    TextChoice,
    chat_reply,
    completion_reply,
    decode_reply,
    embeddings_reply,
)
from gateway.providers.canonical_request import decode_member, read_embeddings, refuse_native
from gateway.providers.parameters import encode, parameters
from gateway.providers.spec import Codec, Dialect, Endpoint, HeaderAuth, Provider, Quirks, require_model
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.route import Operation
from gateway.types.secret import Secret

_BASE = "https://generativelanguage.googleapis.com/v1beta3/models"
_CHAT_NAMES = {"stop": "stopSequences", "n": "candidateCount"}
_TEXT_NAMES = {**_CHAT_NAMES, "max_tokens": "maxOutputTokens"}


class PaLMConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `palm`."""

    palm_api_key: Secret
    palm_api_base: str = _BASE


def _wire(endpoint: Endpoint, method: str, body: dict[str, Any]) -> WireRequest:
    return WireRequest(url=f"{endpoint.base_url}/{endpoint.model}:{method}", body=encode(body))


def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`:generateMessage`: the messages, with authors for roles, and PaLM's own `examples` and `context` are the prompt."""
    for name in ("max_tokens", "maxOutputTokens"):
        if name in request.fields:
            raise RequestError(ErrorType.INVALID_REQUEST, "Max tokens is not supported for PaLM chat.", param=name)
    body = parameters(request, endpoint, _CHAT_NAMES)
    messages = decode_member(body.pop("messages", Raw(b"[]")), list[dict[str, Raw]], "messages")
    prompt: dict[str, Any] = {
        "messages": [
            {"author" if name == "role" else name: value for name, value in message.items()} for message in messages
        ]
    }
    prompt |= {name: body.pop(name) for name in ("examples", "context") if name in body}
    return _wire(endpoint, "generateMessage", body | {"prompt": prompt})


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`:generateText`."""
    body = parameters(request, endpoint, _TEXT_NAMES)
    return _wire(endpoint, "generateText", body | {"prompt": {"text": body.get("prompt", "")}})


def embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`:batchEmbedText`."""
    refuse_native(request.fields, {"input": "texts"}, original_shape=request.original_shape)
    view, extras = read_embeddings(request)
    return _wire(endpoint, "batchEmbedText", {"texts": view.texts, **extras})


class _Message(Struct):
    content: str = ""
    author: str = ""


class _Messages(Struct):
    candidates: list[_Message] = []


class _Text(Struct):
    output: str = ""


class _Texts(Struct):
    candidates: list[_Text] = []


class _Vector(Struct):
    value: list[float]


class _Vectors(Struct):
    embeddings: list[_Vector]


_MESSAGES = msgspec.json.Decoder(_Messages)
_TEXTS = msgspec.json.Decoder(_Texts)
_VECTORS = msgspec.json.Decoder(_Vectors)


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The candidates as choices; in the original shape an author is a role, as it was there."""
    choices = [
        ChatChoice(
            index=index,
            message=Message(
                role=candidate.author if request.original_shape and candidate.author else "assistant",
                content=candidate.content,
            ),
            finish_reason=None,
        )
        for index, candidate in enumerate(decode_reply(_MESSAGES, body).candidates)
    ]
    return chat_reply(request, choices, model=endpoint.model, usage=None)


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The candidates as choices; PaLM names no finish reason."""
    candidates = decode_reply(_TEXTS, body).candidates
    choices = [
        TextChoice(index=index, text=candidate.output, finish_reason=None) for index, candidate in enumerate(candidates)
    ]
    return completion_reply(request, choices, model=endpoint.model, usage=None)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The vectors."""
    vectors = [vector.value for vector in decode_reply(_VECTORS, body).embeddings]
    return embeddings_reply(request, vectors, model=endpoint.model, usage=None)


DIALECT = Dialect(
    name="palm",
    codecs={
        Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire),
        Operation.COMPLETIONS: Codec(to_wire=completion_to_wire, from_wire=completion_from_wire),
        Operation.EMBEDDINGS: Codec(to_wire=embeddings_to_wire, from_wire=embeddings_from_wire),
    },
)


def _connect(config: PaLMConfig, model: str) -> Endpoint:
    return Endpoint(
        provider="palm",
        dialect=DIALECT,
        base_url=config.palm_api_base.rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=(("x-goog-api-key", config.palm_api_key),)),
        quirks=Quirks(temperature_scale=0.5),
    )


PALM = Provider(name="palm", title="PaLM", gen_ai_name="palm", config=PaLMConfig, connect=_connect, check=require_model)
