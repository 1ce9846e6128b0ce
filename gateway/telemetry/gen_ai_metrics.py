"""What an attempt tells by the GenAI semantic conventions, in one generation of them or in both.

Token percentiles are of what providers reported; estimates stay out of them. Totals are in gateway_tokens_total.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter

from msgspec import Struct

from gateway.config.schema import Semconv
from gateway.telemetry import names
from gateway.telemetry.cells import Counter, Histogram
from gateway.telemetry.families import Family
from gateway.telemetry.metric import Metric
from gateway.types.records import AttemptRecord
from gateway.types.usage import Usage, UsageSource


class Generation(Struct, frozen=True, kw_only=True):
    """The families of one generation of the conventions.

    `input_tokens` and `output_tokens` have the label values that follow the common ones. `counters` are of tokens, by
    modality; `expected` are those that begin at 0 also where nothing is reported.
    """

    duration: Metric
    first_chunk: Metric
    per_chunk: Metric
    input_tokens: tuple[Metric, tuple[str, ...]]
    output_tokens: tuple[Metric, tuple[str, ...]]
    counters: tuple[tuple[Metric, str, Callable[[Usage], int | None]], ...] = ()
    expected: tuple[Metric, ...] = ()


_UNKNOWN, _AUDIO = "unknown", "audio"
"""Values of `gen_ai.token.modality`. Providers tell audio apart, and leave open what of the rest is text or image."""


def _but_audio(tokens: int | None, audio: int | None) -> int | None:
    return tokens if tokens is None or audio is None else max(0, tokens - audio)


V1_41 = Generation(
    duration=names.OPERATION_DURATION,
    first_chunk=names.TIME_TO_FIRST_CHUNK,
    per_chunk=names.TIME_PER_OUTPUT_CHUNK,
    input_tokens=(names.TOKEN_USAGE, ("input",)),
    output_tokens=(names.TOKEN_USAGE, ("output",)),
)
LATEST = Generation(
    duration=names.INFERENCE_DURATION,
    first_chunk=names.INFERENCE_TIME_TO_FIRST_CHUNK,
    per_chunk=names.INFERENCE_TIME_PER_OUTPUT_CHUNK,
    input_tokens=(names.INFERENCE_INPUT_TOKENS, ()),
    output_tokens=(names.INFERENCE_OUTPUT_TOKENS, ()),
    counters=(
        (names.INFERENCE_USAGE_INPUT, _UNKNOWN, lambda usage: _but_audio(usage.input_tokens, usage.input_audio_tokens)),
        (names.INFERENCE_USAGE_INPUT, _AUDIO, attrgetter("input_audio_tokens")),
        (
            names.INFERENCE_USAGE_OUTPUT,
            _UNKNOWN,
            lambda usage: _but_audio(usage.output_tokens, usage.output_audio_tokens),
        ),
        (names.INFERENCE_USAGE_OUTPUT, _AUDIO, attrgetter("output_audio_tokens")),
        (names.INFERENCE_USAGE_CACHE_READ, _UNKNOWN, attrgetter("cache_read_tokens")),
        (names.INFERENCE_USAGE_CACHE_WRITE, _UNKNOWN, attrgetter("cache_write_tokens")),
        (names.INFERENCE_USAGE_REASONING, _UNKNOWN, attrgetter("reasoning_tokens")),
    ),
    expected=(names.INFERENCE_USAGE_INPUT, names.INFERENCE_USAGE_OUTPUT),
)
GENERATIONS: Mapping[Semconv, tuple[Generation, ...]] = {
    Semconv.V1_41: (V1_41,),
    Semconv.LATEST: (LATEST,),
    Semconv.BOTH: (V1_41, LATEST),
}


class GenAiSeries:
    """The series of one generation that every attempt of one kind feeds, each found when it is first needed."""

    __slots__ = (
        "_counters", "_duration", "_families", "_first_chunk", "_generation", "_input", "_labels", "_output", "_per_chunk",
    )  # fmt: skip

    def __init__(self, generation: Generation, families: Mapping[str, Family], labels: tuple[str, ...]) -> None:
        self._generation = generation
        self._families = families
        self._labels = labels
        self._duration = self._histogram(generation.duration)
        self._first_chunk: Histogram | None = None
        self._per_chunk: Histogram | None = None
        self._input: Histogram | None = None
        self._output: Histogram | None = None
        self._counters: dict[tuple[str, str], Counter] = {}
        for metric in generation.expected:
            self._counter(metric, _UNKNOWN)

    def _histogram(self, metric: Metric, more: tuple[str, ...] = ()) -> Histogram:
        return self._families[metric.name].histogram(*self._labels, *more)

    def _counter(self, metric: Metric, modality: str) -> Counter:
        counter = self._counters.get((metric.name, modality))
        if counter is None:
            counter = self._families[metric.name].counter(*self._labels, modality)
            self._counters[metric.name, modality] = counter
        return counter

    def record(self, attempt: AttemptRecord, trace_id: int, now: float) -> None:
        """Count one attempt; `trace_id` (0 for none) at `now` becomes the exemplar."""
        self._duration.observe(attempt.duration_s, trace_id, now)
        if attempt.first_chunk_s is not None:
            self._record_stream(attempt, attempt.first_chunk_s, trace_id, now)
        usage = attempt.usage
        if usage is not None and usage.source is UsageSource.PROVIDER:
            self._record_usage(usage)

    def _record_stream(self, attempt: AttemptRecord, first_chunk_s: float, trace_id: int, now: float) -> None:
        if self._first_chunk is None:
            self._first_chunk = self._histogram(self._generation.first_chunk)
        self._first_chunk.observe(first_chunk_s, trace_id, now)
        per_token_s = attempt.time_per_output_token_s
        if per_token_s is not None:
            if self._per_chunk is None:
                self._per_chunk = self._histogram(self._generation.per_chunk)
            self._per_chunk.observe(per_token_s)

    def _record_usage(self, usage: Usage) -> None:
        if usage.input_tokens:
            if self._input is None:
                self._input = self._histogram(*self._generation.input_tokens)
            self._input.observe(usage.input_tokens)
        if usage.output_tokens:
            if self._output is None:
                self._output = self._histogram(*self._generation.output_tokens)
            self._output.observe(usage.output_tokens)
        for metric, modality, read in self._generation.counters:
            tokens = read(usage)
            if tokens:
                self._counter(metric, modality).inc(tokens)
