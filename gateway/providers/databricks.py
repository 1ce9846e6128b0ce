"""Databricks model serving: the `openai` dialect, except that a message's content may be a list of typed parts.

Source: https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference; its OAuth for service
principals: https://docs.databricks.com/aws/en/dev-tools/auth/oauth-m2m; the `databricks` provider of mlflow 3.x
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gateway.providers import openai, typed_content
from gateway.providers.spec import Auth, Dialect, Endpoint, HeaderAuth, OAuthClientAuth, Provider, require_model
from gateway.types.route import Operation
from gateway.types.secret import Secret

_SERVING = "/serving-endpoints"
_AI_GATEWAY = "/ai-gateway/mlflow/v1"
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


DIALECT = Dialect(
    name="databricks",
    codecs={
        **openai.DIALECT.codecs,
        Operation.CHAT: typed_content.CHAT,
    },
    fault=openai.DIALECT.fault,
)


DATABRICKS = Provider(
    name="databricks",
    gen_ai_name="databricks",
    config=DatabricksConfig,
    connect=_connect,
    config_required=False,
    check=require_model,
    from_environment=from_environment,
)
