"""What a record counts, and that labels cannot grow without bound."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from gateway.config.schema import Semconv
from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.listener import Exposition
from gateway.telemetry.metrics import RESPONSE_MODELS, Metrics
from gateway.telemetry.registry import CatalogueCollector, process_registry
from gateway.types.errors import ErrorType
from gateway.types.records import OTHER, AttemptKind, Basis, Caller, Cost
from gateway.types.usage import Usage, UsageSource
from tests.telemetry import facts


@pytest.fixture
def metrics() -> Metrics:
    """Empty families."""
    return Metrics(Block.private())


def scrape(metrics: Metrics) -> list[Sample]:
    """The samples that prometheus_client's own OpenMetrics parser reads from a scrape."""
    text = "".join(Exposition(metrics.families).pieces(openmetrics=True))
    return [sample for family in parse_openmetrics(text) for sample in family.samples]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of the one sample with these labels among its own, None when there is none."""
    found = [s for s in scrape(metrics) if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) <= 1, found
    return found[0].value if found else None


GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-4o-mini",
    "gen_ai_response_model": "gpt-4o-mini-2024-07-18",
    "server_address": "api.openai.com",
    "error_type": "",
    "route": "chat",
}


def test_a_unary_request(metrics: Metrics) -> None:
    """Every family that a unary request feeds has its value under its labels."""
    metrics.record(facts.request())
    requests = {"route": "chat", "route_type": "llm/v1/chat", "team": "search", "outcome": "ok", "error_type": ""}
    assert value(metrics, "gateway_requests_total", **requests) == 1
    assert value(metrics, "gateway_request_duration_seconds_sum", route="chat", outcome="ok") == 0.51
    assert value(metrics, "gateway_overhead_seconds_sum", phase="total") == pytest.approx(0.006)
    assert value(metrics, "gateway_overhead_seconds_sum", phase="settle") == 0.003
    assert value(metrics, "gateway_caller_wait_seconds_sum", route="chat") == 0.004
    attempts = {"route": "chat", "provider": "openai", "model": "gpt-4o-mini", "kind": "first", "outcome": "ok"}
    assert value(metrics, "gateway_attempts_total", **attempts, error_type="") == 1
    assert value(metrics, "gen_ai_client_operation_duration_seconds_sum", **GEN_AI) == 0.5
    assert value(metrics, "gateway_attempt_phase_seconds_sum", phase="first_byte") == 0.4
    assert value(metrics, "gateway_attempt_phase_seconds_sum", phase="connect") == 0.03
    place = {"route": "chat", "team": "search", "provider": "openai", "model": "gpt-4o-mini", "source": "provider"}
    counted = {
        kind: value(metrics, "gateway_tokens_total", **place, type=kind)
        for kind in ("input", "output", "cache_read", "cache_write", "reasoning")
    }
    assert counted == {"input": 100, "output": 21, "cache_read": 40, "cache_write": None, "reasoning": 5}
    assert value(metrics, "gen_ai_client_token_usage_sum", **GEN_AI, gen_ai_token_type="input") == 100
    assert value(metrics, "gateway_cost_usd_total", team="search", basis="provider_usage") == pytest.approx(27.6e-6)
    assert value(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds_count") is None


def test_a_stream_has_its_true_times(metrics: Metrics) -> None:
    """Time to first chunk is the chunk's, time per token is (last - first) / (tokens - 1), and its phases leave no gap."""
    metrics.record(facts.request(facts.streamed(), stream=True))
    assert value(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds_sum", **GEN_AI) == 0.3
    per_token = value(metrics, "gen_ai_client_operation_time_per_output_chunk_seconds_sum", **GEN_AI)
    assert per_token == pytest.approx(0.2 / 20)
    phases = ("first_byte", "first_chunk", "stream")
    sums = [value(metrics, "gateway_attempt_phase_seconds_sum", phase=phase) for phase in phases]
    assert sums == pytest.approx([0.25, 0.05, 0.2])


def test_a_refusal_is_measured(metrics: Metrics) -> None:
    """A request that no provider saw counts, with its cause and its latency, and has no overhead of attempts."""
    metrics.record(facts.request(error_type=ErrorType.UNAUTHENTICATED, status_code=401, attempts=()))
    labels = {"outcome": "policy", "error_type": "unauthenticated"}
    assert value(metrics, "gateway_requests_total", **labels) == 1
    assert value(metrics, "gateway_request_duration_seconds_count", outcome="policy") == 1
    assert value(metrics, "gateway_overhead_seconds_count") is None


def test_a_retry_and_a_fallback_are_told_apart(metrics: Metrics) -> None:
    """Each attempt counts under its kind and its own outcome."""
    failed = {"error_type": ErrorType.PROVIDER_OVERLOADED, "usage": None, "cost": None, "response_model": None}
    record = facts.request(
        facts.attempt(**failed),
        facts.attempt(kind=AttemptKind.RETRY, number=2, **failed),
        facts.attempt(kind=AttemptKind.FALLBACK, number=3, provider="groq", request_model="llama"),
    )
    metrics.record(record)
    by_kind = {
        (s.labels["kind"], s.labels["provider"], s.labels["error_type"]): s.value
        for s in scrape(metrics)
        if s.name == "gateway_attempts_total"
    }
    assert by_kind == {
        ("first", "openai", "provider_overloaded"): 1,
        ("retry", "openai", "provider_overloaded"): 1,
        ("fallback", "groq", ""): 1,
    }


def test_what_has_no_price_is_flagged_and_not_free(metrics: Metrics) -> None:
    """Tokens without a price are counted apart; the cost has no sample rather than a 0."""
    metrics.record(facts.request(facts.attempt(cost=Cost(nano_usd=None, basis=Basis.UNKNOWN))))
    assert value(metrics, "gateway_unpriced_tokens_total", provider="openai", model="gpt-4o-mini") == 121
    assert value(metrics, "gateway_cost_usd_total") is None


def test_what_caches_saved_and_cost_is_counted_apart(metrics: Metrics) -> None:
    """Savings and surcharges are two counters of the payer, each with a series only where there is something to tell."""
    labels = {"route": "chat", "team": "search", "provider": "openai", "model": "gpt-4o-mini"}
    amounts = {"nano_usd": 900, "basis": Basis.PROVIDER_USAGE}
    metrics.record(facts.request(facts.attempt(cost=Cost(**amounts, cache_saved_nano_usd=4_000))))
    assert value(metrics, "gateway_cache_saved_usd_total", **labels) == pytest.approx(4e-6)
    assert value(metrics, "gateway_cache_surcharge_usd_total", **labels) is None
    metrics.record(facts.request(facts.attempt(cost=Cost(**amounts, cache_surcharge_nano_usd=500))))
    metrics.record(facts.request(facts.attempt(cost=Cost(**amounts, cache_saved_nano_usd=1_000))))
    assert value(metrics, "gateway_cache_saved_usd_total", **labels) == pytest.approx(5e-6)
    assert value(metrics, "gateway_cache_surcharge_usd_total", **labels) == pytest.approx(5e-7)


def test_estimated_tokens_are_no_percentiles(metrics: Metrics) -> None:
    """Estimates count in totals under their source, and stay out of the convention's histogram."""
    usage = Usage(input_tokens=7, output_tokens=9, source=UsageSource.ESTIMATED)
    metrics.record(facts.request(facts.attempt(usage=usage)))
    assert value(metrics, "gateway_tokens_total", type="input", source="estimated") == 7
    assert value(metrics, "gen_ai_client_token_usage_count", gen_ai_token_type="input") is None


def test_exemplars_stand_where_the_catalogue_says() -> None:
    """Latency, time to first chunk and cost carry the trace id; what is not sampled carries none."""
    metrics = Metrics(Block.private())
    metrics.record(facts.request(facts.streamed(), stream=True))
    with_exemplar = {s.name for s in scrape(metrics) if s.exemplar is not None}
    assert with_exemplar == {
        "gateway_request_duration_seconds_bucket",
        "gen_ai_client_operation_duration_seconds_bucket",
        "gen_ai_client_operation_time_to_first_chunk_seconds_bucket",
        "gateway_cost_usd_total",
    }
    trace_ids = {s.exemplar.labels["trace_id"] for s in scrape(metrics) if s.exemplar is not None}
    assert trace_ids == {f"{facts.TRACE_ID:032x}"}
    unsampled = Metrics(Block.private())
    unsampled.record(facts.request(trace=facts.trace(sampled=False)))
    assert not any(s.exemplar for s in scrape(unsampled))


def test_the_text_format_says_the_same_without_exemplars(metrics: Metrics) -> None:
    """A scraper without OpenMetrics reads the same samples."""
    metrics.record(facts.request(facts.streamed(), stream=True))
    metrics.record(facts.request(error_type=ErrorType.RATE_LIMITED, attempts=()))
    text = "".join(Exposition(metrics.families, (process_registry(),)).pieces(openmetrics=False))
    old = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in parse_text(text)
        for s in family.samples
        if s.name.startswith(("gateway_", "gen_ai_"))
    }
    assert old == {(s.name, tuple(sorted(s.labels.items()))): s.value for s in scrape(metrics)}
    assert "trace_id" not in text
    assert "process_resident_memory_bytes" in text


