"""What each signal costs a request: gateways that differ in one signal, measured next to each other.

Metrics cannot be turned off, so every gateway counts; what counting costs is measured by itself, in this process.

    python -m bench.signals [--quick]     # prints the table that `python -m bench` puts into RESULTS.md
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.rounds import Figure, Plan, Rounds
from bench.statistics import median, paired_difference, percentile
from bench.variants import Variant, gateway
from gateway.telemetry.cells import Block
from gateway.telemetry.metrics import Metrics
from gateway.types.errors import Outcome
from gateway.types.records import (
    AttemptKind,
    AttemptRecord,
    Basis,
    Caller,
    Cost,
    Phases,
    RequestRecord,
    TraceContext,
)
from gateway.types.route import Operation, RouteType
from gateway.types.usage import Usage

FULL = Plan(rounds=6, starts=1, loop_s=2.0, rate_s=0.0, stream_s=4.0, accounting_s=0.0, extras=False)
QUICK = Plan(rounds=2, starts=1, loop_s=1.0, rate_s=0.0, stream_s=1.0, accounting_s=0.0, extras=False)
MOST_US_A_REQUEST = 120.0
MOST_US_A_CHUNK = 3.0
BASE = "counting alone"
ALL = "all signals: log line, OTLP spans"
_OTHERS: Mapping[str, tuple[str, dict[str, str], bool]] = {
    "log line": ("log_requests: true", {}, False),
    "OTLP spans, two a request": ("log_requests: false, http_spans: off", {}, True),
    "OTLP spans, three a request": ("log_requests: false, http_spans: light", {}, True),
    "OTLP spans, the third by opentelemetry-instrumentation-httpx": (
        "log_requests: false, http_spans: instrumented", {}, True,
    ),
    "OTLP logs": ("log_requests: false", {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "none"}, True),
    "OTLP metrics, each second": (
        "log_requests: false",
        {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "1000", "OTEL_TRACES_EXPORTER": "none"},
        True,
    ),
}  # fmt: skip
"""What differs, by name: the `telemetry` section, variables, and whether there is a collector."""


def variants(folder: Path, upstream: str) -> list[Variant]:
    """The base, all signals, and each signal alone. Only the first two are measured with streams."""
    off, on = (gateway(folder, upstream, telemetry=telemetry, label="signals") for telemetry in (False, True))
    made = [replace(off, name=BASE), replace(on, name=ALL)]
    for number, (name, (section, env, collector)) in enumerate(_OTHERS.items()):
        config = folder / f"signal-{number}.yaml"
        base = Path(off.command[off.command.index("--config-path") + 1])
        config.write_text(
            base.read_text().replace("  log_requests: false", f"  {section.replace(', ', chr(10) + '  ')}")
        )
        command = [str(config) if word == str(base) else word for word in off.command]
        traces = "otlp" if collector and "OTEL_TRACES_EXPORTER" not in env else "none"
        command[command.index("--traces") + 1] = traces
        made.append(
            replace(off, name=name, command=tuple(command), env=env, sink=collector, requests_only=True),
        )
    return made


def counting_us(records: int = 20_000) -> float:
    """CPU microseconds of counting one finished request in all families, exemplars included; the median of 5."""
    metrics, record = Metrics(Block.private()), _record()
    taken = []
    for _ in range(5):
        began_s = time.process_time()
        for _ in range(records):
            metrics.record(record)
        taken.append((time.process_time() - began_s) / records * 1e6)
    return median(taken)


def measure(plan: Plan, folder: Path) -> list[Figure]:
    """Figures of the variants, and of counting."""
    with Rounds(plan, folder) as rounds:
        rounds.start(variants(folder, rounds.upstream))
        figures = uvloop.run(rounds.measure())
    return [Figure("counting itself", "cpu_us_chat_64", [counting_us()]), *figures]


def section(figures: Sequence[Figure]) -> str:
    """The table: what is added to the base, round by round, and the two budgets."""
    found = {(figure.variant, figure.measure): figure for figure in figures}
    base = found[BASE, "cpu_us_chat_64"]
    lines = ["| signal | CPU us a request | of the rounds, the middle half |", "|---|---|---|"]
    counted = found["counting itself", "cpu_us_chat_64"].value
    lines.append(f"| metrics (in every gateway; timed by itself) | {counted:.0f} | |")
    for name in [*_OTHERS, ALL]:
        added = paired_difference(found[name, "cpu_us_chat_64"].rounds, base.rounds)
        middle = f"{percentile(added, 0.25):+.0f} to {percentile(added, 0.75):+.0f}"
        lines.append(f"| {name} | {median(added):+.0f} | {middle} |")
    request_us = counted + median(paired_difference(found[ALL, "cpu_us_chat_64"].rounds, base.rounds))
    chunk = paired_difference(found[ALL, "cpu_us_event"].rounds, found[BASE, "cpu_us_event"].rounds)
    budgets = (
        f"- All telemetry: {request_us:+.0f} us a request (at most {MOST_US_A_REQUEST:.0f} is allowed).\n"
        f"- All signals, against metrics alone: {median(chunk):+.1f} us a streamed chunk (at most {MOST_US_A_CHUNK:.0f} "
        f"is allowed; the rounds' middle half is {percentile(chunk, 0.25):+.1f} to {percentile(chunk, 0.75):+.1f})."
    )
    first = f"A request without any but metrics takes {base.value:.0f} us.\n"
    return "\n".join([first, *lines, "", budgets])


def _record() -> RequestRecord:
    now_ns = time.time_ns()
    attempt = AttemptRecord(
        number=1,
        kind=AttemptKind.FIRST,
        operation=Operation.CHAT,
        provider="openai",
        gen_ai_provider="openai",
        request_model="gpt-4o-mini",
        server_address="api.openai.com",
        server_port=443,
        span_id=2,
        start_ns=now_ns,
        end_ns=now_ns,
        duration_s=0.5,
        outcome=Outcome.OK,
        status_code=200,
        usage=Usage(input_tokens=119, output_tokens=42),
        cost=Cost(nano_usd=43_050, basis=Basis.PROVIDER_USAGE),
        response_model="gpt-4o-mini-2024-07-18",
        finish_reasons=("stop",),
        first_byte_s=0.4,
    )
    return RequestRecord(
        request_id="req_1",
        trace=TraceContext(trace_id=1, span_id=1, sampled=True),
        caller=Caller(team="search", key_id="key_1"),
        method="POST",
        path_template="/gateway/{route}/invocations",
        scheme="http",
        server_address="127.0.0.1",
        server_port=5000,
        route="chat",
        route_type=RouteType.CHAT.value,
        outcome=Outcome.OK,
        status_code=200,
        start_ns=now_ns,
        end_ns=now_ns,
        duration_s=0.51,
        phases=Phases(admit_s=0.001, encode_s=0.0002, upstream_s=0.5, settle_s=0.003, caller_s=0.004),
        attempts=(attempt,),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.signals", description="What each signal costs.")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        print(section(measure(QUICK if options.quick else FULL, folder)))


if __name__ == "__main__":
    main()
