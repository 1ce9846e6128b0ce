"""The alert rules fire when they must and only then, name only what the catalogue has, and each has a runbook."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel.rules import render
from otel.rules.model import Alert
from tests.dashboards.documents import DOCUMENTS
from tests.otel.alert_cases import CASES, Case
from tests.promql import foreign_labels
from tests.servers import require

ROOT = Path(__file__).parents[2]
RULES = ROOT / "otel" / "prometheus" / "rules" / "gaugeway.yml"
GRAFANA = ROOT / "otel" / "grafana" / "alerts" / "gaugeway.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = render.alerts()
NAMES = sorted({alert.name for alert in ALERTS})
RECORDED = {recording.name: recording for recording in render.recordings()}
each_alert = pytest.mark.parametrize("alert", [pytest.param(a, id=f"{a.name}{a.window}") for a in ALERTS])


def test_the_files_are_current() -> None:
    """The rule files of Prometheus and Grafana hold what the Python writes now."""
    assert RULES.read_text("utf-8") == render.prometheus(), "run python -m otel.rules"
    assert GRAFANA.read_text("utf-8") == render.grafana(), "run python -m otel.rules"


def test_check_finds_a_stale_file(tmp_path: Path) -> None:
    """`--check` exits 1 when a file differs from what the Python writes."""
    command = [sys.executable, "-m", "otel.rules", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert subprocess.run([*command, "--check"], check=False, cwd=ROOT).returncode == 0
    (tmp_path / "prometheus" / "rules" / "gaugeway.yml").write_text("groups: []\n")
    assert subprocess.run([*command, "--check"], check=False, cwd=ROOT).returncode == 1


def test_promtool_accepts_the_rules() -> None:
    """Prometheus's own checker finds no fault, its lint included."""
    done = subprocess.run(
        [require("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_alert
def test_alerts_name_only_what_the_catalogue_has(alert: Alert) -> None:
    """Every series and label of an alert is in the catalogue, recorded here, or Prometheus's own."""
    for expr in (alert.expr, *(recording.expr for name, recording in RECORDED.items() if name in alert.expr)):
        wrong = {(name, label) for name, label in foreign_labels(expr) if name not in RECORDED}
        assert not wrong


@each_alert
def test_alerts_say_what_is_needed(alert: Alert) -> None:
    """Summary and description are sentences, name a board that exists, and use only labels the alert keeps."""
    boards = {json.loads(path.read_text("utf-8"))["uid"] for path in (ROOT / "dashboards/generated").glob("*.json")}
    assert alert.dashboard in boards
    assert alert.description.endswith(".")
    used = set(re.findall(r"\[\[(\w+)", alert.summary + alert.description)) - {"value", "query"}
    assert all(re.search(rf"\b{label}\b", alert.expr) or label in {"route", "job", "instance"} for label in used)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_runbook(name: str) -> None:
    """The page says what it means, what to look at, and what to do."""
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
    assert text.startswith(f"# {name}\n")
    for heading in ("## What it means", "## Look", "## Do"):
        assert heading in text


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_can_be_followed(name: str) -> None:
    """The panels that it names are on those boards, and its queries name only what the catalogue has."""
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
    for board, panel in re.findall(
        r"^\d+\. (Overview|Latency|Spend|Providers|Gateway)\b[^*:;]*\*([^*]+)\*", text, re.MULTILINE
    ):
        assert panel in {one.get("title") for one in DOCUMENTS[board.lower()]["panels"]}
    for expr in re.findall(r"In Prometheus: `(.+)`$", text, re.MULTILINE):
        assert not foreign_labels(expr)


def test_no_runbook_is_left_over() -> None:
    """Every page under docs/runbooks/ belongs to an alert, and the index lists each one."""
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(NAMES)
    index = (RUNBOOKS / "README.md").read_text("utf-8")
    assert all(f"({name}.md)" in index for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_both_kinds_of_case(name: str) -> None:
    """Each alert has a situation in which it fires and one in which it does not."""
    kinds = {bool(case.firing) for case in CASES if case.alert == name}
    assert kinds == {True, False}


def test_alerts_fire_and_stay_silent(tmp_path: Path) -> None:
    """Prometheus's own rule tester agrees with every case."""
    files = []
    # The tester evaluates groups in any order, unless it is told that what is recorded comes before what reads it.
    order = [group.name for group in render.GROUPS]
    for alert, step in sorted({(case.alert, case.step) for case in CASES}):
        rules, tests = tmp_path / f"{alert}.rules.yml", tmp_path / f"{alert}.{step}.yml"
        # The alert's own rules alone: all of them at every step of every case take the tester ten times as long.
        rules.write_text(yaml.safe_dump({"groups": _groups_of(alert)}))
        cases = [_test(case) for case in CASES if (case.alert, case.step) == (alert, step)]
        asked = {"rule_files": [str(rules)], "group_eval_order": order, "evaluation_interval": step, "tests": cases}
        tests.write_text(yaml.safe_dump(asked))
        files.append(str(tests))
    done = subprocess.run([require("promtool"), "test", "rules", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(files)


def test_grafana_gets_the_same_alerts() -> None:
    """Grafana's file has every alert once, with uids of its own and expressions that need no recorded series."""
    rules = [rule for group in yaml.safe_load(GRAFANA.read_text("utf-8"))["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALERTS)
    assert len({rule["uid"] for rule in rules}) == len(rules)
    for rule in rules:
        assert len(rule["uid"]) <= 40
        assert not foreign_labels(rule["data"][0]["model"]["expr"]), rule["title"]
        assert rule["data"][0]["datasourceUid"] == render.GRAFANA_DATASOURCE


def _groups_of(alert: str) -> list[dict[str, Any]]:
    """The rule file's groups with only this alert, which must be there, and the recordings that it reads."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    exprs = [rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") == alert]
    assert exprs
    read = {name for name in RECORDED if any(name in expr for expr in exprs)}
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") == alert or rule.get("record") in read]
    return [group for group in groups if group["rules"]]


def _test(case: Case) -> dict[str, Any]:
    labels = sorted({label for instance in case.firing for label in instance})
    samples = [
        {"labels": "{" + ", ".join(f'{k}="{v}"' for k, v in sorted(one.items()) if v) + "}", "value": 1}
        for one in case.firing
    ]
    by = f" by ({', '.join(labels)})" if labels else ""
    return {
        "name": f"{case.alert}: {case.why}",
        "interval": case.step,
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'count{by} (ALERTS{{alertname="{case.alert}", alertstate="firing"}})',
                "eval_time": case.at,
                "exp_samples": samples,
            }
        ],
    }