def test_the_registry_says_the_same(metrics: Metrics) -> None:
    """prometheus_client's own families hold what the scrape holds, exemplars included."""
    metrics.record(facts.request(facts.streamed(), stream=True))
    collected = [s for family in CatalogueCollector(metrics.families).collect() for s in family.samples]
    scraped = scrape(metrics)
    assert [(s.name, s.labels, s.value) for s in collected] == [(s.name, s.labels, s.value) for s in scraped]
    assert [s.exemplar and s.exemplar.labels for s in collected] == [s.exemplar and s.exemplar.labels for s in scraped]


def test_label_values_are_escaped(metrics: Metrics) -> None:
    """Quotes, backslashes and line ends in a configured name survive the way to the parser."""
    name = 'a"b\\c\nd'
    metrics.counter(names.SINK_ERRORS, name).inc()
    assert value(metrics, "gateway_sink_errors_total", sink=name) == 1


def test_a_family_stops_growing_at_its_cap(metrics: Metrics) -> None:
    """Past the cap every new combination counts in one overflow series, and a counter tells how many did."""
    family = names.REQUESTS
    for number in range(family.max_series + 500):
        metrics.counter(family, "chat", "t", f"team-{number}", "ok", "").inc()
    samples = [s for s in scrape(metrics) if s.name == family.name]
    assert len(samples) == family.max_series + 1
    assert sum(s.value for s in samples) == family.max_series + 500
    assert value(metrics, family.name, team=OTHER) == 500
    assert value(metrics, "gateway_metric_label_overflow_total", family=family.name) == 500


