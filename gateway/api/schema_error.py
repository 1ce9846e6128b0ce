"""Bodies that fail their schema, told as FastAPI told them: `{"detail": [{type, loc, msg, input, ctx}]}`, status 422.

msgspec decides whether a body is good, and stops at the first fault; only then is the body walked along its type, so
that every wrong field is listed, as pydantic did.

Source: mlflow 2.8.1 on FastAPI with pydantic 2; https://errors.pydantic.dev has the types and their words.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, inspect

from gateway.types.errors import ErrorType, RequestError

_BYTE = re.compile(r"\(byte (\d+)\)")
_BOOLEANS = frozenset({"true", "false", "1", "0"})
_MAX_ITEMS = 100
"""How many faults are told: a body may have a million."""

_Location = list[str | int]


class _Item(Struct, omit_defaults=True):
    type: str
    loc: _Location
    msg: str
    input: Any
    ctx: dict[str, Any] | None = None


class OneOf(Struct, frozen=True):
    """For `Meta(extra={"one_of": OneOf(...)})`: alternatives that msgspec cannot tell apart, such as two lists.

    The member's own type is what msgspec checks; `alternatives` are what the walk checks, and so what callers are told.
    """

    alternatives: tuple[Any, ...]


class SchemaError(RequestError):
    """A body that fails its schema; `detail` is FastAPI's list.

    Args:
        error: what msgspec said; None where the body is of no alternative of a `OneOf`.
        body: the JSON that it was said of, to show the wrong values.
        schema: the type that the body should have; without it any object would do.
    """

    def __init__(
        self,
        error: msgspec.DecodeError | UnicodeDecodeError | RecursionError | None,
        body: bytes,
        schema: type[Struct] | None = None,
    ) -> None:
        value: Any = None
        malformed: Exception | None = error
        if error is None or isinstance(error, msgspec.ValidationError):
            # A schema may fail before its reader comes to the place where the body is no JSON, or too deep.
            try:
                value, malformed = msgspec.json.decode(body), None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as found:
                malformed = found
        if malformed is None:
            items = _items(value, schema) or [_Item(type="value_error", loc=["body"], msg=str(error), input=value)]
            where = _spelled(items[0].loc[1:])
            message = f"{where}: {items[0].msg}" if where else "The request's body must be a JSON object."
            super().__init__(ErrorType.INVALID_REQUEST, message, param=where or None)
        else:
            items = [_not_json(_reason(malformed), body)]
            super().__init__(ErrorType.INVALID_JSON, f"The request's body is not valid JSON: {_reason(malformed)}.")
        self.detail = [msgspec.to_builtins(item) for item in items]


def _spelled(location: _Location) -> str:
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


# --- the walk ---------------------------------------------------------------------------------------------------


def _items(value: Any, schema: type[Struct] | None) -> list[_Item]:
    if value is None:
        return [_Item(type="missing", loc=["body"], msg="Field required", input=None)]
    if schema is None or not isinstance(value, dict):
        return [_no_object(["body"], value)]
    found = _walk(value, _type_of(schema), ["body"])
    return [item for item, _ in zip(found, range(_MAX_ITEMS), strict=False)]


@functools.cache
def _type_of(annotation: Any) -> inspect.Type:
    return inspect.type_info(annotation)


def _no_object(location: _Location, value: Any) -> _Item:
    words = "Input should be a valid dictionary or object to extract fields from"
    return _Item(type="model_attributes_type", loc=location, msg=words, input=value)


def _walk(value: Any, schema: inspect.Type, at: _Location) -> Iterator[_Item]:
    """Every fault of a value, in the order of its type's fields."""
    match schema:
        case inspect.Metadata(type=inner, extra=extra):
            if one_of := (extra or {}).get("one_of"):
                yield from _walk_any(value, [_type_of(alternative) for alternative in one_of.alternatives], at)
            else:
                yield from _walk(value, inner, at)
        case inspect.UnionType(types=types):
            if value is None and any(isinstance(member, inspect.NoneType) for member in types):
                return
            members = [member for member in types if not isinstance(member, inspect.NoneType)]
            yield from _walk_any(value, members, at)
        case inspect.StructType(fields=fields):
            yield from _walk_object(value, fields, at)
        case inspect.ListType():
            yield from _walk_list(value, schema, at)
        case inspect.DictType() if not isinstance(value, dict):
            yield _Item(type="dict_type", loc=at, msg="Input should be a valid dictionary", input=value)
        case inspect.StrType() if not isinstance(value, str):
            yield _Item(type="string_type", loc=at, msg="Input should be a valid string", input=value)
        case inspect.LiteralType(values=values) if value not in values:
            *first, last = (f"'{item}'" for item in values)
            words = f"{', '.join(first)} or {last}" if first else last
            yield _Item(
                type="literal_error", loc=at, msg=f"Input should be {words}", input=value, ctx={"expected": words}
            )
        case inspect.BoolType() if not isinstance(value, bool):
            if not (isinstance(value, str) and value.lower() in _BOOLEANS):
                yield _wrong_scalar("bool", "boolean", ", unable to interpret input", value, at)
        case inspect.IntType() | inspect.FloatType():
            yield from _walk_number(value, schema, at)


