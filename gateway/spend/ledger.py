"""The accounts: admit an attempt, price it, settle it. What `gateway.serve` calls for money.

A request that no budget concerns passes in about a microsecond and writes its charges behind the reply. Where a hard
budget applies, `admit` returns only when the money is held on disk; `settle` never waits and can not be cancelled.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from gateway.config.money import MAX_NANO_USD, LedgerFile
from gateway.spend.budgets import BudgetBook, BudgetState, usd_text
from gateway.spend.holds import Holds
from gateway.spend.leases import Lease
from gateway.spend.prices import PriceBook
from gateway.spend.rates import RateCard
from gateway.spend.settle import ChargeFacts, Ending, billed_usage, cost_of, input_bound_tokens
from gateway.store.spec import (
    Balance,
    Committed,
    Entry,
    HoldOp,
    LedgerStore,
    Op,
    ReleaseOp,
    SettleOp,
    StoreError,
)
from gateway.store.writer import Waiting, Writer
from gateway.types.clock import Clock
from gateway.types.errors import ErrorType, PolicyError, ServiceError
from gateway.types.records import Cost
from gateway.types.route import Operation
from gateway.types.usage import Usage

_T = TypeVar("_T")

_NO_OUTPUT = frozenset({Operation.EMBEDDINGS, Operation.EMBED_CONTENT, Operation.COUNT_TOKENS})
_MAX_BALANCES = 50_000
_LATELY_NS = 3_600 * 1_000_000_000


class Caps(Struct, frozen=True, kw_only=True):
    """Limits that must be sent upstream, as the hold covers no more; None where the request's own do.

    `tool_calls` is the limit of each of the vendor's own tools that the request does not limit.
    """

    output_tokens: int | None = None
    tool_calls: int | None = None


class Hold(Struct, frozen=True, kw_only=True):
    """Leave to make one attempt. `durable` holds have money reserved in the ledger until they are settled."""

    request_id: str
    attempt: int
    at_ns: int
    nano_usd: int = 0
    durable: bool = False
    caps: Caps = Caps()
    card: RateCard | None = None
    """The prices that a durable hold was computed from, which its charge is too: others may be in use by then."""
    lease: Lease | None = None
    """Where the money is held, if the attempt has no hold of its own in the ledger."""


class LedgerStats(Struct, frozen=True, kw_only=True):
    """The money path's own state. Counts since the start; `pending` now."""

    pending: int
    failed_commits: int
    lost: int
    orphans: int
    duplicates: int


