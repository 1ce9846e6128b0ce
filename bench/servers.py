"""`python -m bench.servers`: the same bare ASGI application under several ASGI servers; writes SERVERS.md beside this file.

The numbers behind the choice of the server. `/bare` is answered by the application itself and shows the server alone;
the other figures pass through aiohttp to the mock provider, as the gateway's own do.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench.floor import SERVERS
from bench.report import Results, describe_machine, markdown
from bench.rounds import FULL, QUICK, Rounds
from bench.variants import ROOT, floor


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers", description="Compare ASGI servers.")
    parser.add_argument("--quick", action="store_true", help="about 40 s")
    parser.add_argument("--out", type=Path, default=ROOT / "bench")
    options = parser.parse_args()
    servers = [name for name in SERVERS if importlib.util.find_spec(name)]
    for name in set(SERVERS) - set(servers):
        print(f"{name} is left out: it is not installed (pip install {name})", file=sys.stderr)
    machine = describe_machine(shlex.join(["python", "-m", "bench.servers", *sys.argv[1:]]), datetime.now(UTC))
    machine.packages.update({name: importlib.metadata.version(name) for name in servers})
    plan = QUICK if options.quick else FULL
    with (
        tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder,
        Rounds(plan, Path(folder), bare=True) as rounds,
    ):
        variants = [floor(rounds.upstream, server) for server in servers]
        rounds.start(variants)
        figures = uvloop.run(rounds.measure())
    pairs = [(other.name, variants[0].name) for other in variants[1:]]
    page = markdown(Results(machine, figures), pairs, "ASGI servers under the same application")
    (options.out / "SERVERS.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
