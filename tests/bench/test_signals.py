"""What the benchmark says of each signal."""

from __future__ import annotations

from pathlib import Path

from bench import signals
from bench.rounds import Figure


def test_each_variant_differs_in_one_signal(tmp_path: Path) -> None:
    """The base exports and logs nothing; each other variant turns on what its name says, and no more."""
    made = {variant.name: variant for variant in signals.variants(tmp_path, "http://127.0.0.1:9")}
    config = {
        name: Path(variant.command[variant.command.index("--config-path") + 1]).read_text()
        for name, variant in made.items()
    }
    traces = {name: variant.command[variant.command.index("--traces") + 1] for name, variant in made.items()}
    logged = {name for name, text in config.items() if "log_requests: true" in text}
    assert logged == {"log line", signals.ALL}
    traced = {name for name, where in traces.items() if where == "otlp"}
    assert traced == {name for name in made if name.startswith("OTLP spans")} | {signals.ALL}
    assert {name for name, variant in made.items() if variant.sink} == traced | {
        "OTLP logs",
        "OTLP metrics, each second",
    }
    assert "http_spans: instrumented" in config["OTLP spans, the third by opentelemetry-instrumentation-httpx"]


def test_the_table_adds_up() -> None:
    """A signal's cost is its distance from the base in the same round; the total counts metrics too."""
    names = [signals.BASE, *(variant for variant in signals._OTHERS), signals.ALL]
    figures = [Figure("counting itself", "cpu_us_chat_64", [8.0])]
    figures += [
        Figure(name, "cpu_us_chat_64", [400.0 + 10 * place, 500.0 + 10 * place]) for place, name in enumerate(names)
    ]
    figures += [Figure(signals.BASE, "cpu_us_event", [90.0, 80.0]), Figure(signals.ALL, "cpu_us_event", [91.0, 83.0])]
    text = signals.section(figures)
    assert "| log line | +10 |" in text
    assert "All telemetry: +78 us a request" in text
    assert "+2.0 us a streamed chunk" in text


def test_counting_takes_time() -> None:
    """The measure of counting counts: it is a positive number of microseconds."""
    assert signals.counting_us(200) > 0
