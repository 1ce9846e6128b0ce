"""Plausible traffic for looking at the boards before, or without, a gateway: every family of the catalogue with values.

    python -m dashboards.sample backfill --hours 6 --out samples.txt   # OpenMetrics, for promtool tsdb create-blocks-from
    python -m dashboards.sample serve --port 9465                      # a live /metrics

The traffic has a day's shape, four teams, five providers, budgets, and in its last 40 minutes a slow, failing provider.
It is made from a seeded generator: the same arguments give the same series.
"""

import argparse
import math
import random
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from gateway.telemetry import names
from gateway.telemetry.metric import Kind, Metric
from gateway.telemetry.names import CATALOGUE
from gateway.types.errors import ErrorType

Labels = tuple[str, ...]
JOB = "gaugeway"
FAULT_S = 2_400.0
FAULTY = "groq"


class Target(Struct, frozen=True):
    """One simulated (route, provider, model) with its prices in US dollars per million tokens."""

    route: str
    route_type: str
    provider: str
    gen_ai: str
    model: str
    first_chunk_s: float
    per_token_s: float
    input_price: float
    output_price: float
    weight: float


TARGETS = (
    Target("chat", "llm/v1/chat", "openai", "openai", "gpt-4o", 0.42, 0.012, 2.5, 10.0, 4),
    Target("chat", "llm/v1/chat", "anthropic", "anthropic", "claude-sonnet-4", 0.7, 0.016, 3.0, 15.0, 2),
    Target("support", "llm/v1/chat", "groq", "groq", "llama-3.3-70b", 0.18, 0.004, 0.59, 0.79, 4),
    Target("support", "llm/v1/chat", "mistral", "mistral_ai", "mistral-small", 0.3, 0.009, 0.1, 0.3, 2),
    Target("completions", "llm/v1/completions", "vllm", "vllm", "smollm2", 0.06, 0.011, 0.0, 0.0, 1),
    Target("embeddings", "llm/v1/embeddings", "openai", "openai", "text-embedding-3-small", 0.11, 0.0, 0.02, 0.0, 4),
)
TEAMS = {"search": 5, "support": 4, "growth": 2, "research": 1}
BUDGETS = {"search-month": ("team=search", "month", 1_900.0), "support-day": ("team=support", "day", 60.0), "all-month": ("global", "month", 8_000.0)}  # fmt: skip
REFUSALS = ((ErrorType.RATE_LIMITED, 0.006), (ErrorType.UNAUTHENTICATED, 0.004), (ErrorType.INVALID_REQUEST, 0.008))


