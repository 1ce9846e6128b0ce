"""Public prices as data: the same models and prices as genai-prices finds, and refusals of what is not such data."""

import gzip
import json
import subprocess
import sys
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import types as theirs
from genai_prices.data import providers as their_providers

from gateway.spend.price_data import (
    SNAPSHOT,
    PriceDataError,
    PricedModel,
    PricedProvider,
    Prices,
    TieredPrice,
    check_patterns,
    decode,
    shipped,
)
from gateway.spend.prices import read_prices
from gateway.spend.snapshot import snapshot

TODAY = date(2026, 11, 23)
PROVIDERS = {provider.id: provider for provider in decode(shipped()).providers}
THEIRS = {provider.id: provider for provider in their_providers}


def test_the_shipped_prices_are_those_of_the_pinned_package() -> None:
    """After an update of genai-prices, `make prices` writes the file anew."""
    assert gzip.decompress(SNAPSHOT.read_bytes()) == snapshot(), "prices.json.gz is not up to date: run `make prices`"


def test_no_start_pays_for_the_package() -> None:
    """Reading the shipped prices and costing a model imports neither genai-prices nor pydantic."""
    program = (
        "import sys; from datetime import date; from gateway.spend.prices import PriceBook, packaged_prices\n"
        "assert PriceBook(packaged_prices(date(2026, 11, 23))).card('openai', 'gpt-4o')\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('genai_prices', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def names_like(name: str, turn: int) -> list[str]:
    """A model's name, and two of the forms that callers and resellers make of it; other forms for another `turn`."""
    forms = [
        name.upper(),
        f"{name}-20251211",
        f"{name}-2025-12-11:free",
        f"us.vendor/{name}",
        name.replace("-", "."),
        name[:-1],
    ]
    return [name, forms[turn % 6], forms[(turn + 1) % 6]]


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_a_name_means_the_model_that_genai_prices_finds(provider: str) -> None:
    """For all models of a provider, and for names made from them, both find the same model or none."""
    ours, their = PROVIDERS[provider], THEIRS[provider]
    different = []
    for turn, model in enumerate(their.models):
        for name in names_like(model.id, turn):
            expected = their.find_model(name, all_providers=their_providers)
            found = ours.find_model(name, PROVIDERS)
            if (found and found.id) != (expected and expected.id):
                different.append((name, found and found.id, expected and expected.id))
    assert different == []


@pytest.mark.parametrize("provider", sorted(id_ for id_, their in THEIRS.items() if their.fallback_model_providers))
def test_a_reseller_s_name_means_the_model_that_genai_prices_finds(provider: str) -> None:
    """Providers that serve others' models find all models of these as genai-prices does."""
    ours, their = PROVIDERS[provider], THEIRS[provider]
    others = [THEIRS[other] for other in their.fallback_model_providers or () if other in THEIRS]
    models = [model for other in others for model in other.models]
    names = [name for turn, model in enumerate(models) for name in names_like(model.id, turn)]
    expected = {name: their.find_model(name, all_providers=their_providers) for name in names}
    assert sum(found is not None for found in expected.values()) >= len(names) // 10
    different = []
    for name, model in expected.items():
        found = ours.find_model(name, PROVIDERS)
        if (found and found.id) != (model and model.id):
            different.append((name, found and found.id, model and model.id))
    assert different == []


def plain(price: Any) -> Any:
    """A price of either side in one form: an amount, or (base, ((start, amount), ...))."""
    if isinstance(price, TieredPrice | theirs.TieredPrices):
        return price.base, tuple((tier.start, tier.price) for tier in price.tiers)
    return price


def times(constraint: object) -> list[Any]:
    """When a price of either side holds: first day, start and end; None where it names none."""
    return [getattr(constraint, key, None) for key in ("start_date", "start_time", "end_time")]


def test_all_prices_are_those_of_the_package() -> None:
    """Every amount, tier, first day and time of day is the one that genai-prices has."""
    keys = Prices.__struct_fields__
    compared = 0
    for their in their_providers:
        ours = PROVIDERS[their.id]
        assert [model.id for model in ours.models] == [model.id for model in their.models]
        for model, expected in zip(ours.models, their.models, strict=True):
            entries = expected.prices
            if isinstance(entries, theirs.ModelPrice):
                entries = [theirs.ConditionalPrice(prices=entries)]
            assert len(model.dated) == len(entries)
            for entry, wanted in zip(model.dated, entries, strict=True):
                assert {key: plain(getattr(entry.prices, key)) for key in keys} == {
                    key: plain(getattr(wanted.prices, key)) for key in keys
                }
                assert times(entry.constraint) == times(wanted.constraint)
                compared += 1
    assert compared > 2_000


def document(**model: Any) -> bytes:
    """A document with one model, `m`, that has the given fields besides."""
    fields = {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 1, "output_mtok": 2}} | model
    return json.dumps([{"id": "p", "name": "P", "api_pattern": "p", "models": [fields]}]).encode()


def only(data: bytes) -> tuple[PricedProvider, PricedModel]:
    provider = decode(data).providers[0]
    return provider, provider.models[0]


