"""What finance asks of the ledger: does it balance, who spent what, what would another model cost, what was invoiced.

Reports are added up by the database; all else reads the ledger's lines as a stream, once. "Spend" is our price book
times reported usage; an invoice can differ, and `capture_rates` says by how much.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, DecimalException
from enum import StrEnum
from typing import Protocol, TextIO

from msgspec import Struct

from gateway.config.money import NANO_PER_USD
from gateway.spend.prices import PriceBook
from gateway.store.spec import Entry, EntryKind, LedgerStore, WrongCounter
from gateway.types.records import Basis

_NS = 1_000_000_000
_HOUR_NS = 3_600 * _NS
_DAY_NS = 24 * _HOUR_NS
_MAX_INVOICED_NANO_USD = 10**18
"""A billion dollars. What is above it in one line of an invoice is no amount, but a slip."""


class Progress(Protocol):
    """Told how many lines were read so far, now and then, and at the end."""

    def __call__(self, lines: int, *, done: bool) -> None: ...


_PROGRESS_EVERY = 20_000


class By(StrEnum):
    """What a report can be broken down by."""

    TEAM = "team"
    KEY = "key"
    ROUTE = "route"
    PROVIDER = "provider"
    MODEL = "model"
    BASIS = "basis"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class ReportRow(Struct, kw_only=True):
    """One line of a report. `unpriced` attempts have no known cost and are not in `nano_usd`."""

    group: tuple[str, ...]
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int = 0
    unpriced: int = 0


class Verification(Struct, frozen=True, kw_only=True):
    """Whether the ledger balances. `difference_nano_usd` sums what the counters are off by."""

    entries: int
    open_holds: int
    spent_nano_usd: int
    unpriced: int
    wrong: tuple[WrongCounter, ...]
    stray_adjustments: tuple[str, ...]
    """Request ids of corrections without the charge that they correct."""

    @property
    def difference_nano_usd(self) -> int:
        """How far spent and held of all counters are from entries and holds."""
        return sum(
            abs(one.counter.spent_nano_usd - one.true_spent_nano_usd)
            + abs(one.counter.held_nano_usd - one.true_held_nano_usd)
            for one in self.wrong
        )

    @property
    def balances(self) -> bool:
        """Nothing is off by a nano-dollar."""
        return not self.wrong and not self.stray_adjustments


def counted(entries: Iterable[Entry], progress: Progress | None) -> Iterator[Entry]:
    """The same entries, with progress told."""
    seen = 0
    for entry in entries:
        seen += 1
        if progress is not None and seen % _PROGRESS_EVERY == 0:
            progress(seen, done=False)
        yield entry
    if progress is not None:
        progress(seen, done=True)


def verify(store: LedgerStore, progress: Progress | None = None) -> Verification:
    """Check every counter against entries and holds, and every correction against its charge."""
    entries = spent = unpriced = 0
    settled: set[tuple[str, int]] = set()
    adjusted: set[tuple[str, int]] = set()
    for entry in counted(store.entries(), progress):
        entries += 1
        spent += entry.nano_usd or 0
        unpriced += entry.nano_usd is None
        if entry.kind is EntryKind.ADJUST:
            adjusted.add((entry.request_id, entry.attempt))
        elif entry.basis is Basis.ORPHAN:
            settled.add((entry.request_id, entry.attempt))
    return Verification(
        entries=entries,
        open_holds=len(store.holds()),
        spent_nano_usd=spent,
        unpriced=unpriced,
        wrong=tuple(store.wrong_counters()),
        stray_adjustments=tuple(sorted(request_id for request_id, _ in adjusted - settled)),
    )


def dimensions(by: str) -> list[By]:
    """The dimensions in a text such as `team,model`; raises ValueError that names those there are."""
    names = [name.strip() for name in by.split(",")]
    for name in names:
        if name not in set(By):
            raise ValueError(f"'{name}' is nothing to report by; use any of {', '.join(By)}")
    return [By(name) for name in names]


def report(
    store: LedgerStore, start_ns: int, end_ns: int, by: Sequence[By], progress: Progress | None = None
) -> list[ReportRow]:
    """Sums of the entries admitted in `start_ns <= at < end_ns` by the given dimensions, sorted by them.

    Instants are in UTC. The database adds up, an hour or a day at a time: lines would take ten times as long here, and
    the interpreter from requests where the report is asked of a serving gateway.
    """
    columns = [_COLUMNS[dimension] for dimension in by if dimension in _COLUMNS]
    slice_ns = _HOUR_NS if By.HOUR in by else _DAY_NS
    rows: dict[tuple[str, ...], ReportRow] = {}
    seen = 0
    at_ns = store.first_ns(start_ns)
    while at_ns is not None and at_ns < end_ns:
        begin_ns = at_ns - at_ns % slice_ns
        begin = _utc(begin_ns)
        for sums in store.sums(max(begin_ns, start_ns), min(begin_ns + slice_ns, end_ns), columns):
            values = iter(sums.values)
            group = tuple(
                next(values) if dimension in _COLUMNS else begin.strftime(_INSTANTS[dimension]) for dimension in by
            )
            row = rows.setdefault(group, ReportRow(group=group))
            row.attempts += sums.attempts
            row.input_tokens += sums.input_tokens
            row.output_tokens += sums.output_tokens
            row.nano_usd += sums.nano_usd
            row.unpriced += sums.unpriced
            seen += sums.entries
        if progress is not None:
            progress(seen, done=False)
        at_ns = store.first_ns(begin_ns + slice_ns)
    if progress is not None:
        progress(seen, done=True)
    return [rows[group] for group in sorted(rows)]


def _utc(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // _NS, UTC)


_COLUMNS = {
    By.TEAM: "team",
    By.KEY: "key_id",
    By.ROUTE: "route",
    By.PROVIDER: "provider",
    By.MODEL: "model",
    By.BASIS: "basis",
}
_INSTANTS = {By.HOUR: "%Y-%m-%dT%H:00Z", By.DAY: "%Y-%m-%d", By.MONTH: "%Y-%m"}
"""How the beginning of an hour, a day and a month is written."""


class WhatIf(Struct, kw_only=True):
    """The traffic of one model at its own prices and at another model's."""

    provider: str
    model: str
    attempts: int = 0
    nano_usd: int = 0
    other_nano_usd: int = 0
    left_out: int = 0
    """Attempts without a price or without usage, which cannot be compared."""


