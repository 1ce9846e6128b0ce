"""Situations in which each alert must fire, and ones in which it must not: input for `promtool test rules`.

A series' values are promtool's notation: `0+3x60` is a counter that grows by 3 a step, 60 times.
"""

from msgspec import Struct


class Case(Struct, frozen=True, kw_only=True):
    """Series (selector -> values), the time of the look, and the alert instances that must be firing then.

    `firing` are label sets, compared on `alertname` and the labels that they name.
    """

    alert: str
    why: str
    series: dict[str, str]
    at: str
    step: str = "1m"
    """Between samples, and between evaluations: longer where the situation lasts for days."""
    firing: tuple[dict[str, str], ...] = ()


def _requests(outcome: str, error: str, values: str, route: str = "chat") -> dict[str, str]:
    labels = (
        f'job="gaugeway",route="{route}",route_type="llm/v1/chat",team="a",outcome="{outcome}",error_type="{error}"'
    )
    return {f"gateway_requests_total{{{labels}}}": values}


def _attempts(outcome: str, error: str, values: str, provider: str = "groq") -> dict[str, str]:
    labels = f'route="chat",provider="{provider}",model="m",kind="first",outcome="{outcome}",error_type="{error}"'
    return {f'gateway_attempts_total{{job="gaugeway",{labels}}}': values}


def _circuit(values: str) -> dict[str, str]:
    return {'gateway_provider_circuit_state{job="gaugeway",instance="i",provider="groq",model="m"}': values}


def _first_chunks(slow: str, total: str) -> dict[str, str]:
    name = "gen_ai_client_operation_time_to_first_chunk_seconds"
    labels = 'job="gaugeway",route="chat",gen_ai_provider_name="groq"'
    return {f'{name}_bucket{{{labels},le="2.5"}}': slow, f"{name}_count{{{labels}}}": total}


def _budget(spent: str, limit: float = 100, resets: float = 864_000, scope: str = "team=search") -> dict[str, str]:
    labels = f'job="gaugeway",budget="b",scope="{scope}",window="month"'
    return {
        f"gateway_budget_spent_usd{{{labels}}}": spent,
        f"gateway_budget_limit_usd{{{labels}}}": f"{limit}x900",
        f"gateway_budget_held_usd{{{labels}}}": "0x900",
        f"gateway_budget_resets_timestamp_seconds{{{labels}}}": f"{resets}x900",
    }


def _of_instance(name: str, values: str, labels: str = "") -> dict[str, str]:
    return {f'{name}{{job="gaugeway",instance="i"{"," + labels if labels else ""}}}': values}


def _buckets(name: str, below: str, bound: str, total: str, labels: str = "") -> dict[str, str]:
    return {
        **_of_instance(f"{name}_bucket", below, f'{labels}{"," if labels else ""}le="{bound}"'),
        **_of_instance(f"{name}_bucket", total, f'{labels}{"," if labels else ""}le="1.01"'),
        **_of_instance(f"{name}_bucket", total, f'{labels}{"," if labels else ""}le="+Inf"'),
        **_of_instance(f"{name}_count", total, labels),
    }


def _cost(values: str) -> dict[str, str]:
    labels = 'job="gaugeway",route="chat",team="search",provider="p",model="m",basis="provider_usage"'
    return {f"gateway_cost_usd_total{{{labels}}}": values}


def _tokens(unpriced: str, total: str) -> dict[str, str]:
    labels = 'route="chat",team="a",provider="p",model="m",type="input",source="provider"'
    return {
        f'gateway_tokens_total{{job="gaugeway",{labels}}}': total,
        'gateway_unpriced_tokens_total{job="gaugeway",provider="p",model="m"}': unpriced,
    }


