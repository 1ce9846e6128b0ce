"""Requests of vendors with flat parameters: members renamed, refused and scaled as data, all others byte for byte."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.providers.canonical_request import ORIGINAL_NAMES, decode_member, refuse_native
from gateway.providers.spec import Endpoint
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelRequest

_NULL = Raw(b"null")
_ROUTING = ("model", "stream", "stream_options")
"""Members that are for the gateway or for OpenAI's own streams."""


def parameters(request: ModelRequest, endpoint: Endpoint, names: Mapping[str, str]) -> dict[str, Any]:
    """The request's members under the vendor's names (`names` maps ours to theirs), the temperature scaled.

    A `stop` becomes a list. Nulls count as absent. RequestError when a caller uses a vendor's name for a renamed one.
    """
    refuse_native(request.fields, names, original_shape=request.original_shape)
    result: dict[str, Any] = {}
    for name, value in request.fields.items():
        if value == _NULL or name in _ROUTING:
            continue
        kept: Any = value
        if name == "stop" and bytes(value).lstrip().startswith(b'"'):
            kept = [value]
        elif name == "temperature":
            kept = endpoint.quirks.scaled(decode_member(value, float, "temperature"), request)
        result[names.get(name, name)] = kept
    return result


def one_choice_only(request: ModelRequest, message: str) -> None:
    """Refuse more than one choice; `message` may hold {name} and {value}."""
    value = request.fields.get("n", _NULL)
    if value != _NULL and decode_member(value, int, "n") != 1:
        name = ORIGINAL_NAMES["n"] if request.original_shape else "n"
        text = message.format(name=name, value=bytes(value).decode())
        raise RequestError(ErrorType.INVALID_REQUEST, text, param=name)


def encode(body: Mapping[str, Any]) -> bytes:
    """The body's bytes."""
    return msgspec.json.encode(body)
