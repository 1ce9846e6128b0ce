"""What accounting costs by itself: admit, price and settle on a real ledger file, with no HTTP around it.

Two loads for each kind of budget: callers that come at a steady rate, as requests do, for the CPU of a request (the
ledger's thread included, the same loop without accounts taken off); and one caller alone, for the latency of admission.

    python -m bench.accounting --budget hard --folder DIR     # prints one JSON object
    python -m bench.accounting --budget hard --folder DIR --postgres "host=db dbname=ledger"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import uvloop

from bench import disk
from bench.statistics import percentile
from bench.variants import ROOT
from gateway.cli import SystemClock
from gateway.config.money import BudgetFile, Enforcement, LedgerFile, ScopeFile
from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts
from gateway.spend.opening import open_ledger
from gateway.spend.prices import PriceBook, packaged_prices
from gateway.spend.settle import ChargeFacts, Ending
from gateway.store.spec import Payer
from gateway.types.route import Operation
from gateway.types.secret import Secret
from gateway.types.usage import Usage

BUDGETS = ("none", "soft", "hard")
CALLERS = 64
RATE_PER_S = 1_600
_PAYER = Payer(team="red", key_id="k", route="chat", provider="openai", model="gpt-4o-mini")
_USAGE = Usage(input_tokens=1_000, output_tokens=200, cache_read_tokens=400)


class Accounting(msgspec.Struct, frozen=True):
    """One run of one kind of budget. CPU of a request in microseconds, latencies of admission in milliseconds."""

    cpu_us: float
    admit_p50_ms: float
    admit_p99_ms: float
    admit_p99_ms_loaded: float
    """While requests come at RATE_PER_S."""
    sync_p99_ms: float
    """What the disk takes to keep 16 KiB (fdatasync), without a ledger: a hold waits for one of these."""


def budgets(kind: str) -> list[BudgetFile]:
    """A budget over everything and one for each team, with room for all; none for `none`."""
    if kind == "none":
        return []
    enforcement = Enforcement(kind)
    amount = Decimal(1_000_000)
    return [
        BudgetFile(name="all", amount_usd=amount, enforcement=enforcement),
        BudgetFile(name="teams", amount_usd=amount, enforcement=enforcement, scope=ScopeFile(team="*")),
    ]


async def _paced(requests: int, one: Callable[[str], Awaitable[None]]) -> float:
    """Run `one` at RATE_PER_S from CALLERS tasks; the CPU seconds of the whole process."""
    gap_s = CALLERS / RATE_PER_S
    rng = random.Random(1)

    async def caller(number: int) -> None:
        await asyncio.sleep(rng.random() * gap_s)
        for turn in range(requests // CALLERS):
            await one(f"{number}-{turn}")
            await asyncio.sleep(gap_s)

    began_s = time.process_time()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return time.process_time() - began_s


async def _nothing(name: str) -> None:
    del name


async def measure(kind: str, folder: Path, seconds: float, postgres: Secret | None = None) -> Accounting:
    """Measure one kind of budget for about three times `seconds`, on a new ledger in `folder` or one in PostgreSQL."""
    clock = SystemClock()
    prices = PriceBook(packaged_prices(datetime.now(UTC).date()))
    book = BudgetBook(budgets(kind))
    config = LedgerFile(path=str(folder / f"{kind}.db"), postgres=postgres)
    accounts = Accounts(lambda: open_ledger(config, folder, os.environ), prices, book, config, clock)
    await accounts.start()
    waits_s: list[float] = []

    async def one(name: str) -> None:
        facts = ChargeFacts(
            request_id=f"{clock.now_ns()}-{name}", attempt=1, payer=_PAYER, operation=Operation.CHAT, input_bytes=4_000, messages=3,
            max_tokens=200,
        )  # fmt: skip
        began_s = time.perf_counter()
        hold = await accounts.admit(facts)
        waits_s.append(time.perf_counter() - began_s)
        now_ns = clock.now_ns()
        cost, usage = accounts.price(facts, Ending.COMPLETE, _USAGE, at_ns=now_ns)
        accounts.settle(hold, facts, cost, usage, started_ns=now_ns)

    await one("warm-up")
    await accounts.flush()
    requests = int(RATE_PER_S * seconds)
    empty_s = await _paced(requests, _nothing)
    waits_s.clear()
    busy_s = await _paced(requests, one)
    loaded_s = waits_s.copy()
    waits_s.clear()
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        await one(f"alone-{len(waits_s)}")
        # What was settled is on disk before the next one comes: each meets a ledger at rest.
        await accounts.flush()
    await accounts.close()
    return Accounting(
        cpu_us=(busy_s - empty_s) / len(loaded_s) * 1e6,
        admit_p50_ms=percentile(waits_s, 0.5) * 1e3,
        admit_p99_ms=percentile(waits_s, 0.99) * 1e3,
        admit_p99_ms_loaded=percentile(loaded_s, 0.99) * 1e3,
        sync_p99_ms=percentile(disk.sync_s(folder, 300), 0.99) * 1e3,
    )


def run(kind: str, folder: Path, seconds: float, cores: set[int]) -> Accounting:
    """Measure in a process of its own, on given cores. RuntimeError when it fails."""
    command = [
        *(sys.executable, "-m", "bench.accounting", "--budget", kind),
        *("--folder", str(folder), "--seconds", str(seconds)),
    ]
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"bench.accounting ended with {done.returncode}: {done.stderr[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Accounting)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.accounting", description="Accounting alone.")
    parser.add_argument("--budget", choices=BUDGETS, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the ledger is made, on the disk to measure")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--postgres", type=Secret, help="a connection string: measure on PostgreSQL")
    options = parser.parse_args()
    found = uvloop.run(measure(options.budget, options.folder, options.seconds, options.postgres))
    print(json.dumps(msgspec.to_builtins(found)))


if __name__ == "__main__":
    main()