class Accounts:
    """Who may spend, and what was spent. One event loop uses it; its ledger has a thread of its own.

    Args:
        open_store: opens the ledger.
        prices: what models cost.
        budgets: what may be spent.
        config: the `ledger:` section.
        clock: wall and monotonic time.
        observe_commit: told the duration of each commit in seconds, from the ledger's thread.
        on_lost: told a charge that the ledger can never take, from the ledger's thread.
    """

    def __init__(
        self,
        open_store: Callable[[], LedgerStore],
        prices: PriceBook,
        budgets: BudgetBook,
        config: LedgerFile,
        clock: Clock,
        observe_commit: Callable[[float], None] | None = None,
        on_lost: Callable[[Op, StoreError], None] | None = None,
    ) -> None:
        self.prices = prices
        self._book = budgets
        self._config = config
        self._clock = clock
        self._observe_commit = observe_commit
        self._on_lost = on_lost
        self._writer = Writer(open_store, self, clock)
        self._holds = Holds(self._writer, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        # The ledger's thread writes it, the loop reads: by single operations of the dict.
        self._balances: dict[tuple[str, str], Balance] = {}
        self._alerted = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Open the ledger, charge what a crash left behind, and read the balances.

        Raises:
            StoreError: the ledger cannot be opened; StoreInUseError when another process owns it.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._writer.start)
        owner = await self.call(lambda store: store.owner if store.shared else None)
        if owner is not None:
            self._holds.lease(owner)
        await self._take_up(self._book, self._book.families)
        # Alerts of an earlier run may wait.
        self._alerted.set()

    async def reload(self, budgets: BudgetBook) -> None:
        """Use other budgets from now on. What was spent stays spent."""
        await self.return_leases()
        await self._take_up(budgets, self._book.families & budgets.families)

    async def _take_up(self, budgets: BudgetBook, kept: frozenset[str]) -> None:
        """Count in these budgets from now on; of the stored counters, those of `kept` families are right."""
        now_ns = self._clock.now_ns()
        budgets.adopt(await self.call(lambda store: store.counters(now_ns)))
        # What is queued by now names the old counters, and is committed before the work below makes the new ones from
        # the ledger's lines; what comes after names the new ones. So no charge falls between them.
        self._book = budgets
        present = budgets.present(now_ns)

        def work(store: LedgerStore) -> None:
            store.keep_families(kept)
            store.ensure(present)
            self._tell_balances(store)

        await self.call(work)

    async def refresh(self) -> None:
        """Read the balances again: other nodes on the same ledger change them too. For a slow timer."""
        families, now_ns = self._book.families, self._clock.now_ns()

        def work(store: LedgerStore) -> None:
            # A hold that waited through a reload for another node's lease may have made a counter of the old budgets,
            # in a window that has ended since.
            store.keep_families(families, open_ns=now_ns - _LATELY_NS)
            self._tell_balances(store)

        await self.call(work)

    def _tell_balances(self, store: LedgerStore) -> None:
        # By the way of commits, so that an older reading never overtakes a younger commit.
        self.committed((), Committed(refusals=(), balances=store.balances(self._clock.now_ns())), None)

    # ---------------------------------------------------------------------------------------------------- the hot path

    @property
    def holds(self) -> bool:
        """Whether any budget is hard: only then does `admit` look at more than who pays."""
        return self._book.hard

    async def admit(self, facts: ChargeFacts) -> Hold | None:
        """Ask for leave to make one attempt, before it is sent; None where no budget concerns it.

        Raises:
            PolicyError: a hard budget has no room (`budget_exceeded`), or nobody knows the price (`price_unknown`).
            ServiceError: the ledger cannot keep the charge (`ledger_unavailable`).
        """
        if self._writer.pending >= self._config.max_pending or self._closed:
            raise ServiceError(
                ErrorType.LEDGER_UNAVAILABLE, "The gateway cannot record spend at the moment.", retry_after_s=1.0
            )
        if self._book.empty:
            return None
        now_ns = self._clock.now_ns()
        applied = self._book.applied(facts.payer, now_ns)
        if not applied.counters:
            return None
        if not applied.hard or facts.operation is Operation.COUNT_TOKENS:
            return Hold(request_id=facts.request_id, attempt=facts.attempt, at_ns=now_ns)
        cap = self._output_cap(facts)
        card = self._card(facts)
        nano = self._bound(card, facts, cap, now_ns)
        caps = Caps(
            output_tokens=None if facts.operation in _NO_OUTPUT or cap == facts.max_tokens else cap,
            tool_calls=self._config.default_tool_calls if facts.tools.run else None,
        )
        lease = None
        if nano:
            lease = await self._holds.reserve(
                HoldOp(
                    request_id=facts.request_id,
                    attempt=facts.attempt,
                    at_ns=now_ns,
                    nano_usd=nano,
                    payer=facts.payer,
                    counters=applied.counters,
                    price_version=card.at(now_ns).version,
                )
            )
        return Hold(
            request_id=facts.request_id,
            attempt=facts.attempt,
            at_ns=now_ns,
            nano_usd=nano,
            durable=nano > 0,
            caps=caps,
            card=card,
            lease=lease,
        )

    def _output_cap(self, facts: ChargeFacts) -> int:
        asked = facts.max_tokens
        if asked is None or asked < 1:
            asked = self._config.default_output_tokens
        return min(asked, self._config.max_output_tokens)

    def _card(self, facts: ChargeFacts) -> RateCard:
        card = self.prices.card(facts.payer.provider, facts.payer.model)
        if card is None:
            raise PolicyError(
                ErrorType.PRICE_UNKNOWN,
                f"No price is known for model '{facts.payer.model}' of provider '{facts.payer.provider}', and a "
                "budget limits this request. Its operator can add one under `prices:`; an explicit 0 is a price.",
            )
        return card

    def _bound(self, card: RateCard, facts: ChargeFacts, cap: int, now_ns: int) -> int:
        output = 0 if facts.operation in _NO_OUTPUT else cap * max(1, facts.choices)
        calls = facts.tools.calls + facts.tools.unlimited * self._config.default_tool_calls
        nano = card.bound_nano_usd(
            input_bound_tokens(facts, calls, output),
            output,
            now_ns,
            tool_calls=calls,
            service_tier=facts.service_tier,
            long_cache=facts.long_cache,
        )
        if nano > MAX_NANO_USD:
            raise PolicyError(
                ErrorType.BUDGET_EXCEEDED,
                f"This request could cost ${usd_text(nano)}, more than one request may. Ask for fewer output tokens, "
                "choices or calls of tools.",
            )
        return nano

    def price(
        self,
        facts: ChargeFacts,
        how: Ending,
        usage: Usage | None,
        *,
        at_ns: int,
        hold: Hold | None = None,
        output_chars: int = 0,
        chunks: int = 0,
        response_model: str | None = None,
    ) -> tuple[Cost, Usage | None]:
        """What an attempt costs by the settle table, and the token counts that this is for. Pure.

        Args:
            facts: as given to `admit`.
            how: what became of the attempt; see `gateway.spend.settle.ending`.
            usage: what the provider reported, None when it reported nothing.
            at_ns: when the attempt was admitted: the prices of that instant hold.
            hold: what `admit` returned for it; the prices that it was computed from hold.
            output_chars: characters generated, as far as they came.
            chunks: streamed chunks with content.
            response_model: the model that the provider says answered.
        """
        billed, basis = billed_usage(how, facts, usage, output_chars, chunks)
        card = None if hold is None else hold.card
        if card is None:
            card = self.prices.card(facts.payer.provider, facts.payer.model, response_model)
        return cost_of(card, billed, basis, at_ns), billed

    def settle(
        self, hold: Hold | None, facts: ChargeFacts, cost: Cost, usage: Usage | None, *, started_ns: int
    ) -> None:
        """Charge one attempt. Queued at once, committed soon, never lost to a cancelled task.

        Args:
            hold: what `admit` returned for the attempt.
            facts: as given to `admit`.
            cost: from `price`.
            usage: from `price`.
            started_ns: when the attempt began; used where no hold says when it was admitted.
        """
        at_ns = started_ns if hold is None else hold.at_ns
        entry = Entry(
            request_id=facts.request_id,
            attempt=facts.attempt,
            at_ns=at_ns,
            settled_ns=self._clock.now_ns(),
            payer=facts.payer,
            basis=cost.basis,
            nano_usd=cost.nano_usd,
            price_version=cost.price_version,
            usage=usage,
        )
        applied = self._book.applied(facts.payer, at_ns)
        op = SettleOp(entry=entry, counters=applied.counters, held=hold is not None and hold.durable)
        self._holds.settled(None if hold is None else hold.lease, op)

    def release(self, hold: Hold | None) -> None:
        """Give a hold back whose attempt was not even begun; no line is written."""
        if hold is not None and hold.durable:
            self._holds.released(hold.lease, ReleaseOp(request_id=hold.request_id, attempt=hold.attempt))

    # ---------------------------------------------------------------------------------------------------- around it

    async def call(self, work: Callable[[LedgerStore], _T]) -> _T:
        """Run `work` on the ledger, in its thread, after what is queued."""
        result: _T = await asyncio.wrap_future(self._writer.call(work))
        return result

    async def flush(self) -> None:
        """Return when everything that was settled before is committed (or could not be)."""
        await self.call(lambda store: None)

    async def return_leases(self) -> None:
        """Give back every slice of a budget that this node has; what is in flight stays held."""
        self._holds.return_leases()
        await self.flush()

    async def close(self, grace_s: float = 10.0) -> int:
        """Commit what is queued, within `grace_s` seconds, and close the ledger; how many operations are left."""
        self._closed = True
        await self._holds.close()
        return await asyncio.to_thread(self._writer.stop, grace_s)

    def budget_states(self) -> list[BudgetState]:
        """Every budget in its present window, as last committed."""
        return self._book.states(self._balances, self._clock.now_ns())

    def stats(self) -> LedgerStats:
        """The state of the money path itself."""
        stats = self._writer.stats
        return LedgerStats(
            pending=self._writer.pending,
            failed_commits=stats.failed_commits,
            lost=stats.lost,
            orphans=stats.orphans,
            duplicates=stats.duplicates,
        )

    @property
    def budgets(self) -> BudgetBook:
        """The budgets in use."""
        return self._book

    @property
    def alerted(self) -> asyncio.Event:
        """Set when alerts were written."""
        return self._alerted

    # ------------------------------------------------------------------------------------------- from the ledger's thread

    def committed(self, waited: Sequence[Waiting], committed: Committed | None, seconds: float | None) -> None:
        """See `gateway.store.writer.WriterEvents`."""
        if self._observe_commit is not None and seconds is not None:
            self._observe_commit(seconds)
        if committed is not None:
            if len(self._balances) > _MAX_BALANCES:
                # Windows that have passed; present ones come back with the next commit or refresh.
                self._balances.clear()
            self._balances.update(committed.balances)
        loop = self._loop
        # Waking the loop costs more than a charge.
        if loop is None or not (waited or (committed is not None and committed.alerts)):
            return
        # A loop that has closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._deliver, waited, committed)

    def lost(self, op: Op, error: StoreError) -> None:
        """See `gateway.store.writer.WriterEvents`."""
        if self._on_lost is not None:
            self._on_lost(op, error)

    def _deliver(self, waited: Sequence[Waiting], committed: Committed | None) -> None:
        if committed is not None and committed.alerts:
            self._alerted.set()
        self._holds.answered(waited, committed)
