"""The Helm chart renders what Kubernetes accepts, with the same rules and dashboards as everywhere else.

`make helm` builds Helm from its published module into build/; without Go these tests are skipped.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.config.load import load_text
from gateway.providers.registry import find_provider
from otel.rules import render
from otel.stack import find
from tests.dashboards.documents import DOCUMENTS
from tests.servers import missing, require

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "gaugeway"
KUBERNETES = "1.33.0"
ALL = (
    "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true,config.ledger.postgres=$LEDGER_URL,"
    "autoscaling.enabled=true,ingress.enabled=true,ingress.host=llm.example.com,"
    "prometheusRule.runbooks=https://runbooks.example.com/gaugeway/"
)
OWN_KINDS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus Operator, which Kubernetes' own schemas do not know."""


@pytest.fixture(scope="module")
def helm() -> str:
    """The program."""
    found = find(("helm",))
    if found is None and shutil.which("go") is None:
        pytest.skip("there is no helm, and no Go to build it (make helm)")
    if found is None:
        missing("there is no helm; make helm builds it")
    return found


def _run(helm: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([helm, *arguments], capture_output=True, text=True, check=False)


def _objects(helm: str, values: str = "") -> list[dict[str, Any]]:
    done = _run(helm, "template", "prod", str(CHART), "--kube-version", KUBERNETES, "--set", values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def _only(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def test_helm_finds_no_fault(helm: str) -> None:
    """`helm lint --strict` accepts the chart."""
    done = _run(helm, "lint", "--strict", "--kube-version", KUBERNETES, str(CHART))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", ["", ALL])
def test_kubernetes_accepts_every_object(helm: str, values: str) -> None:
    """Each rendered object is valid by Kubernetes' own schema, unknown fields refused."""
    for one in _objects(helm, values):
        if one["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(one, KUBERNETES.rpartition(".")[0], strict=True)


def test_pods_have_no_privileges(helm: str) -> None:
    """Not root, nothing writable but the ledger and /tmp, no capabilities, no token for the cluster's API."""
    pod = _only(_objects(helm), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_one_ledger_has_one_writer(helm: str) -> None:
    """A ledger on a volume has one pod, which ends before the next begins; more are refused without a shared one."""
    deployment = _only(_objects(helm), "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    for values in ("replicaCount=2", "autoscaling.enabled=true", "workers=2"):
        done = _run(helm, "template", "prod", str(CHART), "--kube-version", KUBERNETES, "--set", values)
        assert done.returncode != 0
        assert "several pods or workers need one ledger" in done.stderr


def test_a_shared_ledger_allows_several_pods(helm: str) -> None:
    """With PostgreSQL there are pods and workers as asked, updates roll, and there is no volume."""
    objects = _objects(helm, "config.ledger.postgres=$LEDGER_URL,replicaCount=3,workers=2")
    deployment = _only(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 3
    assert "strategy" not in deployment
    assert "--workers=2" in deployment["template"]["spec"]["containers"][0]["args"]
    assert "PersistentVolumeClaim" not in {one["kind"] for one in objects}


@pytest.mark.parametrize("values", ["workers=0", "config=null", "ledger.shred=true"])
def test_wrong_values_are_refused(helm: str, values: str) -> None:
    """The values' schema names a value that is out of range, missing or unknown."""
    done = _run(helm, "template", "prod", str(CHART), "--kube-version", KUBERNETES, "--set", values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_gateway_takes_the_configuration(helm: str) -> None:
    """The default configuration is one that the gateway loads."""
    text = _only([one for one in _objects(helm) if "gateway.yaml" in one.get("data", {})], "ConfigMap")
    settings = load_text(text["data"]["gateway.yaml"], find_provider, {"OPENAI_API_KEY": "sk-test"})
    assert [route.name for route in settings.routes] == ["chat"]


def test_rules_and_dashboards_are_the_same_as_elsewhere(helm: str, tmp_path: Path) -> None:
    """The chart ships the generated files; runbook_url begins with the given address, and promtool accepts the rules."""
    objects = _objects(helm, ALL)
    rules = _only(objects, "PrometheusRule")["spec"]
    shipped = yaml.safe_load(render.prometheus("https://runbooks.example.com/gaugeway"))
    assert rules == shipped
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rules))
    subprocess.run([require("promtool"), "check", "rules", str(path)], check=True, capture_output=True)
    boards = [one for one in objects if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
    texts = {name: json.loads(text) for one in boards for name, text in one["data"].items()}
    assert texts == {f"{name}.json": document for name, document in DOCUMENTS.items()}
