"""Messages for providers that speak OpenAI's dialect, but not its newest words, and refuse what they do not know.

Apps send back the message that a reply held, with all that OpenAI's SDK puts into it (`refusal`, `annotations`,
`audio`), and what other vendors added (`reasoning_content`).

Source: the refusals of the vendors' APIs, as their users report them; for Groq https://console.groq.com/docs/openai.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from gateway.providers.spec import Quirks

_NULL = Raw(b"null")
_DEVELOPER, _SYSTEM = Raw(b'"developer"'), Raw(b'"system"')
_MESSAGES = msgspec.json.Decoder(list[dict[str, Raw]])


def suited(fields: Mapping[str, Raw], quirks: Quirks) -> Mapping[str, Raw]:
    """The request's members, with messages that the provider takes; the same ones where nothing is to be changed."""
    raw = fields.get("messages", _NULL)
    renames = not quirks.developer_role and bytes(_DEVELOPER) in bytes(raw)
    if not renames and not quirks.message_members:
        return fields
    try:
        messages = _MESSAGES.decode(raw)
    except msgspec.MsgspecError:
        # What is no list of messages is the provider's to refuse.
        return fields
    if quirks.message_members:
        messages = [
            {name: value for name, value in message.items() if name in quirks.message_members and _told(name, value)}
            for message in messages
        ]
    if renames:
        messages = [
            message | {"role": _SYSTEM} if message.get("role") == _DEVELOPER else message for message in messages
        ]
    return {**fields, "messages": Raw(msgspec.json.encode(messages))}


def _told(name: str, value: Raw) -> bool:
    # A message of calls alone says so by its null.
    return name == "content" or value != _NULL
