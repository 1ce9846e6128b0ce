"""The price book: which prices hold for a provider's model, from public data and the configuration's own entries.

Public data come from genai-prices (https://github.com/pydantic/genai-prices): a snapshot that is shipped here, or a
newer file of its JSON form. Data that cannot be read, or that lost most of their models, are refused: the old prices stay.
A model that nobody prices has no card, and no card is never a price of 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal

from msgspec import Struct, structs

from gateway.config.money import PriceFile
from gateway.spend.price_data import (
    SERVED_BY,
    ConditionalPrices,
    Constraint,
    Document,
    Price,
    PriceDataError,
    PricedModel,
    PricedProvider,
    Prices,
    PriceVariant,
    TieredPrice,
    check_patterns,
    decode,
    shipped,
)
from gateway.spend.rates import DatedTiers, RateCard, Rates, Tiers, compile_row
from gateway.types.route import Route
from gateway.types.usage import service_tier

_PARTS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
    "cache_audio_read": "cache_audio_read_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
"""Our parts by genai-prices' keys. Images, pages and hours are not reported in tokens: they are not charged."""
_CALLS = {
    "request_usd": "requests_kcount",
    "web_search_usd": "web_searches_kcount",
    "file_search_usd": "storage_searches_kcount",
}
"""Fees by genai-prices' keys, which are for a thousand calls."""

_PUBLIC_NAMES = {
    "azuread": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "amazon_bedrock": "aws",
    "gemini": "google",
    "palm": "google",
    "vertex": "google",
    "vertex_ai": "google",
    "xai": "x-ai",
    "togetherai": "together",
}
"""Names of providers that genai-prices spells differently. A name that neither knows has no public price."""

_MAX_CARDS = 4_096
NO_PRICE = (
    "no price is known for model '%s' of provider '%s': a hard budget refuses it; without one its cost is unknown, unless "
    "its replies name a model that has a price. `prices:` can give one, and 0 is a price"
)


class PriceData(Struct, frozen=True, kw_only=True):
    """One set of public prices. `as_of` is a day on which it was certainly current: its youngest dated price."""

    providers: Mapping[str, PricedProvider]
    """By id."""
    version: str
    as_of: date

    @property
    def models(self) -> int:
        """How many models are priced."""
        return sum(len(provider.models) for provider in self.providers.values())


def packaged_prices(today: date) -> PriceData:
    """The prices that are shipped, in about 10 ms. `today` keeps prices announced for later from making them young."""
    document = decode(shipped())
    return _data(document, f"genai-prices {document.genai_prices_version}", today)


def read_prices(document: bytes, today: date) -> PriceData:
    """Prices from genai-prices' JSON form (its repository's `prices/new_data/v2/data.json`, or `data_slim.json`).

    Raises:
        PriceDataError: the bytes are not such a document, or price no model.
    """
    found = decode(document)
    check_patterns(found)
    if not any(provider.models for provider in found.providers):
        raise PriceDataError("the price data hold no model")
    return _data(found, f"sha256:{hashlib.sha256(document).hexdigest()[:12]}", today)


def _data(document: Document, version: str, today: date) -> PriceData:
    days = [
        entry.constraint.start_date
        for provider in document.providers
        for model in provider.models
        if isinstance(model.prices, tuple)
        for entry in model.prices
        if entry.constraint is not None and entry.constraint.start_date is not None
    ]
    return PriceData(
        providers={provider.id: provider for provider in document.providers},
        version=version,
        as_of=max((day for day in days if day <= today), default=date(1970, 1, 1)),
    )


