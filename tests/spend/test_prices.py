"""The price book: golden costs, public data against their own calculator, and data that are broken."""

import json
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal

import genai_prices
import msgspec
import pytest
from genai_prices.data import providers as their_providers
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.config.money import PriceFile
from gateway.spend.price_data import PriceDataError
from gateway.spend.prices import PriceBook, PriceData, packaged_prices, read_prices
from gateway.spend.rates import Rates, compile_row
from gateway.types.usage import Usage, service_tier

TODAY = date(2026, 11, 23)
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
AT_NS = int(AT.timestamp()) * 10**9


@pytest.fixture(scope="module")
def data() -> PriceData:
    """The packaged prices, read once."""
    return packaged_prices(TODAY)


def usage(**counts: int) -> Usage:
    """A usage with zeros where nothing is said."""
    return Usage(**({"input_tokens": 0, "output_tokens": 0} | counts))  # type: ignore[arg-type]


FLAT = Rates(input=Decimal(3), output=Decimal(15))
CACHED = Rates(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75"))
AUDIO = Rates(
    input=Decimal("2.5"),
    output=Decimal(10),
    cache_read=Decimal("1.25"),
    input_audio=Decimal(40),
    output_audio=Decimal(80),
    cache_audio_read=Decimal("2.5"),
)


@pytest.mark.parametrize(
    ("rates", "counts", "nano_usd"),
    [
        (FLAT, {"input_tokens": 1000, "output_tokens": 100}, 4_500_000),
        (FLAT, {}, 0),
        (FLAT, {"input_tokens": 1000, "cache_read_tokens": 900}, 3_000_000),
        (FLAT, {"output_tokens": 100, "reasoning_tokens": 90}, 1_500_000),
        (CACHED, {"input_tokens": 1000, "cache_read_tokens": 900}, 100 * 3_000 + 900 * 300),
        (CACHED, {"input_tokens": 1000, "cache_read_tokens": 600, "cache_write_tokens": 300},
         100 * 3_000 + 600 * 300 + 300 * 3_750),
        (CACHED, {"input_tokens": 100, "cache_read_tokens": 900}, 900 * 300),
        (AUDIO, {"input_tokens": 1000, "input_audio_tokens": 400}, 600 * 2_500 + 400 * 40_000),
        (AUDIO, {"input_tokens": 1000, "input_audio_tokens": 700, "cache_read_tokens": 500},
         500 * 40_000 + 300 * 1_250 + 200 * 2_500),
        (AUDIO, {"output_tokens": 100, "output_audio_tokens": 80}, 20 * 10_000 + 80 * 80_000),
        (Rates(input=Decimal(1), output=Decimal(2), reasoning=Decimal(5)),
         {"output_tokens": 100, "reasoning_tokens": 90}, 10 * 2_000 + 90 * 5_000),
        (Rates(input=Decimal("0.0000001"), output=Decimal(0)), {"input_tokens": 1}, 1),
        (Rates(input=Decimal("0.0015"), output=Decimal("0.0001")), {"input_tokens": 1, "output_tokens": 1}, 2),
        (Rates(request_usd=Decimal("0.005")), {"input_tokens": 9}, 5_000_000),
    ],
)  # fmt: skip
def test_a_cost_is_exact_and_rounded_up_once(rates: Rates, counts: dict[str, int], nano_usd: int) -> None:
    """The golden table: cached, reasoning and audio parts, fees, and fractions of a nano-dollar."""
    assert compile_row(rates).nano_usd(usage(**counts)) == nano_usd


@pytest.mark.parametrize(
    ("rates", "counts", "saved", "surcharge"),
    [
        (FLAT, {"input_tokens": 1000, "cache_read_tokens": 900}, 0, 0),
        (CACHED, {"input_tokens": 1000}, 0, 0),
        (CACHED, {"input_tokens": 1000, "cache_read_tokens": 900}, 900 * 2_700, 0),
        (CACHED, {"input_tokens": 1000, "cache_write_tokens": 900}, 0, 900 * 750),
        (CACHED, {"input_tokens": 1000, "cache_read_tokens": 600, "cache_write_tokens": 300}, 600 * 2_700, 300 * 750),
        (AUDIO, {"input_tokens": 1000, "cache_read_tokens": 100, "input_audio_tokens": 400}, 100 * 1_250, 0),
        (AUDIO, {"input_tokens": 400, "cache_read_tokens": 100, "input_audio_tokens": 400}, 100 * 37_500, 0),
        (Rates(input=Decimal("0.0015"), cache_read=Decimal("0.001")), {"input_tokens": 1, "cache_read_tokens": 1}, 0, 0),
    ],
)  # fmt: skip
def test_what_a_cache_saved_and_cost(rates: Rates, counts: dict[str, int], saved: int, surcharge: int) -> None:
    """Cached tokens against the same tokens uncached: what was saved is rounded down, what it cost on top, up."""
    assert compile_row(rates).cache_nano_usd(usage(**counts)) == (saved, surcharge)


@given(
    counts=st.fixed_dictionaries({name: st.integers(0, 10**6) for name in ("plain", "read", "write", "output")}),
    rates=st.fixed_dictionaries(
        {name: st.decimals(0, 100, places=4) for name in ("input", "cache_read", "cache_write")}
    ),
)
def test_savings_are_what_no_cache_would_have_cost_more(counts: dict[str, int], rates: dict[str, Decimal]) -> None:
    """For all prices and counts: cost + saved - surcharge is the cost of the same request without a cache."""
    row = compile_row(Rates(output=Decimal(7), **rates))
    whole = counts["plain"] + counts["read"] + counts["write"]
    cached = usage(
        input_tokens=whole,
        output_tokens=counts["output"],
        cache_read_tokens=counts["read"],
        cache_write_tokens=counts["write"],
    )
    saved, surcharge = row.cache_nano_usd(cached)
    without = row.nano_usd(usage(input_tokens=whole, output_tokens=counts["output"]))
    assert abs(row.nano_usd(cached) + saved - surcharge - without) <= 2  # each amount is rounded by itself
    assert min(saved, surcharge) >= 0


GOLDEN = [
    ("openai", "gpt-4o", {"input_tokens": 1000, "output_tokens": 500, "cache_read_tokens": 400}, 7_000_000),
    ("openai", "gpt-4o-mini", {"input_tokens": 1, "output_tokens": 1}, 750),
    ("openai", "text-embedding-3-small", {"input_tokens": 1}, 20),
    ("anthropic", "claude-3-5-haiku-latest", {"input_tokens": 1000, "output_tokens": 100, "cache_read_tokens": 500,
                                              "cache_write_tokens": 200}, 240_000 + 40_000 + 200_000 + 400_000),
    ("gemini", "gemini-2.5-pro", {"input_tokens": 200_000, "output_tokens": 10}, 250_100_000),
    ("gemini", "gemini-2.5-pro", {"input_tokens": 200_001, "output_tokens": 10}, 500_002_500 + 150_000),
    ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", {"input_tokens": 1000, "output_tokens": 1000}, 1_500_000),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "model", "counts", "nano_usd"), GOLDEN)
def test_public_prices_cost_what_their_vendors_say(
    data: PriceData, provider: str, model: str, counts: dict[str, int], nano_usd: int
) -> None:
    """Known models of several providers, tiers included, worked out by hand from the vendors' price pages."""
    card = PriceBook(data).card(provider, model)
    assert card is not None
    assert card.at(AT_NS).tiers.row(counts["input_tokens"]).nano_usd(usage(**counts)) == nano_usd


SERVED = sorted(
    {
        (provider.id, model.id, key, tier)
        for provider in their_providers
        for model in provider.models
        for variant in model.price_variants or ()
        for key, tier in variant.when.items()
        if key in {"service_tier", "speed"}
    }
)


@pytest.mark.parametrize(("provider", "model", "key", "tier"), SERVED)
def test_service_tiers_cost_what_genai_prices_says(
    data: PriceData, provider: str, model: str, key: str, tier: str
) -> None:
    """Every model with prices of its own for a tier, at small and at large inputs; `default` is the standard tier."""
    card = PriceBook(data).card(provider, model)
    assert card is not None
    word = service_tier(tier)
    assert card.knows(word)
    for tokens in (1_000, 500_000):
        counts = {"input_tokens": tokens, "output_tokens": 77, "cache_read_tokens": tokens // 3}
        theirs = genai_prices.calc_price(
            genai_prices.Usage(**counts), model, provider_id=provider, genai_request_timestamp=AT,
            price_context={key: tier},
        )  # fmt: skip
        ours = card.at(AT_NS, word).tiers.row(tokens).nano_usd(usage(**counts))
        assert ours == int((theirs.total_price * 10**9).to_integral_value(ROUND_CEILING))
        assert ours <= card.bound_nano_usd(tokens, 77, AT_NS, service_tier=word)


def test_there_are_tiers_to_compare() -> None:
    """The data have prices of service tiers and of fast modes."""
    assert {key for _, _, key, _ in SERVED} == {"service_tier", "speed"}
    assert len(SERVED) > 50


def test_calls_and_long_caches_are_charged_or_named() -> None:
    """A price for each call and for an hour of cache; without one, the part is named and its standard price charged."""
    counts = usage(
        input_tokens=1000, cache_write_tokens=300, cache_write_1h_tokens=100, web_searches=2, file_searches=3,
        other_tool_calls=1,
    )  # fmt: skip
    without = compile_row(CACHED)
    assert without.nano_usd(counts) == 700 * 3_000 + 300 * 3_750
    assert [part.value for part in without.unpriced(counts)] == [
        "web_search", "file_search", "other_tool", "cache_write_1h",
    ]  # fmt: skip
    fees = {"web_search_usd": Decimal("0.01"), "file_search_usd": Decimal("0.0025"), "cache_write_1h": Decimal(6)}
    row = compile_row(structs.replace(CACHED, **fees))
    assert row.nano_usd(counts) == 700 * 3_000 + 200 * 3_750 + 100 * 6_000 + 2 * 10_000_000 + 3 * 2_500_000
    assert [part.value for part in row.unpriced(counts)] == ["other_tool"]
    assert row.cache_nano_usd(counts) == (0, 200 * 750 + 100 * 3_000)
    assert row.bound_nano_usd(1000, 0) == 1000 * 3_750
    assert row.bound_nano_usd(1000, 0, long_cache=True) == 1000 * 6_000


def test_the_configuration_prices_tiers_and_calls(data: PriceData) -> None:
    """`prices:` may price one tier of a public model, or a model and its tiers anew; a provider's entry wins."""

    def entry(price: int, **more: object) -> PriceFile:
        given = {"model": "gpt-4o", "input_usd_per_mtok": price, "output_usd_per_mtok": 1} | more
        return msgspec.convert(given, PriceFile)

    def million(book: PriceBook, tier: str) -> int:
        card = book.card("openai", "gpt-4o")
        assert card is not None
        return card.at(AT_NS, tier).tiers.row(1).nano_usd(usage(input_tokens=1_000_000)) // 10**9

    only_tier = PriceBook(data, [entry(9, service_tier="Ultrafast")])
    assert [million(only_tier, tier) for tier in ("", "ultrafast")] == [2, 9]
    anew = PriceBook(data, [entry(5), entry(7, service_tier="flex"), entry(8, service_tier="flex", provider="openai")])
    assert [million(anew, tier) for tier in ("", "flex", "priority")] == [5, 8, 5]
    card = anew.card("openai", "gpt-4o")
    assert card is not None
    assert [card.knows(tier) for tier in ("", "flex", "priority")] == [True, True, False]
    searched = usage(input_tokens=1, web_searches=1)
    with_fee = PriceBook(data, [entry(0, web_search_usd="0.02")]).card("openai", "gpt-4o")
    assert with_fee is not None
    assert with_fee.at(AT_NS).tiers.row(1).nano_usd(searched) == 20_000_000


def _plain_models(data: PriceData) -> list[tuple[str, str]]:
    return [
        (provider.id, model.id)
        for provider in data.providers.values()
        for model in provider.models
        if provider.id in {"openai", "anthropic", "google", "aws", "azure", "deepseek", "x-ai", "mistral", "groq", "cohere"}
    ]  # fmt: skip


_MODELS = _plain_models(packaged_prices(TODAY))


@settings(max_examples=400, deadline=None)
@given(
    where=st.sampled_from(_MODELS),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 6, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    plain=st.integers(0, 300_000),
    read=st.integers(0, 200_000),
    write=st.integers(0, 50_000),
    output=st.integers(0, 100_000),
)
def test_our_cards_agree_with_the_data_s_own_calculator(
    data: PriceData, where: tuple[str, str], at: datetime, plain: int, read: int, write: int, output: int
) -> None:
    """For every model, day, hour, tier and cache, the compiled card gives genai-prices' result, rounded up."""
    provider, model = where
    card = PriceBook(data).card(provider, model)
    if card is None:
        return
    counts = usage(
        input_tokens=plain + read + write, cache_read_tokens=read, cache_write_tokens=write, output_tokens=output
    )
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=plain + read + write, cache_read_tokens=read, cache_write_tokens=write, output_tokens=output
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=at,
    ).total_price
    ours = card.at(int(at.timestamp() * 10**9)).tiers.row(plain + read + write).nano_usd(counts)
    assert ours == (theirs * 10**9).to_integral_value(rounding=ROUND_CEILING)


def test_the_bound_is_never_below_a_cost(data: PriceData) -> None:
    """Whatever kinds the tokens turn out to be, a hold covers them."""
    book = PriceBook(data)
    for provider, model in _MODELS:
        card = book.card(provider, model)
        if card is None:
            continue
        bound = card.bound_nano_usd(300_000, 5_000, AT_NS)
        for tokens in (1, 128_001, 300_000):
            for counts in (
                usage(input_tokens=tokens, output_tokens=5_000),
                usage(input_tokens=tokens, cache_write_tokens=tokens, output_tokens=5_000, reasoning_tokens=5_000),
                usage(input_tokens=tokens, input_audio_tokens=tokens, output_tokens=5_000, output_audio_tokens=5_000),
            ):
                assert card.at(AT_NS).tiers.row(tokens).nano_usd(counts) <= bound


def test_what_nobody_prices_has_no_card(data: PriceData) -> None:
    """An unknown model and a server of one's own are unknown, not free."""
    book = PriceBook(data)
    assert book.card("openai", "no-such-model") is None
    assert book.card("openai-compatible", "gpt-4o") is None
    assert book.card("openai", "") is None


def test_an_override_wins_and_zero_is_a_price(data: PriceData) -> None:
    """The configuration's price replaces the public one; an explicit 0 is known to cost nothing."""
    free = PriceFile(model="llama", input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0))
    dear = PriceFile(provider="openai", model="gpt-4o", input_usd_per_mtok=Decimal(7), output_usd_per_mtok=Decimal(9))
    book = PriceBook(data, (free, dear))
    counts = usage(input_tokens=10, output_tokens=10)
    card = book.card("ollama", "llama")
    assert card is not None
    assert card.at(AT_NS).tiers.row(10).nano_usd(counts) == 0
    card = book.card("openai", "gpt-4o")
    assert card is not None
    assert card.at(AT_NS).tiers.row(10).nano_usd(counts) == 10 * 7_000 + 10 * 9_000
    assert card.at(AT_NS).version.startswith("config ")
    azure = book.card("azure", "gpt-4o")
    assert azure is not None
    assert azure.at(AT_NS).version == f"genai-prices {genai_prices.__version__}"


def test_an_unknown_deployment_costs_what_its_answer_says_it_is(data: PriceData) -> None:
    """A deployment's own name is no model; the model that answered has a price."""
    book = PriceBook(data)
    assert book.card("azure", "our-deployment") is None
    assert book.card("azure", "our-deployment", "gpt-4o-2024-08-06") is not None


def test_prices_change_on_their_day_and_with_the_hour(data: PriceData) -> None:
    """Every dated price begins at its UTC midnight, not before."""
    book = PriceBook(data)
    seen = 0
    for provider in data.providers.values():
        for model in provider.models:
            for entry in model.dated:
                first = None if entry.constraint is None else entry.constraint.start_date
                if first is not None and (card := book.card(provider.id, model.id)):
                    at = int(datetime.combine(first, datetime.min.time(), UTC).timestamp()) * 10**9
                    version = f"{data.version} from {first}"
                    assert card.at(at - 1).version != version
                    seen += card.at(at).version == version
    assert seen > 100


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b'[{"id": 1}]',
    b"null",
    b'[{"id":"x","name":"x","api_pattern":"x","models":[]}]',
    b"\xff",
]