class Histogram:
    """Cumulative buckets of one series, with the last trace id seen in each bucket."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[str, float]] = {}

    def observe(self, value: float, trace: str = "") -> None:
        """Count one value in its bucket."""
        index = bisect_left(self.bounds, value)
        self.counts[index] += 1
        self.total += value
        if trace:
            self.exemplars[index] = (trace, value)


class Traffic:
    """The state of every series, moved on by `advance`."""

    def __init__(self, rng: random.Random, fault_at: float) -> None:
        self._rng = rng
        self._fault_at = fault_at
        self.numbers: dict[tuple[str, Labels], float] = {}
        self.histograms: dict[tuple[str, Labels], Histogram] = {}
        self._budget_start: dict[str, int] = {}
        self._start = 0.0
        self._seen = 0.0
        self._cpu = 0.0

    def advance(self, now: float, seconds: float) -> None:
        """Serve the requests that arrive in `seconds` before `now` (seconds since the epoch)."""
        if not self._start:
            self._start = self._seen = now
            self._seed(now)
        rng = self._rng
        day = 0.75 + 0.25 * math.sin((now / 86_400 - 0.3) * 2 * math.pi)
        for _ in range(round(seconds * 3.0 * day * rng.uniform(0.8, 1.2))):
            self._request(now)
        self._gauges(now, seconds, day)

    def _seed(self, now: float) -> None:
        for metric in CATALOGUE:
            if not metric.labels and metric.kind is Kind.COUNTER:
                self._add(metric, (), 0.0)
        self._set(names.BUILD_INFO, ("0.1.0", "3.11.14"), 1.0)
        self._set(names.CONFIG_RELOAD_TIMESTAMP, (), now)
        self._set(names.CONFIG_RELOAD_SUCCESSFUL, (), 1.0)
        self._set(names.WORKERS, (), 2.0)
        self._add(names.EXPORT_ERRORS, ("traces",), 0.0)
        for reason in ("queue_full", "export_failed", "shutdown"):
            self._add(names.SPANS_DROPPED, (reason,), 0.0)
            self._add(names.LOG_LINES_DROPPED, ("log", reason), 0.0)
        for budget, (scope, window, limit) in BUDGETS.items():
            self._add(names.BUDGET_SPENT, (budget, scope, window), 0.62 * limit if window == "month" else 0.0)
        for sink in ("metrics", "spans", "log", "ledger"):
            self._add(names.SINK_ERRORS, (sink,), 0.0)
        self._add(names.LABEL_OVERFLOW, (names.REQUESTS.name,), 0.0)

    def _request(self, now: float) -> None:
        rng = self._rng
        target = rng.choices(TARGETS, [one.weight for one in TARGETS])[0]
        team = rng.choices(list(TEAMS), list(TEAMS.values()))[0]
        if target.route == "support" and rng.random() < 0.7:
            team = "support"
        trace = f"{rng.getrandbits(128):032x}"
        refusal = rng.random()
        for error, probability in REFUSALS:
            if refusal < probability:
                self._finish(target, team, 0.002, trace, error)
                return
            refusal -= probability
        spent_s = 0.0
        for kind in ("first", "retry", "fallback"):
            served = target if kind != "fallback" else TARGETS[0]
            took, failure = self._attempt(served, team, kind, trace, now)
            spent_s += took
            if failure is None or rng.random() < 0.2:
                self._finish(target, team, spent_s, trace, failure)
                return
        self._finish(target, team, spent_s, trace, ErrorType.PROVIDER_ERROR)

    def _attempt(self, target: Target, team: str, kind: str, trace: str, now: float) -> tuple[float, ErrorType | None]:
        rng = self._rng
        faulty = target.provider == FAULTY and now >= self._fault_at
        failure: ErrorType | None = None
        roll = rng.random()
        if roll < (0.35 if faulty else 0.01):
            failure = rng.choice(
                (ErrorType.PROVIDER_OVERLOADED, ErrorType.PROVIDER_RATE_LIMITED, ErrorType.FIRST_BYTE_TIMEOUT)
            )
        slow = rng.lognormvariate(0, 0.45) * (9.0 if faulty else 1.0)
        inputs = int(rng.lognormvariate(6.2, 0.8))
        outputs = 0 if target.route == "embeddings" else int(rng.lognormvariate(5.0, 0.7))
        per_token = target.per_token_s * rng.lognormvariate(0, 0.2)
        first = target.first_chunk_s * slow
        took = 10.0 if failure is ErrorType.FIRST_BYTE_TIMEOUT else first + outputs * per_token
        error = failure.value if failure else ""
        gen_ai = (
            {"llm/v1/chat": "chat", "llm/v1/completions": "text_completion"}.get(target.route_type, "embeddings"),
            target.gen_ai, target.model, target.model, f"api.{target.provider}.com", "443", error, target.route,
        )  # fmt: skip
        attempt = (target.route, target.provider, target.model, kind)
        self._add(names.ATTEMPTS, (*attempt, failure.outcome.value if failure else "ok", error), 1)
        self._observe(names.OPERATION_DURATION, gen_ai, took, trace)
        if failure is not None:
            return took, failure
        self._observe(names.ATTEMPT_PHASE, (*attempt[:3], "first_byte"), first * 0.9)
        if rng.random() < 0.05:
            self._observe(names.ATTEMPT_PHASE, (*attempt[:3], "connect"), 0.03 * slow)
        if outputs:
            self._observe(names.ATTEMPT_PHASE, (*attempt[:3], "stream"), outputs * per_token)
            self._observe(names.TIME_TO_FIRST_CHUNK, gen_ai, first, trace)
            self._observe(names.TIME_PER_OUTPUT_CHUNK, gen_ai, per_token)
        self._usage(target, team, gen_ai, inputs, outputs)
        return took, None

    def _usage(self, target: Target, team: str, gen_ai: Labels, inputs: int, outputs: int) -> None:
        payer = (target.route, team, target.provider, target.model)
        cached = int(inputs * 0.6) if target.provider == "anthropic" else 0
        estimated = self._rng.random() < 0.02
        counts = (("input", inputs), ("output", outputs), ("cache_read", cached), ("reasoning", outputs // 5))
        for kind, count in counts:
            if count:
                self._add(names.TOKENS, (*payer, kind, "estimated" if estimated else "provider"), count)
                if kind in {"input", "output"}:
                    self._observe(names.TOKEN_USAGE, (*gen_ai, kind), count)
        if target.provider == "anthropic" and outputs % 50 == 0:
            self._add(names.UNPRICED_PARTS, (target.provider, target.model, "service_tier"), 1)
        if target.provider == "vllm":
            self._add(names.UNPRICED_TOKENS, (target.provider, target.model), inputs + outputs)
            return
        # A cached token costs a tenth; one in ten of the others was written to the cache, at a quarter more.
        saved = cached * 0.9 * target.input_price / 1e6
        surcharge = (inputs - cached) * 0.1 * 0.25 * target.input_price / 1e6 if cached else 0.0
        if cached:
            self._add(names.CACHE_SAVED, payer, saved)
            self._add(names.CACHE_SURCHARGE, payer, surcharge)
        cost = (inputs * target.input_price + outputs * target.output_price) / 1e6 - saved + surcharge
        self._add(names.COST, (*payer, "estimated" if estimated else "provider_usage"), cost)
        for budget, (scope, window, _) in BUDGETS.items():
            if scope in {"global", f"team={team}"}:
                self._add(names.BUDGET_SPENT, (budget, scope, window), cost)

    def _finish(self, target: Target, team: str, spent_s: float, trace: str, error: ErrorType | None) -> None:
        outcome = error.outcome.value if error else "ok"
        labels = (target.route, target.route_type)
        self._add(names.REQUESTS, (*labels, team, outcome, error.value if error else ""), 1)
        overhead = 0.0
        for phase, typical in (("admit", 0.0001), ("encode", 0.0002), ("settle", 0.0003)):
            took = typical * self._rng.lognormvariate(0, 0.7)
            overhead += took
            self._observe(names.OVERHEAD, (target.route, phase), took)
        self._observe(names.CALLER_WAIT, (target.route,), 0.0004 * self._rng.lognormvariate(0, 1.2))
        overhead += 0.0005 * self._rng.lognormvariate(0, 0.7)
        self._observe(names.OVERHEAD, (target.route, "total"), overhead)
        self._observe(names.REQUEST_DURATION, (*labels, outcome), spent_s + overhead, trace)

    def _gauges(self, now: float, seconds: float, day: float) -> None:
        rng = self._rng
        for route in {target.route for target in TARGETS}:
            self._set(names.REQUESTS_IN_FLIGHT, (route,), rng.randint(0, round(6 * day)))
        for target in TARGETS:
            faulty = target.provider == FAULTY and now >= self._fault_at
            place = (target.provider, target.model)
            self._set(names.CIRCUIT_STATE, place, rng.choice((0, 1, 2, 2)) if faulty else 0)
            self._set(names.RATELIMIT_REMAINING, (*place, "requests"), 20 if faulty else rng.randint(3_000, 5_000))
            self._set(names.RATELIMIT_REMAINING, (*place, "tokens"), 4_000 if faulty else rng.randint(200_000, 400_000))
        for budget, (scope, window, limit) in BUDGETS.items():
            length = 86_400 if window == "day" else 30 * 86_400
            at = (budget, scope, window)
            started = int(now // length)
            if self._budget_start.setdefault(budget, started) != started:
                self._budget_start[budget] = started
                self._set(names.BUDGET_SPENT, at, 0.0)
            self._set(names.BUDGET_LIMIT, at, limit)
            self._set(names.BUDGET_HELD, at, rng.uniform(0, limit / 200))
            self._set(names.BUDGET_RESETS, at, (started + 1) * length)
            self._add(names.BUDGET_SPENT, at, 0.0)
        self._set(names.PRICE_TABLE_AGE, (), 5 * 86_400 + now - self._start)
        self._set(names.LEDGER_PENDING, (), rng.randint(0, 8))
        self._set(names.QUEUE_SIZE, ("spans",), rng.randint(0, 60))
        self._set(names.QUEUE_SIZE, ("log",), rng.randint(0, 12))
        self._add(names.SPANS_EXPORTED, (), 5 * seconds)
        self._add(names.LOG_LINES_WRITTEN, ("log",), 3 * seconds)
        self._add(names.PRICE_UPDATES_REFUSED, (), 0)
        self._add(names.ALERT_DELIVERIES, ("delivered",), rng.random() < seconds / 3_600)
        self._add(names.ALERT_DELIVERIES, ("failed",), 0)
        for _ in range(max(1, round(2 * seconds / 5))):
            self._observe(names.EVENT_LOOP_LAG, (), rng.lognormvariate(-7.6, 0.8))
            self._observe(names.LEDGER_COMMIT, (), rng.lognormvariate(-6.0, 0.5))

    def process(self, now: float, at: str, extra: str) -> Iterator[str]:
        """What the Python client and Prometheus add to every target."""
        busy = 0.35 + 0.1 * self._rng.random()
        self._cpu += busy * max(0.0, now - self._seen)
        self._seen = now
        values = {
            "process_cpu_seconds_total": self._cpu,
            "process_resident_memory_bytes": 91e6 + 4e6 * self._rng.random(),
            "process_open_fds": self._rng.randint(40, 90),
            "process_max_fds": 1_024,
            "process_start_time_seconds": self._start,
        } | ({"up": 1, "scrape_samples_scraped": 2_100} if at else {})
        for name, value in values.items():
            yield f"{name}{_braces((), (), extra)} {value:.15g}{at}"

    def _add(self, metric: Metric, labels: Labels, amount: float) -> None:
        key = (metric.name, labels)
        self.numbers[key] = self.numbers.get(key, 0.0) + amount

    def _set(self, metric: Metric, labels: Labels, value: float) -> None:
        self.numbers[metric.name, labels] = value

    def _observe(self, metric: Metric, labels: Labels, value: float, trace: str = "") -> None:
        key = (metric.name, labels)
        found = self.histograms.get(key)
        if found is None:
            found = self.histograms[key] = Histogram(metric.buckets)
        found.observe(value, trace)

    def lines(self, metric: Metric, extra: str, at: float | None = None) -> Iterator[str]:
        """The sample lines of one family in OpenMetrics text; `extra` are further labels, `at` a timestamp (seconds)."""
        when = f" {at:.3f}" if at is not None else ""
        for (name, labels), value in self.numbers.items():
            if name == metric.name:
                yield f"{name}{_braces(metric.labels, labels, extra)} {value:.9g}{when}"
        for (name, labels), histogram in self.histograms.items():
            if name != metric.name:
                continue
            running = 0
            for index, count in enumerate(histogram.counts):
                running += count
                bound = f"{float(histogram.bounds[index])}" if index < len(histogram.bounds) else "+Inf"
                le = f'le="{bound}"'
                trace, seen = histogram.exemplars.get(index, ("", 0.0))
                tail = f' # {{trace_id="{trace}"}} {seen:.6g}' if trace and at is None else ""
                joined = f"{extra},{le}" if extra else le
                yield f"{name}_bucket{_braces(metric.labels, labels, joined)} {running}{when}{tail}"
            yield f"{name}_sum{_braces(metric.labels, labels, extra)} {histogram.total:.9g}{when}"
            yield f"{name}_count{_braces(metric.labels, labels, extra)} {running}{when}"


def _braces(label_names: Labels, values: Labels, extra: str) -> str:
    pairs = [f'{name}="{value}"' for name, value in zip(label_names, values, strict=True)]
    inner = ",".join([*pairs, extra] if extra else pairs)
    return f"{{{inner}}}" if inner else ""


def _header(metric: Metric) -> str:
    name = metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name
    return f"# TYPE {name} {metric.kind.value}\n# HELP {name} {metric.help}\n"


def exposition(traffic: Traffic) -> str:
    """The present state as OpenMetrics text, with exemplars."""
    parts = [_header(metric) + "".join(f"{line}\n" for line in traffic.lines(metric, "")) for metric in CATALOGUE]
    process = "".join(f"{line}\n" for line in traffic.process(time.time(), "", ""))
    return "".join(parts) + process + "# EOF\n"


def backfill(traffic: Traffic, out: TextIO, *, start: float, end: float, step: float) -> None:
    """Write the series from `start` to `end` (seconds since the epoch), one sample each `step` seconds.

    OpenMetrics wants a family's samples together and in order of time, so each family has its own buffer.
    """
    extra = f'job="{JOB}",instance="sample:9464"'
    kept: dict[str, list[str]] = {metric.name: [] for metric in CATALOGUE}
    process: list[str] = []
    moment = start
    while moment <= end:
        traffic.advance(moment, step)
        for metric in CATALOGUE:
            kept[metric.name].extend(traffic.lines(metric, extra, moment))
        process.extend(traffic.process(moment, f" {moment:.3f}", extra))
        moment += step
    for metric in CATALOGUE:
        out.write(_header(metric))
        out.writelines(f"{line}\n" for line in kept[metric.name])
    out.writelines(f"{line}\n" for line in sorted(process, key=lambda line: line.split("{", 1)[0]))
    out.write("# EOF\n")


def serve(traffic: Traffic, port: int) -> None:
    """Serve a live /metrics on 127.0.0.1 until interrupted, moving the traffic on as time passes."""
    lock = threading.Lock()
    last = [time.time()]

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                now = time.time()
                traffic.advance(now, now - last[0])
                last[0] = now
                body = exposition(traffic).encode()
            self.send_response(200)
            self.send_header("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Scrapes are not worth a line."""

    with ThreadingHTTPServer(("127.0.0.1", port), Metrics) as server:
        print(f"http://127.0.0.1:{server.server_port}/metrics", flush=True)
        server.serve_forever()


def main() -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.sample", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    live = commands.add_parser("serve")
    live.add_argument("--port", type=int, default=9465)
    past = commands.add_parser("backfill")
    past.add_argument("--hours", type=float, default=6.0)
    past.add_argument("--step", type=float, default=30.0)
    past.add_argument("--until", type=float, default=0.0, help="seconds before now at which the samples end")
    past.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    now = time.time()
    traffic = Traffic(random.Random(7), fault_at=now - FAULT_S)
    if options.command == "serve":
        serve(traffic, options.port)
        return 0
    end = now - options.until
    with options.out.open("w", encoding="utf-8") as out:
        backfill(traffic, out, start=end - options.hours * 3_600, end=end, step=options.step)
    return 0


if __name__ == "__main__":
    sys.exit(main())
