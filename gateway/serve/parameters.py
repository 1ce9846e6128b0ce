"""The sampling parameters of a request that spans show; read once, in microseconds, and only the named ones."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.types.model_io import ModelRequest
from gateway.types.records import NO_PARAMETERS, RequestParameters

_NAMES = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "n",
    }
)


# What a span's attribute can hold.
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _View(Struct):
    max_tokens: _Int64 | None = None
    max_completion_tokens: _Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: _Int64 | None = None
    stop: str | list[str] | UnsetType | None = UNSET
    n: _Int64 | None = None


_VIEW = msgspec.json.Decoder(_View)


def request_parameters(request: ModelRequest) -> RequestParameters:
    """The parameters of a canonical request. Values of wrong types are the provider's to refuse: they give none."""
    present = _NAMES & request.fields.keys()
    if not present:
        return NO_PARAMETERS
    try:
        view = _VIEW.decode(msgspec.json.encode({name: request.fields[name] for name in present}))
    except msgspec.MsgspecError:
        return NO_PARAMETERS
    stop = view.stop
    return RequestParameters(
        max_tokens=view.max_tokens if view.max_tokens is not None else view.max_completion_tokens,
        temperature=view.temperature,
        top_p=view.top_p,
        frequency_penalty=view.frequency_penalty,
        presence_penalty=view.presence_penalty,
        seed=view.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else None,
        choice_count=view.n if view.n != 1 else None,
    )
