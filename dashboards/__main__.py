"""`python -m dashboards` writes the JSON of every board; `--check` only says whether what is there is current."""

import argparse
import sys
from pathlib import Path

from dashboards.boards import BOARDS, render_all

GENERATED = Path(__file__).parent / "generated"


def main() -> int:
    """Write or check the generated dashboards. Returns 1 when a checked file is missing, stale or unknown."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not current")
    parser.add_argument("--out", type=Path, default=GENERATED, help="folder of the JSON files")
    options = parser.parse_args()
    files = render_all()
    if options.check:
        stale = [name for name, text in files.items() if not _same(options.out / name, text)]
        stale += [path.name for path in sorted(options.out.glob("*.json")) if path.name not in files]
        for name in stale:
            print(f"not current: {options.out / name}")
        return 1 if stale else 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.out / name).write_text(text, encoding="utf-8")
    print(f"{len(BOARDS)} dashboards in {options.out}")
    return 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
