"""AI21 Labs' Studio API for its Jurassic-2 models: completions only, without streams or token counts.

Source: https://docs.ai21.com/reference/j2-complete-ref; the `ai21labs` provider of mlflow 2.8
"""

import msgspec
from msgspec import Struct

from gateway.providers.canonical_reply import TextChoice, completion_reply, decode_reply
from gateway.providers.parameters import encode, parameters
from gateway.providers.spec import Codec, Dialect, Endpoint, HeaderAuth, Provider, Quirks
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.route import Operation, RouteType
from gateway.types.secret import Secret

_BASE = "https://api.ai21.com/studio/v1"
_NAMES = {"stop": "stopSequences", "n": "numResults", "max_tokens": "maxTokens"}
_MODELS = ("j2-ultra", "j2-mid", "j2-light")
FINISH_REASONS = {"endoftext": "stop", "stop": "stop", "length": "length"}


class AI21LabsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `ai21labs`."""

    ai21labs_api_key: Secret
    ai21labs_api_base: str = _BASE


def to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """`/{model}/complete`: three names change, everything else is forwarded."""
    if request.stream:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "Setting the 'stream' parameter to 'true' is not supported with the MLflow Gateway.",
            param="stream",
        )
    body = parameters(request, endpoint, _NAMES)
    return WireRequest(url=f"{endpoint.base_url}/{endpoint.model}/complete", body=encode(body))


class _Data(Struct):
    text: str = ""


class _FinishReason(Struct, frozen=True):
    reason: str | None = None


class _Completion(Struct, rename="camel"):
    data: _Data
    finish_reason: _FinishReason = _FinishReason()


class _Reply(Struct):
    completions: list[_Completion]


_REPLY = msgspec.json.Decoder(_Reply)


def from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The completions as choices. In the original shape the vendor's finish reason stays as it is."""
    choices = []
    for index, completion in enumerate(decode_reply(_REPLY, body).completions):
        theirs = completion.finish_reason.reason
        reason = theirs if request.original_shape or theirs is None else FINISH_REASONS.get(theirs, "stop")
        choices.append(TextChoice(index=index, text=completion.data.text, finish_reason=reason))
    return completion_reply(request, choices, model=endpoint.model, usage=None)


DIALECT = Dialect(name="ai21labs", codecs={Operation.COMPLETIONS: Codec(to_wire=to_wire, from_wire=from_wire)})


def _connect(config: AI21LabsConfig, model: str) -> Endpoint:
    return Endpoint(
        provider="ai21labs",
        dialect=DIALECT,
        base_url=config.ai21labs_api_base.rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=(("authorization", Secret(f"Bearer {config.ai21labs_api_key.reveal()}")),)),
        # No release ever scaled this temperature: what the caller wrote is what AI21 gets.
        quirks=Quirks(original_temperature_scale=0.5),
    )


def _check(config: AI21LabsConfig, model: str, route_type: RouteType) -> None:
    if model not in _MODELS:
        raise ValueError(
            f"An Unsupported AI21Labs model has been specified: '{model}'. Please see documentation for supported models."
        )


AI21LABS = Provider(
    name="ai21labs", title="AI21Labs", gen_ai_name="ai21labs", config=AI21LabsConfig, connect=_connect, check=_check
)
