"""MosaicML's hosted inference: one `predict` call for completions, Llama-2 chats and embeddings, without token counts.

Source: https://docs.mosaicml.com/en/latest/inference.html; the `mosaicml` provider of mlflow 2.7 to 3.x
"""

import msgspec
from msgspec import Struct

from gateway.providers.canonical_reply import (
    ChatChoice,
    Message,
    TextChoice,
    chat_reply,
    completion_reply,
    decode_reply,
    embeddings_reply,
)
from gateway.providers.canonical_request import (
    ORIGINAL_NAMES,
    ChatView,
    read_chat,
    read_embeddings,
    refuse_native,
    text_of,
)
from gateway.providers.parameters import encode, parameters
from gateway.providers.spec import Codec, Dialect, Endpoint, Fault, HeaderAuth, Provider, Quirks, default_fault
from gateway.types.errors import ErrorType, RequestError
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.route import Operation, RouteType
from gateway.types.secret import Secret

_BASE = "https://models.hosted-on.mosaicml.hosting"
_CHAT_MODELS = ["llama2"]
_CALLERS_FAULTS = ("Error: max output tokens is limited to", "Error: prompt token count")


class MosaicMLConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `mosaicml`."""

    mosaicml_api_key: Secret
    mosaicml_api_base: str | None = None


def _wire(endpoint: Endpoint, body: dict[str, object]) -> WireRequest:
    return WireRequest(url=f"{endpoint.base_url}/{endpoint.model}/v1/predict", body=encode(body))


def _parameters(request: ModelRequest, endpoint: Endpoint) -> dict[str, object]:
    refuse_native(request.fields, {"max_tokens": "max_new_tokens"})
    # The vendor got each release's own name for the number of choices.
    names = {"max_tokens": "max_new_tokens"} | ({"n": ORIGINAL_NAMES["n"]} if request.original_shape else {})
    return parameters(request, endpoint, names)


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The prompt as the only input, everything else as parameters."""
    rest = _parameters(request, endpoint)
    return _wire(endpoint, {"inputs": [rest.pop("prompt", "")], "parameters": rest})


def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The messages, in Llama-2's template, as the only input."""
    rest = _parameters(request, endpoint)
    rest.pop("messages", None)
    view, _ = read_chat(request)
    return _wire(endpoint, {"inputs": [llama2_prompt(view)], "parameters": rest})


def llama2_prompt(view: ChatView) -> str:
    """The template that https://huggingface.co/blog/llama2#how-to-prompt-llama-2 describes, as MLflow writes it."""
    prompt = "<s>"
    for index, message in enumerate(view.messages):
        text = text_of(message, f"messages[{index}]")
        if message.role == "assistant":
            prompt += f" {text} </s><s>"
            continue
        if message.role not in ("system", "user"):
            raise RequestError(
                ErrorType.INVALID_REQUEST,
                f"An invalid request structure was submitted. Invalid role {message.role} inputted. "
                "Must be one of 'system', 'user', or 'assistant'.",
                param=f"messages[{index}].role",
            )
        if message.role == "system":
            text = f"<<SYS>> {text} <</SYS>>"
        if prompt.endswith("[/INST]"):
            # Two instructions in a row are one: the first's end goes.
            prompt = prompt.removesuffix("[/INST]") + f"{text} [/INST]"
        else:
            prompt += f"[INST] {text} [/INST]"
    # An answer that was begun is left open to be completed.
    return prompt.removesuffix("</s><s>")


def embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The texts as inputs, extra members beside them."""
    refuse_native(request.fields, {"input": "inputs"}, original_shape=request.original_shape)
    view, extras = read_embeddings(request)
    return _wire(endpoint, {"inputs": view.texts, **extras})


class _Texts(Struct):
    outputs: list[str]


class _Vectors(Struct):
    outputs: list[list[float]]


_TEXTS = msgspec.json.Decoder(_Texts)
_VECTORS = msgspec.json.Decoder(_Vectors)


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The outputs as choices; MosaicML names no finish reason."""
    outputs = decode_reply(_TEXTS, body).outputs
    choices = [TextChoice(index=index, text=text, finish_reason=None) for index, text in enumerate(outputs)]
    return completion_reply(request, choices, model=endpoint.model, usage=None)


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The outputs as choices; MosaicML names no finish reason."""
    choices = [
        ChatChoice(index=index, message=Message(content=text), finish_reason=None)
        for index, text in enumerate(decode_reply(_TEXTS, body).outputs)
    ]
    return chat_reply(request, choices, model=endpoint.model, usage=None)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The outputs as vectors."""
    return embeddings_reply(request, decode_reply(_VECTORS, body).outputs, model=endpoint.model, usage=None)


def fault(status: int, body: bytes) -> Fault:
    """Two of MosaicML's 500s are the caller's: more tokens than the model takes or gives."""
    found = default_fault(status, body)
    if status == 500 and found.message.startswith(_CALLERS_FAULTS):
        return Fault(message=found.message, error_type=ErrorType.PROVIDER_INVALID_REQUEST)
    return found


DIALECT = Dialect(
    name="mosaicml",
    codecs={
        Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire),
        Operation.COMPLETIONS: Codec(to_wire=completion_to_wire, from_wire=completion_from_wire),
        Operation.EMBEDDINGS: Codec(to_wire=embeddings_to_wire, from_wire=embeddings_from_wire),
    },
    fault=fault,
)


def _connect(config: MosaicMLConfig, model: str) -> Endpoint:
    return Endpoint(
        provider="mosaicml",
        dialect=DIALECT,
        base_url=(config.mosaicml_api_base or _BASE).rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=(("authorization", config.mosaicml_api_key),)),
        # No release ever scaled this temperature: what the caller wrote is what the model gets.
        quirks=Quirks(original_temperature_scale=0.5),
    )


def _check(config: MosaicMLConfig, model: str, route_type: RouteType) -> None:
    if route_type is RouteType.CHAT and not model.lower().startswith(tuple(_CHAT_MODELS)):
        raise ValueError(
            f"An invalid model has been specified for the chat route. '{model}'. "
            f"Ensure the model selected starts with one of: {_CHAT_MODELS}"
        )
    if not model:
        raise ValueError("model.name is required for this provider")


MOSAICML = Provider(
    name="mosaicml", title="MosaicML", gen_ai_name="mosaicml", config=MosaicMLConfig, connect=_connect, check=_check
)
