"""The price book: which prices hold for a provider's model, from public data and the configuration's own entries.

Public data come from genai-prices (https://github.com/pydantic/genai-prices), as shipped in its package or as a file
of its JSON form. Data that cannot be read, or that lost most of their models, are refused: the old prices stay.
A model that nobody prices has no card, and no card is never a price of 0.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gateway.config.money import PriceFile
from gateway.spend.rates import DatedTiers, RateCard, Rates, Tiers, compile_row

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_PARTS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
    "cache_audio_read": "cache_audio_read_mtok",
}
"""Our parts by genai-prices' keys. Searches, images, pages and hours are not token counts: they are not charged."""

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


class PriceDataError(Exception):
    """Price data that cannot be used; the prices in use stay."""


class PriceData(Struct, frozen=True, kw_only=True):
    """One set of public prices. `as_of` is a day on which it was certainly current: its youngest dated price."""

    providers: Mapping[str, Any]
    """genai-prices' Provider objects, by id."""
    version: str
    as_of: date

    @property
    def models(self) -> int:
        """How many models are priced."""
        return sum(len(provider.models) for provider in self.providers.values())


def packaged_prices(today: date) -> PriceData:
    """The prices of the installed genai-prices. `today` keeps prices announced for later from making them young."""
    # Half a second of import, paid only by processes that price.
    import genai_prices
    from genai_prices.data import providers

    return _data(providers, f"genai-prices {genai_prices.__version__}", today)


def read_prices(document: bytes, today: date) -> PriceData:
    """Prices from genai-prices' JSON form (its repository's `prices/new_data/v2/data.json`).

    Raises:
        PriceDataError: the bytes are not such a document.
    """
    import pydantic
    from genai_prices.types import _providers_from_raw

    try:
        raw = json.loads(document)
        providers = _providers_from_raw(raw["providers"] if isinstance(raw, dict) else raw)
    except (ValueError, KeyError, TypeError, pydantic.ValidationError) as error:
        raise PriceDataError(f"the price data cannot be read: {str(error).splitlines()[0]}") from None
    if not any(provider.models for provider in providers):
        raise PriceDataError("the price data hold no model")
    return _data(providers, f"sha256:{hashlib.sha256(document).hexdigest()[:12]}", today)


def _data(providers: Iterable[Provider], version: str, today: date) -> PriceData:
    by_id = {provider.id: provider for provider in providers}
    days = [
        constraint.start_date
        for provider in by_id.values()
        for model in provider.models
        if isinstance(model.prices, list)
        for constraint in (conditional.constraint for conditional in model.prices)
        if constraint is not None and hasattr(constraint, "start_date") and constraint.start_date <= today
    ]
    return PriceData(providers=by_id, version=version, as_of=max(days, default=date(1970, 1, 1)))


class PriceBook:
    """Rate cards by provider and model, compiled when first asked for.

    Args:
        data: public prices.
        overrides: the configuration's `prices:`; they win over public ones, an entry with a provider over one without.
    """

    def __init__(self, data: PriceData, overrides: Sequence[PriceFile] = ()) -> None:
        self._data = data
        self._overrides = {(override.provider, override.model): _override_card(override) for override in overrides}
        self._cards: dict[tuple[str, str, str | None], RateCard | None] = {}
        self.refused_updates = 0
        """How many new price data were refused since the start; the old prices stayed."""

    @property
    def version(self) -> str:
        """Names the public data in use."""
        return self._data.version

    def age_s(self, now_ns: int) -> float:
        """How old the public data are at most, in seconds: since their youngest price that has come into force."""
        as_of = datetime.combine(self._data.as_of, time(), UTC)
        return max(0.0, now_ns / 1e9 - as_of.timestamp())

    def update(self, document: bytes, today: date) -> None:
        """Replace the public data; or refuse, keep the old prices, and count the refusal.

        Raises:
            PriceDataError: why the new data were refused.
        """
        try:
            data = read_prices(document, today)
            if data.models * 2 < self._data.models:
                raise PriceDataError(f"the new price data hold {data.models} models, the old {self._data.models}")
            if data.as_of < self._data.as_of:
                raise PriceDataError(f"the new price data are of {data.as_of}, the old of {self._data.as_of}")
        except PriceDataError:
            self.refused_updates += 1
            raise
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

    def _find(self, provider: str, model: str) -> RateCard | None:
        for key in ((provider, model), (None, model)):
            if key in self._overrides:
                return self._overrides[key]
        name = provider.lower().replace("-", "_")
        public = self._data.providers.get(_PUBLIC_NAMES.get(name, provider.lower()))
        if public is None or not model:
            return None
        found = public.find_model(model, all_providers=list(self._data.providers.values()))
        return None if found is None else _public_card(found, self._data.version)


