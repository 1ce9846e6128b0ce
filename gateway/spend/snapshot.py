"""Writes `prices.json.gz`, the public prices that the gateway ships: `make prices`.

They are those of the genai-prices package that is installed (a development dependency), in its own JSON form, with
one model a line so that `zcat` and `diff` tell what changed. Left out is what the gateway does not read:
descriptions, comments, prices of what it does not charge, variants for batches, and how usage is extracted.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.spend.price_data import SERVED_BY, SNAPSHOT, Prices

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, MatchLogic, ModelInfo, ModelPrice, PriceVariant, Provider

_JSON = msgspec.json.Encoder(decimal_format="number")


def snapshot() -> bytes:
    """The document to ship, from the genai-prices that is installed; not yet compressed."""
    import genai_prices
    from genai_prices.data import providers

    head = f'{{"genai_prices_version":"{genai_prices.__version__}","providers":[\n'
    return head.encode() + b",\n".join(_provider(provider) for provider in providers) + b"\n]}\n"


def _provider(provider: Provider) -> bytes:
    facts: dict[str, Any] = {"id": provider.id, "name": provider.name, "api_pattern": provider.api_pattern}
    if provider.fallback_model_providers:
        facts["fallback_model_providers"] = provider.fallback_model_providers
    models = b",\n".join(_JSON.encode(_model(model)) for model in provider.models)
    return _JSON.encode(facts)[:-1] + b',"models":[\n' + models + b"\n]}"


def _model(model: ModelInfo) -> dict[str, Any]:
    prices = model.prices
    variants = [_variant(variant) for variant in model.price_variants or () if variant.when.keys() & SERVED_BY]
    return {
        "id": model.id,
        "match": _clause(model.match),
        "prices": [_conditional(entry) for entry in prices] if isinstance(prices, list) else _prices(prices),
    } | ({"price_variants": variants} if variants else {})


def _variant(variant: PriceVariant) -> dict[str, Any]:
    return {"when": variant.when} | _conditional(variant)


def _clause(clause: MatchLogic) -> dict[str, Any]:
    """A clause has one field; `or_` and `and_` lose in JSON the underscore that Python asks for."""
    ((kind, value),) = vars(clause).items()
    return {kind.rstrip("_"): [_clause(part) for part in value] if isinstance(value, list) else value}


def _conditional(entry: ConditionalPrice | PriceVariant) -> dict[str, Any]:
    constraint = {} if entry.constraint is None else {"constraint": vars(entry.constraint)}
    return constraint | {"prices": _prices(entry.prices)}


def _prices(prices: ModelPrice) -> dict[str, Any]:
    read = Prices.__struct_fields__
    return {key: value for key, value in vars(prices).items() if key in read and value is not None}


if __name__ == "__main__":
    # Without a time in it, so that the same prices make the same file.
    SNAPSHOT.write_bytes(gzip.compress(snapshot(), mtime=0))
