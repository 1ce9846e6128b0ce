"""Figures as Markdown for a reader and as JSON for a comparison."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from bench import accounting, signals
from bench.rounds import DIRECT, DISK, Figure
from bench.statistics import paired_ratio, spread_ratio
from bench.variants import ROOT

COLUMNS = (
    ("cpu_us_chat_64", "CPU us/request, 64 connections", "{:.0f}"),
    ("per_s_chat_64", "requests/s, 64", "{:,.0f}"),
    ("cpu_us_chat_8", "CPU us/request, 8", "{:.0f}"),
    ("busy_ratio_chat_64", "share of its core used, 64", "{:.0%}"),
    ("per_s_chat_8", "requests/s, 8", "{:,.0f}"),
    ("cpu_us_native_64", "CPU us, own surface, 64", "{:.0f}"),
    ("cpu_us_embeddings_8", "CPU us, embeddings, 8", "{:.0f}"),
    ("cpu_us_bare_64", "CPU us, no upstream call, 64", "{:.0f}"),
    ("cpu_us_event", "CPU us/SSE event", "{:.0f}"),
    ("p50_ms_low_rate", "p50 ms at 20/s", "{:.2f}"),
    ("p99_ms_low_rate", "p99 ms at 20/s", "{:.2f}"),
    ("ttft_ms", "TTFT ms, 50 streams", "{:.2f}"),
    ("event_p50_ms", "event delay p50 ms", "{:.2f}"),
    ("event_p99_ms", "event delay p99 ms", "{:.2f}"),
    ("rss_mib", "RSS MiB", "{:.0f}"),
    ("start_s", "start s", "{:.2f}"),
    ("spans_per_request", "spans exported/request", "{:.2f}"),
)
ACCOUNTING_COLUMNS = (
    ("cpu_us", f"CPU us/request at {accounting.RATE_PER_S:,}/s", "{:.0f}"),
    ("admit_p50_ms", "admission p50 ms, one at a time", "{:.3f}"),
    ("admit_p99_ms", "admission p99 ms, one at a time", "{:.3f}"),
    ("admit_p99_ms_loaded", f"admission p99 ms at {accounting.RATE_PER_S:,}/s", "{:.3f}"),
    ("sync_p99_ms", "the disk's own fdatasync, p99 ms", "{:.3f}"),
)
_PAIRED = (
    "cpu_us_chat_64",
    "cpu_us_chat_8",
    "cpu_us_native_64",
    "cpu_us_embeddings_8",
    "cpu_us_bare_64",
    "cpu_us_event",
)
_LATENCY = "p99_ms_low_rate"
_PACKAGES = ("litestar", "uvicorn", "uvloop", "httptools", "aiohttp", "httpx", "msgspec", "opentelemetry-sdk")


class Machine(msgspec.Struct, frozen=True):
    """Where and when a run was made. `load_average` is the machine's own, over the minute before the run."""

    date: str
    commit: str
    command: str
    cpu: str
    cores: int
    kernel: str
    python: str
    packages: dict[str, str]
    load_average: float


class Results(msgspec.Struct, frozen=True):
    """A run."""

    machine: Machine
    figures: list[Figure]
    accounting: list[Figure] = []
    """Accounting alone; the variants are kinds of budget."""
    signals: list[Figure] = []
    """What bench.signals measures."""


