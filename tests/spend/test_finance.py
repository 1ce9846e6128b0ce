"""What finance gets: verification that finds one wrong nano-dollar, reports, exports, comparisons."""

import csv
import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.spend import finance
from gateway.spend.export import FOCUS_COLUMNS, LINE_COLUMNS, write_csv, write_focus, write_parquet
from gateway.spend.finance import By
from gateway.spend.prices import PriceBook
from gateway.store.spec import Entry, EntryKind, Payer
from gateway.types.records import Basis
from gateway.types.usage import Usage, UsageSource
from tests.store.facts import AT, HOUR, RED, counter, entry, hold, settle, watch
from tests.store.stores import OpenStore

BLUE = Payer(team="blue", key_id="", route="chat", provider="openai", model="=cmd()")
USED = Usage(input_tokens=100, output_tokens=5)
LINES = [
    entry("a", 1_500_000_001, usage=USED),
    entry("a", 0, attempt=2, basis=Basis.NOT_SENT),
    entry("b", 7, payer=BLUE, usage=Usage(input_tokens=1, output_tokens=0, source=UsageSource.ESTIMATED)),
    entry("c", None, usage=USED, at_ns=AT + 48 * HOUR),
    Entry(
        request_id="d", attempt=1, at_ns=AT, settled_ns=AT, payer=RED, basis=Basis.PROVIDER_USAGE, nano_usd=-20,
        kind=EntryKind.ADJUST, usage=USED,
    ),
]  # fmt: skip


def test_a_ledger_that_balances_says_so(open_store: OpenStore) -> None:
    """Holds, charges, orphans and corrections balance: difference 0."""
    budget = counter(watch(1000))
    first = open_store("a")
    first.commit([hold("r", 50, budget), hold("s", 60, budget)])
    first.commit([settle(entry("r", 30), budget)])
    first.close()
    second = open_store("a")
    second.sweep(AT)
    second.commit([settle(entry("s", 10), budget)])
    found = finance.verify(second)
    assert (found.balances, found.difference_nano_usd, found.entries, found.spent_nano_usd) == (True, 0, 3, 40)


def test_one_wrong_nano_dollar_is_found(open_store: OpenStore) -> None:
    """A counter that is off by one is named, with what it should be."""
    budget = counter(watch(1000))
    store = open_store("a")
    store.commit([settle(entry("r", 30), budget, held=False)])
    sql = store._sql  # type: ignore[attr-defined]
    with sql.transaction(durable=True):
        sql.run("UPDATE counters SET spent = spent + 1")
    found = finance.verify(store)
    assert (found.balances, found.difference_nano_usd) == (False, 1)
    assert found.wrong[0].true_spent_nano_usd == 30
    assert store.rebuild() == 1
    assert finance.verify(store).balances


def test_a_correction_without_its_charge_is_found(open_store: OpenStore) -> None:
    """An adjustment that stands alone does not pass."""
    store = open_store("a")
    store.commit([settle(LINES[4], held=False)])
    assert finance.verify(store).stray_adjustments == ("d",)


