"""What is measured: commands that serve the same API with the same upstream, each in its own way."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.payloads import EMBEDDINGS_ROUTE, ROUTE

ROOT = Path(__file__).resolve().parent.parent

_CONFIG = """\
telemetry:
  log_requests: {log}
budgets: {budgets}
routes:
  - name: {chat}
    route_type: llm/v1/chat
    model:
      provider: openai
      name: gpt-4o-mini
      config: {{openai_api_key: sk-bench, openai_api_base: "{upstream}/v1"}}
  - name: {embeddings}
    route_type: llm/v1/embeddings
    model:
      provider: openai
      name: text-embedding-3-small
      config: {{openai_api_key: sk-bench, openai_api_base: "{upstream}/v1"}}
"""


@dataclass(frozen=True)
class Variant:
    """A way to serve. `command` has the places {port} and {metrics_port}; `sink` says that it exports to OTLP."""

    name: str
    command: tuple[str, ...]
    cwd: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)
    native_surface: bool = False
    sink: bool = False
    requests_only: bool = False
    """No streams and no other surfaces: for what differs in each request alone."""

    def filled(self, port: int, metrics_port: int) -> list[str]:
        """The command for given ports."""
        return [part.replace("{port}", str(port)).replace("{metrics_port}", str(metrics_port)) for part in self.command]


def write_config(folder: Path, upstream: str, *, telemetry: bool, budget: str = "") -> Path:
    """The gateway's configuration: one chat and one embeddings route to `upstream` (scheme, host and port).

    `budget` is soft or hard: one over everything, with room for all.
    """
    path = folder / f"bench-{'on' if telemetry else 'off'}{budget}.yaml"
    path.write_text(
        _CONFIG.format(
            chat=ROUTE,
            embeddings=EMBEDDINGS_ROUTE,
            upstream=upstream,
            log="true" if telemetry else "false",
            budgets=f"[{{name: all, amount_usd: 1000000, enforcement: {budget}}}]" if budget else "[]",
        )
    )
    return path


def floor(upstream: str, server: str = "uvicorn") -> Variant:
    """Bare ASGI and aiohttp, no gateway."""
    command = (sys.executable, "-m", "bench.floor", "--port", "{port}", "--upstream", upstream, "--server", server)
    return Variant(f"no gateway: {server} + aiohttp", command)


def gateway(
    folder: Path, upstream: str, *, telemetry: bool, cwd: Path = ROOT, label: str = "gateway", budget: str = ""
) -> Variant:
    """The gateway of the checkout `cwd`. With telemetry: OTLP spans, metrics and the log line; without: metrics only.

    Its configuration is written below `folder`, and its ledger beside it. With a `budget`, soft or hard, only requests
    are measured.
    """
    # Each checkout's gateways have a ledger of their own.
    place = folder / label
    place.mkdir(parents=True, exist_ok=True)
    config = write_config(place, upstream, telemetry=telemetry, budget=budget)
    command = (
        *(sys.executable, "-m", "gateway", "start", "--config-path", str(config)),
        *("--port", "{port}", "--metrics-port", "{metrics_port}"),
        *("--traces", "otlp" if telemetry else "none"),
    )
    name = f"{label}, all signals" if telemetry else f"{label}, metrics only"
    if budget:
        name += f", a {budget} budget"
    return Variant(name, command, cwd=cwd, native_surface=True, sink=telemetry, requests_only=bool(budget))


@contextmanager
def checkout(ref: str) -> Iterator[Path]:
    """A temporary worktree of a git ref. subprocess.CalledProcessError when git refuses."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        path = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(path), ref], cwd=ROOT, check=True)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=ROOT, check=True)
