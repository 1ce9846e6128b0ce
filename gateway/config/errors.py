"""What a wrong configuration is told as."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self


class ConfigError(Exception):
    """The configuration cannot be used. `key_files` are the files that it takes keys from, as far as it was read.

    Args:
        path: the wrong field, such as `routes[2].model.config.openai_api_key`; empty for the file itself.
        message: what is wrong, and the remedy.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message
        self.key_files: tuple[Path, ...] = ()

    @classmethod
    def joined(cls, errors: Sequence[Self]) -> Self:
        """One for several: the path is the first one's, and the text has a line for each."""
        first, *others = errors
        return cls(first.path, "\n".join([first.message, *map(str, others)]))