def test_a_report_sums_by_any_dimensions(open_store: OpenStore) -> None:
    """By team and day: amounts, tokens, attempts, and the unpriced ones apart; progress ends with all lines."""
    store = open_store("a")
    store.commit([settle(line, held=False) for line in LINES])
    told: list[tuple[int, bool]] = []
    rows = finance.report(store, 0, 2**80, [By.TEAM, By.DAY], lambda lines, *, done: told.append((lines, done)))
    day = datetime.fromtimestamp(AT // 10**9, UTC).date()
    later = datetime.fromtimestamp(AT // 10**9 + 48 * 3600, UTC).date()
    assert [(row.group, row.attempts, row.nano_usd, row.input_tokens, row.unpriced) for row in rows] == [
        (("blue", str(day)), 1, 7, 1, 0),
        (("red", str(day)), 2, 1_500_000_001 - 20, 200, 0),
        (("red", str(later)), 1, 0, 100, 1),
    ]
    assert told == [(4, False), (5, False), (5, True)]
    for dimension in By:
        assert sum(row.nano_usd for row in finance.report(store, 0, 2**80, [dimension])) == 1_500_000_001 + 7 - 20


def test_a_report_has_what_was_admitted_in_its_stretch(open_store: OpenStore) -> None:
    """The first instant counts, the end does not, in the middle of an hour too; hours of one day are told apart."""
    store = open_store("a")
    assert finance.report(store, 0, 2**80, [By.TEAM]) == []
    store.commit([settle(entry(f"r{i}", 10**i, at_ns=AT + i * HOUR // 2), held=False) for i in range(6)])
    hour = datetime.fromtimestamp(AT // 10**9, UTC)
    rows = finance.report(store, AT + HOUR // 2, AT + 5 * HOUR // 2, [By.HOUR, By.HOUR, By.BASIS])
    hours = [(hour + timedelta(hours=i)).strftime("%Y-%m-%dT%H:00Z") for i in range(3)]
    assert [(row.group, row.nano_usd) for row in rows] == [
        ((hours[0], hours[0], "provider_usage"), 10),
        ((hours[1], hours[1], "provider_usage"), 1_100),
        ((hours[2], hours[2], "provider_usage"), 10_000),
    ]


def test_what_if_prices_the_same_tokens(prices: PriceBook) -> None:
    """The same counts at another model's prices; what cannot be compared is counted, not guessed."""
    rows = finance.what_if(LINES, prices, "openai", "m")
    assert [(row.model, row.attempts, row.nano_usd, row.other_nano_usd, row.left_out) for row in rows] == [
        ("=cmd()", 1, 7, 1, 0),
        ("gpt-4o", 1, 1_500_000_001, 150, 2),
    ]
    with pytest.raises(LookupError):
        finance.what_if(LINES, prices, "openai", "unpriced")


def test_an_invoice_gives_the_capture_rate_a_day() -> None:
    """Ledger over invoice for each day; a day that only one of them has stands out."""
    day = datetime.fromtimestamp(AT // 10**9, UTC).date()
    invoice = finance.read_invoice(
        io.StringIO(f"date,service,amount_usd\n{day},x,1.00\n{day},y,2.00\n{date(day.year, 12, 31)},x,5\n")
    )
    rates = finance.capture_rates(LINES, "openai", invoice)
    assert [(rate.day, rate.invoiced_nano_usd, rate.ledger_nano_usd) for rate in rates] == [
        (day, 3_000_000_000, 1_500_000_001 + 7 - 20),
        (date(day.year, day.month, day.day + 2), 0, 0),
        (date(day.year, 12, 31), 5_000_000_000, 0),
    ]
    assert rates[0].ratio == pytest.approx(0.5)
    assert rates[1].ratio is None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "needs the columns"),
        ("day,amount\n", "needs the columns"),
        ("date,amount_usd\nsoon,1\n", "line 2"),
        ("date,amount_usd\n\n2026-11-01,1\n\n2026-11-01,much\n", "line 5"),
        ("date,amount_usd\n2026-11-01,NaN\n", "line 2"),
        ("date,amount_usd\n2026-11-01,1e5000\n", "line 2"),
        ("date,amount_usd\n2026-11-01,1e999999\n", "line 2"),
        ("date,amount_usd,note\n2026-11-01,1," + "x" * 200_000, "line"),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_invoice_is_refused(lines: str, told: str) -> None:
    """No column, no day or no amount that anybody invoices: told by line, never read as 0."""
    with pytest.raises(finance.InvoiceError, match=told):
        finance.read_invoice(io.StringIO(lines))


def test_csv_has_every_line_exactly() -> None:
    """Amounts are exact decimals, unknown is empty, and no cell can run as a formula."""
    file = io.StringIO(newline="")
    assert write_csv(LINES, file) == 5
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert tuple(rows[0]) == LINE_COLUMNS
    assert [row["cost_usd"] for row in rows] == ["1.500000001", "0.00", "0.000000007", "", "-0.00000002"]
    assert rows[2]["model"] == "'=cmd()"
    assert rows[1]["input_tokens"] == ""


def test_parquet_has_every_line_exactly(tmp_path: Path) -> None:
    """Decimals, integers and instants keep their types; unknown is null."""
    parquet = pytest.importorskip("pyarrow.parquet")
    assert write_parquet(LINES, tmp_path / "x.parquet") == 5
    table = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["cost_nano_usd"] for row in table] == [1_500_000_001, 0, 7, None, -20]
    assert table[0]["cost_usd"] == Decimal("1.500000001")
    assert table[0]["at"].timestamp() == AT / 10**9
    assert table[1]["input_tokens"] is None


MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart",
    "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
}  # fmt: skip
"""The columns whose feature level is Mandatory in FOCUS 1.2."""

DECIMAL = r"-?\d+\.\d+"
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
TEXT = r"\S(.*\S)?"
# What the specification's own model (1.2.0.1) lets each column hold, and when it may be empty.
FOCUS = {
    **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), DECIMAL),
    **dict.fromkeys(("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"), INSTANT),
    **dict.fromkeys(
        (
            "BillingAccountId", "BillingAccountName", "ChargeDescription", "InvoiceIssuerName", "ProviderName",
            "PublisherName", "ResourceId", "ResourceName", "ResourceType", "ServiceName", "SkuId", "SubAccountId",
            "SubAccountName",
        ),
        TEXT,
    ),
    "BillingCurrency": "[A-Z]{3}",
    "ChargeCategory": "Usage|Purchase|Tax|Credit|Adjustment",
    "ChargeClass": "Correction|",
    "ChargeFrequency": "One-Time|Recurring|Usage-Based",
    "PricingCategory": "Standard|Dynamic|Committed|Other",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceSubcategory": (
        "AI Platforms|Bots|Generative AI|Machine Learning|Natural Language Processing|"
        r"Other \(AI and Machine Learning\)"
    ),
    # Nothing here is on an invoice.
    "InvoiceId": "",
    "Tags": r"\{.*\}",
}  # fmt: skip
QUANTITIES = {"ConsumedQuantity": DECIMAL, "ConsumedUnit": TEXT, "PricingQuantity": DECIMAL, "PricingUnit": TEXT}
"""Empty for a correction, which has no quantity of its own, and only for it."""


def test_focus_fits_the_specification() -> None:
    """Every column is one of FOCUS 1.2 or ours, each cell what it allows; the sum of BilledCost is the ledger's."""
    file = io.StringIO(newline="")
    result = write_focus(LINES, file, "gateway")
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert (result.rows, result.unpriced_attempts) == (len(rows), 1)
    assert set(FOCUS_COLUMNS) >= MANDATORY
    assert {name for name in FOCUS_COLUMNS if not name.startswith("x_")} == FOCUS.keys() | QUANTITIES.keys()
    assert {row["ChargeClass"] for row in rows} == {"", "Correction"}
    for row in rows:
        wrong = {name: row[name] for name, allowed in FOCUS.items() if not re.fullmatch(allowed, row[name])}
        assert wrong == {}
        corrects = row["ChargeClass"] == "Correction"
        quantities = {name: "" if corrects else allowed for name, allowed in QUANTITIES.items()}
        assert {name: row[name] for name, allowed in quantities.items() if not re.fullmatch(allowed, row[name])} == {}
        period = ("BillingPeriodStart", "ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodEnd")
        assert [row[name] for name in period] == sorted(row[name] for name in period)
        assert all(isinstance(value, str) for value in json.loads(row["Tags"]).values())
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(1_500_000_001 + 7 - 20).scaleb(-9)