class PriceBook:
    """Rate cards by provider and model, compiled when first asked for.

    Args:
        data: public prices.
        overrides: the configuration's `prices:`; they win over public ones, an entry with a provider over one without.
    """

    def __init__(self, data: PriceData, overrides: Sequence[PriceFile] = ()) -> None:
        self._data = data
        self._overrides: dict[tuple[str | None, str], dict[str, DatedTiers]] = {}
        self._cards: dict[tuple[str, str, str | None], RateCard | None] = {}
        self.refused_updates = 0
        """How many new price data were refused since the start; whoever reads them counts."""
        self.override(overrides)

    @property
    def version(self) -> str:
        """Names the public data in use."""
        return self._data.version

    def age_s(self, now_ns: int) -> float:
        """How old the public data are at most, in seconds: since their youngest price that has come into force."""
        as_of = datetime.combine(self._data.as_of, time(), UTC)
        return max(0.0, now_ns / 1e9 - as_of.timestamp())

    def override(self, overrides: Sequence[PriceFile]) -> None:
        """Use another configuration's `prices:` from now on."""
        found: dict[tuple[str | None, str], dict[str, DatedTiers]] = {}
        for override in overrides:
            tiers = found.setdefault((override.provider, override.model), {})
            tiers[service_tier(override.service_tier)] = _override(override)
        self._overrides = found
        self._cards = {}

    def take(self, data: PriceData) -> None:
        """Use other public data from now on; or refuse them, and keep the old prices.

        Raises:
            PriceDataError: they lost most of their models, or are older than those in use.
        """
        if data.models * 2 < self._data.models:
            raise PriceDataError(f"the new price data hold {data.models} models, the old {self._data.models}")
        if data.as_of < self._data.as_of:
            raise PriceDataError(f"the new price data are of {data.as_of}, the old of {self._data.as_of}")
        self._data = data
        self._cards = {}

    def card(self, provider: str, model: str, response_model: str | None = None) -> RateCard | None:
        """The prices of `model` at `provider`, or None when nobody knows them.

        `response_model` is asked only where the model that was sent is unknown (an Azure deployment, say).
        """
        key = (provider, model, response_model)
        try:
            return self._cards[key]
        except KeyError:
            pass
        # Response models are the provider's words: the table of cards must not grow with them.
        if len(self._cards) >= _MAX_CARDS:
            self._cards = {}
        card = self._find(provider, model)
        if card is None and response_model:
            card = self._find(provider, response_model)
        self._cards[key] = card
        return card

    def unpriced(self, routes: Iterable[Route]) -> list[tuple[str, str]]:
        """The models of these routes that have no card, each once, with their providers; NO_PRICE says what that means."""
        targets = dict.fromkeys((target.model, target.provider) for route in routes for target in route.targets)
        return [(model, provider) for model, provider in targets if self.card(provider, model) is None]

    def _find(self, provider: str, model: str) -> RateCard | None:
        own = self._overrides.get((None, model), {}) | self._overrides.get((provider, model), {})
        base = RateCard(dated=(own.pop(""),)) if "" in own else self._find_public(provider, model)
        if base is None or not own:
            return base
        return RateCard(dated=base.dated, served={**base.served, **{tier: (dated,) for tier, dated in own.items()}})

    def _find_public(self, provider: str, model: str) -> RateCard | None:
        name = provider.lower().replace("-", "_")
        public = self._data.providers.get(_PUBLIC_NAMES.get(name, provider.lower()))
        if public is None or not model:
            return None
        found = public.find_model(model, self._data.providers)
        return None if found is None else _public_card(found, self._data.version)


def _override(override: PriceFile) -> DatedTiers:
    rates = Rates(
        input=override.input_usd_per_mtok,
        output=override.output_usd_per_mtok,
        cache_read=override.cache_read_usd_per_mtok,
        cache_write=override.cache_write_usd_per_mtok,
        cache_write_1h=override.cache_write_1h_usd_per_mtok,
        reasoning=override.reasoning_usd_per_mtok,
        input_audio=override.input_audio_usd_per_mtok,
        output_audio=override.output_audio_usd_per_mtok,
        request_usd=override.request_usd,
        web_search_usd=override.web_search_usd,
        file_search_usd=override.file_search_usd,
    )
    digest = hashlib.sha256(repr(override).encode()).hexdigest()[:8]
    return DatedTiers(tiers=Tiers(rows=(compile_row(rates),)), version=f"config {digest}")


def _public_card(model: PricedModel, version: str) -> RateCard | None:
    dated = [
        _dated(tiers, entry.constraint, version) for entry in model.dated if (tiers := _tiers(entry.prices)) is not None
    ]
    return RateCard(dated=tuple(dated), served=_served(model, version)) if dated else None


