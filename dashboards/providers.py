"""Providers: which one fails, is slow, refuses, or is close to its rate limit."""

from dashboards import board as boards
from dashboards import thresholds
from dashboards.board import Board, Row
from dashboards.panels import (
    GREEN,
    ORANGE,
    OUTCOME_COLOURS,
    RED,
    YELLOW,
    Column,
    Link,
    Panel,
    Query,
    State,
    Unit,
    rows,
    states,
    steps,
    time_series,
)
from dashboards.promql import is_, is_not, known, one_of, share
from gateway.telemetry import names
from gateway.types.errors import ErrorType, Outcome
from gateway.types.records import AttemptKind

VARIABLES = (boards.JOB, boards.INSTANCE, boards.ROUTE, boards.PROVIDER, boards.MODEL_OF_PROVIDER)
OF = boards.source(VARIABLES)
_FAULT = is_("outcome", Outcome.PROVIDER)


def _table() -> tuple[Panel, ...]:
    by = ("provider", "model")
    attempts = OF.rate(names.ATTEMPTS, by=by)
    tried, failed = (
        OF.increase(names.ATTEMPTS, *which, by=by, window=thresholds.PROBED_WITHIN) for which in ((), (_FAULT,))
    )
    return (
        rows(
            "Targets",
            "Every provider and model now, the worst on top. Failing counts attempts that ended by the provider's "
            f"fault in {thresholds.PROBED_WITHIN}; Retries counts fallbacks to it as well. Open circuit: requests go to the next target.",
            {"provider": "Provider", "model": "Model"},
            [
                Column(
                    title="Failing",
                    expr=share(failed, tried),
                    unit=Unit.SHARE,
                    decimals=1,
                    gauge=True,
                    thresholds=steps(
                        (None, GREEN),
                        (thresholds.PROVIDER_ERROR_SHARE, ORANGE),
                        (thresholds.PROVIDER_DOWN_SHARE, RED),
                    ),
                ),
                Column(title="Attempts", expr=attempts, unit=Unit.PER_SECOND),
                Column(
                    title="Retries",
                    expr=share(
                        OF.rate(names.ATTEMPTS, one_of("kind", (AttemptKind.RETRY, AttemptKind.FALLBACK)), by=by),
                        attempts,
                    ),
                    unit=Unit.SHARE,
                    decimals=1,
                ),
                Column(
                    title="429s",
                    expr=share(
                        OF.rate(names.ATTEMPTS, is_("error_type", ErrorType.PROVIDER_RATE_LIMITED), by=by), attempts
                    ),
                    unit=Unit.SHARE,
                    decimals=1,
                    thresholds=steps((None, GREEN), (thresholds.RATE_LIMITED_SHARE, ORANGE)),
                ),
                Column(
                    title="Requests left",
                    expr=OF.gauge(names.RATELIMIT_REMAINING, is_("kind", "requests"), by=by),
                    unit=Unit.COUNT,
                ),
            ],
            wide=("Model",),
            links=[
                Link("This provider alone", "gaugeway-providers", "provider"),
                Link("Latency of this model", "gaugeway-latency", "model"),
            ],
            width=15,
            height=8,
            sort_by="Failing",
        ),
        states(
            "Circuit",
            "The breaker of each target. Open: the gateway does not send to it and uses the next target; half open: "
            "one attempt tries whether it is back. Open for long: the provider's status page, then its credential.",
            Query(
                expr=OF.gauge(names.CIRCUIT_STATE, by=("provider", "model")),
                legend="{{provider}} · {{model}}",
            ),
            (State(0, "closed", GREEN), State(1, "half open", YELLOW), State(2, "open", RED)),
            width=9,
            height=8,
            no_value="no breaker",
        ),
    )


