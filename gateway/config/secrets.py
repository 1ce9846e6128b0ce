"""Where a key comes from: an environment variable, a file, or the literal text, as in the MLflow AI Gateway."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.types.secret import Secret


def resolve_secret(value: object, environment: Mapping[str, str], on_file: Callable[[Path], None]) -> Secret:
    """Resolve one configured key; `on_file` is told of the file that it is in.

    `$NAME` is the environment variable NAME; the path of a file means the file's content; anything else is the key
    itself. Each is stripped: the original kept a trailing newline, which no header can carry.

    Raises:
        ValueError: the value is no string, the variable is unset or empty, or the file is empty or unreadable.
    """
    if not isinstance(value, str):
        raise ValueError(
            "The api key provided is not a string. Please provide either an environment variable key, a path to a "
            "file containing the api key, or the api key itself"
        )
    if value.startswith("$"):
        name = value[1:]
        key = environment.get(name, "").strip()
        if not key:
            raise ValueError(f"Environment variable '{name}' is not set")
        return Secret(key)
    if not value.strip():
        raise ValueError("the key is empty; give it as $NAME, as a file's path, or as it is")
    path = Path(value)
    if not _is_file(path):
        return Secret(value.strip())
    on_file(path)
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError("the key file cannot be read") from None
    if not text:
        raise ValueError("the key file is empty")
    return Secret(text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # A literal key may be longer than a file name can be, or hold characters that no path has.
        return False
