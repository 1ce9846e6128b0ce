"""Databricks model serving: the `openai` dialect, except that a message's content may be a list of typed parts.

Source: https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference; its OAuth for service
principals: https://docs.databricks.com/aws/en/dev-tools/auth/oauth-m2m; the `databricks` provider of mlflow 3.x
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway.providers import openai
from gateway.providers.openai import OpenAIStream
from gateway.providers.spec import Auth, Codec, Dialect, Endpoint, HeaderAuth, OAuthClientAuth, Provider
from gateway.types.model_io import ModelReply, ModelRequest, StreamEvent
from gateway.types.route import Operation, RouteType
from gateway.types.secret import Secret

_SERVING = "/serving-endpoints"
_AI_GATEWAY = "/ai-gateway/mlflow/v1"
_LIST_CONTENT = re.compile(rb'"content"\s*:\s*\[')
_ENVIRONMENT = {
    "host": "DATABRICKS_HOST",
    "token": "DATABRICKS_TOKEN",
    "client_id": "DATABRICKS_CLIENT_ID",
    "client_secret": "DATABRICKS_CLIENT_SECRET",
}


class DatabricksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `databricks`: a personal token, or a service principal's id and secret.

    What is left out comes from DATABRICKS_HOST, DATABRICKS_TOKEN, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET.
    `databricks_api_base` replaces the address that is made from the host.
    """

    host: str | None = None
    token: Secret | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    databricks_api_base: str | None = None

    def __post_init__(self) -> None:
        if self.host is None and (self.databricks_api_base is None or self.token is None):
            raise ValueError("host is required (or DATABRICKS_HOST in the environment)")
        if self.token is None and (self.client_id is None or self.client_secret is None):
            raise ValueError("token is required, or client_id and client_secret of a service principal")


def from_environment(config: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """The configuration with what it leaves out taken from Databricks' own variables; its own credential wins."""
    names = dict(_ENVIRONMENT)
    if "token" in config or "client_id" in config:
        names = {"host": names["host"]}
    found = {name: f"${variable}" for name, variable in names.items() if environment.get(variable)}
    for plain in ("host", "client_id"):
        if plain in found:
            found[plain] = environment[names[plain]]
    return {**found, **config}


def _connect(config: DatabricksConfig, model: str) -> Endpoint:
    host = (config.host or "").rstrip("/")
    if host and "://" not in host:
        host = f"https://{host}"
    workspace = host.partition(_SERVING)[0]
    # A model of Unity Catalog has three names; an endpoint's name cannot have a dot.
    made = f"{workspace}{_AI_GATEWAY if model.count('.') >= 2 else _SERVING}"
    auth: Auth
    if config.token is not None:
        auth = HeaderAuth(headers=(("authorization", Secret(f"Bearer {config.token.reveal()}")),))
    else:
        auth = OAuthClientAuth(
            token_url=f"{workspace}/oidc/v1/token",
            client_id=config.client_id or "",
            client_secret=config.client_secret or Secret(""),
        )
    return Endpoint(
        provider="databricks",
        dialect=DIALECT,
        base_url=(config.databricks_api_base or made).rstrip("/"),
        model=model,
        auth=auth,
    )


# --- replies ----------------------------------------------------------------------------------------------------


def _flatten(message: dict[str, Any], joint: str) -> None:
    """Turn a list of parts into text, reasoning parts into `reasoning_content`; other parts have no place in text."""
    parts = message.get("content")
    if not isinstance(parts, list):
        return
    typed = [part for part in parts if isinstance(part, dict)]
    message["content"] = joint.join(_text(part) for part in typed if part.get("type") == "text") or None
    thoughts = [
        _text(summary)
        for part in typed
        if part.get("type") == "reasoning"
        for summary in _list(part.get("summary"))
        if isinstance(summary, dict)
    ]
    if thoughts:
        message["reasoning_content"] = joint.join(thoughts)


def _text(part: dict[str, Any]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _normalized(body: bytes, member: str, joint: str) -> bytes:
    """The body with every choice's `member` flattened; the same bytes where nothing is a list, or is no JSON."""
    if _LIST_CONTENT.search(body) is None:
        return body
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    if not isinstance(reply, dict):
        return body
    for choice in _list(reply.get("choices")):
        if isinstance(choice, dict) and isinstance(choice.get(member), dict):
            _flatten(choice[member], joint)
    return msgspec.json.encode(reply)


def chat_from_wire(body: bytes, request: ModelRequest, endpoint: Endpoint) -> ModelReply:
    """A chat completion whose content is text."""
    return openai.chat_from_wire(_normalized(body, "message", "\n"), request, endpoint)


class DatabricksStream(OpenAIStream):
    """OpenAI's stream whose deltas hold text."""

    def feed(self, event: StreamEvent) -> bytes:
        """Forward one event, with a list of parts made text."""
        data = _normalized(event.data, "delta", "")
        if data is not event.data:
            event = StreamEvent(data, b"data: " + data + b"\n\n", event.name)
        return super().feed(event)


DIALECT = Dialect(
    name="databricks",
    codecs={
        **openai.DIALECT.codecs,
        Operation.CHAT: Codec(to_wire=openai.to_wire, from_wire=chat_from_wire, open_stream=DatabricksStream),
    },
    fault=openai.DIALECT.fault,
)


def _check(config: DatabricksConfig, model: str, route_type: RouteType) -> None:
    if not model:
        raise ValueError("model.name is required for this provider")


DATABRICKS = Provider(
    name="databricks",
    gen_ai_name="databricks",
    config=DatabricksConfig,
    connect=_connect,
    config_required=False,
    check=_check,
    from_environment=from_environment,
)
