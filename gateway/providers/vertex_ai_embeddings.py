"""Embeddings on Vertex AI: `predict` for its text models, `embedContent` for the Gemini embedding models after the first.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api and the converters of
Google's own client, google-genai.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gateway.providers.canonical_reply import decode_reply, embeddings_reply
from gateway.providers.canonical_request import read_embeddings
from gateway.providers.gemini import model_url
from gateway.providers.spec import Codec, Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelReply, ModelRequest, WireRequest
from gateway.types.usage import Usage


def _to_wire(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    view, extras = read_embeddings(request)
    size = {} if view.dimensions is None else {"outputDimensionality": view.dimensions}
    body: dict[str, Any]
    if not _embeds_content(endpoint.model):
        # What a caller adds, such as `task_type` or `title`, belongs to each text.
        body = {"instances": [{"content": text} | extras for text in view.texts]}
        if size:
            body["parameters"] = size
        return WireRequest(url=model_url(endpoint, ":predict"), body=msgspec.json.encode(body))
    common: dict[str, Any] = {"embedContentConfig": size} if size else {}
    contents = [{"content": {"parts": [{"text": text}]}} | common | extras for text in view.texts]
    if len(contents) == 1:
        return WireRequest(url=model_url(endpoint, ":embedContent"), body=msgspec.json.encode(contents[0]))
    return WireRequest(url=model_url(endpoint, ":batchEmbedContents"), body=msgspec.json.encode({"requests": contents}))


def _embeds_content(model: str) -> bool:
    name = model.lower()
    return "gemini" in name and "gemini-embedding-001" not in name


class _Statistics(Struct):
    token_count: float | None = None


class _Vector(Struct):
    values: list[float]
    statistics: _Statistics | None = None


class _Prediction(Struct):
    embeddings: _Vector


class _UsageMetadata(Struct, rename="camel"):
    prompt_token_count: int | None = None


class _Reply(Struct, rename="camel"):
    predictions: list[_Prediction] | None = None
    embedding: _Vector | None = None
    embeddings: list[_Vector] | None = None
    usage_metadata: _UsageMetadata | None = None


_REPLY = msgspec.json.Decoder(_Reply)


def _from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """An embeddings list; tokens are counted for each text, or for all."""
    reply = decode_reply(_REPLY, body)
    if reply.predictions is not None:
        vectors = [prediction.embeddings for prediction in reply.predictions]
    elif reply.embeddings is not None:
        vectors = reply.embeddings
    elif reply.embedding is not None:
        vectors = [reply.embedding]
    else:
        raise UpstreamError(ErrorType.UNREADABLE_REPLY, "The provider's reply holds no embeddings.")
    tokens = None if reply.usage_metadata is None else reply.usage_metadata.prompt_token_count
    if tokens is None:
        counts = [None if vector.statistics is None else vector.statistics.token_count for vector in vectors]
        known = [count for count in counts if count is not None]
        tokens = int(sum(known)) if known and len(known) == len(counts) else None
    return embeddings_reply(
        request,
        [vector.values for vector in vectors],
        model=endpoint.model,
        usage=None if tokens is None else Usage(input_tokens=tokens, output_tokens=0),
    )


EMBEDDINGS = Codec(to_wire=_to_wire, from_wire=_from_wire)
