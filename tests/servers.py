"""Real servers that some tests drive: where they are, or why the test cannot run.

A machine without a server skips the tests that need it and says so. With GAUGEWAY_REQUIRE_SERVERS=1, as in CI, a
missing server is a failure instead, so that a green run has run everything.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

# Debian keeps PostgreSQL's own programs out of PATH, one folder a version.
EXTRA_FOLDERS: Sequence[str] = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/*/bin", "/usr/local/opt/*/bin")

OTHER_NAMES = {
    "alertmanager": ("prometheus-alertmanager",),
    "chromium": ("chromium-browser", "google-chrome", "google-chrome-stable"),
    "redis-server": ("valkey-server",),
}


def find(binary: str) -> str | None:
    """The path of a server's program, or None. Known other names are tried too (Debian's, Chrome's)."""
    for name in (binary, *OTHER_NAMES.get(binary, ())):
        found = shutil.which(name)
        if found is not None:
            return found
        for pattern in EXTRA_FOLDERS:
            for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
                found = shutil.which(name, path=str(folder))
                if found is not None:
                    return found
    return None


def require(binary: str) -> str:
    """The path of a server's program; without it the test is skipped, or fails where servers are required."""
    found = find(binary)
    if found is None:
        missing(f"{binary} is not installed")
    return found


def missing(reason: str) -> NoReturn:
    """End the test: it needs something that this machine lacks. A failure where GAUGEWAY_REQUIRE_SERVERS=1."""
    if os.environ.get("GAUGEWAY_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{reason}, and GAUGEWAY_REQUIRE_SERVERS=1 asks for it", pytrace=False)
    pytest.skip(reason)
