"""docs/instrumentation.md, written from the catalogues: `python -m gateway.telemetry.document`, with `--check` in CI.

What is emitted and what is documented are the same tables, so the document cannot be wrong about a name.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

from gateway.telemetry import attributes, names, variables
from gateway.telemetry.attributes import Attribute
from gateway.telemetry.logs import RequestLine
from gateway.telemetry.metric import DEFAULT_MAX_SERIES, Across, Kind, Metric, Stability
from gateway.types.errors import ErrorType, Outcome

PATH = Path("docs/instrumentation.md")

MEANINGS: Mapping[ErrorType, str] = {
    ErrorType.INVALID_JSON: "The body is not JSON.",
    ErrorType.INVALID_REQUEST: "The body does not fit the surface's schema; the message names the field.",
    ErrorType.REQUEST_TOO_LARGE: "The body is over the limit.",
    ErrorType.UNKNOWN_ROUTE: "No route of that name is configured.",
    ErrorType.WRONG_ROUTE_TYPE: "The route serves another kind of request.",
    ErrorType.UNSUPPORTED_OPERATION: "The route's provider has no such operation.",
    ErrorType.METHOD_NOT_ALLOWED: "The path is asked with POST.",
    ErrorType.CALLER_LEFT: "The caller closed the connection before the reply was complete.",
    ErrorType.UNAUTHENTICATED: "No gateway key, or not a valid one.",
    ErrorType.FORBIDDEN_ROUTE: "The key may not use this route.",
    ErrorType.RATE_LIMITED: "A limit of the route or of the key is used up.",
    ErrorType.BUDGET_EXCEEDED: "A hard budget has no room for the request.",
    ErrorType.PRICE_UNKNOWN: "A hard budget applies, and nobody knows what the model costs.",
    ErrorType.CONNECT_FAILED: "No connection to the provider: name, TCP or TLS.",
    ErrorType.CONNECT_TIMEOUT: "Connecting took longer than `connect_s`.",
    ErrorType.FIRST_BYTE_TIMEOUT: "The reply did not begin within `first_byte_s`.",
    ErrorType.STREAM_TIMEOUT: "Nothing came for `between_chunks_s` inside a reply.",
    ErrorType.TOTAL_TIMEOUT: "The attempt took longer than `total_s`.",
    ErrorType.CONNECTION_LOST: "The provider closed the connection without an answer.",
    ErrorType.STREAM_CUT: "The reply ended before it was complete.",
    ErrorType.STREAM_ERROR: "The provider reported an error inside its stream.",
    ErrorType.UNREADABLE_REPLY: "The answer is not what the provider's API documents.",
    ErrorType.PROVIDER_INVALID_REQUEST: "The provider refused the request as the caller wrote it.",
    ErrorType.PROVIDER_AUTH: "The provider refused the gateway's credential.",
    ErrorType.PROVIDER_NOT_FOUND: "The provider does not know the model or the path.",
    ErrorType.PROVIDER_RATE_LIMITED: "The provider's limit is used up.",
    ErrorType.PROVIDER_OVERLOADED: "The provider says that it is overloaded.",
    ErrorType.PROVIDER_ERROR: "Any other failure that the provider reports.",
    ErrorType.SHUTTING_DOWN: "The gateway is stopping, and its grace period is over.",
    ErrorType.LEDGER_UNAVAILABLE: "The charge could not be recorded, so nothing was sent.",
    ErrorType.CREDENTIAL_UNAVAILABLE: "The provider's credential could not be had, such as an access token.",
    ErrorType.INTERNAL: "A defect of the gateway; its log has the cause by trace id.",
}

_HEADERS = (
    ("x-gateway-trace-id", "The trace of the request; also in every error's body."),
    ("x-gateway-request-id", "The request."),
    ("x-request-id", "The same, where OpenAI's SDKs look for it; `request-id` on Anthropic's paths."),
    ("x-gateway-attempts", "How many attempts had begun when the reply did."),
    ("x-gateway-error-type", "Errors only: the cause, from the closed list."),
    (
        "x-gateway-cost-usd",
        (
            "The cost of all attempts, exact decimal; absent where no price is known. A stream's comes at its "
            "end, as a comment."
        ),
    ),
    (
        "server-timing",
        (
            "Milliseconds until the reply began: `gateway` the gateway's own, `upstream` the wait for providers, "
            "`caller` the wait for the body, `backoff` the wait before retries (where there were any)."
        ),
    ),
)

_PREFACE = """\
# Instrumentation

