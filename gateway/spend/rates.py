"""The arithmetic of one model's prices: token counts in, integer nano-dollars out, rounded up once.

Rates are integers of one common fraction of a nano-dollar a token, so that a sum is exact and only its division
rounds. A card is compiled once; reading it costs about a microsecond.
"""

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from gateway.config.money import NANO_PER_USD
from gateway.types.records import CostPart
from gateway.types.usage import Usage

_NANO_PER_MTOK = 1_000
"""One USD per million tokens is a thousand nano-dollars per token."""


class Rates(Struct, frozen=True, kw_only=True):
    """Prices in USD per million tokens; None where a part has no price of its own and follows its whole.

    `cache_write` is the price of the provider's default time to live, `cache_write_1h` that of an hour. `request_usd` is
    a fee an attempt, `web_search_usd` and `file_search_usd` one a call of the vendor's own tool, in USD.
    """

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None
    cache_audio_read: Decimal | None = None
    cache_write_1h: Decimal | None = None
    request_usd: Decimal = Decimal(0)
    web_search_usd: Decimal | None = None
    file_search_usd: Decimal | None = None


class Row(Struct, frozen=True, kw_only=True):
    """`Rates` as integers of 1/`scale` nano-dollars, with every part resolved, but for calls that have no price."""

    scale: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    input_audio: int
    output_audio: int
    cache_audio_read: int
    cache_write_1h: int
    request: int
    web_search: int | None
    file_search: int | None
    knows_1h: bool
    """`cache_write_1h` is a price of its own, or nothing costs anything."""
    flat: bool
    """No part differs from its whole: the parts need not be looked at."""
    dearest_input: int
    """Of all kinds but `cache_write_1h`, which a request must ask for."""
    dearest_output: int

    @property
    def free(self) -> bool:
        """No token costs anything."""
        return self.dearest_input == self.dearest_output == self.cache_write_1h == 0

    def nano_usd(self, usage: Usage) -> int:
        """The price of known counts, rounded up to a nano-dollar. Counts that are None are taken as 0."""
        given_input = usage.input_tokens or 0
        given_output = usage.output_tokens or 0
        total = self.request
        if usage.web_searches or usage.file_searches:
            total += (usage.web_searches or 0) * (self.web_search or 0)
            total += (usage.file_searches or 0) * (self.file_search or 0)
        if self.flat:
            total += given_input * self.input + given_output * self.output
        else:
            total += self._input(usage, given_input) + self._output(usage, given_output)
        return -(-total // self.scale)

    def unpriced(self, usage: Usage) -> tuple[CostPart, ...]:
        """The parts of a usage that have no price here."""
        parts = []
        if usage.web_searches and self.web_search is None:
            parts.append(CostPart.WEB_SEARCH)
        if usage.file_searches and self.file_search is None:
            parts.append(CostPart.FILE_SEARCH)
        if usage.other_tool_calls:
            parts.append(CostPart.OTHER_TOOL)
        if usage.cache_write_1h_tokens and not self.knows_1h:
            parts.append(CostPart.CACHE_WRITE_1H)
        return tuple(parts)

    def _input(self, usage: Usage, tokens: int) -> int:
        read = usage.cache_read_tokens or 0
        write = usage.cache_write_tokens or 0
        audio = usage.input_audio_tokens or 0
        plain = tokens - read - write - audio
        total = 0
        if plain < 0:
            # More parts than whole: some cached tokens are audio. What even that does not explain is charged as
            # reported, since a provider that contradicts itself is not believed to be cheap.
            both = min(-plain, read, audio)
            total += both * self.cache_audio_read
            read -= both
            audio -= both
            plain = 0
        long = min(usage.cache_write_1h_tokens or 0, write)
        total += (write - long) * self.cache_write + long * self.cache_write_1h
        return total + plain * self.input + read * self.cache_read + audio * self.input_audio

    def _output(self, usage: Usage, tokens: int) -> int:
        reasoning = usage.reasoning_tokens or 0
        audio = usage.output_audio_tokens or 0
        plain = max(0, tokens - reasoning - audio)
        return plain * self.output + reasoning * self.reasoning + audio * self.output_audio

    def cache_nano_usd(self, usage: Usage) -> tuple[int, int]:
        """What the provider's cache saved, rounded down, and what it cost above plain input, rounded up.

        A cached token is compared with the same token uncached: audio with audio. The size of the whole input, and so
        its tier, is the same with and without a cache.
        """
        read, write = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        if self.flat or not (read or write):
            return 0, 0
        audio = usage.input_audio_tokens or 0
        both = min(max(0, read + write + audio - (usage.input_tokens or 0)), read, audio)
        long = min(usage.cache_write_1h_tokens or 0, write)
        differences = (
            (read - both) * (self.input - self.cache_read),
            both * (self.input_audio - self.cache_audio_read),
            (write - long) * (self.input - self.cache_write),
            long * (self.input - self.cache_write_1h),
        )
        saved = sum(amount for amount in differences if amount > 0)
        surcharge = -sum(amount for amount in differences if amount < 0)
        return saved // self.scale, -(-surcharge // self.scale)

    def bound_nano_usd(
        self, input_tokens: int, output_tokens: int, *, tool_calls: int = 0, long_cache: bool = False
    ) -> int:
        """The most that so many tokens and calls can cost, of whatever kinds; `long_cache` where some may be kept an hour."""
        dearest = max(self.dearest_input, self.cache_write_1h) if long_cache else self.dearest_input
        total = input_tokens * dearest + output_tokens * self.dearest_output + self.request
        total += tool_calls * max(self.web_search or 0, self.file_search or 0)
        return -(-total // self.scale)


def compile_row(rates: Rates) -> Row:
    """The integer form of `rates`, exact."""
    amounts = {
        "input": rates.input,
        "output": rates.output,
        "cache_read": rates.input if rates.cache_read is None else rates.cache_read,
        "cache_write": rates.input if rates.cache_write is None else rates.cache_write,
        "reasoning": rates.output if rates.reasoning is None else rates.reasoning,
        "input_audio": rates.input if rates.input_audio is None else rates.input_audio,
        "output_audio": rates.output if rates.output_audio is None else rates.output_audio,
    }
    # Which of two discounts an overlap without a price of its own gets is unknown: the dearer one is charged.
    amounts["cache_audio_read"] = (
        max(amounts["cache_read"], amounts["input_audio"]) if rates.cache_audio_read is None else rates.cache_audio_read
    )
    amounts["cache_write_1h"] = amounts["cache_write"] if rates.cache_write_1h is None else rates.cache_write_1h
    nano = {name: amount * _NANO_PER_MTOK for name, amount in amounts.items()}
    calls = {"request": rates.request_usd, "web_search": rates.web_search_usd, "file_search": rates.file_search_usd}
    nano |= {name: amount * NANO_PER_USD for name, amount in calls.items() if amount is not None}
    digits = max(_decimal_places(value) for value in nano.values())
    scale = 10**digits
    whole = {name: int(value.scaleb(digits)) for name, value in nano.items()}
    inputs = [whole[name] for name in ("input", "cache_read", "cache_write", "input_audio", "cache_audio_read")]
    outputs = [whole[name] for name in ("output", "reasoning", "output_audio")]
    every_input = {*inputs, whole["cache_write_1h"]}
    return Row(
        scale=scale,
        knows_1h=rates.cache_write_1h is not None or every_input == {0},
        flat=len(every_input) == 1 and len(set(outputs)) == 1,
        dearest_input=max(inputs),
        dearest_output=max(outputs),
        **{"web_search": None, "file_search": None} | whole,  # type: ignore[arg-type]
    )


def _decimal_places(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


class Tiers(Struct, frozen=True, kw_only=True):
    """Rows by the size of the whole input: `rows[i]` holds for inputs above `starts[i - 1]` tokens.

    The whole attempt is charged at its tier (a cliff, as vendors do it), not only the tokens above it.
    """

    rows: tuple[Row, ...]
    starts: tuple[int, ...] = ()

    def row(self, input_tokens: int) -> Row:
        """The row for an input of so many tokens."""
        index = 0
        for start in self.starts:
            if input_tokens <= start:
                break
            index += 1
        return self.rows[index]

    def reachable(self, input_tokens: int) -> tuple[Row, ...]:
        """The rows that an input of at most so many tokens can be charged at."""
        count = 1 + sum(1 for start in self.starts if input_tokens > start)
        return self.rows[:count]


class DatedTiers(Struct, frozen=True, kw_only=True):
    """Prices with the time at which they hold.

    From `from_ns` (since the epoch) on; and, where `day_from_s` is given, only between these seconds of the UTC day.
    """

    tiers: Tiers
    version: str
    from_ns: int | None = None
    day_from_s: int | None = None
    day_until_s: int | None = None

    def holds(self, at_ns: int) -> bool:
        """Whether these prices hold at an instant."""
        if self.from_ns is not None and at_ns < self.from_ns:
            return False
        if self.day_from_s is None or self.day_until_s is None:
            return True
        second = at_ns // 1_000_000_000 % 86_400
        if self.day_until_s < self.day_from_s:
            return second >= self.day_from_s or second < self.day_until_s
        return self.day_from_s <= second < self.day_until_s


class RateCard(Struct, frozen=True, kw_only=True):
    """All prices of one model. The last of `dated` that holds wins; the first where none does.

    `served` are the prices of service tiers other than the standard one, by the vendor's word for them.
    """

    dated: tuple[DatedTiers, ...]
    served: Mapping[str, tuple[DatedTiers, ...]] = {}

    def at(self, at_ns: int, service_tier: str = "") -> DatedTiers:
        """The prices at an instant (nanoseconds since the epoch); the standard ones where the tier has none."""
        all_dated = self.served.get(service_tier, self.dated) if service_tier else self.dated
        for dated in reversed(all_dated):
            if dated.holds(at_ns):
                return dated
        return all_dated[0]

    def knows(self, service_tier: str) -> bool:
        """Whether a service tier has prices here, the standard one included."""
        return not service_tier or service_tier in self.served

    def bound_nano_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        at_ns: int,
        *,
        tool_calls: int = 0,
        service_tier: str = "",
        long_cache: bool = False,
    ) -> int:
        """The most that an attempt begun at `at_ns` can cost: the dearest row that its input can reach.

        A request for a service tier may be served at the standard one instead, so both count.
        """
        return max(
            row.bound_nano_usd(input_tokens, output_tokens, tool_calls=tool_calls, long_cache=long_cache)
            for tier in {"", service_tier}
            for row in self.at(at_ns, tier).tiers.reachable(input_tokens)
        )
