"""Holding money for one attempt: in this node's lease of the budgets where there is one, else in the ledger itself.

The ledger's thread answers holds by `answered`; all else is called by one event loop.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from gateway.spend.budgets import usd_text
from gateway.spend.leases import Lease, Leases, LeaseTicket
from gateway.spend.windows import FOREVER_NS, utc_iso
from gateway.store.spec import Committed, HoldOp, Refusal, ReleaseOp, SettleOp, StoreError
from gateway.store.writer import Waiting, Writer
from gateway.types.clock import Clock
from gateway.types.errors import ErrorType, PolicyError, ServiceError

HOLD_TIMEOUT_S = 10.0
PATIENCE_S = 2.0
"""How long a request that has room but for other nodes' leases waits for them; live nodes return them in 0.2 s."""
_PAUSE_S = 0.03
"""The first wait between two tries; each is twice as long as the one before."""
_TEND_S = 0.1
"""How often idle leases, and those that other nodes ask back, are looked for."""
_NS = 1_000_000_000


class _Ticket(Waiting, eq=False):
    """A hold that an admission waits for."""

    future: asyncio.Future[None] | None = None


class Holds:
    """The holds of one gateway.

    Args:
        writer: the ledger's thread.
        clock: wall and monotonic time.
    """

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._leases: Leases | None = None
        self._tending: asyncio.Task[None] | None = None

    def lease(self, owner: str) -> None:
        """Take leases from now on, as the ledger is far away. `owner` names this start of this node among all."""
        self._leases = Leases(self._writer.put, self._clock, owner)
        self._tending = asyncio.get_running_loop().create_task(self._tend(self._leases))

    async def reserve(self, op: HoldOp) -> Lease | None:
        """Hold money for an attempt, in every budget or in none; the lease that it is held in, if it is.

        Raises:
            PolicyError: a hard budget has no room (`budget_exceeded`).
            ServiceError: the ledger failed (`ledger_unavailable`).
        """
        leases = self._leases
        if leases is None:
            refusal = await self._hold(op)
        elif (lease := leases.draw(op)) is not None:
            return lease
        else:
            refusal = await self._hold_past_leases(op)
        if refusal is not None:
            raise self._refused(refusal, op)
        if leases is not None:
            leases.admitted(op)
        return None

    async def _hold_past_leases(self, op: HoldOp) -> Refusal | None:
        """Nobody is refused for money that nodes have leased and do not use: it is asked back and waited for."""
        patient = msgspec.structs.replace(op, patient=True)
        deadline_s = self._clock.monotonic() + PATIENCE_S
        pause_s = _PAUSE_S
        while (refusal := await self._hold(patient)) is not None and refusal.recalled:
            if self._clock.monotonic() >= deadline_s:
                return await self._hold(op)
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return refusal

    async def _hold(self, op: HoldOp) -> Refusal | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        ticket = _Ticket(op, waited=True, future=future)
        timer = loop.call_later(HOLD_TIMEOUT_S, _give_up, future)
        self._writer.put(ticket)
        try:
            await future
        except asyncio.CancelledError:
            self._abandon(ticket)
            raise
        finally:
            timer.cancel()
        if ticket.error is not None:
            raise ServiceError(
                ErrorType.LEDGER_UNAVAILABLE, "The gateway's ledger failed; nothing was charged.", retry_after_s=1.0
            ) from ticket.error
        return ticket.refusal

    def _abandon(self, ticket: _Ticket) -> None:
        """Nobody waits for this hold any more: give it back, whether it has been granted or will be."""
        if ticket.future is not None and ticket.future.done() and not ticket.future.cancelled():
            self._release(ticket)

    def _release(self, ticket: Waiting) -> None:
        op = ticket.op
        if isinstance(op, HoldOp) and ticket.error is None and ticket.refusal is None:
            self._writer.put(Waiting(ReleaseOp(request_id=op.request_id, attempt=op.attempt)))

    def _refused(self, refusal: Refusal, op: HoldOp) -> PolicyError:
        counter, watch = refusal.counter, refusal.watch
        text = (
            f"The budget '{watch.budget}' ({counter.scope}, {counter.window_id}) has ${usd_text(refusal.left_nano_usd)} "
            f"left of ${usd_text(watch.limit_nano_usd)}, and this request could cost up to ${usd_text(op.nano_usd)}."
        )
        retry_after_s: float | None
        if refusal.balance.spent_nano_usd + op.nano_usd <= watch.limit_nano_usd:
            # Only requests in flight are in the way; what they do not use comes back.
            retry_after_s = 1.0
            text += " Money held for requests in flight comes back as they end."
        elif counter.end_ns >= FOREVER_NS:
            retry_after_s = None
        else:
            retry_after_s = float(max(1, -(-(counter.end_ns - self._clock.now_ns()) // _NS)))
            text += f" It resets at {utc_iso(counter.end_ns)}."
        return PolicyError(ErrorType.BUDGET_EXCEEDED, text, retry_after_s=retry_after_s)

    def settled(self, lease: Lease | None, op: SettleOp) -> None:
        """Queue the charge of an attempt for which `reserve` gave `lease`."""
        if lease is not None and self._leases is not None:
            op = self._leases.settle(lease, op)
        self._writer.put(Waiting(op))

    def released(self, lease: Lease | None, op: ReleaseOp) -> None:
        """Give back the hold of an attempt that was not sent."""
        if lease is None or self._leases is None or not self._leases.release(lease, op):
            self._writer.put(Waiting(op))

    def answered(self, waited: Sequence[Waiting], committed: Committed | None) -> None:
        """The ledger committed what was waited for, or failed to (None)."""
        for ticket in waited:
            if isinstance(ticket, LeaseTicket) and self._leases is not None:
                self._leases.answered(ticket, committed)
            elif isinstance(ticket, _Ticket) and ticket.future is not None:
                if ticket.future.done():
                    self._release(ticket)
                else:
                    ticket.future.set_result(None)

    def return_leases(self) -> None:
        """Queue the return of every lease; what is in flight stays held."""
        if self._leases is not None:
            self._leases.give_all_back()

    async def close(self) -> None:
        """Return every lease, and take no more."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        if self._leases is not None:
            self._leases.close()

    async def _tend(self, leases: Leases) -> None:
        while True:
            await asyncio.sleep(_TEND_S)
            leases.give_idle_back()
            if leases.empty:
                continue
            asked_back: Future[Any] = self._writer.call(lambda store: store.recalled())
            # A ledger that fails now is asked again; meanwhile nobody can ask for anything back.
            with contextlib.suppress(StoreError):
                leases.recall(await asyncio.wrap_future(asked_back))


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(
            ServiceError(
                ErrorType.LEDGER_UNAVAILABLE, "The gateway's ledger does not answer at the moment.", retry_after_s=1.0
            )
        )
