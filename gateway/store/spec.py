"""What a ledger store keeps and does: the values that cross its border, and its Protocol.

Three invariants hold after every commit, whatever was killed when: an attempt has at most one `settle` entry; a
counter's `held` is the sum of the open holds that name it; a counter's `spent` is the sum of the entries that fall
into its scope and window.

Money is integer nano-dollars. Instants are nanoseconds since the epoch.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gateway.types.records import Basis
from gateway.types.usage import Usage

REFUSED = "refused"
"""The threshold of the alert that a hard budget has refused a request."""
LEASE = 0
"""The attempt number of leases; those of requests begin with 1."""


class StoreError(Exception):
    """The store failed. `retryable` says whether the same work may succeed later.

    `ambiguous` says that the failed commit may have taken place all the same.
    """

    def __init__(self, message: str, *, retryable: bool = True, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.ambiguous = ambiguous


class StoreInUseError(StoreError):
    """Another process owns this ledger."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


class EntryKind(StrEnum):
    """Why an entry was written: the charge of an attempt, or the correction of one that was charged as an orphan."""

    SETTLE = "settle"
    ADJUST = "adjust"


class Payer(Struct, frozen=True, kw_only=True):
    """What decides which budgets an attempt falls under. `key_id` is "" for callers without a key."""

    team: str
    key_id: str
    route: str
    provider: str
    model: str


class Entry(Struct, frozen=True, kw_only=True):
    """One line of the ledger. `nano_usd` is None where no price is known, which is flagged and not 0.

    `at_ns` is when the attempt was admitted; it decides the window, however late the charge comes.
    """

    request_id: str
    attempt: int
    at_ns: int
    settled_ns: int
    payer: Payer
    basis: Basis
    nano_usd: int | None
    kind: EntryKind = EntryKind.SETTLE
    price_version: str = ""
    usage: Usage | None = None


class Watch(Struct, frozen=True, kw_only=True):
    """One budget that looks at a counter. `alerts` are (share as text, the amount at which it is crossed)."""

    budget: str
    limit_nano_usd: int
    hard: bool
    alerts: tuple[tuple[str, int], ...] = ()
    webhooks: tuple[str, ...] = ()
    """Ids of the webhooks that each alert goes to."""