def what_if(entries: Iterable[Entry], prices: PriceBook, provider: str, model: str) -> list[WhatIf]:
    """The same token counts at the prices of another model, by present model.

    Tokenizers differ, and so do answers: this is an estimate of prices, not of behaviour.

    Raises:
        LookupError: the other model has no price.
    """
    card = prices.card(provider, model)
    if card is None:
        raise LookupError(f"no price is known for model '{model}' of provider '{provider}'")
    rows: dict[tuple[str, str], WhatIf] = {}
    for entry in entries:
        place = (entry.payer.provider, entry.payer.model)
        row = rows.get(place)
        if row is None:
            row = rows[place] = WhatIf(provider=place[0], model=place[1])
        if entry.usage is None and entry.nano_usd == 0:
            continue
        if entry.usage is None or entry.nano_usd is None or entry.kind is EntryKind.ADJUST:
            row.left_out += 1
            continue
        row.attempts += 1
        row.nano_usd += entry.nano_usd
        tiers = card.at(entry.at_ns, entry.usage.service_tier).tiers
        row.other_nano_usd += tiers.row(entry.usage.input_tokens or 0).nano_usd(entry.usage)
    return [rows[place] for place in sorted(rows)]


class InvoiceLine(Struct, frozen=True, kw_only=True):
    """What a provider invoiced for one UTC day."""

    day: date
    nano_usd: int


class InvoiceError(Exception):
    """An invoice that cannot be read; the message names the line."""


def read_invoice(file: TextIO) -> list[InvoiceLine]:
    """The days of an invoice: CSV with the columns `date` (YYYY-MM-DD, UTC) and `amount_usd`; others are ignored.

    Several lines of one day are added up.
    """
    reader = csv.DictReader(file)
    if not {"date", "amount_usd"} <= set(reader.fieldnames or ()):
        raise InvoiceError("the invoice needs the columns date and amount_usd")
    days: dict[date, int] = {}
    try:
        for row in reader:
            day = date.fromisoformat((row["date"] or "").strip()[:10])
            days[day] = days.get(day, 0) + _nano_usd((row["amount_usd"] or "").strip())
    except (ValueError, DecimalException, csv.Error):
        raise InvoiceError(f"line {reader.line_num} of the invoice has no day and amount in USD") from None
    return [InvoiceLine(day=day, nano_usd=days[day]) for day in sorted(days)]


def _nano_usd(text: str) -> int:
    amount = Decimal(text) * NANO_PER_USD
    if not abs(amount) <= _MAX_INVOICED_NANO_USD:
        raise ValueError(f"{text} is no amount of money")
    return int(amount.to_integral_value())


class Capture(Struct, frozen=True, kw_only=True):
    """How much of a day's invoice the ledger saw."""

    day: date
    invoiced_nano_usd: int
    ledger_nano_usd: int

    @property
    def ratio(self) -> float | None:
        """Ledger over invoice; None for a day without an invoiced amount."""
        return self.ledger_nano_usd / self.invoiced_nano_usd if self.invoiced_nano_usd else None


def capture_rates(entries: Iterable[Entry], provider: str, invoice: Sequence[InvoiceLine]) -> list[Capture]:
    """The ledger beside a provider's invoice, by day, days that only one of them knows included."""
    invoiced = {line.day: line.nano_usd for line in invoice}
    ledger: dict[date, int] = {}
    for entry in entries:
        if entry.payer.provider == provider:
            day = _utc(entry.at_ns).date()
            ledger[day] = ledger.get(day, 0) + (entry.nano_usd or 0)
    if not invoiced:
        return []
    # Outside the invoice's days the ledger has nothing to be compared with.
    first, last = min(invoiced), max(invoiced)
    days = sorted(set(invoiced) | {day for day in ledger if first <= day <= last})
    return [
        Capture(day=day, invoiced_nano_usd=invoiced.get(day, 0), ledger_nano_usd=ledger.get(day, 0)) for day in days
    ]
