"""OpenAI and Azure OpenAI accounts: the configuration keys of the MLflow AI Gateway, and how they become an endpoint.

Source: the `openai` provider of mlflow 2.5 to 2.8; https://learn.microsoft.com/azure/ai-services/openai/reference
"""

import re

import msgspec
from msgspec import Struct

from gateway.providers.completions_by_chat import completions_by_chat
from gateway.providers.openai import DIALECT
from gateway.providers.openai_responses import ResponsesAddress
from gateway.providers.spec import Endpoint, Provider, Quirks, require_model
from gateway.types.auth import Auth, EntraAuth, HeaderAuth
from gateway.types.route import RouteType
from gateway.types.secret import Secret


class OpenAIConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `openai`. `azure` and `azuread` need a base, a deployment and a version.

    With `azuread`, `openai_api_key` is a ready token; with the three `azure_*` values the gateway fetches tokens itself.
    """

    openai_api_key: Secret | None = None
    openai_api_type: str = "openai"
    openai_api_base: str | None = None
    openai_api_version: str | None = None
    openai_deployment_name: str | None = None
    openai_organization: str | None = None
    azure_tenant_id: str | None = None
    azure_client_id: str | None = None
    azure_client_secret: Secret | None = None

    def __post_init__(self) -> None:
        kind = self.openai_api_type.lower()
        if kind not in ("openai", "azure", "azuread"):
            raise ValueError(f"openai_api_type is '{self.openai_api_type}'; it must be one of openai, azure, azuread")
        fetches_tokens = self.azure_client_secret is not None
        if fetches_tokens and not (kind == "azuread" and self.azure_tenant_id and self.azure_client_id):
            raise ValueError(
                "azure_client_secret needs openai_api_type: azuread, azure_tenant_id and azure_client_id beside it"
            )
        if self.openai_api_key is None and not fetches_tokens:
            raise ValueError("openai_api_key is required")
        if kind == "openai":
            if self.openai_deployment_name is not None:
                raise ValueError("openai_deployment_name is only for openai_api_type azure or azuread; remove it")
            return
        if self.openai_organization is not None:
            raise ValueError("openai_organization is only for openai_api_type openai; remove it")
        for name in ("openai_api_base", "openai_deployment_name", "openai_api_version"):
            if not getattr(self, name):
                raise ValueError(f"{name} is required when openai_api_type is {kind}")


class AzureConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `azure`: like `openai` with type azure; the deployment defaults to the model's name."""

    azure_api_base: str
    azure_api_key: Secret | None = None
    azure_api_version: str = "2024-10-21"
    azure_deployment_name: str | None = None
    azure_tenant_id: str | None = None
    azure_client_id: str | None = None
    azure_client_secret: Secret | None = None

    def __post_init__(self) -> None:
        entra = (self.azure_tenant_id, self.azure_client_id, self.azure_client_secret)
        if self.azure_api_key is None and not all(entra):
            raise ValueError(
                "azure_api_key is required, or azure_tenant_id, azure_client_id and azure_client_secret for Entra ID"
            )


_REASONING = re.compile(r"(?:o[1-9]|gpt-(?:[5-9]|[1-9]\d))(?![0-9a-z])(?!.*chat)")


def _quirks_of(model: str) -> Quirks:
    """Reasoning models refuse `max_tokens`, which is all that many apps know, and other temperatures than theirs.

    Source: https://platform.openai.com/docs/guides/reasoning
    """
    if not _REASONING.match(model):
        return Quirks()
    return Quirks(rename=(("max_tokens", "max_completion_tokens"),), own_temperature=True)


def _azure_endpoint(
    base: str, deployment: str, version: str, model: str, auth: Auth, headers: tuple[tuple[str, str], ...] = ()
) -> Endpoint:
    return Endpoint(
        provider="azure",
        dialect=DIALECT,
        base_url=f"{base.rstrip('/')}/openai/deployments/{deployment}?api-version={version}",
        model=model,
        auth=auth,
        headers=headers,
        quirks=msgspec.structs.replace(_quirks_of(model), send_model=False),
        options=ResponsesAddress(f"{base.rstrip('/')}/openai/v1", deployment),
    )


def _connect_openai(config: OpenAIConfig, model: str) -> Endpoint:
    kind = config.openai_api_type.lower()
    if kind == "openai":
        base = (config.openai_api_base or "https://api.openai.com/v1").rstrip("/")
        return Endpoint(
            provider="openai",
            dialect=DIALECT,
            base_url=f"{base}?api-version={config.openai_api_version}" if config.openai_api_version else base,
            model=model,
            auth=bearer(config.openai_api_key),
            quirks=_quirks_of(model),
            headers=(("openai-organization", config.openai_organization),) if config.openai_organization else (),
        )
    auth: Auth
    if config.azure_client_secret is not None:
        auth = EntraAuth(
            tenant_id=config.azure_tenant_id or "",
            client_id=config.azure_client_id or "",
            client_secret=config.azure_client_secret,
        )
    elif kind == "azuread":
        auth = bearer(config.openai_api_key)
    else:
        auth = HeaderAuth(headers=(("api-key", config.openai_api_key or Secret("")),))
    return _azure_endpoint(
        config.openai_api_base or "",
        config.openai_deployment_name or "",
        config.openai_api_version or "",
        model,
        auth,
    )


def _connect_azure(config: AzureConfig, model: str) -> Endpoint:
    auth: Auth
    if config.azure_api_key is not None:
        auth = HeaderAuth(headers=(("api-key", config.azure_api_key),))
    else:
        auth = EntraAuth(
            tenant_id=config.azure_tenant_id or "",
            client_id=config.azure_client_id or "",
            client_secret=config.azure_client_secret or Secret(""),
        )
    deployment = config.azure_deployment_name or model
    return _azure_endpoint(config.azure_api_base, deployment, config.azure_api_version, model, auth)


def bearer(key: Secret | None) -> HeaderAuth:
    """`authorization: Bearer <key>`, or nothing for an upstream without keys."""
    if key is None:
        return HeaderAuth()
    return HeaderAuth(headers=(("authorization", Secret(f"Bearer {key.reveal()}")),))


def _model_is_named(config: OpenAIConfig | AzureConfig, model: str, route_type: RouteType) -> None:
    if not (isinstance(config, OpenAIConfig) and config.openai_deployment_name):
        require_model(config, model, route_type)


OPENAI = Provider(
    name="openai",
    gen_ai_name="openai",
    config=OpenAIConfig,
    connect=_connect_openai,
    check=_model_is_named,
    original_completions=completions_by_chat(),
)
AZURE = Provider(
    name="azure",
    gen_ai_name="azure.ai.openai",
    config=AzureConfig,
    connect=_connect_azure,
    check=_model_is_named,
    original_completions=completions_by_chat(),
)
