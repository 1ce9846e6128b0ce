"""Public prices as data: the JSON form of genai-prices, and how a model is found in it.

The same form and the same rules as https://github.com/pydantic/genai-prices (`prices/new_data/v2/data.json` and
`genai_prices.types`), without that package: it costs half a second and 20 MB at every start. The tests hold the two
against each other for all models. What the gateway does not charge (pages, hours) is not read.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct

SNAPSHOT = Path(__file__).with_name("prices.json.gz")
"""The prices that are shipped; `make prices` writes them."""

SERVED_BY = frozenset({"service_tier", "speed"})
"""The conditions of price variants that a reply can tell; a gateway's requests are never batches."""


class PriceDataError(Exception):
    """Price data that cannot be used; the prices in use stay."""


class Clause(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One condition on a model's name. Exactly one field is given. Names come in lower case."""

    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    """Searched, not anchored; unlike the others it minds its own case, as in the source."""
    any_of: tuple[Clause, ...] | None = msgspec.field(default=None, name="or")
    all_of: tuple[Clause, ...] | None = msgspec.field(default=None, name="and")

    def __post_init__(self) -> None:
        absent = (
            (self.equals is None)
            + (self.starts_with is None)
            + (self.ends_with is None)
            + (self.contains is None)
            + (self.regex is None)
            + (self.any_of is None)
            + (self.all_of is None)
        )
        if absent != 6:
            raise ValueError("a match clause has exactly one condition")

    def matches(self, name: str) -> bool:
        """Whether a name in lower case meets the condition."""
        if self.equals is not None:
            return name == self.equals.lower()
        if self.any_of is not None:
            return any(clause.matches(name) for clause in self.any_of)
        if self.contains is not None:
            return self.contains.lower() in name
        if self.starts_with is not None:
            return name.startswith(self.starts_with.lower())
        if self.ends_with is not None:
            return name.endswith(self.ends_with.lower())
        if self.regex is not None:
            return re.search(self.regex, name) is not None
        return all(clause.matches(name) for clause in self.all_of or ())

    def patterns(self) -> Iterator[str]:
        """The regular expressions in it, at any depth."""
        if self.regex is not None:
            yield self.regex
        for clause in (*(self.any_of or ()), *(self.all_of or ())):
            yield from clause.patterns()


class Tier(Struct, frozen=True, kw_only=True, gc=False):
    """A price that holds for the whole input once it has more than `start` tokens."""

    start: int
    price: Decimal

    def __post_init__(self) -> None:
        _check_price(self.price)
        if self.start < 0:
            raise ValueError("a tier starts below zero")


class TieredPrice(Struct, frozen=True, kw_only=True, gc=False):
    """A price by the size of the whole input: `base`, until a tier's start is passed."""

    base: Decimal
    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        _check_price(self.base)

    def above(self, start: int) -> Decimal:
        """The price for inputs of `start + 1` tokens."""
        reached = [tier for tier in self.tiers if start >= tier.start]
        return max(reached, key=lambda tier: tier.start).price if reached else self.base


Price = Decimal | TieredPrice


class Prices(Struct, frozen=True, kw_only=True, gc=False):
    """USD per million tokens (`_mtok`) and per thousand calls (`_kcount`); None where the source has no price."""

    input_mtok: Price | None = None
    output_mtok: Price | None = None
    cache_read_mtok: Price | None = None
    cache_write_mtok: Price | None = None
    output_reasoning_mtok: Price | None = None
    input_audio_mtok: Price | None = None
    output_audio_mtok: Price | None = None
    cache_audio_read_mtok: Price | None = None
    cache_write_1h_mtok: Price | None = None
    requests_kcount: Price | None = None
    web_searches_kcount: Price | None = None
    storage_searches_kcount: Price | None = None

    def __post_init__(self) -> None:
        for price in (
            self.input_mtok,
            self.output_mtok,
            self.cache_read_mtok,
            self.cache_write_mtok,
            self.output_reasoning_mtok,
            self.input_audio_mtok,
            self.output_audio_mtok,
            self.cache_audio_read_mtok,
            self.cache_write_1h_mtok,
            self.requests_kcount,
            self.web_searches_kcount,
            self.storage_searches_kcount,
        ):
            if type(price) is Decimal:
                _check_price(price)


class Constraint(Struct, frozen=True, kw_only=True, gc=False):
    """When a price holds: from a UTC day on, or between two times of every day (UTC where they name no offset)."""

    start_date: date | None = None
    start_time: time | None = None
    end_time: time | None = None

    def __post_init__(self) -> None:
        if self.start_date is None and (self.start_time is None or self.end_time is None):
            raise ValueError("a constraint has a start_date, or a start_time and an end_time")


class ConditionalPrices(Struct, frozen=True, kw_only=True, gc=False):
    """Prices and when they hold; always, without a constraint."""

    prices: Prices
    constraint: Constraint | None = None


class PriceVariant(Struct, frozen=True, kw_only=True, gc=False):
    """Prices that replace a model's own, part by part, for requests that are served in another way."""

    when: dict[str, str]
    """Such as `{"service_tier": "priority"}`."""
    prices: Prices
    constraint: Constraint | None = None


class PricedModel(Struct, frozen=True, kw_only=True, gc=False):
    """One model, the names that mean it, and its prices. The last entry that holds wins; the first where none does."""

    id: str
    match: Clause
    prices: Prices | tuple[ConditionalPrices, ...]
    price_variants: tuple[PriceVariant, ...] | None = None
    """For each price the first variant that holds wins."""

    @property
    def dated(self) -> tuple[ConditionalPrices, ...]:
        """All its prices, those without a condition as the only entry."""
        return self.prices if isinstance(self.prices, tuple) else (ConditionalPrices(prices=self.prices),)


class PricedProvider(Struct, frozen=True, kw_only=True, gc=False):
    """A provider's models, in the order in which they are tried."""

    id: str
    models: tuple[PricedModel, ...] = ()
    fallback_model_providers: tuple[str, ...] | None = None
    """Whose models it serves as well: tried in this order where none of its own matches."""

    def find_model(self, name: str, providers: Mapping[str, PricedProvider]) -> PricedModel | None:
        """The model that a name means, or None.

        A date written as `-20251211` is tried as `-2025-12-11` too, where the name is unknown as it stands.
        """
        name = name.lower()
        found = self._match(name, providers)
        if found is None and (dashed := _dashed_dates(name)) != name:
            found = self._match(dashed, providers)
        return found

    def _match(self, name: str, providers: Mapping[str, PricedProvider]) -> PricedModel | None:
        # One step: the fallbacks of a fallback are not tried.
        others = [providers[other] for other in self.fallback_model_providers or () if other in providers]
        for provider in (self, *others):
            for model in provider.models:
                if model.match.matches(name):
                    return model
        return None


class Document(Struct, frozen=True, kw_only=True):
    """A file of price data. Public files are a bare list of providers; the packaged one says where it is from."""

    providers: tuple[PricedProvider, ...]
    genai_prices_version: str | None = None


_DECODER = msgspec.json.Decoder(Document | tuple[PricedProvider, ...])

_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def decode(document: bytes) -> Document:
    """The providers in a JSON document: their list, or an object that has it under `providers`.

    Raises:
        PriceDataError: the bytes are not such a document, or a price in it is negative or no number.
    """
    try:
        found = _DECODER.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PriceDataError(f"the price data cannot be read: {error}") from None
    return found if isinstance(found, Document) else Document(providers=found)


def shipped() -> bytes:
    """The document that is shipped, about 450 kB of JSON."""
    return gzip.decompress(SNAPSHOT.read_bytes())


def check_patterns(document: Document) -> None:
    """Refuse regular expressions that do not compile, so that none fails when a request asks for its price.

    Raises:
        PriceDataError: which one, and why.
    """
    for provider in document.providers:
        for model in provider.models:
            for pattern in model.match.patterns():
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise PriceDataError(f"the price data match {model.id} by {pattern!r}: {error}") from None


def _check_price(price: Decimal) -> None:
    if not price.is_finite() or price < 0:
        raise ValueError(f"{price} is no price")


def _dashed_dates(name: str) -> str:
    def dashed(match: re.Match[str]) -> str:
        year, month, day = match.groups()
        try:
            date(int(year), int(month), int(day))
        except ValueError:
            return match[0]
        return f"-{year}-{month}-{day}"

    return _COMPACT_DATE.sub(dashed, name)
