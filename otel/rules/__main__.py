"""`python -m otel.rules` writes the rule files of Prometheus and of Grafana; `--check` only says whether they are current."""

import argparse
import sys
from pathlib import Path

from otel.rules.render import RUNBOOKS, grafana, prometheus

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Write or check the generated rules. Returns 1 when a checked file is missing or stale."""
    parser = argparse.ArgumentParser(prog="python -m otel.rules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not current")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder that holds prometheus/ and grafana/")
    parser.add_argument("--runbooks", default=RUNBOOKS, help="folder or address of the runbooks, for runbook_url")
    options = parser.parse_args()
    files = {
        options.out / "prometheus" / "rules" / "gaugeway.yml": prometheus(options.runbooks),
        options.out / "grafana" / "alerts" / "gaugeway.yml": grafana(options.runbooks),
    }
    if options.check:
        stale = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]
        for path in stale:
            sys.stdout.write(f"not current: {path}\n")
        return 1 if stale else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
