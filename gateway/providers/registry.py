"""The list of all providers: the one place that a new one is added to."""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.compatible import COMPATIBLE
from gateway.providers.gemini import GEMINI
from gateway.providers.openai_accounts import AZURE, OPENAI
from gateway.providers.spec import Provider
from gateway.providers.vertex_ai import VERTEX_AI

_ALL: tuple[Provider, ...] = (OPENAI, AZURE, ANTHROPIC, GEMINI, VERTEX_AI, *COMPATIBLE)


def canonical_name(name: str) -> str:
    """A provider's name as the registry keys it: case and hyphens do not matter, as in the MLflow gateway."""
    return name.strip().lower().replace("-", "_")


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {canonical_name(name): provider for provider in _ALL for name in (provider.name, *provider.aliases)}
)
"""Every provider by its canonical name and by each alias."""