Everything that the gateway emits. Written by `python -m gateway.telemetry.document` from the code's own catalogues; do not edit.

One record of a finished request is the source of all signals, so they agree: what is counted is what is traced, logged and
charged. Labels of metrics are configured names or closed lists; nothing that a caller sends becomes one. What is unknown
(tokens, a price) is absent and never 0. Prompts, completions, keys and headers stand in no signal.
[trace.md](trace.md) is the recorded trace of a stream with a retry and a fallback.
"""

_CONVENTIONS = """\
### How the conventions are read

- `tests/golden/<provider>.json` shows each provider's attempts as spans and metrics: a unary call, a stream, a refusal and a
  caller who leaves, in both generations.
- Metrics have every attribute of the conventions as a label, dots written `_`, and two more: `route`, and `error_type` also
  on tokens. An empty label is an absent attribute. Units and `_total` are added as Prometheus writes them.
- `time_per_output_chunk`: the conventions record each gap between two chunks. The gateway records once a stream the mean per
  output *token*, `(last chunk - first chunk) / (output tokens - 1)`, since providers put any number of tokens into a chunk.
- `time_to_first_chunk`: chunks that only announce a reply (Anthropic's `message_start`, Responses' `response.created`) are
  not counted; the first that holds generated output is.
- Bounds of token histograms end in .5, so that Prometheus 3 does not rewrite them; no count falls between the two.
- Token percentiles and the conventions' counters are of what providers reported. Estimates (`gateway.usage.source`) stand on
  the span and in `gateway_tokens_total`.
