"""Reading single members of a JSON request that is otherwise left as it came."""

import msgspec
from msgspec import Raw

from gateway.api.schema_error import SchemaError
from gateway.types.errors import ErrorType, RequestError

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_TRUE, _FALSE, _NULL = Raw(b"true"), Raw(b"false"), Raw(b"null")
_STRING = msgspec.json.Decoder(str)
_INCLUDE_USAGE = msgspec.json.Decoder(dict[str, object])


def read_fields(body: bytes) -> dict[str, Raw]:
    """The top-level members of a JSON object; raises SchemaError for anything else."""
    try:
        if not body.isascii():
            # msgspec takes over what it does not look into as it is, and a dialect would stumble over it later.
            body.decode()
        return _FIELDS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(error, body) from None


def string_field(fields: dict[str, Raw], name: str) -> str:
    """A member that must be a non-empty string."""
    raw = fields.get(name)
    if raw is None:
        raise RequestError(ErrorType.INVALID_REQUEST, f"'{name}' is required.", param=name)
    try:
        value = _STRING.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise RequestError(ErrorType.INVALID_REQUEST, f"'{name}' must be a string.", param=name) from None
    if not value:
        raise RequestError(ErrorType.INVALID_REQUEST, f"'{name}' must not be empty.", param=name)
    return value


def wants_stream(fields: dict[str, Raw]) -> bool:
    """Whether `stream` is true; raises RequestError when it is neither a boolean nor null."""
    raw = fields.get("stream")
    if raw is None or raw in (_FALSE, _NULL):
        return False
    if raw == _TRUE:
        return True
    raise RequestError(ErrorType.INVALID_REQUEST, "'stream' must be true or false.", param="stream")


def wants_usage(fields: dict[str, Raw]) -> bool:
    """Whether `stream_options.include_usage` is true."""
    raw = fields.get("stream_options")
    if raw is None:
        return False
    try:
        return _INCLUDE_USAGE.decode(raw).get("include_usage") is True
    except msgspec.MsgspecError:
        return False


def require_list(fields: dict[str, Raw], name: str) -> None:
    """A member that must be a list with at least one item."""
    raw = fields.get(name)
    if raw is None:
        raise RequestError(ErrorType.INVALID_REQUEST, f"'{name}' is required.", param=name)
    stripped = bytes(raw)
    if not stripped.startswith(b"[") or stripped[1:].lstrip().startswith(b"]"):
        raise RequestError(ErrorType.INVALID_REQUEST, f"'{name}' must be a list with at least one item.", param=name)