def _errors() -> tuple[Panel, ...]:
    attempts = OF.rate(names.ATTEMPTS, by=("provider",))
    return (
        time_series(
            "Attempts by provider",
            "Tries a second at each provider, retries and fallbacks included. A provider that vanishes has an open "
            "circuit or no weight.",
            [Query(expr=attempts, legend="{{provider}}")],
            unit=Unit.PER_SECOND,
            stacked=True,
        ),
        time_series(
            "Failing, share of attempts",
            "Attempts that ended by the provider's fault. The dashed line is where the alert for a provider that is "
            f"down stands. Above {thresholds.PROVIDER_ERROR_SHARE:.0%} for long: take weight from it.",
            [
                Query(
                    expr=share(OF.rate(names.ATTEMPTS, _FAULT, by=("provider",)), attempts),
                    legend="{{provider}}",
                )
            ],
            unit=Unit.SHARE,
            limit=thresholds.PROVIDER_DOWN_SHARE,
        ),
        time_series(
            "Attempts by fault domain",
            "Who decided how attempts ended. caller is a request that the provider refused as wrong: retrying does "
            "not help, the app must change.",
            [Query(expr=OF.rate(names.ATTEMPTS, by=("outcome",)), legend="{{outcome}}")],
            unit=Unit.PER_SECOND,
            stacked=True,
            colours=OUTCOME_COLOURS,
        ),
        time_series(
            "Errors by cause",
            "connect_*: network or DNS. *_timeout: too slow. provider_auth: the credential. provider_rate_limited: "
            "the account's limit. provider_overloaded: theirs to mend, move weight meanwhile.",
            [
                Query(
                    expr=OF.rate(names.ATTEMPTS, is_not("outcome", Outcome.OK), by=("provider", "error_type")),
                    legend="{{provider}}: {{error_type}}",
                )
            ],
            unit=Unit.PER_SECOND,
            stacked=True,
            no_value="none in this range",
        ),
        time_series(
            "Retries and fallbacks",
            "Attempts a second that were not the first of their request. They cost money and time, and hide a "
            "failing provider from callers.",
            [
                Query(
                    expr=OF.rate(
                        names.ATTEMPTS,
                        one_of("kind", (AttemptKind.RETRY, AttemptKind.FALLBACK)),
                        by=("kind", "provider"),
                    ),
                    legend="{{kind}} · {{provider}}",
                )
            ],
            unit=Unit.PER_SECOND,
            stacked=True,
            no_value="none in this range",
        ),
        time_series(
            "429s, share of attempts",
            "Attempts that a provider refused for its rate limit. Above the dashed line: raise the account's limit, "
            "spread over more targets, or limit the loudest team.",
            [
                Query(
                    expr=share(
                        OF.rate(names.ATTEMPTS, is_("error_type", ErrorType.PROVIDER_RATE_LIMITED), by=("provider",)),
                        attempts,
                    ),
                    legend="{{provider}}",
                )
            ],
            unit=Unit.SHARE,
            limit=thresholds.RATE_LIMITED_SHARE,
        ),
    )


def _speed() -> tuple[Panel, ...]:
    by = ("gen_ai_provider_name", "gen_ai_request_model")
    legend = "{{gen_ai_provider_name}} · {{gen_ai_request_model}}"
    return (
        time_series(
            "Time to first chunk p95",
            "Targets side by side; the dashed line is the objective. The slow one: less weight, or a timeout that "
            "lets the fallback answer.",
            [Query(expr=OF.quantile(0.95, names.TIME_TO_FIRST_CHUNK, by=by), legend=legend, exemplar=True)],
            unit=Unit.SECONDS,
            height=7,
            limit=thresholds.FIRST_CHUNK_S,
        ),
        time_series(
            "Attempt duration p95",
            "Targets side by side, failures included. A flat line at a round number is a timeout.",
            [Query(expr=OF.quantile(0.95, names.OPERATION_DURATION, by=by), legend=legend, exemplar=True)],
            unit=Unit.SECONDS,
            height=7,
        ),
        time_series(
            "Time per output token p95",
            "How fast each target writes.",
            [Query(expr=known(OF.quantile(0.95, names.TIME_PER_OUTPUT_CHUNK, by=by)), legend=legend)],
            unit=Unit.SECONDS,
            height=7,
        ),
    )


def _limits() -> tuple[Panel, ...]:
    def left(what: str, kinds: tuple[str, ...]) -> Panel:
        by = ("provider", "model", *(("kind",) if len(kinds) > 1 else ()))
        return time_series(
            f"{what} left of the rate limit",
            f"What the provider's last answer said is left of its limit on {what.lower()}. Near 0: 429s follow. Spread "
            "over more targets, or ask the provider for more.",
            [
                Query(
                    expr=OF.gauge(names.RATELIMIT_REMAINING, one_of("kind", kinds), by=by),
                    legend=" · ".join(f"{{{{{label}}}}}" for label in by),
                )
            ],
            unit=Unit.COUNT,
            width=12,
            no_value="no provider tells",
        )

    return left("Requests", ("requests",)), left("Tokens", ("tokens", "input_tokens", "output_tokens"))


PROVIDERS = Board(
    uid="gaugeway-providers",
    name="providers",
    title="Gaugeway / Providers",
    description="Which provider fails, is slow, refuses, or is close to its rate limit.",
    variables=VARIABLES,
    rows=(
        Row("", _table()),
        Row("Attempts and errors", _errors()),
        Row("Side by side", _speed()),
        Row("Rate limits", _limits()),
    ),
)