@pytest.mark.parametrize("document", BROKEN)
def test_broken_price_data_keep_the_old_prices(data: PriceData, document: bytes) -> None:
    """Price data that cannot be read are refused, and requests cost what they did."""
    book = PriceBook(data)
    before = book.card("openai", "gpt-4o")
    with pytest.raises(PriceDataError):
        book.take(read_prices(document, TODAY))
    assert book.card("openai", "gpt-4o") is before
    assert book.version == data.version


def _document(price: str) -> bytes:
    model = {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": price, "output_mtok": "2"}}
    return json.dumps([{"id": "openai", "name": "O", "api_pattern": "x", "models": [model]}]).encode()


def test_price_data_that_lost_most_of_their_models_are_refused(data: PriceData) -> None:
    """A file with one model does not replace a file with thousands; small data may replace small data."""
    book = PriceBook(data)
    with pytest.raises(PriceDataError, match="models"):
        book.take(read_prices(_document("1"), TODAY))
    small = PriceBook(read_prices(_document("1"), TODAY))
    small.take(read_prices(_document("3"), TODAY))
    card = small.card("openai", "m")
    assert card is not None
    assert card.at(AT_NS).tiers.row(1).nano_usd(usage(input_tokens=1)) == 3_000


def test_prices_have_an_age(data: PriceData) -> None:
    """The age counts from the youngest price in force, so it grows while nobody updates."""
    book = PriceBook(data)
    assert book.age_s(AT_NS) == (AT - datetime.combine(data.as_of, datetime.min.time(), UTC)).total_seconds()
    assert book.age_s(AT_NS + 10**9) - book.age_s(AT_NS) == pytest.approx(1.0)


def test_a_negative_price_is_refused_by_name() -> None:
    """A configured price below zero cannot lower anyone's bill."""
    with pytest.raises(msgspec.ValidationError, match="input_usd_per_mtok"):
        msgspec.convert({"model": "m", "input_usd_per_mtok": -1, "output_usd_per_mtok": 0}, PriceFile)


def test_a_million_one_token_embeddings_sum_exactly(data: PriceData) -> None:
    """10^6 requests of one token each cost a million times one token's price, to the nano-dollar."""
    card = PriceBook(data).card("openai", "text-embedding-3-small")
    assert card is not None
    row, one = card.at(AT_NS).tiers.row(1), usage(input_tokens=1)
    assert sum(row.nano_usd(one) for _ in range(1_000_000)) == 20_000_000
