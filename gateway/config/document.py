"""The text of a configuration as the mapping that it is: YAML without its traps."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from gateway.config.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader, in C where its wheel has it."""


def read_document(text: str, source: Path) -> dict[str, Any]:
    """The mapping in a file's text; raises ConfigError."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date or a number that cannot be is no YAMLError.
        raise ConfigError("", f"The file at {source} is not a valid yaml file: {_what_is_wrong(error)}") from None
    if not isinstance(document, dict):
        raise ConfigError("", f"{source} must be a mapping with a list of 'routes' or 'endpoints'")
    return document


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Refuses a field that stands twice: PyYAML would take the last, and say nothing of the first one's routes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The dict of a mapping; raises MarkedYAMLError."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def _what_is_wrong(error: Exception) -> str:
    """What is wrong and where. PyYAML's own text may quote the line, and with it a key."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        return f"{error.problem or error.context}{place}"
    return type(error).__name__ if isinstance(error, yaml.YAMLError) else str(error)
