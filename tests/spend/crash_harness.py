"""Kills ledger writers under load and reconciles what is left with what the upstream served.

A program of its own: it imports everything once and forks a writer for each kill. The upstream is a file that the
writer appends to when it "sends" a request, before it knows what happens next; that file and the ledger are all that
survives. Prints one JSON object.

    python -m tests.spend.crash_harness sqlite:///tmp/x/ledger.db --kills 25 --seed 1
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import gateway.store.sql as sql_module
from gateway.config.money import BudgetFile, LedgerFile, PriceFile, Window
from gateway.spend.budgets import BudgetBook
from gateway.spend.ledger import Accounts
from gateway.spend.prices import PriceBook, PriceData
from gateway.spend.settle import ChargeFacts, Ending
from gateway.store.postgres import open_postgres
from gateway.store.spec import LEASE, Entry, LedgerStore, Payer
from gateway.store.sqlite import open_sqlite
from gateway.types.errors import PolicyError
from gateway.types.records import Basis
from gateway.types.route import Operation
from gateway.types.secret import Secret
from gateway.types.usage import Usage

LABELS = ("before_commit", "in_transaction", "after_commit", "before_send", "after_send", "after_settle", "in_close")
PAYER = Payer(team="red", key_id="", route="chat", provider="p", model="m")
PRICES = PriceBook(
    PriceData(providers={}, version="none", as_of=date(2026, 1, 1)),
    (PriceFile(model="m", input_usd_per_mtok=Decimal("0.001"), output_usd_per_mtok=Decimal("0.01")),),
)
HELD = 100 + 16 + 64 + 50 * 10


class Clock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


def budgets(limit: int) -> list[BudgetFile]:
    """One hard budget that never resets, in nano-dollars."""
    return [BudgetFile(name="b", amount_usd=Decimal(limit) / 10**9, window=Window.NONE)]


def opener(where: str, node: str) -> Callable[[], LedgerStore]:
    """How to open the ledger."""
    if where.startswith("sqlite://"):
        return lambda: open_sqlite(Path(where.removeprefix("sqlite://")), node)
    return lambda: open_postgres(Secret(where), node)


class Death:
    """Kills this process at the nth time that a label is reached."""

    def __init__(self, label: str, count: int) -> None:
        self._label = label
        self._left = count

    def at(self, label: str) -> None:
        if label == self._label:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def deadly(store: LedgerStore, death: Death) -> LedgerStore:
    """The store, with deaths around and inside its transactions."""
    inner: Any = store
    transaction, write = inner._sql.transaction, sql_module.SqlLedgerStore._write

    @contextlib.contextmanager
    def dying(*, durable: bool, snapshot: bool = False) -> Iterator[None]:
        with transaction(durable=durable, snapshot=snapshot):
            yield
            death.at("before_commit")
        death.at("after_commit")

    def half(work: Any) -> None:
        death.at("in_transaction")
        write(inner, work)

    inner._sql.transaction = dying
    inner._write = half
    return store


async def work(
    where: str, node: str, limit: int, upstream: int, death: Death, callers: int, each: int, settles: bool = True
) -> None:
    """Serve requests until killed or done; what is sent is written to `upstream` first."""
    accounts = Accounts(
        lambda: deadly(opener(where, node)(), death), PRICES, BudgetBook(budgets(limit)), LedgerFile(), Clock()
    )
    await accounts.start()
    owner = await accounts.call(lambda store: store.owner)

    async def caller(number: int) -> None:
        for i in range(each):
            facts = ChargeFacts(
                request_id=f"{owner}-{number}-{i}", attempt=1, payer=PAYER, operation=Operation.CHAT,
                input_bytes=100, max_tokens=50,
            )  # fmt: skip
            try:
                hold = await accounts.admit(facts)
            except PolicyError:
                continue
            death.at("before_send")
            output = (number * 7 + i) % 51
            drawn = int(hold is not None and hold.lease is not None)
            os.write(upstream, f"{facts.request_id} {100 + 10 * output} {drawn}\n".encode())
            death.at("after_send")
            await asyncio.sleep(0)
            if not settles:
                continue
            usage = Usage(input_tokens=100, output_tokens=output)
            cost, billed = accounts.price(facts, Ending.COMPLETE, usage, at_ns=time.time_ns())
            accounts.settle(hold, facts, cost, billed, started_ns=time.time_ns())
            death.at("after_settle")

    await asyncio.gather(*(caller(number) for number in range(callers)))
    death.at("in_close")
    await accounts.close()


def fork(run: Callable[[], Any]) -> int:
    """Run something in a child; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run()
        code = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        os._exit(code)


