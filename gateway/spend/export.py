"""The ledger for other programs: every line as CSV or Parquet, or sums an hour in the FOCUS format.

FOCUS is the FinOps Open Cost and Usage Specification (https://focus.finops.org), here version 1.2: all its mandatory
columns, the conditional ones that apply to tokens, and our own with the prefix `x_` that it asks for.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import msgspec
from msgspec import Struct

from gateway.spend.budgets import usd_text
from gateway.spend.windows import utc_iso
from gateway.store.schema import USAGE_COLUMNS
from gateway.store.spec import Entry, EntryKind

_NS = 1_000_000_000

LINE_COLUMNS = (
    "request_id", "attempt", "kind", "at", "settled", "team", "key_id", "route", "provider", "model", "basis",
    "cost_usd", "cost_nano_usd", "price_version", "usage_source", "service_tier", *USAGE_COLUMNS,
)  # fmt: skip

FOCUS_COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceId",
    "InvoiceIssuerName",
    "ListCost", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ResourceId",
    "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SubAccountId", "SubAccountName", "Tags",
    "x_Attempts", "x_Basis", "x_InputTokens", "x_KeyId", "x_OutputTokens", "x_Route",
)  # fmt: skip


def line_values(entry: Entry) -> tuple[Any, ...]:
    """One entry as the values of LINE_COLUMNS."""
    usage, payer = entry.usage, entry.payer
    return (
        entry.request_id,
        entry.attempt,
        entry.kind.value,
        utc_iso(entry.at_ns),
        utc_iso(entry.settled_ns),
        payer.team,
        payer.key_id,
        payer.route,
        payer.provider,
        payer.model,
        entry.basis.value,
        None if entry.nano_usd is None else usd_text(entry.nano_usd),
        entry.nano_usd,
        entry.price_version,
        None if usage is None else usage.source.value,
        None if usage is None else usage.service_tier,
        *(None if usage is None else getattr(usage, name) for name in USAGE_COLUMNS),
    )


def write_csv(entries: Iterable[Entry], file: TextIO) -> int:
    """Every line as CSV; how many. An unknown cost is an empty cell."""
    writer = csv.writer(file)
    writer.writerow(LINE_COLUMNS)
    count = 0
    for entry in entries:
        writer.writerow([_cell(value) for value in line_values(entry)])
        count += 1
    return count


def write_parquet(entries: Iterable[Entry], path: Path) -> int:
    """Every line as Parquet, amounts as integers and as decimals of nine places; how many. Needs the extra `parquet`."""
    import pyarrow as pa
    from pyarrow import parquet

    integers = {"attempt", "cost_nano_usd", *USAGE_COLUMNS}
    types = {name: pa.int64() if name in integers else pa.string() for name in LINE_COLUMNS}
    types["cost_usd"] = pa.decimal128(38, 9)
    types["at"] = types["settled"] = pa.timestamp("us", tz="UTC")
    schema = pa.schema(list(types.items()))
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _batches(entries):
            columns = dict(zip(LINE_COLUMNS, map(list, zip(*map(line_values, rows), strict=True)), strict=True))
            columns["cost_usd"] = [
                None if nano is None else Decimal(nano).scaleb(-9) for nano in columns["cost_nano_usd"]
            ]
            columns["at"] = [entry.at_ns // 1000 for entry in rows]
            columns["settled"] = [entry.settled_ns // 1000 for entry in rows]
            writer.write_table(pa.table(columns, schema=schema))
            count += len(rows)
    return count


def _batches(entries: Iterable[Entry], size: int = 20_000) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class FocusResult(Struct, frozen=True, kw_only=True):
    """What a FOCUS export wrote. Attempts without a known price have no cost that FOCUS could carry: they are left out."""

    rows: int
    unpriced_attempts: int


class _Sum(Struct):
    nano_usd: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def write_focus(entries: Iterable[Entry], file: TextIO, account: str) -> FocusResult:
    """Charges an hour, team, key, route, provider, model and basis, in FOCUS 1.2.

    Args:
        entries: sorted or not.
        file: written as CSV.
        account: names this gateway as the billing account.
    """
    sums: dict[tuple[str, ...], _Sum] = {}
    key: tuple[str, ...]
    unpriced = 0
    for entry in entries:
        if entry.nano_usd is None:
            unpriced += 1
            continue
        payer = entry.payer
        hour = str(entry.at_ns // _NS // 3600 * 3600)
        correction = "Correction" if entry.kind is EntryKind.ADJUST else ""
        key = (hour, payer.provider, payer.model, payer.team, payer.key_id, payer.route, entry.basis.value, correction)
        total = sums.setdefault(key, _Sum())
        total.nano_usd += entry.nano_usd
        total.attempts += 1
        if entry.usage is not None:
            total.input_tokens += entry.usage.input_tokens or 0
            total.output_tokens += entry.usage.output_tokens or 0
    writer = csv.DictWriter(file, FOCUS_COLUMNS)
    writer.writeheader()
    for key in sorted(sums):
        row = _focus_row(key, sums[key], account)
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return FocusResult(rows=len(sums), unpriced_attempts=unpriced)


def _focus_row(key: tuple[str, ...], total: _Sum, account: str) -> dict[str, Any]:
    hour, provider, model, team, key_id, route, basis, correction = key
    start = datetime.fromtimestamp(int(hour), UTC)
    month = start.replace(day=1, hour=0)
    cost = usd_text(total.nano_usd)
    # Quantities are decimals there: readers that guess a type from the text must see one.
    tokens = f"{total.input_tokens + total.output_tokens}.0"
    return {
        "BilledCost": cost,
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _instant((month + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _instant(month),
        "ChargeCategory": "Usage",
        "ChargeClass": correction or None,
        "ChargeDescription": f"{model} by {provider}, {total.attempts} attempts, basis {basis}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _instant(start + timedelta(hours=1)),
        "ChargePeriodStart": _instant(start),
        "ConsumedQuantity": None if correction else tokens,
        "ConsumedUnit": None if correction else "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceId": None,
        "InvoiceIssuerName": provider,
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": None if correction else tokens,
        "PricingUnit": None if correction else "Tokens",
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": f"{provider}/{model}",
        "ResourceName": model,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": provider,
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{provider}/{model}",
        "SubAccountId": team,
        "SubAccountName": team,
        "Tags": msgspec.json.encode({"team": team, "route": route}).decode(),
        "x_Attempts": total.attempts,
        "x_Basis": basis,
        "x_InputTokens": total.input_tokens,
        "x_KeyId": key_id or None,
        "x_OutputTokens": total.output_tokens,
        "x_Route": route,
    }


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cell(value: Any) -> Any:
    """A CSV cell. Text that a spreadsheet would run as a formula is quoted with an apostrophe; numbers are not text."""
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in {"=", "+", "@", "\t", "\r"}:
        return "'" + value
    return value