def _override_card(override: PriceFile) -> RateCard:
    rates = Rates(
        input=override.input_usd_per_mtok,
        output=override.output_usd_per_mtok,
        cache_read=override.cache_read_usd_per_mtok,
        cache_write=override.cache_write_usd_per_mtok,
        reasoning=override.reasoning_usd_per_mtok,
        input_audio=override.input_audio_usd_per_mtok,
        output_audio=override.output_audio_usd_per_mtok,
        request_usd=override.request_usd,
    )
    digest = hashlib.sha256(repr(override).encode()).hexdigest()[:8]
    return RateCard(dated=(DatedTiers(tiers=Tiers(rows=(compile_row(rates),)), version=f"config {digest}"),))


def _public_card(model: ModelInfo, version: str) -> RateCard | None:
    from genai_prices.types import ConditionalPrice, StartDateConstraint, TimeOfDateConstraint

    conditional = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    dated = []
    for entry in conditional:
        tiers = _tiers(entry.prices)
        if tiers is None:
            continue
        constraint = entry.constraint
        if isinstance(constraint, StartDateConstraint):
            start = datetime.combine(constraint.start_date, time(), UTC)
            dated.append(
                DatedTiers(
                    tiers=tiers,
                    version=f"{version} from {constraint.start_date}",
                    from_ns=int(start.timestamp()) * 1_000_000_000,
                )
            )
        elif isinstance(constraint, TimeOfDateConstraint):
            dated.append(
                DatedTiers(
                    tiers=tiers,
                    version=f"{version} from {constraint.start_time:%H:%M}",
                    day_from_s=_second_of_day(constraint.start_time),
                    day_until_s=_second_of_day(constraint.end_time),
                )
            )
        else:
            dated.append(DatedTiers(tiers=tiers, version=version))
    return RateCard(dated=tuple(dated)) if dated else None


def _second_of_day(value: time) -> int:
    moment = datetime.combine(date(1970, 1, 2), value, value.tzinfo or UTC)
    return int(moment.timestamp()) % 86_400


def _tiers(prices: ModelPrice) -> Tiers | None:
    """The tiers of one set of prices, or None where tokens have no price (a model paid by the hour, say)."""
    from genai_prices.types import TieredPrices

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {part: getattr(prices, key) for part, key in _PARTS.items()}
    if given["input"] is None and given["output"] is None:
        return None
    starts = sorted({tier.start for value in given.values() if isinstance(value, TieredPrices) for tier in value.tiers})
    fee = prices.requests_kcount
    request = Decimal(0) if fee is None else (fee.base if isinstance(fee, TieredPrices) else fee) / 1000
    rows = [
        compile_row(_rates({part: _price_above(value, start) for part, value in given.items()}, request))
        for start in (-1, *starts)
    ]
    return Tiers(rows=tuple(rows), starts=tuple(starts))


def _rates(values: Mapping[str, Decimal | None], request_usd: Decimal) -> Rates:
    known = {part: value for part, value in values.items() if value is not None}
    return Rates(request_usd=request_usd, **known)


def _price_above(value: Any, start: int) -> Decimal | None:
    """The price just above a tier's start: what holds for inputs of `start + 1` tokens."""
    if value is None or isinstance(value, Decimal):
        return value
    price: Decimal = value.base
    for tier in value.tiers:
        if start >= tier.start:
            price = tier.price
    return price