def describe_machine(command: str, now: datetime) -> Machine:
    """The machine and the checkout at hand."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return Machine(
        date=now.strftime("%Y-%m-%d %H:%M UTC"),
        commit=_git("rev-parse", "--short", "HEAD") + (" with local changes" if _git("status", "--porcelain") else ""),
        command=command,
        cpu=model[0].partition(":")[2].strip() if model else platform.processor(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        load_average=round(os.getloadavg()[0], 2),
    )


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def cell(figure: Figure | None, form: str) -> str:
    """A median, with the spread of its rounds from 10 % on; a dash for what was not measured."""
    if figure is None:
        return "-"
    spread = spread_ratio(figure.rounds)
    return form.format(figure.value) + (f" (±{spread / 2:.0%})" if spread >= 0.1 else "")


def table(figures: Sequence[Figure], columns: Sequence[tuple[str, str, str]] = COLUMNS) -> str:
    """One row a measure, one column a variant, measures without a figure left out."""
    variants = list(dict.fromkeys(figure.variant for figure in figures))
    variants.sort(key=lambda name: (name != DIRECT, name != DISK))
    found = {(figure.variant, figure.measure): figure for figure in figures}
    lines = ["| | " + " | ".join(variants) + " |", "|---" * (len(variants) + 1) + "|"]
    for measure, title, form in columns:
        row = [found.get((variant, measure)) for variant in variants]
        if any(row):
            lines.append(f"| {title} | " + " | ".join(cell(figure, form) for figure in row) + " |")
    return "\n".join(lines)


def paired(figures: Sequence[Figure], variant: str, base: str) -> str:
    """Lines that say what `variant` costs of `base`, by rounds that were measured next to each other."""
    found = {(figure.variant, figure.measure): figure for figure in figures}
    titles = {measure: title for measure, title, _ in COLUMNS}
    lines = []
    for measure in _PAIRED:
        one, other = found.get((variant, measure)), found.get((base, measure))
        if one is not None and other is not None:
            ratio = paired_ratio(one.rounds, other.rounds)
            lines.append(f"- {titles[measure]}: {ratio - 1:+.1%}")
    one, other = found.get((variant, _LATENCY)), found.get((base, _LATENCY))
    if one is not None and other is not None:
        lines.append(f"- {titles[_LATENCY]}: {one.value - other.value:+.2f} ms")
    return "\n".join(lines)


def markdown(results: Results, pairs: Sequence[tuple[str, str]], title: str = "What a request costs") -> str:
    """The whole page. `pairs` are (variant, base) names to compare round by round."""
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    parts = [
        f"# {title}\n",
        f"Made by `{machine.command}`; do not edit. {machine.date}, commit {machine.commit}.\n",
        f"{machine.cpu}, {machine.cores} cores, Linux {machine.kernel}, Python {machine.python}; {packages}.\n",
        f"Load average before the run: {machine.load_average}.\n",
        table(results.figures) + "\n",
        _LEGEND,
    ]
    for variant, base in pairs:
        lines = paired(results.figures, variant, base)
        if lines:
            parts.append(f"## {variant}, against {base}\n\n{lines}\n")
    if results.signals:
        parts.append(f"## What each signal costs\n\n{signals.section(results.signals)}\n")
    if results.accounting:
        parts.append(f"## Accounting alone\n\n{table(results.accounting, ACCOUNTING_COLUMNS)}\n\n{_ALONE}")
    return "\n".join(parts)


_ALONE = """\
Admitting, pricing and settling a request on an SQLite ledger without HTTP, the ledger's thread included (`python -m
bench.accounting`). Under a hard budget an admission waits until its hold is on the disk, so it takes what the disk takes.
"""
_LEGEND = """\
Medians of interleaved rounds; (±n %) is half the distance from the lowest to the highest round, shown from 5 % on.
The process under measurement has one core; load, mock provider (0 ms) and OTLP sink share another. CPU is user + system
time of the process and its children. Requests of 664 bytes, replies of 787; streams: 50 at a time, 50 events/s each,
CPU of opening them included; event delay is from the provider's write to the caller's read. Latencies are whole, so
what is added is the distance from the first column. "All signals": spans over OTLP, metrics, a JSON log line a request;
"metrics only" has no others. A share of the core well below 100 % at 64 connections means that other work ran on
the machine: requests/s and latencies then say little, CPU a request still does. A hard budget waits for the disk: its p99
contains that of the column beside "direct", which is a write and an fdatasync at the same rate. Fewer spans a request than the gateway makes means that its queue overflowed.
"""
