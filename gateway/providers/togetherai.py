"""Completions at Together AI: `openai` on the wire, but `max_tokens` must be there, and `logprobs` is a number.

Source: https://docs.together.ai/reference/completions-1; mlflow 2.22 `gateway/providers/togetherai.py`
"""

import msgspec

from gateway.providers import openai
from gateway.providers.spec import Codec, Endpoint, Quirks
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelRequest, WireRequest

_QUIRKS = Quirks(rename=(("top_logprobs", "logprobs"),))
_INTEGER = msgspec.json.Decoder(int | bool | None)


def _to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    if "max_tokens" not in request.fields:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "max_tokens is not present in payload.It is a required parameter for TogetherAI completions.",
            param="max_tokens",
        )
    for name in ("logprobs", "top_logprobs"):
        if name in request.fields:
            try:
                _INTEGER.decode(request.fields[name])
            except msgspec.ValidationError:
                raise RequestError(
                    ErrorType.INVALID_REQUEST, f"Wrong type for {name}. It should be an 32bit integer.", param=name
                ) from None
    return openai.to_wire(request, msgspec.structs.replace(endpoint, quirks=_QUIRKS))


def together_completions() -> Codec:
    """The codec of its completions."""
    return Codec(to_wire=_to_wire, from_wire=openai.chat_from_wire, open_stream=openai.OpenAIStream)
