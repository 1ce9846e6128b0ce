"""Bedrock's InvokeModel: each vendor's own body, for legacy text completions and for embeddings.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html; the `bedrock` provider of mlflow
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.providers.anthropic_request import dialogue
from gateway.providers.canonical_reply import TextChoice, completion_reply, decode_reply, embeddings_reply
from gateway.providers.canonical_request import decode_member, invalid, read_embeddings
from gateway.providers.parameters import encode, one_choice_only, parameters
from gateway.providers.spec import Endpoint, Quirks
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.usage import Usage

_VENDOR = re.compile(r"(?:^|[./])(anthropic|amazon|cohere|ai21)\.")
HEADERS = (("content-type", "application/json"), ("accept", "application/json"))
_EMPTY = Raw(b'""')
_MAX_TOKENS = 8191
_MAX_TOKENS_DEFAULT = Raw(b"8191")
_MAX_TOKENS_EVER = 1_000_000
_HUMAN = "\n\nHuman:"

NO_QUIRKS = Quirks()
QUIRKS = {
    "anthropic": Quirks(temperature_scale=0.5),
    "amazon": Quirks(temperature_scale=0.5),
    "cohere": Quirks(temperature_scale=2.5),
    # No release ever scaled this one.
    "ai21": Quirks(original_temperature_scale=0.5),
}
"""From the canonical 0 to 2 to each vendor's range, for completions: Converse takes temperatures as they are."""


def vendor_of(model: str) -> str:
    """The vendor in a model id, an inference profile's id or an ARN; "" where none of the four is named."""
    found = _VENDOR.search(model)
    return found.group(1) if found else ""


def model_url(endpoint: Endpoint, action: str) -> str:
    """The URL of an action on the endpoint's model, quoted as AWS's own clients quote it."""
    return f"{endpoint.base_url}/model/{quote(endpoint.model, safe='')}/{action}"


def header_usage(headers: Mapping[str, str]) -> Usage | None:
    """The counts that InvokeModel sends with every model's reply, whatever its body says; None where it sends none.

    Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
    """
    counts = [headers.get(f"x-amzn-bedrock-{kind}-token-count", "") for kind in ("input", "output")]
    given, made = (int(count) if count.isdecimal() else None for count in counts)
    return None if given is None else Usage(input_tokens=given, output_tokens=made)


# --- completions ------------------------------------------------------------------------------------------------


def completion_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """The body of the model's vendor, holding only what the caller set."""
    build = _BODIES.get(vendor_of(endpoint.model))
    if build is None:
        raise invalid("Unknown Amazon Bedrock model type None", "model")
    body = build(request, endpoint)
    return WireRequest(url=model_url(endpoint, "invoke"), body=encode(body), headers=HEADERS)


def _given(request: ModelRequest, endpoint: Endpoint, names: dict[str, str]) -> dict[str, Any]:
    """The parameters without those that have their default, which Bedrock never got."""
    given = parameters(request, endpoint, {})
    if given.get("n") == Raw(b"1"):
        del given["n"]
    if request.original_shape and given.get("temperature") == 0.0:
        del given["temperature"]
    return {names.get(name, name): value for name, value in given.items()}


def _anthropic_body(request: ModelRequest, endpoint: Endpoint) -> dict[str, Any]:
    given = _given(request, endpoint, {})
    one_choice_only(request, "'{name}' must be '1' for the Anthropic provider. Received value: '{value}'.")
    if "top_p" in given:
        raise invalid(
            "Cannot set both 'temperature' and 'top_p' parameters. "
            "Please use only the temperature parameter for your query.",
            "top_p",
        )
    asked = decode_member(given.pop("max_tokens", _MAX_TOKENS_DEFAULT), int, "max_tokens")
    if asked > _MAX_TOKENS_EVER:
        raise invalid(f"Invalid value for max_tokens: cannot exceed {_MAX_TOKENS_EVER}.", "max_tokens")
    prompt = decode_member(given.pop("prompt", _EMPTY), str, "prompt")
    stop = decode_member(encode(given.pop("stop", [])), list[str], "stop")
    return {
        **given,
        "prompt": dialogue(prompt),
        "max_tokens_to_sample": min(asked, _MAX_TOKENS),
        "stop_sequences": stop if _HUMAN in stop else [*stop, _HUMAN],
        "anthropic_version": "bedrock-2023-05-31",
    }


def _titan_body(request: ModelRequest, endpoint: Endpoint) -> dict[str, Any]:
    names = {"max_tokens": "maxTokenCount", "stop": "stopSequences", "top_p": "topP"}
    one_choice_only(request, "'{name}' must be '1' for AWS Titan models. Received value: '{value}'.")
    config = _given(request, endpoint, names)
    if "topP" in config and decode_member(config["topP"], float, "top_p") == 0:
        raise invalid("'top_p' must be greater than 0 for AWS Titan models. Received value: '0'.", "top_p")
    return {"inputText": config.pop("prompt", ""), "textGenerationConfig": config}


def _cohere_body(request: ModelRequest, endpoint: Endpoint) -> dict[str, Any]:
    names = {"stop": "stop_sequences", "n": "num_generations", "top_p": "p"}
    parameters(request, endpoint, {"stop": "stop_sequences", "n": "num_generations"})
    return _given(request, endpoint, names)


def _ai21_body(request: ModelRequest, endpoint: Endpoint) -> dict[str, Any]:
    names = {"stop": "stopSequences", "n": "numResults", "max_tokens": "maxTokens", "top_p": "topP"}
    return _given(request, endpoint, names)