@pytest.mark.parametrize(
    ("clause", "matching", "other"),
    [
        ({"equals": "GPT-x"}, "gpt-X", "gpt-xy"),
        ({"starts_with": "GPT-x"}, "gpt-xy", "a-gpt-x"),
        ({"ends_with": "GPT-x"}, "a-gpt-x", "gpt-xy"),
        ({"contains": "GPT-x"}, "a-gpt-x-b", "gpt-y"),
        ({"regex": "^gpt-[0-9]$"}, "gpt-4", "gpt-44"),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", "c"),
        ({"and": [{"starts_with": "a"}, {"or": [{"ends_with": "b"}, {"ends_with": "c"}]}]}, "a-c", "a-d"),
        ({"equals": "gpt-2025-12-11"}, "gpt-20251211", "gpt-20251311"),
        ({"equals": "gpt-2025-02-30"}, "gpt-2025-02-30", "gpt-20250230"),
    ],
)
def test_a_clause_matches_without_regard_to_case(clause: dict[str, Any], matching: str, other: str) -> None:
    """Each kind of clause, in any nesting, matches names in any case; a compact date only if it is a day."""
    provider, model = only(document(match=clause))
    assert provider.find_model(matching, {}) is model
    assert provider.find_model(other, {}) is None


def test_fallbacks_are_one_step_deep_and_come_second() -> None:
    """A provider's own model wins; the fallback of a fallback is not asked; a fallback that does not exist is passed by."""
    raw = [
        {"id": "a", "fallback_model_providers": ["gone", "b"], "models": []},
        {"id": "b", "fallback_model_providers": ["c"], "models": [{"id": "b-x", "match": {"equals": "x"}, "prices": {}}]},
        {"id": "c", "models": [{"id": f"c-{n}", "match": {"equals": n}, "prices": {}} for n in ("x", "y")]},
    ]  # fmt: skip
    providers = {provider.id: provider for provider in decode(json.dumps(raw).encode()).providers}
    found = {(p, n): providers[p].find_model(n, providers) for p in "abc" for n in "xy"}
    assert {key: model and model.id for key, model in found.items()} == {
        ("a", "x"): "b-x", ("a", "y"): None, ("b", "x"): "b-x", ("b", "y"): "c-y", ("c", "x"): "c-x", ("c", "y"): "c-y",
    }  # fmt: skip


def test_amounts_keep_their_digits() -> None:
    """A price is the decimal that the document writes, as a number or as a string; tiers may come in any order."""
    tiers = [{"start": 200, "price": 3}, {"start": 100, "price": "2.10"}]
    data = document(
        prices={"input_mtok": 0.1, "output_mtok": {"base": 1, "tiers": tiers}, "hours": 7, "cache_read_mtok": None}
    )
    _, model = only(data)
    assert isinstance(model.prices, Prices)
    assert model.prices.input_mtok == Decimal("0.1")
    assert model.prices.cache_read_mtok is None
    price = model.prices.output_mtok
    assert isinstance(price, TieredPrice)
    assert [price.above(start) for start in (-1, 99, 100, 199, 200)] == [1, 1, Decimal("2.10"), Decimal("2.10"), 3]


def test_times_keep_their_offset() -> None:
    """A daily price may be given in a local time."""
    constraint = {"start_time": "08:00:00+08:00", "end_time": "12:30:00Z"}
    _, model = only(document(prices=[{"constraint": constraint, "prices": {}}]))
    entry = model.dated[0].constraint
    assert entry is not None
    assert entry.start_time == time(8, tzinfo=timezone(timedelta(hours=8)))
    assert entry.end_time == time(12, 30, tzinfo=timezone(timedelta()))


@pytest.mark.parametrize(
    "model",
    [
        {"match": {}},
        {"match": {"equals": "a", "contains": "b"}},
        {"match": {"sounds_like": "a"}},
        {"match": {"or": [{"equals": 1}]}},
        {"prices": {"input_mtok": -1}},
        {"prices": {"input_mtok": "NaN"}},
        {"prices": {"input_mtok": "cheap"}},
        {"prices": {"input_mtok": {"base": 1}}},
        {"prices": {"input_mtok": {"base": -1, "tiers": []}}},
        {"prices": {"input_mtok": {"base": 1, "tiers": [{"start": -1, "price": 1}]}}},
        {"prices": {"input_mtok": {"base": 1, "tiers": [{"start": 1, "price": "-1"}]}}},
        {"prices": [{"constraint": {}, "prices": {}}]},
        {"prices": [{"constraint": {"start_time": "08:00:00Z"}, "prices": {}}]},
        {"prices": [{"constraint": {"start_date": "soon"}, "prices": {}}]},
        {"prices": [{}]},
    ],
)
def test_what_is_no_price_or_clause_is_refused(model: dict[str, Any]) -> None:
    """A document with one entry that cannot be meant is refused as a whole."""
    with pytest.raises(PriceDataError):
        decode(document(**model))


def test_a_pattern_that_does_not_compile_is_refused_with_its_model() -> None:
    """A broken regular expression fails when the data are read, not when a request asks for a price."""
    data = document(match={"or": [{"equals": "m"}, {"and": [{"regex": "(["}]}]})
    with pytest.raises(PriceDataError, match=r"match m by '\(\['"):
        read_prices(data, TODAY)
    check_patterns(decode(document(match={"regex": "^m$"})))
