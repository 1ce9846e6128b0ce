"""The genuine MLflow clients, each in an environment of its own, since their dependencies do not fit the gateway's.

`make clients` installs them from requirements/mlflow-*.txt into .venv-clients/. Without that the journeys are skipped;
where servers are required (CI) they fail instead.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from tests.servers import missing

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(os.environ.get("GAUGEWAY_CLIENT_ENVIRONMENTS", ROOT / ".venv-clients"))


async def run_client(release: str, script: str, *arguments: str) -> Any:
    """Run a script of this folder under one release's Python; what it prints as JSON."""
    python = ENVIRONMENTS / f"mlflow-{release}" / "bin" / "python"
    if not python.exists():
        missing(f"the MLflow {release} client is not installed (make clients)")
    process = await asyncio.create_subprocess_exec(
        str(python),
        "-W",
        "ignore",
        str(Path(__file__).parent / script),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Nothing of this environment: no proxy, no tracking server of the user's.
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"},
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return json.loads(out)
