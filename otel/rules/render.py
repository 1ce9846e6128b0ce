"""Rules as Prometheus reads them, and the same alerts as Grafana-managed ones."""

import re
from typing import Any

import yaml

from gateway.telemetry import names
from otel.rules.health import LEDGER, PROCESS, PROVIDERS
from otel.rules.model import SERVICE, Alert, Recording, Templates
from otel.rules.money import MONEY
from otel.rules.objectives import OBJECTIVES, RECORDED

GROUPS = (RECORDED, OBJECTIVES, MONEY, PROVIDERS, PROCESS, LEDGER)
RUNBOOKS = "docs/runbooks"
GRAFANA_DATASOURCE = "gaugeway-prometheus"
_HEADER = "# Made by `python -m otel.rules`; change the Python, not this file.\n"
_FORMS = {
    "count": 'printf "%.0f"',
    "usd": 'printf "%.2f"',
    "percent": "humanizePercentage",
    "duration": "humanizeDuration",
}
_BUDGET_GAUGES = {"spent": names.BUDGET_SPENT, "limit": names.BUDGET_LIMIT}


def alerts() -> list[Alert]:
    """Every alert rule, in the order of the groups."""
    return [rule for group in GROUPS for rule in group.rules if isinstance(rule, Alert)]


def recordings() -> list[Recording]:
    """Every recorded series."""
    return [rule for group in GROUPS for rule in group.rules if isinstance(rule, Recording)]


def prometheus(runbooks: str = RUNBOOKS) -> str:
    """The rule file of Prometheus. `runbooks` is the folder or address that the runbooks are found under."""
    groups = [
        {
            "name": group.name,
            "interval": group.interval,
            "rules": [_prometheus_rule(rule, runbooks) for rule in group.rules],
        }
        for group in GROUPS
    ]
    return _yaml({"groups": groups})


def grafana(runbooks: str = RUNBOOKS) -> str:
    """The same alerts for Grafana's file provisioning, for those who have no Alertmanager. They need no recorded series."""
    groups = [
        {
            "orgId": 1,
            "name": group.name,
            "folder": "Gaugeway",
            "interval": "1m",
            "rules": [_grafana_rule(rule, runbooks) for rule in group.rules if isinstance(rule, Alert)],
        }
        for group in GROUPS
        if any(isinstance(rule, Alert) for rule in group.rules)
    ]
    return _yaml({"apiVersion": 1, "groups": groups})


def _prometheus_rule(rule: Recording | Alert, runbooks: str) -> dict[str, Any]:
    if isinstance(rule, Recording):
        return {"record": rule.name, "expr": rule.expr}
    texts = _texts(rule, runbooks)
    annotations = {key: _PROMETHEUS.fill(text) for key, text in texts.items()}
    made = {"alert": rule.name, "expr": rule.expr, "for": rule.hold, "labels": _labels(rule)}
    return made | {"annotations": annotations | {"dashboard": rule.dashboard}}


def _grafana_rule(rule: Alert, runbooks: str) -> dict[str, Any]:
    texts = _texts(rule, runbooks)
    # Grafana's templates cannot ask for another series; the share says enough.
    texts["description"] = texts["description"].replace(": $[[query:spent]] of $[[query:limit]]", "")
    query = {"refId": "A", "expr": _inlined(rule.expr), "instant": True, "range": False, "editorMode": "code"}
    verdict = {"refId": "B", "type": "math", "expression": "is_number($A)"}
    return {
        "uid": _uid(rule),
        "title": f"{rule.name} {rule.window}".strip(),
        "condition": "B",
        "for": rule.hold,
        "noDataState": "OK",
        "execErrState": "Error",
        "dashboardUid": rule.dashboard,
        "panelId": 1,
        "labels": _labels(rule),
        "annotations": {key: _GRAFANA.fill(text) for key, text in texts.items()},
        "data": [_grafana_query("A", GRAFANA_DATASOURCE, query), _grafana_query("B", "__expr__", verdict)],
    }


def _grafana_query(ref: str, datasource: str, model: dict[str, Any]) -> dict[str, Any]:
    return {"refId": ref, "relativeTimeRange": {"from": 600, "to": 0}, "datasourceUid": datasource, "model": model}


def _texts(rule: Alert, runbooks: str) -> dict[str, str]:
    return {
        "summary": rule.summary,
        "description": rule.description,
        "runbook_url": f"{runbooks.rstrip('/')}/{rule.name}.md",
    }


def _labels(rule: Alert) -> dict[str, str]:
    # An alert about a budget has that budget's window already; `burn_window` must not overwrite it.
    return {"service": SERVICE, "severity": rule.severity.value} | ({"burn_window": rule.window} if rule.window else {})


def _prometheus_query(which: str) -> str:
    series = f"{_BUDGET_GAUGES[which].name}{{budget=%q,scope=%q,window=%q}}"
    asked = f'printf "{series}" $labels.budget $labels.scope $labels.window | query'
    return f'{{{{ with {asked} }}}}{{{{ . | first | value | printf "%.2f" }}}}{{{{ end }}}}'


_PROMETHEUS = Templates(
    label=lambda name: f"{{{{ $labels.{name} }}}}",
    value=lambda form: f"{{{{ $value | {_FORMS[form]} }}}}",
    query=_prometheus_query,
)
_GRAFANA = Templates(
    label=lambda name: f'{{{{ index $labels "{name}" }}}}',
    value=lambda form: f"{{{{ {_FORMS[form]} $values.A.Value }}}}",
    query=lambda which: "",
)


def _inlined(expr: str) -> str:
    """The expression with recorded series replaced by what they record, so that it needs no recording rules."""
    by_name = {recording.name: recording.expr for recording in recordings()}
    return re.sub(r"\w+:\w+:\w+", lambda match: f"({by_name[match[0]]})", expr)


def _uid(rule: Alert) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", f"{rule.name}").lower() + (f"-{rule.window}" if rule.window else "")


def _yaml(document: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