def _served(model: PricedModel, version: str) -> dict[str, tuple[DatedTiers, ...]]:
    """The prices of a model's service tiers: its own of each day, with what its variants of that day replace."""
    entries: list[ConditionalPrices | PriceVariant] = [*model.dated, *(model.price_variants or ())]
    if any(entry.constraint is not None and entry.constraint.start_date is None for entry in entries):
        # Prices by the time of day in several tiers: nobody has such, and a tier without prices is flagged.
        return {}
    found: dict[str, tuple[DatedTiers, ...]] = {}
    words = {service_tier(value) for variant in model.price_variants or () for value in variant.when.values()}
    for tier in words - {""}:
        variants = [
            v for v in model.price_variants or () if v.when.keys() <= SERVED_BY and {*v.when.values()} == {tier}
        ]
        days = sorted({*map(_first_day, model.dated), *map(_first_day, variants)})
        dated = []
        for day in days:
            own = next((entry for entry in reversed(model.dated) if _first_day(entry) <= day), model.dated[0])
            prices = own.prices
            # The first variant wins, so it comes last; before its variants' first day a tier costs what it does then.
            for variant in reversed([variant for variant in variants if _first_day(variant) <= day]):
                given = {name: value for name, value in structs.asdict(variant.prices).items() if value is not None}
                prices = structs.replace(prices, **given)
            if prices is not own.prices and (tiers := _tiers(prices)) is not None:
                constraint = None if day == date.min else Constraint(start_date=day)
                dated.append(_dated(tiers, constraint, f"{version} {tier}"))
        if dated:
            found[tier] = tuple(dated)
    return found


def _first_day(entry: ConditionalPrices | PriceVariant) -> date:
    constraint = entry.constraint
    return date.min if constraint is None or constraint.start_date is None else constraint.start_date


def _dated(tiers: Tiers, constraint: Constraint | None, version: str) -> DatedTiers:
    if constraint is None:
        return DatedTiers(tiers=tiers, version=version)
    if constraint.start_date is not None:
        start = datetime.combine(constraint.start_date, time(), UTC)
        return DatedTiers(
            tiers=tiers,
            version=f"{version} from {constraint.start_date}",
            from_ns=int(start.timestamp()) * 1_000_000_000,
        )
    assert constraint.start_time is not None
    assert constraint.end_time is not None
    return DatedTiers(
        tiers=tiers,
        version=f"{version} from {constraint.start_time:%H:%M}",
        day_from_s=_second_of_day(constraint.start_time),
        day_until_s=_second_of_day(constraint.end_time),
    )


def _second_of_day(value: time) -> int:
    moment = datetime.combine(date(1970, 1, 2), value, value.tzinfo or UTC)
    return int(moment.timestamp()) % 86_400


def _tiers(prices: Prices) -> Tiers | None:
    """The tiers of one set of prices, or None where tokens have no price (a model paid by the hour, say)."""
    if prices.input_mtok is None and prices.output_mtok is None:
        return None
    given: dict[str, Price | None] = {part: getattr(prices, key) for part, key in _PARTS.items()}
    starts = sorted({tier.start for price in given.values() if isinstance(price, TieredPrice) for tier in price.tiers})
    calls = {fee: _a_call(getattr(prices, key)) for fee, key in _CALLS.items()}
    rows = [
        compile_row(_rates({part: _price_above(price, start) for part, price in given.items()} | calls))
        for start in (-1, *starts)
    ]
    return Tiers(rows=tuple(rows), starts=tuple(starts))


def _rates(values: Mapping[str, Decimal | None]) -> Rates:
    known = {part: value for part, value in values.items() if value is not None}
    return Rates(**known)


def _a_call(price: Price | None) -> Decimal | None:
    """What one call costs, of a price for a thousand; tiers by input size mean nothing to it."""
    return None if price is None else (price.base if isinstance(price, TieredPrice) else price) / 1000


def _price_above(price: Price | None, start: int) -> Decimal | None:
    """The price just above a tier's start: what holds for inputs of `start + 1` tokens."""
    return price.above(start) if isinstance(price, TieredPrice) else price
