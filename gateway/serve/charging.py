"""What an attempt may cost, read from the request that goes upstream; and the cap that keeps it so.

The facts are read from the request in the form it is sent in, never from what a caller claims about it. Everything
here errs on the side of more tokens: a hold that is too small would let a budget be exceeded.
"""

import re
from collections.abc import Iterable, Mapping
from math import ceil

import msgspec
from msgspec import Raw, Struct

from gateway.serve.own_tools import limited, own_tools, positive
from gateway.spend.ledger import Caps
from gateway.spend.settle import ChargeFacts
from gateway.store.spec import Payer
from gateway.types.model_io import ModelRequest
from gateway.types.records import Caller
from gateway.types.route import Operation
from gateway.types.usage import service_tier

_IMAGE = re.compile(
    rb'"type"\s*:\s*"(?:image_url|input_image|image)"|"(?:inlineData|inline_data|fileData|file_data)"\s*:'
)
_DOCUMENT = re.compile(
    # Anthropic's documents may also be plain text, which is what it is.
    rb'"type"\s*:\s*"(?:(?:input_file|file)"|document"(?!\s*,\s*"source"\s*:\s*\{\s*"type"\s*:\s*"(?:text|content)"))'
    rb'|"(?:mimeType|mime_type)"\s*:\s*"(?:application/pdf|video/)'
)


def _inline(media_type: bytes) -> re.Pattern[bytes]:
    """What stands in a request as base64 of these media types, in any vendor's form."""
    base64 = rb'"data"\s*:\s*"[A-Za-z0-9+/=]*"'
    kind = rb'"(?:media_type|mimeType|mime_type)"\s*:\s*"' + media_type + rb'"'
    url = rb"data:" + media_type + rb";base64,[A-Za-z0-9+/=]*"
    return re.compile(rb"|".join((url, kind + rb"\s*,\s*" + base64, base64 + rb"\s*,\s*" + kind)))


_IMAGE_BYTES = _inline(rb"image/[a-z0-9.+-]+")
_DOCUMENT_BYTES = _inline(rb"(?:application/pdf|video/[a-z0-9.+-]+)")

_SHORT_BYTES = 24
"""No value shorter than this holds a message or an image."""

_LIMITS: dict[Operation, tuple[str, ...]] = {
    Operation.CHAT: ("max_completion_tokens", "max_tokens"),
    Operation.COMPLETIONS: ("max_tokens",),
    Operation.RESPONSES: ("max_output_tokens",),
    Operation.MESSAGES: ("max_tokens",),
}
"""Where each operation's limit on output tokens stands; Gemini's own is inside `generationConfig`."""
_RIVAL_LIMIT = "n_predict"
"""llama.cpp's own name, which wins there over the limits above: it never goes out beside what is held."""
_COUNTS = frozenset({":countTokens", "/input_tokens"})
"""The calls by which Gemini's API and OpenAI's Responses count tokens and generate none."""
_CHOICES = ("n", "best_of", "num_generations")
"""Where providers read how many answers to generate."""
_CANDIDATES = ("candidateCount", "candidate_count")
_GENERATION = ("generationConfig", "generation_config")
_OUTPUT_LIMITS = ("maxOutputTokens", "max_output_tokens")
_TIERS = ("service_tier", "serviceTier", "speed")
_HOUR = b'"1h"'
"""How a cache mark says that it shall live an hour."""
_ITEMS = msgspec.json.Decoder(list[Raw])
_NULL = Raw(b"null")
_MOST = 1e9
"""Beyond this a count of answers no longer matters."""
_NEW_CHAT_LIMIT = frozenset({"openai", "azure"})
"""Providers whose newer chat models refuse `max_tokens` and want `max_completion_tokens`."""


class _TierBlock(Struct):
    """Bedrock's form."""

    type: str = ""


def payer_of(caller: Caller, route: str, provider: str, model: str) -> Payer:
    """Who pays for an attempt: all of it configured names."""
    return Payer(team=caller.team, key_id=caller.key_id or "", route=route, provider=provider, model=model)


def charge_facts(request: ModelRequest, payer: Payer, request_id: str, attempt: int) -> ChargeFacts:
    """The facts that a hold is computed from."""
    fields = request.fields
    input_bytes = messages = images = documents = document_bytes = 0
    long_cache = False
    gemini = request.operation is Operation.GENERATE_CONTENT
    for raw in fields.values():
        text = bytes(raw)
        input_bytes += len(text)
        # A search costs a microsecond in a usual prompt: short values are not worth one.
        if len(text) < _SHORT_BYTES:
            continue
        messages += text.count(b'"role"')
        long_cache = long_cache or _HOUR in text
        if gemini or b"image" in text:
            images += len(_IMAGE.findall(text))
            # An image's tokens depend on its size in pixels, not on its bytes: `images` bounds them.
            input_bytes -= sum(map(len, _IMAGE_BYTES.findall(text)))
        if gemini or b'file"' in text or b'"document"' in text:
            documents += len(_DOCUMENT.findall(text))
            document_bytes += sum(map(len, _DOCUMENT_BYTES.findall(text)))
    operation = _operation(request)
    if gemini:
        max_tokens = _limit(value for inside in _generation(fields) for value in _named(inside, _OUTPUT_LIMITS))
    else:
        max_tokens = _limit(_named(fields, _LIMITS.get(operation, ())))
        if _RIVAL_LIMIT in fields and operation in _LIMITS:
            max_tokens = None
    return ChargeFacts(
        request_id=request_id,
        attempt=attempt,
        payer=payer,
        operation=operation,
        input_bytes=input_bytes,
        messages=max(1, messages),
        images=images,
        documents=documents,
        document_bytes=document_bytes,
        max_tokens=max_tokens,
        choices=_choices(fields),
        tools=own_tools(request, payer.model),
        service_tier=_service_tier(fields),
        long_cache=long_cache,
    )