_BODIES: dict[str, Callable[[ModelRequest, Endpoint], dict[str, Any]]] = {
    "anthropic": _anthropic_body,
    "amazon": _titan_body,
    "cohere": _cohere_body,
    "ai21": _ai21_body,
}


class _Claude(Struct):
    completion: str
    stop_reason: str | None = None


class _TitanResult(Struct, rename="camel"):
    output_text: str = ""
    completion_reason: str | None = None
    token_count: int | None = None


class _Titan(Struct, rename="camel"):
    results: list[_TitanResult]
    input_text_token_count: int | None = None


class _Generation(Struct):
    text: str = ""
    finish_reason: str | None = None


class _Cohere(Struct):
    generations: list[_Generation]


class _Data(Struct, frozen=True):
    text: str = ""


class _Reason(Struct, frozen=True):
    reason: str | None = None


class _Completion(Struct, rename="camel"):
    data: _Data = _Data()
    finish_reason: _Reason = _Reason()


class _AI21(Struct):
    completions: list[_Completion]


_CLAUDE = msgspec.json.Decoder(_Claude)
_TITAN = msgspec.json.Decoder(_Titan)
_COHERE = msgspec.json.Decoder(_Cohere)
_AI21_REPLY = msgspec.json.Decoder(_AI21)
_FINISH_REASONS = {
    "FINISH": "stop",
    "FINISHED": "stop",
    "STOP_CRITERIA_MET": "stop",
    "COMPLETE": "stop",
    "endoftext": "stop",
    "stop": "stop",
    "LENGTH": "length",
    "MAX_TOKENS": "length",
    "length": "length",
    "CONTENT_FILTERED": "content_filter",
    "ERROR_TOXIC": "content_filter",
}


def completion_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The vendor's texts as choices."""
    texts, usage = _READERS[vendor_of(endpoint.model)](body)
    choices = [TextChoice(index=index, text=text, finish_reason=reason) for index, (text, reason) in enumerate(texts)]
    return completion_reply(request, choices, model=endpoint.model, usage=usage)


_Texts = list[tuple[str, str | None]]


def _reason(theirs: str | None) -> str | None:
    return None if theirs is None else _FINISH_REASONS.get(theirs, "stop")


def _read_claude(body: bytes) -> tuple[_Texts, Usage | None]:
    reply = decode_reply(_CLAUDE, body)
    return [(reply.completion, "stop" if reply.stop_reason == "stop_sequence" else "length")], None


def _read_titan(body: bytes) -> tuple[_Texts, Usage | None]:
    reply = decode_reply(_TITAN, body)
    counts = [result.token_count for result in reply.results]
    output = sum(count for count in counts if count is not None) if None not in counts else None
    usage = None
    if reply.input_text_token_count is not None:
        usage = Usage(input_tokens=reply.input_text_token_count, output_tokens=output)
    return [(result.output_text, _reason(result.completion_reason)) for result in reply.results], usage


def _read_cohere(body: bytes) -> tuple[_Texts, Usage | None]:
    generations = decode_reply(_COHERE, body).generations
    return [(generation.text, _reason(generation.finish_reason)) for generation in generations], None


def _read_ai21(body: bytes) -> tuple[_Texts, Usage | None]:
    completions = decode_reply(_AI21_REPLY, body).completions
    return [(completion.data.text, _reason(completion.finish_reason.reason)) for completion in completions], None


_READERS: dict[str, Callable[[bytes], tuple[_Texts, Usage | None]]] = {
    "anthropic": _read_claude,
    "amazon": _read_titan,
    "cohere": _read_cohere,
    "ai21": _read_ai21,
}


# --- embeddings -------------------------------------------------------------------------------------------------


def embeddings_to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    """Titan's one text, or Cohere's list; members that OpenAI does not name are forwarded."""
    view, extras = read_embeddings(request)
    match vendor_of(endpoint.model):
        case "amazon":
            if len(view.texts) != 1:
                raise invalid(
                    "Amazon Titan embeds one text a request; send the texts one by one, or route to a Cohere model.",
                    "input",
                )
            body: dict[str, Any] = {"inputText": view.texts[0]}
            dimensions = "dimensions"
        case "cohere":
            body = {"texts": view.texts, "input_type": "search_document"}
            dimensions = "output_dimension"
        case _:
            raise invalid("Embeddings on Amazon Bedrock need a Titan or a Cohere model.", "model")
    if view.dimensions is not None:
        body[dimensions] = view.dimensions
    return WireRequest(url=model_url(endpoint, "invoke"), body=encode(body | extras), headers=HEADERS)


class _TitanVector(Struct, rename="camel"):
    embedding: list[float]
    input_text_token_count: int | None = None


class _ByType(Struct):
    float: list[list[float]]


class _CohereVectors(Struct):
    embeddings: list[list[float]] | _ByType


_TITAN_VECTOR = msgspec.json.Decoder(_TitanVector)
_COHERE_VECTORS = msgspec.json.Decoder(_CohereVectors)


def embeddings_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """The vectors; Titan counts its tokens in the body, Cohere's count is in a header."""
    if vendor_of(endpoint.model) == "amazon":
        reply = decode_reply(_TITAN_VECTOR, body)
        count = reply.input_text_token_count
        usage = None if count is None else Usage(input_tokens=count, output_tokens=0)
        return embeddings_reply(request, [reply.embedding], model=endpoint.model, usage=usage)
    found = decode_reply(_COHERE_VECTORS, body).embeddings
    vectors = found.float if isinstance(found, _ByType) else found
    return embeddings_reply(request, vectors, model=endpoint.model, usage=None)
