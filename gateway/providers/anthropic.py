"""The `anthropic` dialect and provider: Claude by the Messages API.

Chat is translated; `/v1/messages` and its token count are passed through with only the model patched; completions go to
the older Text Completions API, as in the MLflow gateway.

Source: https://platform.claude.com/docs/en/api/overview
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from gateway.providers.anthropic_reply import (
    ERROR_TYPES,
    ChatStream,
    MessageStream,
    chat_from_wire,
    completion_from_wire,
    message_from_wire,
    token_count_from_wire,
)
from gateway.providers.anthropic_request import Send, completion_to_wire, messages_body
from gateway.providers.spec import Codec, Dialect, Endpoint, Fault, HeaderAuth, Provider, default_fault, require_model
from gateway.types.model_io import ModelRequest, WireRequest
from gateway.types.route import Operation
from gateway.types.secret import Secret

_JSON = ("content-type", "application/json")
_FORWARDED = ("anthropic-beta",)


class AnthropicConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `anthropic`. The base ends with `/v1`."""

    anthropic_api_key: Secret
    anthropic_api_base: str = "https://api.anthropic.com/v1"
    anthropic_version: str = "2023-06-01"


def messages_codecs(send: Send) -> Mapping[Operation, Codec]:
    """Chat and Messages codecs for a host of Claude; `send` knows where that host wants model and version."""

    def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
        return send(messages_body(request, endpoint.model), request, endpoint)

    def messages_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
        return send(dict(request.fields), request, endpoint)

    return MappingProxyType(
        {
            Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire, open_stream=ChatStream),
            Operation.MESSAGES: Codec(to_wire=messages_to_wire, from_wire=message_from_wire, open_stream=MessageStream),
        }
    )


def caller_headers(request: ModelRequest) -> tuple[tuple[str, str], ...]:
    """The headers of a passthrough caller that Claude understands, after the content type."""
    return (_JSON, *((name, value) for name, value in request.headers if name in _FORWARDED))


def _send(body: dict[str, Any], request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    return _post("/messages", body, request, endpoint)


def _count_tokens_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    return _post("/messages/count_tokens", dict(request.fields), request, endpoint)


def _post(path: str, body: dict[str, Any], request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    return WireRequest(
        url=f"{endpoint.base_url}{path}",
        body=msgspec.json.encode(body | {"model": endpoint.model}),
        headers=caller_headers(request),
    )


class _Error(Struct, frozen=True):
    type: str = ""


class _ErrorBody(Struct):
    error: _Error = _Error()


def fault(status: int, body: bytes) -> Fault:
    """The fault of an Anthropic error body: `error.type` says the cause better than the status."""
    found = default_fault(status, body)
    try:
        error_type = ERROR_TYPES.get(msgspec.json.decode(body, type=_ErrorBody).error.type)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return found
    return msgspec.structs.replace(found, error_type=error_type)


DIALECT = Dialect(
    name="anthropic",
    codecs={
        **messages_codecs(_send),
        Operation.COUNT_TOKENS: Codec(to_wire=_count_tokens_to_wire, from_wire=token_count_from_wire),
        Operation.COMPLETIONS: Codec(to_wire=completion_to_wire, from_wire=completion_from_wire),
    },
    fault=fault,
)


def _connect(config: AnthropicConfig, model: str) -> Endpoint:
    return Endpoint(
        provider="anthropic",
        dialect=DIALECT,
        base_url=config.anthropic_api_base.rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=(("x-api-key", config.anthropic_api_key),)),
        headers=(("anthropic-version", config.anthropic_version),),
    )


ANTHROPIC = Provider(
    name="anthropic",
    title="Anthropic",
    gen_ai_name="anthropic",
    config=AnthropicConfig,
    connect=_connect,
    check=require_model,
)
