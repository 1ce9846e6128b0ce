"""`python -m bench`: measure the gateway of this checkout and write RESULTS.md and results.json beside this file."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from bench import accounting, signals
from bench.report import Results, describe_machine, markdown
from bench.rounds import FULL, QUICK, Figure, Plan, Rounds, cores
from bench.variants import ROOT, Variant, checkout, floor, gateway


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="under a minute: shows a large change, no fine one")
    parser.add_argument(
        "--compare", metavar="REF", help="measure another git ref beside this checkout, in the same rounds"
    )
    parser.add_argument("--floor-only", action="store_true", help="no gateway: checks the harness and the machine")
    parser.add_argument("--out", type=Path, default=ROOT / "bench", help="folder of RESULTS.md and results.json")
    return parser.parse_args(words)


_KINDS = {"none": "no budget", "soft": "a soft budget", "hard": "a hard budget"}


def accounting_alone(plan: Plan, folder: Path) -> list[Figure]:
    """Accounting without HTTP, in interleaved rounds on the core under measurement."""
    measured, _ = cores()
    values: dict[tuple[str, str], list[float]] = {}
    for number in range(plan.starts):
        for kind in accounting.BUDGETS:
            place = Path(tempfile.mkdtemp(prefix=f"{kind}-{number}-", dir=folder))
            found = accounting.run(kind, place, plan.accounting_s, measured)
            for measure, value in msgspec.structs.asdict(found).items():
                values.setdefault((_KINDS[kind], measure), []).append(value)
    return [Figure(variant, measure, rounds) for (variant, measure), rounds in values.items()]


def main() -> None:
    """Measure and write."""
    options = parse(sys.argv[1:])
    plan = QUICK if options.quick else FULL
    machine = describe_machine(shlex.join(["python", "-m", "bench", *sys.argv[1:]]), datetime.now(UTC))
    pairs: list[tuple[str, str]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        rounds = stack.enter_context(Rounds(plan, folder))
        variants: list[Variant] = [floor(rounds.upstream)]
        if not options.floor_only:
            off, on = (gateway(folder, rounds.upstream, telemetry=telemetry) for telemetry in (False, True))
            variants += [off, on]
            pairs.append((on.name, off.name))
            for kind in ("soft", "hard"):
                variants.append(gateway(folder, rounds.upstream, telemetry=False, budget=kind))
                pairs.append((variants[-1].name, off.name))
        if options.compare:
            tree = stack.enter_context(checkout(options.compare))
            for new in [variant for variant in variants[1:] if not variant.requests_only]:
                old = gateway(folder, rounds.upstream, telemetry=new.sink, cwd=tree, label=options.compare)
                variants.append(old)
                pairs.append((new.name, old.name))
        rounds.start(variants)
        figures = uvloop.run(rounds.measure())
        alone = [] if options.floor_only else accounting_alone(plan, folder)
    signal_figures: list[Figure] = []
    if not options.floor_only:
        with tempfile.TemporaryDirectory(prefix="gateway-bench-") as place:
            signal_figures = signals.measure(signals.QUICK if options.quick else signals.FULL, Path(place))
    results = Results(machine, figures, alone, signal_figures)
    options.out.mkdir(parents=True, exist_ok=True)
    page = markdown(results, pairs)
    (options.out / "RESULTS.md").write_text(page)
    (options.out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    print(page)


if __name__ == "__main__":
    main()
