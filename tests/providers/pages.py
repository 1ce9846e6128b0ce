"""What the pages in docs/providers say, read as facts."""

import re
from collections import defaultdict
from pathlib import Path

from gateway.config.load import load_text
from gateway.config.settings import Settings
from gateway.providers.registry import PROVIDERS, canonical_name
from gateway.types.route import Operation

PAGES = Path(__file__).parents[2] / "docs" / "providers"


class AnyEnvironment(defaultdict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, name: str) -> str:
        return "set"

    def get(self, name: str, default: object = None) -> str:
        return "set"


def yaml_of(page: str) -> str:
    """The configuration that a page shows."""
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None, "the page shows a configuration"
    return found[1]


def settings_of(yaml: str) -> Settings:
    """A configuration, loaded as the gateway loads it."""
    return load_text(yaml, lambda name: PROVIDERS.get(canonical_name(name)), AnyEnvironment())


def serves(provider: str, yaml: str) -> str:
    """The operations of all of a configuration's targets, in words: `chat (streams), embeddings`."""
    streams: dict[Operation, bool] = {}
    for route in settings_of(yaml).routes:
        for target in route.targets:
            assert target.provider == provider
            endpoint = PROVIDERS[canonical_name(provider)].connect(target.config, target.model)
            for operation, codec in endpoint.dialect.codecs.items():
                streams[operation] = streams.get(operation, False) or codec.open_stream is not None
    return ", ".join(f"{op} (streams)" if streams[op] else str(op) for op in Operation if op in streams)
