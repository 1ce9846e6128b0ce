"""Cohere accounts: which version of the API a route speaks, and where.

Version 1 is what the MLflow gateway spoke; the vendor keeps chat and embed there and deprecates generate. Version 2 has
tools, JSON schemas and finish reasons.
"""

from typing import Literal

from msgspec import Struct

from gateway.providers import cohere_v1, cohere_v2
from gateway.providers.cohere_facts import EmbedOptions
from gateway.providers.spec import Endpoint, HeaderAuth, Provider, Quirks, require_model
from gateway.types.secret import Secret


class CohereConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `cohere`. `cohere_api_base` ends in the version, like the default."""

    cohere_api_key: Secret
    cohere_api_base: str | None = None
    cohere_api_version: Literal["v1", "v2"] = "v1"
    cohere_input_type: str | None = None
    """`input_type` of embeddings whose caller names none; embed models since v3 need one."""


_DIALECTS = {"v1": cohere_v1.DIALECT, "v2": cohere_v2.DIALECT}
_BASES = {"v1": "https://api.cohere.ai/v1", "v2": "https://api.cohere.com/v2"}
# The canonical range is 0 to 2. Version 1 took 0 to 5 when MLflow fixed its factor; version 2 documents 0 to 1.
_QUIRKS = {"v1": Quirks(temperature_scale=2.5), "v2": Quirks(temperature_scale=0.5)}


def _connect(config: CohereConfig, model: str) -> Endpoint:
    version = config.cohere_api_version
    return Endpoint(
        provider="cohere",
        dialect=_DIALECTS[version],
        base_url=(config.cohere_api_base or _BASES[version]).rstrip("/"),
        model=model,
        auth=HeaderAuth(headers=(("authorization", Secret(f"Bearer {config.cohere_api_key.reveal()}")),)),
        quirks=_QUIRKS[version],
        options=EmbedOptions(input_type=config.cohere_input_type),
    )


COHERE = Provider(
    name="cohere", title="Cohere", gen_ai_name="cohere", config=CohereConfig, connect=_connect, check=require_model
)
