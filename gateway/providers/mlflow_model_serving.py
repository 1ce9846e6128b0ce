"""A model behind `mlflow models serve`: its scoring API for completions, single-question chats and embeddings.

Source: https://mlflow.org/docs/latest/genai/serving (the scoring protocol); the provider of the same name in mlflow
"""

import msgspec
from msgspec import Raw, Struct

from gateway.providers.canonical_reply import (
    ChatChoice,
    Message,
    TextChoice,
    chat_reply,
    completion_reply,
    decode_reply,
    embeddings_reply,
)
from gateway.providers.canonical_request import ORIGINAL_NAMES, read_chat, read_embeddings, text_of
from gateway.providers.parameters import encode, parameters
from gateway.providers.spec import Codec, Dialect, Endpoint, Provider, Quirks
from gateway.types.errors import ErrorType, RequestError, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.route import Operation


class MlflowModelServingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `mlflow-model-serving`."""

    model_server_url: str


def _wire(endpoint: Endpoint, inputs: list[object], params: dict[str, object]) -> WireRequest:
    body: dict[str, object] = {"inputs": inputs}
    if params:
        body["params"] = params
    return WireRequest(url=f"{endpoint.base_url}/invocations", body=encode(body))


def _params(request: ModelRequest, endpoint: Endpoint) -> dict[str, object]:
    # The model got each release's own name for the number of choices.
    return parameters(request, endpoint, {"n": ORIGINAL_NAMES["n"]} if request.original_shape else {})


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The prompt as the only input, everything else as params."""
    params = _params(request, endpoint)
    return _wire(endpoint, [params.pop("prompt", "")], params)


def chat_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The only message's content as the only input."""
    view, _ = read_chat(request)
    if len(view.messages) != 1:
        raise RequestError(
            ErrorType.INVALID_REQUEST,
            "MLflow chat models are only capable of processing a single query at a "
            f"time. The request submitted consists of {len(view.messages)} queries.",
            param="messages",
        )
    params = _params(request, endpoint)
    params.pop("messages", None)
    return _wire(endpoint, [text_of(view.messages[0], "messages[0]")], params)


def embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The texts as inputs, everything else as params."""
    view, _ = read_embeddings(request)
    params = _params(request, endpoint)
    params.pop("input", None)
    return _wire(endpoint, list(view.texts), params)


class _Reply(Struct):
    predictions: Raw


_REPLY = msgspec.json.Decoder(_Reply)


def _unreadable(reason: str) -> UpstreamError:
    return UpstreamError(ErrorType.UNREADABLE_REPLY, f"The served model's reply cannot be used: {reason}.")


def _texts(body: bytes, request: ModelRequest) -> list[str]:
    """`predictions`: a list of texts, a mapping with one member that is such a list, or one that names its choices."""
    predictions = decode_reply(_REPLY, body).predictions
    named = "candidates" if request.original_shape else "choices"
    try:
        given = msgspec.json.decode(predictions, type=list[str] | dict[str, Raw])
        if isinstance(given, dict):
            if len(given) != 1 and named not in given:
                raise _unreadable(f"its predictions are a mapping without '{named}'")
            given = msgspec.json.decode(given.get(named, next(iter(given.values()))), type=list[str])
    except msgspec.MsgspecError:
        raise _unreadable("its predictions are not a list of texts") from None
    if not given:
        raise _unreadable("its list of predictions is empty")
    return given


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The predictions as choices."""
    choices = [
        TextChoice(index=index, text=text, finish_reason=None) for index, text in enumerate(_texts(body, request))
    ]
    return completion_reply(request, choices, model=endpoint.model, usage=None)


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The predictions as choices."""
    choices = [
        ChatChoice(index=index, message=Message(content=text), finish_reason=None)
        for index, text in enumerate(_texts(body, request))
    ]
    return chat_reply(request, choices, model=endpoint.model, usage=None)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The predictions as vectors; one flat list of numbers is one vector."""
    predictions = decode_reply(_REPLY, body).predictions
    try:
        given = msgspec.json.decode(predictions, type=list[list[float] | float])
    except msgspec.MsgspecError:
        raise _unreadable("its predictions are not lists of numbers") from None
    vectors = [item for item in given if isinstance(item, list)]
    flat = [item for item in given if isinstance(item, float)]
    if flat and vectors:
        raise _unreadable("its predictions mix numbers and lists")
    if flat:
        vectors = [flat]
    if not vectors or not all(vectors):
        raise _unreadable("its list of predictions is empty")
    return embeddings_reply(request, vectors, model=endpoint.model, usage=None)


DIALECT = Dialect(
    name="mlflow_model_serving",
    codecs={
        Operation.CHAT: Codec(to_wire=chat_to_wire, from_wire=chat_from_wire),
        Operation.COMPLETIONS: Codec(to_wire=completion_to_wire, from_wire=completion_from_wire),
        Operation.EMBEDDINGS: Codec(to_wire=embeddings_to_wire, from_wire=embeddings_from_wire),
    },
)


def _connect(config: MlflowModelServingConfig, model: str) -> Endpoint:
    return Endpoint(
        provider="mlflow-model-serving",
        dialect=DIALECT,
        base_url=config.model_server_url.rstrip("/"),
        model=model,
        # No release ever scaled this temperature: what the caller wrote is what the model gets.
        quirks=Quirks(original_temperature_scale=0.5),
    )


MLFLOW_MODEL_SERVING = Provider(
    name="mlflow-model-serving",
    title="MLflow Model Serving",
    gen_ai_name="mlflow-model-serving",
    config=MlflowModelServingConfig,
    connect=_connect,
)
