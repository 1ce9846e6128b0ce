"""The `vertex_ai` provider: three dialects behind one Google Cloud account, chosen by the model's name.

Gemini models speak `gemini`, Claude models speak `anthropic` with the model in the path and a version in the body, and
partners' models speak `openai` at one shared address. Who asks is a Google identity, never a key.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest, https://platform.claude.com/docs/en/api/
claude-on-vertex-ai and the `vertex_ai` provider of mlflow 3.18.
"""

from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from gateway.providers import anthropic, gemini, openai
from gateway.providers.anthropic_reply import token_count_from_wire
from gateway.providers.spec import Codec, Dialect, Endpoint, Fault, GoogleAuth, Provider, require_model
from gateway.providers.vertex_ai_embeddings import EMBEDDINGS
from gateway.types.model_io import ModelRequest, WireRequest
from gateway.types.route import Operation
from gateway.types.secret import Secret

_CLAUDE_VERSION = msgspec.Raw(b'"vertex-2023-10-16"')
_BETA = "anthropic-beta"
# Partners' models whose names have no publisher before a slash.
_PARTNER_PREFIXES = ("mistral", "codestral", "jamba")


class VertexAIConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `vertex_ai`.

    `vertex_credentials` is a service account's JSON (as text, a file's path or `$NAME`); without it the machine's default
    credentials are used. `vertex_location` defaults to `global`, for partners' models to `us-central1`.
    `vertex_anthropic_betas` names the `anthropic-beta` values that callers may use: Vertex AI fails a request with one
    that it does not know. `vertex_ai_api_base` replaces the scheme and host of the location.
    """

    vertex_project: str
    vertex_location: str | None = None
    vertex_credentials: Secret | None = None
    vertex_anthropic_betas: tuple[str, ...] | None = None
    vertex_ai_api_base: str | None = None


class _ClaudeOptions(Struct, frozen=True):
    betas: tuple[str, ...] | None


# --- Claude -----------------------------------------------------------------------------------------------------


def _send_claude(body: dict[str, Any], request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    body = {name: value for name, value in body.items() if name != "model"}
    call = "streamRawPredict" if request.stream else "rawPredict"
    return _claude_wire(f"{quote(endpoint.model, safe='@')}:{call}", body, request, endpoint)


def _count_claude_tokens(request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    body = dict(request.fields) | {"model": endpoint.model}
    return _claude_wire("count-tokens:rawPredict", body, request, endpoint)


def _claude_wire(path: str, body: dict[str, Any], request: ModelRequest, endpoint: Endpoint) -> WireRequest:
    headers = anthropic.caller_headers(request)
    if isinstance(endpoint.options, _ClaudeOptions) and endpoint.options.betas is not None:
        headers = tuple(kept for header in headers if (kept := _allowed(header, endpoint.options.betas)) is not None)
    return WireRequest(
        url=f"{endpoint.base_url}/{path}",
        body=msgspec.json.encode(body | {"anthropic_version": _CLAUDE_VERSION}),
        headers=headers,
    )


def _allowed(header: tuple[str, str], betas: tuple[str, ...]) -> tuple[str, str] | None:
    name, value = header
    if name != _BETA:
        return header
    kept = [beta for beta in map(str.strip, value.split(",")) if beta in betas]
    return (name, ",".join(kept)) if kept else None


def _claude_fault(status: int, body: bytes) -> Fault:
    """Errors come from Anthropic behind Vertex AI, or from Google before it."""
    found = anthropic.fault(status, body)
    return found if found.error_type is not None else gemini.fault(status, body)


GEMINI = Dialect(
    name="gemini",
    codecs={**gemini.gemini_codecs(call_ids=False), Operation.EMBEDDINGS: EMBEDDINGS},
    fault=gemini.fault,
)
CLAUDE = Dialect(
    name="anthropic",
    codecs={
        **anthropic.messages_codecs(_send_claude),
        Operation.COUNT_TOKENS: Codec(to_wire=_count_claude_tokens, from_wire=token_count_from_wire),
    },
    fault=_claude_fault,
)
PARTNER = Dialect(name="openai", codecs={Operation.CHAT: openai.DIALECT.codecs[Operation.CHAT]}, fault=gemini.fault)


# --- accounts ---------------------------------------------------------------------------------------------------


def _host(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in {"eu", "us"}:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def _connect(config: VertexAIConfig, model: str) -> Endpoint:
    name = model.lower()
    options: Struct | None = None
    location = config.vertex_location or "global"
    if name.startswith("claude"):
        dialect, path = CLAUDE, "publishers/anthropic/models"
        options = _ClaudeOptions(config.vertex_anthropic_betas)
    elif "/" in name or name.startswith(_PARTNER_PREFIXES) or name.endswith("-maas"):
        dialect, path = PARTNER, "endpoints/openapi"
        location = config.vertex_location or "us-central1"
    else:
        dialect, path = GEMINI, "publishers/google/models"
    root = (config.vertex_ai_api_base or _host(location)).rstrip("/")
    return Endpoint(
        provider="vertex_ai",
        dialect=dialect,
        base_url=f"{root}/v1/projects/{config.vertex_project}/locations/{location}/{path}",
        model=model,
        auth=GoogleAuth(service_account=config.vertex_credentials),
        options=options,
    )


VERTEX_AI = Provider(
    name="vertex_ai",
    gen_ai_name="gcp.vertex_ai",
    config=VertexAIConfig,
    connect=_connect,
    aliases=("vertex",),
    check=require_model,
)