def _walk_any(value: Any, members: list[inspect.Type], at: _Location) -> Iterator[_Item]:
    """The faults of every member of a union, each below the member's name; none where a member fits."""
    found = []
    for member in members:
        faults = list(_walk(value, member, [*at, _name(member)] if len(members) > 1 else at))
        if not faults:
            return
        found += faults
    yield from found


def _name(schema: inspect.Type) -> str:
    """A type as Python writes it, by which pydantic names the members of a union."""
    match schema:
        case inspect.ListType(item_type=inner):
            return f"list[{_name(inner)}]"
        case inspect.DictType():
            return "dict[str,any]"
        case inspect.StructType(cls=cls):
            return cls.__name__.lstrip("_")
        case inspect.Metadata(type=inner):
            return _name(inner)
        case inspect.UnionType(types=types):
            return f"union[{','.join(_name(member) for member in types)}]"
    return type(schema).__name__.removesuffix("Type").lower()


def _walk_object(value: Any, fields: tuple[inspect.Field, ...], at: _Location) -> Iterator[_Item]:
    if not isinstance(value, dict):
        yield _no_object(at, value)
        return
    for field in fields:
        if field.encode_name in value:
            yield from _walk(value[field.encode_name], field.type, [*at, field.encode_name])
        elif field.required:
            yield _Item(type="missing", loc=[*at, field.encode_name], msg="Field required", input=value)


def _walk_list(value: Any, schema: inspect.ListType, at: _Location) -> Iterator[_Item]:
    if not isinstance(value, list):
        yield _Item(type="list_type", loc=at, msg="Input should be a valid list", input=value)
        return
    least = schema.min_length or 0
    if len(value) < least:
        unit = "item" if least == 1 else "items"
        yield _Item(
            type="too_short",
            loc=at,
            msg=f"List should have at least {least} {unit} after validation, not {len(value)}",
            input=value,
            ctx={"field_type": "List", "min_length": least, "actual_length": len(value)},
        )
    for index, item in enumerate(value):
        yield from _walk(item, schema.item_type, [*at, index])


_BOUNDS: tuple[tuple[str, str, str, Callable[[float, float], bool]], ...] = (
    ("ge", "greater_than_equal", "greater than or equal to", operator.ge),
    ("gt", "greater_than", "greater than", operator.gt),
    ("le", "less_than_equal", "less than or equal to", operator.le),
    ("lt", "less_than", "less than", operator.lt),
)


def _walk_number(value: Any, schema: inspect.IntType | inspect.FloatType, at: _Location) -> Iterator[_Item]:
    whole = isinstance(schema, inspect.IntType)
    kind, noun = ("int", "integer") if whole else ("float", "number")
    number: float | None = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = None
    if number is None or (whole and isinstance(value, str) and not number.is_integer()):
        yield _wrong_scalar(kind, noun, f", unable to parse string as {'an' if whole else 'a'} {noun}", value, at)
        return
    if whole and not number.is_integer():
        words = "Input should be a valid integer, got a number with a fractional part"
        yield _Item(type="int_from_float", loc=at, msg=words, input=value)
        return
    for name, error_type, words, holds in _BOUNDS:
        bound = getattr(schema, name)
        if bound is not None and not holds(number, bound):
            message = f"Input should be {words} {bound:g}"
            yield _Item(type=error_type, loc=at, msg=message, input=value, ctx={name: float(bound)})
            return


def _wrong_scalar(kind: str, noun: str, of_string: str, value: Any, at: _Location) -> _Item:
    article = f"Input should be a valid {noun}"
    if isinstance(value, str):
        return _Item(type=f"{kind}_parsing", loc=at, msg=article + of_string, input=value)
    return _Item(type=f"{kind}_type", loc=at, msg=article, input=value)
