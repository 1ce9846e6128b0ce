"""The sampling parameters of a request that spans show; read once, in microseconds, and only the named ones."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from gateway.types.model_io import ModelRequest
from gateway.types.records import NO_PARAMETERS, RequestParameters

# What a span's attribute can hold.
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Format(Struct):
    type: str = ""


class _Generation(Struct, rename="camel"):
    """Gemini's `generationConfig`."""

    max_output_tokens: _Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: _Int64 | None = None
    candidate_count: _Int64 | None = None
    stop_sequences: list[str] | None = None
    response_mime_type: str = ""


class _View(Struct):
    """The members of every dialect that callers may speak; what one does not know, it does not have."""

    max_tokens: _Int64 | None = None
    max_completion_tokens: _Int64 | None = None
    max_output_tokens: _Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: _Int64 | None = None
    stop: str | list[str] | UnsetType | None = UNSET
    stop_sequences: list[str] | None = None
    n: _Int64 | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    generation_config: _Generation | None = field(default=None, name="generationConfig")


_NAMES = frozenset(_View.__struct_encode_fields__)
_VIEW = msgspec.json.Decoder(_View)
_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json", "application/json": "json"}
_REASONING_LEVELS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})


def request_parameters(request: ModelRequest) -> RequestParameters:
    """The parameters of a request. Values of wrong types are the provider's to refuse: they give none."""
    present = _NAMES & request.fields.keys()
    if not present:
        return NO_PARAMETERS
    try:
        view = _VIEW.decode(msgspec.json.encode({name: request.fields[name] for name in present}))
    except msgspec.MsgspecError:
        return NO_PARAMETERS
    generation = view.generation_config
    return _canonical(view) if generation is None else _gemini(generation)


def _canonical(view: _View) -> RequestParameters:
    stop = view.stop if view.stop_sequences is None else view.stop_sequences
    limits = (view.max_tokens, view.max_completion_tokens, view.max_output_tokens)
    return RequestParameters(
        max_tokens=next((limit for limit in limits if limit is not None), None),
        temperature=view.temperature,
        top_p=view.top_p,
        top_k=view.top_k,
        frequency_penalty=view.frequency_penalty,
        presence_penalty=view.presence_penalty,
        seed=view.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else None,
        choice_count=view.n if view.n != 1 else None,
        output_type=_OUTPUT_TYPES.get(view.response_format.type) if view.response_format is not None else None,
        # A closed list: the member could hold anything.
        reasoning_level=view.reasoning_effort if view.reasoning_effort in _REASONING_LEVELS else None,
    )


def _gemini(generation: _Generation) -> RequestParameters:
    return RequestParameters(
        max_tokens=generation.max_output_tokens,
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        frequency_penalty=generation.frequency_penalty,
        presence_penalty=generation.presence_penalty,
        seed=generation.seed,
        stop=tuple(generation.stop_sequences) if generation.stop_sequences is not None else None,
        choice_count=generation.candidate_count if generation.candidate_count != 1 else None,
        output_type=_OUTPUT_TYPES.get(generation.response_mime_type),
    )