def test_a_provider_cannot_name_models_without_end(metrics: Metrics) -> None:
    """After the first names, the models that a target's replies name are one, while its other labels stay true."""
    for number in range(RESPONSE_MODELS * 4):
        metrics.record(facts.request(facts.attempt(response_model=f"model-{number}")))
    counts = {
        s.labels["gen_ai_response_model"]: s.value
        for s in scrape(metrics)
        if s.name == "gen_ai_client_operation_duration_seconds_count"
    }
    assert len(counts) == RESPONSE_MODELS + 1
    assert counts[OTHER] == RESPONSE_MODELS * 3
    routes = {s.labels["route"] for s in scrape(metrics) if s.name == "gen_ai_client_operation_duration_seconds_count"}
    assert routes == {"chat"}


def test_teams_of_one_route_are_kept_apart(metrics: Metrics) -> None:
    """Requests that differ in their team alone do not share a series."""
    for team in ("a", "b", "a"):
        metrics.record(facts.request(caller=Caller(team=team)))
    assert value(metrics, "gateway_requests_total", team="a") == 2
    assert value(metrics, "gateway_tokens_total", team="b", type="input") == 100


def test_wrong_labels_are_refused(metrics: Metrics) -> None:
    """A caller that forgets a label is told so instead of shifting the others."""
    with pytest.raises(ValueError, match="gateway_sink_errors_total"):
        metrics.counter(names.SINK_ERRORS)


def test_the_latest_conventions_have_their_own_families() -> None:
    """`semconv` chooses which generation's families are fed, or both, with the same values."""
    samples = {}
    for semconv in Semconv:
        metrics = Metrics(Block.private(), semconv)
        metrics.record(facts.request(facts.streamed(), stream=True))
        samples[semconv] = {s.name: s.value for s in scrape(metrics) if s.name.endswith(("_count", "_sum", "_total"))}
    old = {name for name in samples[Semconv.V1_41] if name.startswith("gen_ai_")}
    new = {name for name in samples[Semconv.LATEST] if name.startswith("gen_ai_")}
    assert old
    assert not old & new
    assert {name for name in samples[Semconv.BOTH] if name.startswith("gen_ai_")} == old | new
    latest = {name.removeprefix("gen_ai_client_inference_"): samples[Semconv.LATEST][name] for name in new}
    assert latest == {
        "duration_seconds_count": 1, "duration_seconds_sum": 0.5,
        "time_to_first_chunk_seconds_count": 1, "time_to_first_chunk_seconds_sum": 0.3,
        "time_per_output_chunk_seconds_count": 1, "time_per_output_chunk_seconds_sum": pytest.approx(0.01),
        "operation_input_tokens_count": 1, "operation_input_tokens_sum": 100,
        "operation_output_tokens_count": 1, "operation_output_tokens_sum": 21,
        "usage_input_tokens_total": 100, "usage_output_tokens_total": 21,
        "usage_cache_read_input_tokens_total": 40, "usage_reasoning_output_tokens_total": 5,
    }  # fmt: skip
    own = {name: value for name, value in samples[Semconv.BOTH].items() if name.startswith("gateway_")}
    assert own == {name: value for name, value in samples[Semconv.V1_41].items() if name.startswith("gateway_")}