class Counter(Struct, frozen=True, kw_only=True):
    """Spend of one scope in one window, and the budgets that look at it.

    `match` are the (column, value) pairs that an entry must have to fall into the scope. `family` names the configured
    scope, window kind and zone: counters whose family is configured no more are dropped.
    """

    scope: str
    window_id: str
    start_ns: int
    end_ns: int
    family: str
    match: tuple[tuple[str, str], ...] = ()
    watches: tuple[Watch, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the counter; also the order in which counters are locked."""
        return (self.scope, self.window_id)


class HoldOp(Struct, frozen=True, kw_only=True):
    """Reserve money for one attempt in every counter, or in none.

    An open hold means that the attempt may have been dispatched: a process that dies leaves it to be charged.
    """

    request_id: str
    attempt: int
    at_ns: int
    nano_usd: int
    payer: Payer
    counters: tuple[Counter, ...]
    price_version: str = ""
    patient: bool = False
    """Whether slices of other nodes that are in the way shall be asked back; the refusal then says so, for another try."""


class Draw(Struct, frozen=True):
    """What an attempt that was admitted from a lease may cost; `number` counts the attempts of the lease, from 1."""

    lease: str
    number: int
    nano_usd: int


class SettleOp(Struct, frozen=True, kw_only=True):
    """Write the charge of one attempt and close its hold, if there is one. Doing it twice does it once."""

    entry: Entry
    counters: tuple[Counter, ...] = ()
    held: bool = False
    """Whether money was held for the attempt. Its charge must then reach the disk before it counts."""
    draw: Draw | None = None
    """The lease that covers the attempt in place of a hold of its own."""


class ReleaseOp(Struct, frozen=True, kw_only=True):
    """Close a hold whose attempt was never sent, without an entry."""

    request_id: str
    attempt: int


class LeaseOp(Struct, frozen=True, kw_only=True):
    """Take a slice of what is left for one payer, or a bigger one, from which its node admits without asking.

    A lease is a hold with the attempt 0: it counts as held for everybody, and if its node dies it is charged, since
    nobody else knows what was sent from it. Granted is at most `nano_usd`, and at most one part in `share` of what is
    left in each hard budget; less than `least_nano_usd` is not worth a lease, and nothing is granted.
    """

    lease: str
    at_ns: int
    nano_usd: int
    least_nano_usd: int
    share: int
    payer: Payer
    counters: tuple[Counter, ...]
    price_version: str = ""
    renewed: bool = False
    """Whether the lease must exist already."""


class ReturnOp(Struct, frozen=True, kw_only=True):
    """End a lease: what is in flight gets holds of its own, and the rest is everybody's again.

    A lease that was charged meanwhile, since its node seemed dead, is corrected to what was sent from it.
    """

    lease: str
    at_ns: int
    payer: Payer
    counters: tuple[Counter, ...]
    returned_ns: int
    in_flight: tuple[HoldOp, ...] = ()


Op = HoldOp | SettleOp | ReleaseOp | LeaseOp | ReturnOp


class Balance(Struct, frozen=True):
    """A counter's state."""

    spent_nano_usd: int
    held_nano_usd: int


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a hold was not granted: the first hard budget without enough room."""

    counter: Counter
    watch: Watch
    balance: Balance
    recalled: bool = False
    """Whether there is room but for slices that nodes hold; they were asked back."""

    @property
    def left_nano_usd(self) -> int:
        """What the budget has left, holds counted as spent."""
        return max(0, self.watch.limit_nano_usd - self.balance.spent_nano_usd - self.balance.held_nano_usd)


class Committed(Struct, frozen=True, kw_only=True):
    """What one commit did. `refusals[i]` belongs to `ops[i]`; `balances` are of all counters that it touched."""

    refusals: tuple[Refusal | None, ...]
    balances: dict[tuple[str, str], Balance]
    alerts: int = 0
    duplicates: int = 0
    """Charges that the ledger had already."""
    grants: dict[str, int] = {}
    """What each lease that was asked for was given; one that is gone is missing."""


class OpenHold(Struct, frozen=True, kw_only=True):
    """A hold that waits for its charge, or a lease (attempt 0). `counters` are the keys that it is counted in."""

    request_id: str
    attempt: int
    owner: str
    epoch: int
    at_ns: int
    nano_usd: int
    payer: Payer
    price_version: str
    counters: tuple[tuple[str, str], ...]


class CounterRow(Struct, frozen=True, kw_only=True):
    """A counter as stored."""

    scope: str
    window_id: str
    start_ns: int
    end_ns: int
    family: str
    match: tuple[tuple[str, str], ...]
    spent_nano_usd: int
    held_nano_usd: int


class WrongCounter(Struct, frozen=True, kw_only=True):
    """A counter that differs from what entries and holds say."""

    counter: CounterRow
    true_spent_nano_usd: int
    true_held_nano_usd: int


class Sums(Struct, frozen=True):
    """What the entries with the same `values` of some columns come to.

    A correction is no attempt: its charge was counted as one, and its tokens were not known then. `unpriced` attempts
    have no known cost, and are not in `nano_usd`.
    """

    values: tuple[str, ...]
    entries: int
    attempts: int
    input_tokens: int
    output_tokens: int
    nano_usd: int
    unpriced: int


class Alert(Struct, frozen=True, kw_only=True):
    """A crossed threshold for one webhook ("" records the crossing itself). `id` is the same however often it is sent.

    `threshold` is a share of the limit such as "0.8", or "refused" for the first request that a hard budget refused.
    """

    id: str
    budget: str
    scope: str
    window_id: str
    threshold: str
    webhook: str
    spent_nano_usd: int
    limit_nano_usd: int
    created_ns: int
    tries: int = 0


class KeyRow(Struct, frozen=True, kw_only=True):
    """A gateway key as stored: its secret only as a hash."""

    id: str
    secret_hash: str
    team: str
    routes: tuple[str, ...]
    created_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None
    calls_per_minute: int | None = None


class LedgerStore(Protocol):
    """A ledger that one thread at a time uses. Every method is one transaction; failures raise StoreError."""

    @property
    def owner(self) -> str:
        """Names this start of this process among all that ever used the ledger."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other nodes spend from the same budgets, and a commit is a journey over the network."""
        ...

    def commit(self, ops: Sequence[Op]) -> Committed:
        """Do all of `ops`, in order, or none of them."""
        ...

    def recalled(self) -> frozenset[str]:
        """The leases, of whatever node, that are asked back."""
        ...

    def sweep(self, now_ns: int) -> int:
        """Charge the open holds of processes that are gone; how many there were."""
        ...

    def keep_families(self, families: frozenset[str], open_ns: int | None = None) -> None:
        """Drop counters that no configured budget keeps up to date; they are made anew from entries when needed.

        With `open_ns` only the windows that end after it are looked through for such.
        """
        ...

    def ensure(self, counters: Sequence[Counter]) -> None:
        """Make the counters that do not exist yet, from the entries that the ledger holds."""
        ...

    def wrong_counters(self) -> list[WrongCounter]:
        """The counters that differ from entries and holds, read in one transaction; nothing is changed."""
        ...

    def rebuild(self) -> int:
        """Set every counter to what entries and holds say; how many were wrong."""
        ...

    def balances(self, now_ns: int) -> dict[tuple[str, str], Balance]:
        """The counters of all windows that hold `now_ns`."""
        ...

    def counters(self, at_ns: int | None = None) -> list[CounterRow]:
        """Every counter, or those whose windows hold an instant."""
        ...

    def holds(self) -> list[OpenHold]:
        """Every open hold."""
        ...

    def entries(self, start_ns: int = 0, end_ns: int = 2**62) -> Iterator[Entry]:
        """The entries admitted in `start_ns <= at < end_ns`, oldest first, streamed."""
        ...

    def first_ns(self, from_ns: int) -> int | None:
        """When the first of the entries from an instant on was admitted; None when there is none."""
        ...

    def sums(self, start_ns: int, end_ns: int, by: Sequence[str]) -> list[Sums]:
        """The entries admitted in `start_ns <= at < end_ns`, summed up by columns of their payer, and `basis`."""
        ...

    def claim_alerts(self, now_ns: int, until_ns: int, limit: int) -> list[Alert]:
        """Alerts that are due. Nobody else gets them before `until_ns`."""
        ...

    def finish_alert(self, alert_id: str, now_ns: int) -> None:
        """An alert was delivered."""
        ...

    def alerts(self) -> list[Alert]:
        """Every alert ever written, oldest first."""
        ...

    def put_key(self, key: KeyRow) -> None:
        """Add a key, or replace the one of the same id."""
        ...

    def stored_keys(self) -> list[KeyRow]:
        """Every key, revoked ones included."""
        ...

    def tend(self) -> None:
        """Housekeeping between commits; cheap when there is nothing to do."""
        ...

    def close(self) -> None:
        """Let go of the ledger."""
        ...
