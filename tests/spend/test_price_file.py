"""The file of newer prices: taken up while serving, refused when it is broken, never half."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config.money import PriceFile
from gateway.spend.price_file import PriceFileWatch
from gateway.spend.prices import PriceBook, PriceData
from gateway.types.usage import Usage
from tests.spend.accounts import NOON_NS, SetClock

EMPTY = PriceData(providers={}, version="shipped", as_of=date(2026, 1, 1))


def document(price: str, since: str = "2026-11-01", models: int = 1) -> bytes:
    """Price data whose models `m0`, `m1`, ... cost `price` an input token (in USD per million) since a day."""
    prices = [{"prices": {"input_mtok": price, "output_mtok": "2"}, "constraint": {"start_date": since}}]
    listed = [{"id": f"m{n}", "match": {"equals": f"m{n}"}, "prices": prices} for n in range(models)]
    return json.dumps([{"id": "openai", "name": "O", "api_pattern": "x", "models": listed}]).encode()


def nano_usd(book: PriceBook) -> int:
    """What an input token of m0 costs in force."""
    card = book.card("openai", "m0")
    assert card is not None
    return card.at(NOON_NS).tiers.row(1).nano_usd(Usage(input_tokens=1, output_tokens=0))


async def test_a_new_file_is_in_use_once_it_stands_still(tmp_path: Path) -> None:
    """A change is taken up at the second look that finds it alike, without a restart, and the age follows."""
    path = tmp_path / "prices.json"
    path.write_bytes(document("1"))
    book = PriceBook(EMPTY)
    watch = PriceFileWatch(path, book, SetClock())
    await watch.first()
    assert nano_usd(book) == 1_000
    path.write_bytes(document("3", since="2026-11-20", models=2))
    await watch.look()
    assert nano_usd(book) == 1_000
    await watch.look()
    assert nano_usd(book) == 3_000
    assert book.age_s(NOON_NS) == 3.5 * 86_400
    assert book.refused_updates == 0


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"[]", document("9", since="2026-10-01"), document("9")[:-10], None],
    ids=["empty", "cut", "no provider", "older", "half written", "gone"],
)
async def test_a_bad_file_keeps_the_old_prices_and_is_told_of_once(
    tmp_path: Path, bad: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Broken, older and missing files change no price; each is counted and logged once, and a good one mends it."""
    path = tmp_path / "prices.json"
    path.write_bytes(document("1"))
    book = PriceBook(EMPTY)
    watch = PriceFileWatch(path, book, SetClock())
    await watch.first()
    if bad is None:
        path.unlink()
    else:
        path.write_bytes(bad)
    for _ in range(4):
        await watch.look()
    assert nano_usd(book) == 1_000
    assert book.refused_updates == 1
    assert sum("not in use" in record.message for record in caplog.records) == 1
    path.write_bytes(document("5", since="2026-11-22", models=3))
    for _ in range(2):
        await watch.look()
    assert nano_usd(book) == 5_000
    assert book.refused_updates == 1


async def test_a_file_that_lost_its_models_is_refused(tmp_path: Path) -> None:
    """Fewer than half of the models: a cut download, not news."""
    path = tmp_path / "prices.json"
    path.write_bytes(document("1", models=10))
    book = PriceBook(EMPTY)
    watch = PriceFileWatch(path, book, SetClock())
    await watch.first()
    path.write_bytes(document("7", models=4))
    for _ in range(2):
        await watch.look()
    assert nano_usd(book) == 1_000
    assert book.refused_updates == 1


async def test_the_configurations_own_prices_win_over_the_files(tmp_path: Path) -> None:
    """An entry of `prices:` holds whatever the file says, before and after it changes."""
    path = tmp_path / "prices.json"
    path.write_bytes(document("1"))
    own = PriceFile(model="m0", input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0))
    book = PriceBook(EMPTY, (own,))
    await PriceFileWatch(path, book, SetClock()).first()
    card = book.card("openai", "m0")
    assert card is not None
    assert card.at(NOON_NS).version.startswith("config ")
