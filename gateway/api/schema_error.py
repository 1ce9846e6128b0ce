"""Bodies that fail their schema, told as FastAPI told them: `{"detail": [{type, loc, msg, input, ctx}]}`, status 422.

Source: mlflow 2.8.1 on FastAPI with pydantic 2; https://errors.pydantic.dev has the types and their words.
One difference: the list has the first error only.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.types.errors import ErrorType, RequestError

_AT = re.compile(r" - at `\$(.*)`$")
_PATH_PART = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_AT_LEAST = re.compile(r"Expected `(array|str)` of length >= (\d+)")
_BOUND = re.compile(r"Expected `(?:float|int)` (>=|<=|>|<) ([\d.]+)")
_EXPECTED = re.compile(r"Expected `([a-z]+)")
_KINDS = {
    "str": ("string_type", "Input should be a valid string"),
    "array": ("list_type", "Input should be a valid list"),
    "object": ("dict_type", "Input should be a valid dictionary"),
    "int": ("int_type", "Input should be a valid integer"),
    "float": ("float_type", "Input should be a valid number"),
    "bool": ("bool_type", "Input should be a valid boolean"),
}
_BOUNDS = {
    ">=": ("greater_than_equal", "Input should be greater than or equal to", "ge"),
    "<=": ("less_than_equal", "Input should be less than or equal to", "le"),
    ">": ("greater_than", "Input should be greater than", "gt"),
    "<": ("less_than", "Input should be less than", "lt"),
}


class _Item(Struct, omit_defaults=True):
    type: str
    loc: list[str | int]
    msg: str
    input: Any
    ctx: dict[str, Any] | None = None


class SchemaError(RequestError):
    """A body that fails its schema; `detail` is FastAPI's list, of one item.

    Args:
        error: what msgspec said.
        body: the JSON that it was said of, to show the wrong value.
    """

    def __init__(self, error: msgspec.DecodeError | UnicodeDecodeError | RecursionError, body: bytes) -> None:
        value: Any = None
        malformed: Exception | None = error
        if isinstance(error, msgspec.ValidationError):
            # A schema may fail before its reader comes to the place where the body is no JSON, or too deep.
            try:
                value, malformed = msgspec.json.decode(body), None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as found:
                malformed = found
        if malformed is None:
            item = _item(str(error), value)
            where = _spelled(item.loc[1:])
            message = f"{where}: {item.msg}" if where else "The request's body must be a JSON object."
            super().__init__(ErrorType.INVALID_REQUEST, message, param=where or None)
        else:
            item = _not_json(_reason(malformed), body)
            super().__init__(ErrorType.INVALID_JSON, f"The request's body is not valid JSON: {_reason(malformed)}.")
        self.detail = [msgspec.to_builtins(item)]


def _spelled(location: list[str | int]) -> str:
    """A location as a JSON path, such as `messages[0].role`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    # The codec's own text quotes a byte of the body, which is of no use to the caller.
    return f"it is not UTF-8 (byte {error.start})" if isinstance(error, UnicodeDecodeError) else str(error)


def _not_json(text: str, body: bytes) -> _Item:
    if not body.strip():
        return _Item(type="missing", loc=["body"], msg="Field required", input=None)
    byte = _BYTE.search(text)
    place = int(byte[1]) if byte else len(body)
    return _Item(type="json_invalid", loc=["body", place], msg="JSON decode error", input={}, ctx={"error": text})


def _item(text: str, body: Any) -> _Item:
    location: list[str | int] = ["body"]
    at = _AT.search(text)
    if at is not None:
        text = text[: at.start()]
        for name, index in _PATH_PART.findall(at.group(1)):
            location.append(name or (int(index) if index.isdigit() else index))
    wrong = _at(body, location[1:])
    if len(location) == 1 and not isinstance(wrong, dict):
        words = "Input should be a valid dictionary or object to extract fields from"
        return _Item(type="model_attributes_type", loc=location, msg=words, input=wrong)
    if missing := _MISSING.match(text):
        return _Item(type="missing", loc=[*location, missing[1]], msg="Field required", input=wrong)
    if shortest := _AT_LEAST.match(text):
        least = int(shortest[2])
        unit = "item" if least == 1 else "items"
        length = len(wrong) if isinstance(wrong, list | str) else 0
        return _Item(
            type="too_short" if shortest[1] == "array" else "string_too_short",
            loc=location,
            msg=f"List should have at least {least} {unit} after validation, not {length}"
            if shortest[1] == "array"
            else f"String should have at least {least} character{'' if least == 1 else 's'}",
            input=wrong,
            ctx={"field_type": "List", "min_length": least, "actual_length": length}
            if shortest[1] == "array"
            else {"min_length": least},
        )
    if bound := _BOUND.match(text):
        kind, words, key = _BOUNDS[bound[1]]
        limit = float(bound[2])
        return _Item(type=kind, loc=location, msg=f"{words} {limit:g}", input=wrong, ctx={key: limit})
    if (expected := _EXPECTED.match(text)) and expected[1] in _KINDS:
        kind, words = _KINDS[expected[1]]
        return _Item(type=kind, loc=location, msg=words, input=wrong)
    return _Item(type="value_error", loc=location, msg=text, input=wrong)


def _at(value: Any, location: list[str | int]) -> Any:
    """The value at a location; as far as it goes, where msgspec names an item of a list by `...`."""
    for step in location:
        match value:
            case dict() if step in value:
                value = value[step]
            case list() if isinstance(step, int) and step < len(value):
                value = value[step]
            case _:
                break
    return value
