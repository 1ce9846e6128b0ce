"""What an attempt may cost, read from the request that goes upstream; and the cap that keeps it so.

The facts are read from the request in the form it is sent in, never from what a caller claims about it. Everything
here errs on the side of more tokens: a hold that is too small would let a budget be exceeded.
"""

import re

import msgspec
from msgspec import Raw

from gateway.spend.settle import ChargeFacts
from gateway.store.spec import Payer
from gateway.types.model_io import ModelRequest
from gateway.types.records import Caller
from gateway.types.route import Operation

_IMAGE = re.compile(
    rb'"type"\s*:\s*"(?:image_url|input_image|image)"|"(?:inlineData|inline_data|fileData|file_data)"\s*:'
)
_IMAGE_BYTES = re.compile(rb"data:image/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=]*")

_SHORT_BYTES = 24
"""No value shorter than this holds a message or an image."""

_LIMITS: dict[Operation, tuple[str, ...]] = {
    Operation.CHAT: ("max_completion_tokens", "max_tokens"),
    Operation.COMPLETIONS: ("max_tokens",),
    Operation.RESPONSES: ("max_output_tokens",),
    Operation.MESSAGES: ("max_tokens",),
}
"""Where each operation's limit on output tokens stands; Gemini's own is inside `generationConfig`."""
_CHOICES: dict[Operation, tuple[str, ...]] = {
    Operation.CHAT: ("n",),
    Operation.COMPLETIONS: ("n", "best_of"),
}
_GENERATION = ("generationConfig", "generation_config")
_NEW_CHAT_LIMIT = frozenset({"openai", "azure"})
"""Providers whose newer chat models refuse `max_tokens` and want `max_completion_tokens`."""


def payer_of(caller: Caller, route: str, provider: str, model: str) -> Payer:
    """Who pays for an attempt: all of it configured names."""
    return Payer(team=caller.team, key_id=caller.key_id or "", route=route, provider=provider, model=model)


def charge_facts(request: ModelRequest, payer: Payer, request_id: str, attempt: int) -> ChargeFacts:
    """The facts that a hold is computed from."""
    fields = request.fields
    input_bytes = messages = images = 0
    gemini = request.operation is Operation.GENERATE_CONTENT
    for raw in fields.values():
        text = bytes(raw)
        input_bytes += len(text)
        # A search costs a microsecond in a usual prompt: short values are not worth one.
        if len(text) < _SHORT_BYTES:
            continue
        messages += text.count(b'"role"')
        if gemini or b"image" in text:
            images += len(_IMAGE.findall(text))
            # An image's tokens depend on its size in pixels, not on its bytes: `images` bounds them.
            input_bytes -= sum(len(found) for found in _IMAGE_BYTES.findall(text))
    if gemini:
        max_tokens, choices = _generation(fields)
    else:
        limits = [
            value for name in _LIMITS.get(request.operation, ()) if (value := _integer(fields.get(name))) is not None
        ]
        max_tokens = max(limits, default=None)
        choices = max((_integer(fields.get(name)) or 1 for name in _CHOICES.get(request.operation, ())), default=1)
    return ChargeFacts(
        request_id=request_id,
        attempt=attempt,
        payer=payer,
        operation=request.operation,
        input_bytes=input_bytes,
        messages=max(1, messages),
        images=images,
        max_tokens=max_tokens,
        choices=max(1, choices),
    )


def capped(request: ModelRequest, cap_tokens: int, provider: str) -> ModelRequest:
    """The request with its limit on output tokens set to what is held."""
    fields = dict(request.fields)
    value = Raw(str(cap_tokens).encode())
    operation = request.operation
    if operation is Operation.GENERATE_CONTENT:
        name = next((name for name in _GENERATION if name in fields), _GENERATION[0])
        inside = _object(fields.get(name))
        inside.pop("max_output_tokens", None)
        inside["maxOutputTokens"] = value
        fields[name] = Raw(msgspec.json.encode(inside))
        return msgspec.structs.replace(request, fields=fields)
    names = _LIMITS.get(operation, ())
    if not names:
        return request
    present = [name for name in names if name in fields]
    if not present:
        present = [names[0] if operation is not Operation.CHAT or provider in _NEW_CHAT_LIMIT else "max_tokens"]
    for name in present:
        fields[name] = value
    return msgspec.structs.replace(request, fields=fields)


def _generation(fields: dict[str, Raw]) -> tuple[int | None, int]:
    inside: dict[str, Raw] = {}
    for name in _GENERATION:
        inside |= _object(fields.get(name))
    limits = [_integer(inside.get(name)) for name in ("maxOutputTokens", "max_output_tokens")]
    counts = [_integer(inside.get(name)) for name in ("candidateCount", "candidate_count")]
    return (
        max((limit for limit in limits if limit is not None), default=None),
        max((count for count in counts if count is not None), default=1),
    )


def _object(raw: Raw | None) -> dict[str, Raw]:
    if raw is None:
        return {}
    try:
        found: dict[str, Raw] = msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.MsgspecError:
        return {}
    return found


def _integer(raw: Raw | None) -> int | None:
    """A JSON integer, however large; anything else ("1e9", 1.5, null) is no limit."""
    if raw is None:
        return None
    text = bytes(raw).strip()
    # Beyond 30 digits the value no longer matters, and converting it would cost time.
    if not text.lstrip(b"-").isdigit() or len(text) > 30:
        return None
    return int(text)
