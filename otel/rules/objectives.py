"""Burn rates of the two objectives: requests that do not fail, and streams that start in time.

Each is recorded a route and a window, and an alert needs a long window, a short one, and enough traffic to judge by.
"""

from dashboards import thresholds
from dashboards.promql import Source, one_of, share
from dashboards.thresholds import BurnWindow
from gateway.telemetry import names
from otel.rules.model import Alert, Group, Recording, Severity

OF = Source()
BY = ("job", "route")
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
FIRST_CHUNK_BURN = thresholds.BURN_WINDOWS[:2]


def _valid(window: str) -> Recording:
    expr = OF.rate(names.REQUESTS, one_of("outcome", thresholds.VALID), by=BY, window=window)
    return Recording(name=f"job_route:gateway_requests_valid:rate{window}", labels=BY, expr=expr)


def _failed(window: str) -> Recording:
    failed = OF.rate(names.REQUESTS, one_of("outcome", thresholds.FAILED), by=BY, window=window)
    valid = OF.rate(names.REQUESTS, one_of("outcome", thresholds.VALID), by=BY, window=window)
    return Recording(name=f"job_route:gateway_requests_failed:ratio_rate{window}", labels=BY, expr=share(failed, valid))


def _streams(window: str) -> Recording:
    expr = OF.rate(names.TIME_TO_FIRST_CHUNK, by=BY, suffix="_count", window=window)
    return Recording(name=f"job_route:gen_ai_first_chunks:rate{window}", labels=BY, expr=expr)


def _late(window: str) -> Recording:
    expr = OF.above(thresholds.FIRST_CHUNK_S, names.TIME_TO_FIRST_CHUNK, by=BY, window=window)
    return Recording(name=f"job_route:gen_ai_first_chunks_late:ratio_rate{window}", labels=BY, expr=expr)


VALID = {window: _valid(window) for window in WINDOWS}
FAILED = {window: _failed(window) for window in WINDOWS}
STREAMS = {window: _streams(window) for window in ("1h", "6h")}
LATE = {window: _late(window) for window in ("5m", "30m", "1h", "6h")}


def _burn(line: BurnWindow, ratio: dict[str, Recording], traffic: dict[str, Recording], allowed: float) -> str:
    limit = f"{line.factor * allowed:.6g}"
    return (
        f"{ratio[line.long].name} > {limit} and {ratio[line.short].name} > {limit} "
        f"and {traffic[line.long].name} > {thresholds.MIN_REQUESTS_PER_S:g}"
    )


def _error_budget(line: BurnWindow) -> Alert:
    return Alert(
        name="GaugewayErrorBudgetBurn",
        expr=_burn(line, FAILED, VALID, 1 - thresholds.AVAILABILITY),
        hold=line.hold,
        severity=Severity(line.severity),
        window=line.long,
        summary="Route [[route]] fails [[value:percent]] of its requests",
        description=(
            f"Over {line.long} and {line.short}, [[value:percent]] of the requests to route [[route]] ([[job]]) failed "
            f"by the fault of a provider or of the gateway. That spends the error budget of "
            f"{1 - thresholds.AVAILABILITY:.1%} {line.factor:g} times as fast as allowed, or faster."
        ),
        dashboard="gaugeway-providers",
    )


def _first_chunk(line: BurnWindow) -> Alert:
    return Alert(
        name="GaugewayFirstChunkSlow",
        expr=_burn(line, LATE, STREAMS, 1 - thresholds.FIRST_CHUNK_SHARE),
        hold=line.hold,
        severity=Severity.WARNING,
        window=line.long,
        summary="Streams of route [[route]] start late",
        description=(
            f"Over {line.long} and {line.short}, [[value:percent]] of the streams of route [[route]] ([[job]]) had to "
            f"wait more than {thresholds.FIRST_CHUNK_S:g} s for their first chunk; "
            f"{1 - thresholds.FIRST_CHUNK_SHARE:.0%} may."
        ),
        dashboard="gaugeway-latency",
    )


RECORDED = Group(
    name="gaugeway-objectives-recorded",
    rules=(*VALID.values(), *FAILED.values(), *STREAMS.values(), *LATE.values()),
)
OBJECTIVES = Group(
    name="gaugeway-objectives",
    rules=(
        *(_error_budget(line) for line in thresholds.BURN_WINDOWS),
        *(_first_chunk(line) for line in FIRST_CHUNK_BURN),
    ),
)