def _service_tier(fields: Mapping[str, Raw]) -> str:
    """The tier that a request asks for, in any vendor's spelling. One that is left to the vendor is the standard one."""
    for raw in _named(fields, _TIERS):
        try:
            found = msgspec.json.decode(raw, type=str | _TierBlock)
        except msgspec.MsgspecError:
            continue
        return service_tier(found if isinstance(found, str) else found.type)
    return ""


def unread_facts(request: ModelRequest, payer: Payer, request_id: str, attempt: int) -> ChargeFacts:
    """The facts of a request that nothing is held for; its bytes, a microsecond for a few KB, are left unread.

    They do where the provider reports its usage. An estimate needs `charge_facts`.
    """
    operation = _operation(request)
    return ChargeFacts(request_id=request_id, attempt=attempt, payer=payer, operation=operation, input_bytes=0)


def _operation(request: ModelRequest) -> Operation:
    return Operation.COUNT_TOKENS if request.path_suffix in _COUNTS else request.operation


def capped(request: ModelRequest, caps: Caps, provider: str) -> ModelRequest:
    """The request with the limits that are held where its own are missing or beyond them."""
    if caps.tool_calls is not None:
        request = msgspec.structs.replace(request, fields=limited(request, caps.tool_calls))
    if caps.output_tokens is not None:
        request = _with_output_limit(request, caps.output_tokens, provider)
    return request


def _with_output_limit(request: ModelRequest, cap_tokens: int, provider: str) -> ModelRequest:
    fields = dict(request.fields)
    value = Raw(str(cap_tokens).encode())
    operation = request.operation
    if operation is Operation.GENERATE_CONTENT:
        inside: dict[str, Raw] = {}
        for name in _GENERATION:
            inside |= _object(fields.pop(name, None))
        inside.pop("max_output_tokens", None)
        inside["maxOutputTokens"] = value
        fields[_GENERATION[0]] = Raw(msgspec.json.encode(inside))
        return msgspec.structs.replace(request, fields=fields)
    names = _LIMITS.get(operation, ())
    if not names:
        return request
    fields.pop(_RIVAL_LIMIT, None)
    present = [name for name in names if name in fields]
    if not present:
        present = [names[0] if operation is not Operation.CHAT or provider in _NEW_CHAT_LIMIT else "max_tokens"]
    for name in present:
        fields[name] = value
    return msgspec.structs.replace(request, fields=fields)


def _named(fields: Mapping[str, Raw], names: Iterable[str]) -> list[Raw]:
    return [raw for name in names if (raw := fields.get(name)) is not None]


def _limit(given: Iterable[Raw]) -> int | None:
    """The limit that these members set together, or None when one of them is no positive integer.

    Then all of them are written anew: what one provider refuses, another reads in its own way.
    """
    limits = [positive(raw) for raw in given if raw != _NULL]
    return None if None in limits else max((limit for limit in limits if limit is not None), default=None)


def _choices(fields: Mapping[str, Raw]) -> int:
    """The most answers that a provider could be asked for: by count, and by prompts in one request."""
    counts = [_at_most(raw) for raw in _named(fields, _CHOICES)]
    for inside in _generation(fields):
        counts += [_at_most(raw) for raw in _named(inside, _CANDIDATES)]
    prompts = _prompts(fields["prompt"]) if "prompt" in fields else 1
    return max(counts, default=1) * prompts


def _generation(fields: Mapping[str, Raw]) -> list[dict[str, Raw]]:
    """Gemini's configuration of a generation, in either spelling; chat requests may carry it too."""
    return [_object(raw) for raw in _named(fields, _GENERATION)]


def _prompts(raw: Raw) -> int:
    """How many prompts a completion has: a list of texts or of token lists is one each; a list of tokens is one."""
    text = bytes(raw).lstrip()
    if not text.startswith(b"["):
        return 1
    try:
        items = _ITEMS.decode(text)
    except msgspec.MsgspecError:
        return 1
    return sum(1 for item in items if bytes(item).startswith((b'"', b"["))) or 1


def _object(raw: Raw | None) -> dict[str, Raw]:
    if raw is None:
        return {}
    try:
        found: dict[str, Raw] = msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.MsgspecError:
        return {}
    return found


def _at_most(raw: Raw) -> int:
    """A count as the most generous provider reads it: text and fractions too. What is no number is refused anyway."""
    try:
        value = float(msgspec.json.decode(raw, type=float | str))
    except (msgspec.MsgspecError, ValueError):
        return 1
    return max(1, ceil(min(value, _MOST))) if value == value else 1  # noqa: PLR0124 - not a number
