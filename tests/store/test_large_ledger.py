"""A ledger of many lines: budgets that come late and reports have their sums, and how long that takes."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from gateway.spend import finance
from gateway.spend.finance import By
from gateway.store.sqlite import open_sqlite
from gateway.types.usage import Usage
from tests.proving import Proof
from tests.store.facts import AT, HOUR, RED, counter, entry, settle

KEYS = 200
LINES = 2_000_000
BATCH = 1_000


@pytest.mark.prove(share=1)
def test_two_million_lines_are_summed_up(tmp_path: Path, proof: Proof) -> None:
    """A budget for each of 200 keys that is added when the lines are there, and a report by key, are exact."""
    path = tmp_path / "ledger.db"
    store = open_sqlite(path)
    charged: Counter[str] = Counter()
    lines = 0
    for _ in proof.rounds(LINES // BATCH):
        charges = []
        for number in range(lines, lines + BATCH):
            key, nano_usd = f"key{number % KEYS}", 1 + number * number % 999_983
            charge = entry(
                f"req_{AT:x}{number:011x}",
                nano_usd,
                payer=msgspec.structs.replace(RED, key_id=key),
                at_ns=AT - HOUR + number * 2 * HOUR // LINES,
                usage=Usage(input_tokens=100, output_tokens=50),
            )
            charges.append(settle(msgspec.structs.replace(charge, price_version="genai-prices 0.0.1"), held=False))
            charged[key] += nano_usd
        store.commit(charges)
        store.tend()
        lines += BATCH
    began_s = proof.elapsed_s
    store.ensure([counter(scope=f"key={key}", match=(("key_id", key),), family="key=*") for key in charged])
    counted_s = proof.elapsed_s - began_s
    assert {row.match[0][1]: row.spent_nano_usd for row in store.counters()} == charged
    began_s = proof.elapsed_s
    rows = finance.report(store, 0, 2**62, [By.KEY])
    reported_s = proof.elapsed_s - began_s
    assert {row.group[0]: row.nano_usd for row in rows} == charged
    store.close()
    bytes_a_line = path.stat().st_size // lines
    proof.found(
        lines=lines, bytes_a_line=bytes_a_line, seconds_for_200_budgets=counted_s, seconds_for_a_report=reported_s
    )
