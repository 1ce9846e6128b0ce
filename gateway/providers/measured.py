"""Reading what is measured of a reply whose bytes the caller gets as they came.

Such a reply is the provider's to answer for: a member of an odd type (an id that is a number, a count with a fraction,
content in parts) costs its measurement, and not the reply.
"""

import re
from typing import Any, TypeVar

import msgspec

from gateway.providers.canonical_reply import decode_reply

_T = TypeVar("_T")
_AT = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(?:\d+|\.\.\.)\]")
_MOST_ODD = 16


def decode_measured(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """Decode a reply, odd members left out.

    Raises UpstreamError with UNREADABLE_REPLY when it is no JSON, or lacks what makes it such a reply.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        return _mended(decoder, body, error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decode_reply(decoder, body)


def _mended(decoder: msgspec.json.Decoder[_T], body: bytes, error: msgspec.ValidationError) -> _T:
    try:
        value = msgspec.json.decode(body)
        for _ in range(_MOST_ODD):
            if not _drop(value, str(error)):
                break
            try:
                return decoder.decode(msgspec.json.encode(value))
            except msgspec.ValidationError as next_error:
                error = next_error
    except (msgspec.DecodeError, UnicodeDecodeError):
        # What follows the odd member is no JSON.
        pass
    return decode_reply(decoder, body)


def _drop(value: Any, text: str) -> bool:
    """Take the member out that the text of an error names, out of every item of a list; False where there is none."""
    at = _AT.search(text)
    steps = [name or None for name in _STEP.findall(at.group(1))] if at else []
    if "missing required field" in text or not steps or steps[-1] is None:
        return False
    places = [value]
    for step in steps[:-1]:
        if step is None:
            places = [item for place in places if isinstance(place, list) for item in place]
        else:
            places = [place[step] for place in places if isinstance(place, dict) and step in place]
    found = [place for place in places if isinstance(place, dict) and steps[-1] in place]
    for place in found:
        del place[steps[-1]]
    return bool(found)