WEEK = 7 * 24 * 4
"""Steps of 15 minutes."""
CASES = (
    Case(
        alert="GaugewayErrorBudgetBurn",
        why="one request in five fails for an hour: the fast window fires, and the 6 h one as well",
        series=_requests("ok", "", "0+48x120") | _requests("provider", "provider_error", "0+12x120"),
        at="1h15m",
        firing=({"route": "chat", "burn_window": "1h"}, {"route": "chat", "burn_window": "6h"}),
    ),
    Case(
        alert="GaugewayErrorBudgetBurn",
        why="one request in a hundred fails for days: only the slow window fires",
        series=_requests("ok", "", "0+1485x300") | _requests("gateway", "internal", "0+15x300"),
        at="4395m",
        step="15m",
        firing=({"burn_window": "3d", "severity": "warning"},),
    ),
    Case(
        alert="GaugewayErrorBudgetBurn",
        why="callers' mistakes and refusals by policy are nobody's failure",
        series=_requests("ok", "", "0+10x120")
        | _requests("caller", "invalid_json", "0+90x120")
        | _requests("policy", "budget_exceeded", "0+90x120"),
        at="1h15m",
    ),
    Case(
        alert="GaugewayErrorBudgetBurn",
        why="a failure an hour where there is hardly any traffic says nothing",
        series=_requests("provider", "provider_error", "0x30 1x90"),
        at="1h15m",
    ),
    Case(
        alert="GaugewayErrorBudgetBurn",
        why="it goes soon after the failures have ended, since the short window no longer agrees",
        series=_requests("ok", "", "0+48x180") | _requests("provider", "provider_error", "0+12x60 720x120"),
        at="1h40m",
    ),
    Case(
        alert="GaugewayFirstChunkSlow",
        why="nine streams in ten wait too long",
        series=_first_chunks("0+6x120", "0+60x120"),
        at="1h15m",
        firing=({"burn_window": "1h"}, {"burn_window": "6h"}),
    ),
    Case(
        alert="GaugewayFirstChunkSlow",
        why="one stream in fifty may wait",
        series=_first_chunks("0+49x120", "0+50x120"),
        at="1h15m",
    ),
    Case(
        alert="GaugewayBudgetNotice",
        why="four fifths are spent, and the alert names the team that pays",
        series=_budget("80x900"),
        at="10m",
        firing=({"budget": "b", "scope": "team=search", "team": "search", "window": "month"},),
    ),
    Case(alert="GaugewayBudgetNotice", why="79 of 100 dollars", series=_budget("79x900"), at="10m"),
    Case(
        alert="GaugewayBudgetExhausted",
        why="all is spent; a budget for everybody has no team",
        series=_budget("100x900", scope="global"),
        at="10m",
        firing=({"budget": "b", "scope": "global", "team": ""},),
    ),
    Case(alert="GaugewayBudgetExhausted", why="99 of 100 dollars", series=_budget("99x900"), at="10m"),
    Case(
        alert="GaugewayBudgetEndsSoon",
        why="a dollar every two minutes empties the budget long before it resets",
        series=_budget("0+0.5x900"),
        at="2h",
        firing=({"budget": "b", "team": "search"},),
    ),
    Case(
        alert="GaugewayBudgetEndsSoon",
        why="the same pace does not matter when the window ends first",
        series=_budget("0+0.5x900", resets=10_000),
        at="2h",
    ),
    Case(
        alert="GaugewayBudgetEndsSoon",
        why="a burst that is over does not count: the last 15 minutes are quiet",
        series=_budget("0+0.5x60 30x840"),
        at="1h30m",
    ),
    Case(
        alert="GaugewayBudgetForecast",
        why="0.05 dollars a minute are 720 in ten days, of 100",
        series=_budget("0+0.25x180"),
        at="8h",
        step="5m",
        firing=({"budget": "b"},),
    ),
    Case(
        alert="GaugewayBudgetForecast",
        why="0.005 dollars a minute are 72 in ten days, of 100",
        series=_budget("0+0.025x180"),
        at="8h",
        step="5m",
    ),
    Case(
        alert="GaugewaySpendAnomaly",
        why="12 dollars an hour where it was one a week ago",
        series=_cost(f"0+0.25x{WEEK} 171+3x20"),
        at="170h",
        step="15m",
        firing=({"team": "search"},),
    ),
    Case(
        alert="GaugewaySpendAnomaly",
        why="ten times as much, but of cents",
        series=_cost(f"0+0.01x{WEEK} 7+0.1x20"),
        at="170h",
        step="15m",
    ),
    Case(
        alert="GaugewayUnpricedModel",
        why="every token of a model lacks a price",
        series=_tokens("0+100x120", "0+100x120"),
        at="1h30m",
        firing=({"provider": "p", "model": "m"},),
    ),
    Case(alert="GaugewayUnpricedModel", why="all are priced", series=_tokens("0x120", "0+100x120"), at="1h30m"),
    Case(
        alert="GaugewayPricesRefused",
        why="a broken file was offered two hours ago",
        series=_of_instance("gateway_price_updates_refused_total", "0x10 1x140"),
        at="130m",
        firing=({"instance": "i", "severity": "warning"},),
    ),
    Case(
        alert="GaugewayPricesRefused",
        why="no file was refused",
        series=_of_instance("gateway_price_updates_refused_total", "0x150"),
        at="130m",
    ),
    Case(
        alert="GaugewayAlertsUndelivered",
        why="a webhook has been down for a quarter of an hour",
        series=_of_instance("gateway_alert_deliveries_total", "0x5 0+1x60", 'result="failed"'),
        at="30m",
        firing=({"instance": "i"},),
    ),
    Case(
        alert="GaugewayAlertsUndelivered",
        why="one delivery failed and was taken a minute later",
        series=_of_instance("gateway_alert_deliveries_total", "0x5 1x60", 'result="failed"')
        | _of_instance("gateway_alert_deliveries_total", "0+1x60", 'result="delivered"'),
        at="15m",
    ),
    Case(
        alert="GaugewayPriceTableOld",
        why="prices of 40 days ago",
        series=_of_instance("gateway_price_table_age_seconds", "3456000x120"),
        at="90m",
        firing=({"job": "gaugeway"},),
    ),
    Case(
        alert="GaugewayPriceTableOld",
        why="prices of yesterday",
        series=_of_instance("gateway_price_table_age_seconds", "86400x120"),
        at="90m",
    ),
    Case(
        alert="GaugewayProviderDown",
        why="every attempt at one provider fails; the other is well",
        series=_attempts("provider", "connect_failed", "0+6x60") | _attempts("ok", "", "0+6x60", provider="openai"),
        at="20m",
        firing=({"provider": "groq"},),
    ),
    Case(
        alert="GaugewayProviderDown",
        why="a provider that refuses wrong requests is not down",
        series=_attempts("caller", "provider_invalid_request", "0+6x60") | _attempts("ok", "", "0+1x60"),
        at="20m",
    ),
    Case(
        alert="GaugewayProviderDown",
        why="the circuit is open, so that a probe each four minutes is all that still fails",
        series=_attempts("provider", "connect_failed", "0x5 5x3 6x3 7x3 8x60") | _circuit("0x5 2x60"),
        at="20m",
        firing=({"provider": "groq"},),
    ),
    Case(
        alert="GaugewayProviderDown",
        why="nobody has asked for a provider since its circuit opened, so nothing closes it",
        series=_attempts("provider", "connect_failed", "0x5 5x60") | _circuit("0x5 2x60"),
        at="30m",
    ),
    Case(
        alert="GaugewayProviderDown",
        why="the circuit was open for two minutes",
        series=_attempts("ok", "", "0+6x60") | _circuit("0x10 2x1 0x60"),
        at="14m",
    ),
    Case(
        alert="GaugewayProviderFailing",
        why="one attempt in five fails for an hour",
        series=_attempts("provider", "provider_error", "0+2x90") | _attempts("ok", "", "0+8x90"),
        at="1h",
        firing=({"provider": "groq"},),
    ),
    Case(
        alert="GaugewayProviderFailing",
        why="one attempt in fifty fails",
        series=_attempts("provider", "provider_error", "0+1x90") | _attempts("ok", "", "0+49x90"),
        at="1h",
    ),
    Case(
        alert="GaugewayProviderRateLimited",
        why="one attempt in ten gets a 429",
        series=_attempts("provider", "provider_rate_limited", "0+1x90") | _attempts("ok", "", "0+9x90"),
        at="1h",
        firing=({"provider": "groq"},),
    ),
    Case(
        alert="GaugewayProviderRateLimited",
        why="other failures are not rate limits",
        series=_attempts("provider", "provider_error", "0+1x90") | _attempts("ok", "", "0+9x90"),
        at="1h",
    ),
    Case(
        alert="GaugewayDown",
        why="gateways cannot be scraped; somebody else's target is not ours to report",
        series={
            f'up{{job="{job}",instance="i"}}': "1x5 0x60"
            for job in ("gaugeway", "llm-gaugeway", "gaugeway-prod", "node")
        },
        at="20m",
        firing=tuple({"job": job, "instance": "i"} for job in ("gaugeway", "llm-gaugeway", "gaugeway-prod")),
    ),
    Case(alert="GaugewayDown", why="it is up", series=_of_instance("up", "1x60"), at="20m"),
    Case(
        alert="GaugewayReloadFailed",
        why="the new configuration was refused",
        series=_of_instance("gateway_config_last_reload_successful", "1x5 0x60"),
        at="20m",
        firing=({"instance": "i"},),
    ),
    Case(
        alert="GaugewayReloadFailed",
        why="it took effect",
        series=_of_instance("gateway_config_last_reload_successful", "1x60"),
        at="20m",
    ),
    Case(
        alert="GaugewayOverheadHigh",
        why="half of the requests wait more than 25 ms to be settled",
        series=_buckets("gateway_overhead_seconds", "0+30x60", "0.025", "0+60x60", 'route="chat",phase="settle"'),
        at="40m",
        firing=({"instance": "i", "phase": "settle"},),
    ),
    Case(
        alert="GaugewayOverheadHigh",
        why="every phase is fast; the many pieces of long streams add up to more",
        series=_buckets("gateway_overhead_seconds", "0+60x60", "0.025", "0+60x60", 'route="chat",phase="admit"')
        | _buckets("gateway_overhead_seconds", "0+30x60", "0.025", "0+60x60", 'route="chat",phase="total"'),
        at="40m",
    ),
    Case(
        alert="GaugewayEventLoopLag",
        why="half of the timers run more than 100 ms late",
        series=_buckets("gateway_event_loop_lag_seconds", "0+60x60", "0.1", "0+120x60"),
        at="40m",
        firing=({"instance": "i"},),
    ),
    Case(
        alert="GaugewayEventLoopLag",
        why="all run in time",
        series=_buckets("gateway_event_loop_lag_seconds", "0+120x60", "0.1", "0+120x60"),
        at="40m",
    ),
    Case(
        alert="GaugewayTelemetryLost",
        why="spans and records are lost: one alert each",
        series=_of_instance("gateway_telemetry_spans_dropped_total", "0+5x60", 'reason="queue_full"')
        | _of_instance("gateway_sink_errors_total", "0+1x60", 'sink="log"'),
        at="30m",
        firing=({"signal": "spans"}, {"signal": "records"}),
    ),
    Case(
        alert="GaugewayTelemetryLost",
        why="a collector refuses batches of metrics and logs, and nothing else is lost",
        series=_of_instance("gateway_telemetry_export_errors_total", "0+1x60", 'signal="metrics"')
        | _of_instance("gateway_telemetry_export_errors_total", "0+1x60", 'signal="logs"')
        | _of_instance("gateway_telemetry_messages_dropped_total", "0x60")
        | _of_instance("gateway_telemetry_spans_dropped_total", "0x60", 'reason="queue_full"'),
        at="30m",
        firing=({"signal": "batches"},),
    ),
    Case(
        alert="GaugewayTelemetryLost",
        why="what was lost an hour ago is over",
        series=_of_instance("gateway_telemetry_spans_dropped_total", "0+5x10 50x80", 'reason="queue_full"'),
        at="80m",
    ),
    Case(
        alert="GaugewayLabelOverflow",
        why="a family counts under _other",
        series=_of_instance("gateway_metric_label_overflow_total", "0+1x60", 'family="gateway_requests_total"'),
        at="30m",
        firing=({"family": "gateway_requests_total", "severity": "info"},),
    ),
    Case(
        alert="GaugewayLabelOverflow",
        why="none does",
        series=_of_instance("gateway_metric_label_overflow_total", "0x60", 'family="gateway_requests_total"'),
        at="30m",
    ),
    Case(
        alert="GaugewayLedgerErrors",
        why="commits fail",
        series=_of_instance("gateway_ledger_errors_total", "0+1x60"),
        at="30m",
        firing=({"instance": "i", "severity": "critical"},),
    ),
    Case(
        alert="GaugewayLedgerErrors",
        why="none fails",
        series=_of_instance("gateway_ledger_errors_total", "3x60"),
        at="30m",
    ),
    Case(
        alert="GaugewayLedgerBehind",
        why="five thousand entries wait",
        series=_of_instance("gateway_ledger_pending_entries", "5000x60"),
        at="30m",
        firing=({"instance": "i"},),
    ),
    Case(
        alert="GaugewayLedgerBehind",
        why="half of the commits take more than 100 ms",
        series=_buckets("gateway_ledger_commit_seconds", "0+30x60", "0.1", "0+60x60"),
        at="30m",
        firing=({"instance": "i"},),
    ),
    Case(
        alert="GaugewayLedgerBehind",
        why="a handful wait, and commits are quick",
        series=_of_instance("gateway_ledger_pending_entries", "5x60")
        | _buckets("gateway_ledger_commit_seconds", "0+60x60", "0.1", "0+60x60"),
        at="30m",
    ),
    Case(
        alert="GaugewayLedgerOrphans",
        why="holds of a crashed process were charged",
        series=_of_instance("gateway_ledger_orphans_total", "0x5 3x60"),
        at="30m",
        firing=({"instance": "i"},),
    ),
    Case(
        alert="GaugewayLedgerOrphans",
        why="none were found",
        series=_of_instance("gateway_ledger_orphans_total", "0x60"),
        at="30m",
    ),
)