- `gen_ai.token.modality` is `audio` where the provider says so, else `unknown`: what it does not tell apart is not guessed.
- Messages on spans are JSON strings, the form that the conventions allow where an SDK has no structured attributes.
"""


def document() -> str:
    """The whole page."""
    return "\n".join(
        [
            _PREFACE,
            _metrics(),
            _spans(),
            _CONVENTIONS,
            _log_line(),
            _errors(),
            _variables(),
            "## Reply headers\n",
            _table(("header", "meaning"), ((f"`{name}`", meaning) for name, meaning in _HEADERS)),
        ]
    )


def _metrics() -> str:
    text = (
        "## Metrics\n\nScraped as OpenMetrics with exemplars, or as Prometheus text, on the metrics listener "
        "(`--metrics-port`). Each family keeps at most the given number of label combinations apart; what comes after is "
        "counted under `_other`, and `gateway_metric_label_overflow_total` says so. Several workers are summed; "
        "gauges are joined as noted. Beside these, `process_*` and `python_*` are those of prometheus_client.\n"
    )
    rows = (
        (f"`{metric.name}`", metric.kind.value, _labels(metric), f"{metric.help}{_notes(metric)}")
        for metric in names.EVERY_FAMILY
    )
    buckets = (
        (f"`{metric.name}`", " ".join(map(str, metric.buckets)))
        for metric in names.EVERY_FAMILY
        if metric.kind is Kind.HISTOGRAM
    )
    return (
        f"{text}\n{_table(('family', 'kind', 'labels', 'meaning'), rows)}\n"
        f"### Buckets\n\nUpper bounds, +Inf not shown.\n\n{_table(('family', 'bounds'), buckets)}"
    )


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def _notes(metric: Metric) -> str:
    notes = []
    if metric.exemplars:
        notes.append("exemplars")
    if metric.stability is Stability.EXPERIMENTAL:
        notes.append("experimental")
    if metric.kind is Kind.GAUGE and metric.across is not Across.SUM:
        notes.append(f"{metric.across} of the workers")
    if metric.semconv is not None:
        notes.append(f"`semconv: {metric.semconv}`")
    if metric.labels and metric.max_series != DEFAULT_MAX_SERIES:
        notes.append(f"up to {metric.max_series} series")
    return f" ({'; '.join(notes)})" if notes else ""


def _spans() -> str:
    server = "SERVER, `{http.request.method} {http.route}`: one a request"
    attempt = "CLIENT, `{gen_ai.operation.name} {gen_ai.request.model}`: one an attempt, below the request's"
    http = "CLIENT, `{http.request.method}`: the HTTP exchange of an attempt, until the reply's headers"
    return "\n".join(
        [
            "## Spans\n",
            (
                "Sent by OTLP as the OTEL_* variables say. `telemetry.semconv` chooses the generation of the GenAI conventions: "
                "`v1.41` (default), `latest` (open-telemetry/semantic-conventions-genai), or `both`. With "
                "`telemetry.http_spans: instrumented`, opentelemetry-instrumentation-httpx makes the third span.\n"
            ),
            f"### {server}\n",
            _attributes(attributes.SERVER),
            f"### {attempt}\n",
            _attributes(attributes.ATTEMPT),
            f"### {http}\n",
            _attributes(attributes.HTTP),
        ]
    )


def _attributes(table: Iterable[Attribute]) -> str:
    rows = (
        (
            f"`{attribute.name}`",
            attribute.type.value,
            attribute.help + (f" (`semconv: {attribute.only}`)" if attribute.only is not None else ""),
        )
        for attribute in table
    )
    return _table(("attribute", "type", "meaning"), rows)


def _log_line() -> str:
    hints = get_type_hints(RequestLine, include_extras=True)
    rows = ((f"`{name}`", hints[name].__metadata__[0].description) for name in RequestLine.__struct_fields__)
    return (
        "## Request log\n\nOne JSON line a request on standard output; `telemetry.log_requests: false` turns it off. "
        "Absent fields are unknown or do not apply.\n\n" + _table(("field", "meaning"), rows)
    )


def _errors() -> str:
    text = (
        "## Error types\n\nThe same word stands in the reply, the span (`error.type`), the metrics (`error_type`) and the log "
        "line. The outcome says whose fault it is.\n"
    )
    order = list(Outcome)
    rows = (
        (f"`{error_type.value}`", error_type.outcome.value, MEANINGS[error_type])
        for error_type in sorted(ErrorType, key=lambda one: order.index(one.outcome))
    )
    return f"{text}\n{_table(('error type', 'outcome', 'meaning'), rows)}"


def _variables() -> str:
    otlp = ((f"`OTEL_EXPORTER_OTLP_{name}`", meaning) for name, meaning in variables.OTLP_VARIABLES.items())
    others = ((f"`{name}`", meaning) for name, meaning in variables.HONOURED.items())
    ignored = ((f"`{name}`", f"{why[0].upper()}{why[1:]}.") for name, why in variables.IGNORED.items())
    return (
        "## OTEL_* variables\n\nThe standard variables that have an effect. Those of OTLP also exist for one signal, as "
        "`OTEL_EXPORTER_OTLP_TRACES_...`, `..._METRICS_...` and `..._LOGS_...`, which win.\n\n"
        f"{_table(('variable', 'meaning'), (*otlp, *others))}\n"
        "These have none, and are told of at the start where they are set, as is every other variable that begins with "
        f"`OTEL_`.\n\n{_table(('variable', 'why'), ignored)}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with `--check` say whether it is up to date (status 1 if not)."""
    parser = argparse.ArgumentParser(prog="python -m gateway.telemetry.document", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    text = document()
    if not options.check:
        options.out.write_text(text, encoding="utf-8")
        return 0
    current = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    if current != text:
        sys.stderr.write(f"{options.out} is out of date: run python -m gateway.telemetry.document\n")
    return int(current != text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