def reconcile(where: str, served: Path, limit: int) -> dict[str, int]:
    """Compare the ledger with what the upstream served; what is wrong is counted."""
    store = opener(where, "reconcile" if "://" not in where else "w")()
    orphans = store.sweep(time.time_ns())
    wrong = store.rebuild()
    entries = list(store.entries())
    by_id = {entry.request_id: entry for entry in entries}
    lines = [line.split() for line in served.read_text().splitlines()]
    sent = {name: cost for name, cost, _ in lines}
    # What left a node's slice of the budget shortly before its death has no line of its own: the slice is charged.
    leases, covered = _by_owner(entries, sent)
    lost = sum(len(costs) for owner, costs in covered.items() if sum(costs) > leases.get(owner, 0))
    mispriced = sum(
        1
        for name, cost in sent.items()
        if name in by_id and by_id[name].nano_usd != (HELD if by_id[name].basis is Basis.ORPHAN else int(cost))
    )
    # A hold that was on disk when its process died before sending is charged too: nobody can know that it was not sent.
    invented = sum(1 for name, entry in by_id.items() if name not in sent and entry.basis is not Basis.ORPHAN)
    spent = sum(entry.nano_usd or 0 for entry in entries)
    counted = sum(row.spent_nano_usd for row in store.counters())
    held = sum(row.held_nano_usd for row in store.counters())
    store.close()
    return {
        "served": len(sent),
        "orphans": orphans,
        "drawn": sum(drawn == "1" for _, _, drawn in lines),
        "leases_charged": len(leases),
        "covered": sum(len(costs) for costs in covered.values()),
        "lost": lost,
        "doubled": len(entries) - len(by_id),
        "mispriced": mispriced,
        "invented": invented,
        "overspent": max(0, spent - limit),
        "wrong_counters": wrong,
        "difference": abs(spent - counted) if counted else 0,
        "held": held,
    }


def _by_owner(entries: list[Entry], sent: dict[str, str]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """By start of a process: what its leases were charged, and the costs of what it sent that has no line."""
    leases: dict[str, int] = {}
    for entry in entries:
        if entry.attempt == LEASE:
            owner = entry.request_id.removeprefix("lease-").rsplit("-", 1)[0]
            leases[owner] = leases.get(owner, 0) + (entry.nano_usd or 0)
    named = {entry.request_id for entry in entries}
    covered: dict[str, list[int]] = {}
    for name, cost in sent.items():
        if name not in named:
            covered.setdefault(name.rsplit("-", 2)[0], []).append(int(cost))
    return leases, covered


def kill_many(where: str, kills: int, seed: int, seconds: float) -> dict[str, int]:
    """Fork a writer, kill it at a label or at a random moment, reconcile; again and again, on one ledger.

    As often as `kills`, or until `seconds` are over.
    """
    rounds = _rounds(kills, seconds)
    rng = random.Random(seed)
    served = Path(where.removeprefix("sqlite://") + ".served") if "://" in where else Path(f"/tmp/served-{os.getpid()}")
    served.write_bytes(b"")
    limit = HELD * 120 * kills
    total = dict.fromkeys(
        ("lost", "doubled", "mispriced", "invented", "overspent", "wrong_counters", "difference", "held"), 0
    )
    killed = orphans = 0

    def add(result: dict[str, int]) -> None:
        nonlocal orphans
        orphans += result["orphans"]
        for name in total:
            total[name] += result[name]

    round_ = 0
    for round_ in rounds:
        label = LABELS[round_ % len(LABELS)] if round_ % 2 else ""
        death = Death(label, rng.randrange(1, 60) if label != "in_close" else 1)
        upstream = os.open(served, os.O_WRONLY | os.O_APPEND)
        child = fork(lambda: asyncio.run(work(where, "w", limit, upstream, death, callers=20, each=20)))  # noqa: B023
        os.close(upstream)
        if not label:
            time.sleep(rng.random() * 0.05)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise SystemExit(f"a writer failed by itself, status {status}")
        # Reading the whole ledger after each kill would take longer than the kills.
        if round_ % max(1, kills // 50) == 0:
            add(reconcile(where, served, limit))
    result = reconcile(where, served, limit)
    add(result)
    last = {name: result[name] for name in ("served", "leases_charged", "covered")}
    return {"rounds": round_ + 1, "kills": killed, "orphans": orphans} | last | total


def _rounds(count: int, seconds: float) -> Iterator[int]:
    began_s = told_s = time.monotonic()
    for number in range(count):
        now_s = time.monotonic()
        if number and now_s - began_s >= seconds:
            return
        if now_s - told_s >= 5:
            told_s = now_s
            print(f"{number:,} of {count:,} kills in {now_s - began_s:,.0f} of {seconds:,.0f} s", file=sys.stderr)
        yield number


def share_one_budget(where: str, processes: int, callers: int, each: int, settles: bool) -> dict[str, int]:
    """Callers in several processes on one budget with room for a third of what they ask for, one after the other.

    If nothing is settled, exactly as many are admitted as there is room for.
    """
    served = Path(f"/tmp/served-{os.getpid()}")
    served.write_bytes(b"")
    room = processes * callers * each // 3
    limit = HELD * room
    upstream = os.open(served, os.O_WRONLY | os.O_APPEND)
    never = Death("", 1)
    children = [
        fork(lambda n=n: asyncio.run(work(where, f"n{n}", limit, upstream, never, callers, each, settles)))  # type: ignore[misc]
        for n in range(processes)
    ]
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    os.close(upstream)
    result = reconcile(where, served, limit)
    served.unlink()
    return result | {"failed_processes": failed, "room": room}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("where")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--callers", type=int, default=250)
    parser.add_argument("--each", type=int, default=1, help="requests of each caller, one after the other")
    parser.add_argument("--keep-open", action="store_true", help="no request ever ends")
    given = parser.parse_args()
    if given.kills:
        print(json.dumps(kill_many(given.where, given.kills, given.seed, given.seconds)))
    else:
        print(
            json.dumps(share_one_budget(given.where, given.processes, given.callers, given.each, not given.keep_open))
        )


if __name__ == "__main__":
    main()
