"""What an attempt may cost, read from the request before it is sent: the facts that money is held and charged by."""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from gateway.serve.routing import BoundTarget
from gateway.spend.settle import ChargeFacts
from gateway.store.spec import Payer
from gateway.types.model_io import ModelRequest
from gateway.types.records import Caller
from gateway.types.route import Operation

_BLOB = re.compile(rb'"(?:data:[^",]{0,100},)?[A-Za-z0-9+/=_-]{2000,}"')
"""An image or a sound inside a request: it costs by its kind, not by its bytes."""
_IMAGE_ADDRESS = re.compile(rb'"(?:image_url|url|fileUri|file_uri)"\s*:\s*"?\{?\s*(?:"url"\s*:\s*)?"?https?://')
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_LIMIT_NAMES = {
    Operation.RESPONSES: "max_output_tokens",
    Operation.MESSAGES: "max_tokens",
    Operation.COMPLETIONS: "max_tokens",
}


def charge_facts(
    request: ModelRequest, bound: BoundTarget, route: str, caller: Caller, request_id: str, attempt: int
) -> ChargeFacts:
    """The facts of one attempt. Who pays comes from the key and the configuration, never from the request."""
    fields = request.fields
    input_bytes = messages = images = 0
    for name, value in fields.items():
        raw = bytes(value)
        input_bytes += len(raw)
        if name in ("messages", "contents"):
            messages = raw.count(b'"role"')
        elif name == "input":
            messages = max(messages, raw.count(b'","') + 1)
        if len(raw) > 2000:
            blobs = [len(blob) for blob in _BLOB.findall(raw)]
            images += len(blobs)
            input_bytes -= sum(blobs)
        images += len(_IMAGE_ADDRESS.findall(raw)) if b"http" in raw else 0
    return ChargeFacts(
        request_id=request_id,
        attempt=attempt,
        payer=Payer(
            team=caller.team,
            key_id=caller.key_id or "",
            route=route,
            provider=bound.target.provider,
            model=bound.target.model,
        ),
        operation=request.operation,
        input_bytes=input_bytes,
        messages=max(1, messages),
        images=images,
        max_tokens=_output_limit(request),
        choices=_integer(fields.get("n")) or 1,
    )


def with_output_cap(request: ModelRequest, cap: int, provider: str) -> ModelRequest:
    """The request with `cap` as its limit on output tokens, in the place where its operation has it."""
    fields = request.fields
    if request.operation is Operation.GENERATE_CONTENT:
        config = _object(fields.get("generationConfig")) | {"maxOutputTokens": _number(cap)}
        return _with(request, {"generationConfig": Raw(msgspec.json.encode(config))})
    present = [name for name in _OUTPUT_LIMITS if name in fields]
    if present:
        return _with(request, {name: _number(cap) for name in present})
    # OpenAI's newer models refuse the old name, others do not know the new one.
    newer = provider in ("openai", "azure")
    name = _LIMIT_NAMES.get(request.operation) or ("max_completion_tokens" if newer else "max_tokens")
    return _with(request, {name: _number(cap)})


def _with(request: ModelRequest, changed: Mapping[str, Raw]) -> ModelRequest:
    return msgspec.structs.replace(request, fields={**request.fields, **changed})


def _output_limit(request: ModelRequest) -> int | None:
    fields = request.fields
    if request.operation is Operation.GENERATE_CONTENT:
        config = _object(fields.get("generationConfig"))
        return _integer(config.get("maxOutputTokens") or config.get("max_output_tokens"))
    given = [limit for name in _OUTPUT_LIMITS if (limit := _integer(fields.get(name))) is not None]
    return max(given, default=None)


def _number(value: int) -> Raw:
    return Raw(str(value).encode())


def _integer(raw: Raw | None) -> int | None:
    """The value where it is a number; anything else is the provider's to refuse, and bounds nothing."""
    if raw is None:
        return None
    try:
        return int(bytes(raw))
    except ValueError:
        return None


def _object(raw: Raw | None) -> dict[str, Raw]:
    if raw is None:
        return {}
    try:
        return msgspec.json.decode(raw, type=dict[str, Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
