"""Where an HTTP server is, as configurations and variables give it."""

import re
from urllib.parse import urlsplit

_SPACE = re.compile(r"\s")


def is_http_address(text: str) -> bool:
    """Whether a text is a URL with a host that HTTP, plain or encrypted, can reach."""
    try:
        parts = urlsplit(text)
        reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        return bool(reachable) and not _SPACE.search(text)
    except ValueError:
        return False
