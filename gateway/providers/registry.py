"""The list of all providers: the one place that a new one is added to."""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.providers.ai21labs import AI21LABS
from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.bedrock import BEDROCK
from gateway.providers.cohere import COHERE
from gateway.providers.compatible import COMPATIBLE
from gateway.providers.databricks import DATABRICKS
from gateway.providers.gemini import GEMINI
from gateway.providers.huggingface_text_generation_inference import HUGGINGFACE
from gateway.providers.mlflow_model_serving import MLFLOW_MODEL_SERVING
from gateway.providers.mosaicml import MOSAICML
from gateway.providers.openai_accounts import AZURE, OPENAI
from gateway.providers.palm import PALM
from gateway.providers.portkey import PORTKEY
from gateway.providers.spec import Provider
from gateway.providers.vertex_ai import VERTEX_AI

_ALL: tuple[Provider, ...] = (
    OPENAI,
    AZURE,
    ANTHROPIC,
    GEMINI,
    VERTEX_AI,
    BEDROCK,
    COHERE,
    DATABRICKS,
    PORTKEY,
    MLFLOW_MODEL_SERVING,
    HUGGINGFACE,
    AI21LABS,
    MOSAICML,
    PALM,
    *COMPATIBLE,
)


def canonical_name(name: str) -> str:
    """A provider's name as the registry keys it: case and hyphens do not matter, as in the MLflow gateway."""
    return name.strip().lower().replace("-", "_")


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {canonical_name(name): provider for provider in _ALL for name in (provider.name, *provider.aliases)}
)
"""Every provider by its canonical name and by each alias."""


def find_provider(name: str) -> Provider | None:
    """A provider by the name in a configuration file, whatever its case and hyphens."""
    return PROVIDERS.get(canonical_name(name))
