"""Portkey, a gateway that speaks the `openai` dialect and routes by headers.

Source: https://portkey.ai/docs/api-reference/inference-api/headers; the `portkey` provider of mlflow 3.x
"""

from msgspec import Struct

from gateway.providers.openai import DIALECT
from gateway.providers.spec import Endpoint, HeaderAuth, Provider, require_model
from gateway.types.secret import Secret

_BASE = "https://api.portkey.ai/v1"


class PortkeyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `portkey`; `api_key` and `api_base` are other spellings of the `portkey_` ones.

    `portkey_provider` is a provider's slug, `portkey_config` a saved configuration's id or its JSON, and
    `provider_api_key` the key of a provider whose key Portkey does not keep.
    """

    portkey_api_key: Secret | None = None
    portkey_api_base: str | None = None
    api_key: Secret | None = None
    api_base: str | None = None
    portkey_provider: str | None = None
    portkey_config: Secret | None = None
    provider_api_key: Secret | None = None

    def __post_init__(self) -> None:
        if self.portkey_api_key is None and self.api_key is None:
            raise ValueError("portkey_api_key is required")


def _connect(config: PortkeyConfig, model: str) -> Endpoint:
    key = config.portkey_api_key or config.api_key or Secret("")
    # A configuration given as JSON may hold keys, so it is treated like one.
    headers = [("x-portkey-api-key", key)]
    if config.portkey_config is not None:
        headers.append(("x-portkey-config", config.portkey_config))
    if config.provider_api_key is not None:
        headers.append(("authorization", Secret(f"Bearer {config.provider_api_key.reveal()}")))
    return Endpoint(
        provider="portkey",
        dialect=DIALECT,
        base_url=(config.portkey_api_base or config.api_base or _BASE).rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=tuple(headers)),
        headers=(("x-portkey-provider", config.portkey_provider),) if config.portkey_provider else (),
    )


PORTKEY = Provider(name="portkey", gen_ai_name="portkey", config=PortkeyConfig, connect=_connect, check=require_model)
