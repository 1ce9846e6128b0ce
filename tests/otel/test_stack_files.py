"""The files that start the stack agree with each other and with the tools that read them."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from gateway.config.load import load_file
from gateway.providers.registry import find_provider
from otel.rules.render import GRAFANA_DATASOURCE
from otel.stack import HOST, Ports, parts, prometheus_folder, run
from tests.servers import require

ROOT = Path(__file__).parents[2]
OTEL = ROOT / "otel"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def test_compose_keeps_to_the_specification() -> None:
    """docker-compose.yml is valid by the Compose Specification's own schema."""
    schema = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text("utf-8"))
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def sources(name: str) -> list[str]:
    """What a service mounts: volumes, and files as paths from the compose file's folder."""
    written = [one if isinstance(one, str) else one["source"] for one in SERVICES[name].get("volumes", ())]
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", one).split(":")[0] for one in written]


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_pinned_and_private(name: str) -> None:
    """Every image has an exact version or is built here, every port is this machine's, every mounted file exists."""
    service = SERVICES[name]
    image = service["image"]
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", image) or image.endswith(":local")
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
    for source in sources(name):
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source


def test_a_configuration_of_ones_own_is_mounted_as_a_file() -> None:
    """Named without `./` it is still a file, not a volume of that name; one that is not there is refused, not made a folder."""
    (mount,) = [one for one in SERVICES["gateway"]["volumes"] if "GATEWAY_CONFIG_FILE" in str(one)]
    assert (mount["type"], mount["bind"]) == ("bind", {"create_host_path": False})


def test_profiles_serve_the_shared_example() -> None:
    """examples/shared.yaml loads with the variables that compose sets, and they lead to the profiles' servers."""
    environment = {
        name: re.sub(r"\$\{\w+:-\}", "x", value) for name, value in SERVICES["gateway"]["environment"].items()
    }
    known = environment | {"OPENAI_API_KEY": "sk-test"}
    settings = load_file(ROOT / "examples" / "shared.yaml", find_provider, known)
    assert settings.money.ledger.postgres is not None
    assert {urlsplit(environment[name]).hostname for name in ("LEDGER_URL", "REDIS_URL")} == {"postgres", "valkey"}
    for name in ("postgres", "valkey"):
        assert SERVICES[name]["profiles"] == [name]
        assert SERVICES["gateway"]["depends_on"][name] == {"condition": "service_healthy", "required": False}


def test_no_secret_is_written_down() -> None:
    """Passwords come from the environment; the one default is Grafana's, which is published on this machine alone."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    for name, default in re.findall(r"\$\{(\w*PASSWORD\w*):-([^}]*)\}", text):
        assert default == "" or name == "GRAFANA_ADMIN_PASSWORD"
    assert not re.search(r"PASSWORD: (?!\$\{)", text)


def test_the_image_runs_without_privileges() -> None:
    """The last stages have a numeric user, a health check and a pinned base; dependencies come by hash."""
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-", DOCKERFILE, re.MULTILINE)
    base = DOCKERFILE.split("AS base")[1]
    assert re.search(r"^USER \d+:\d+$", base, re.MULTILINE)
    assert "HEALTHCHECK" in base
    assert DOCKERFILE.count("pip install") == DOCKERFILE.count("--require-hashes") + DOCKERFILE.count("--no-deps .") + (
        DOCKERFILE.count("--no-deps --no-build-isolation")
    )
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name


def test_the_image_has_the_locked_versions() -> None:
    """What the image installs are the versions that were tested, and no local model."""

    def versions(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / name).read_text("utf-8")
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))

    image, tested = versions("image.txt"), versions("dev.txt")
    assert image.items() <= tested.items()
    assert "xllamacpp" not in image
    assert {"litestar", "psycopg", "redis"} <= set(image)


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """Promtool accepts the file with the containers' targets and with this machine's."""
    promtool = require("promtool")
    for folder in (OTEL / "prometheus", prometheus_folder(tmp_path, Ports())):
        command = [promtool, "check", "config", str(folder / "prometheus.yml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert HOST in (tmp_path / "prometheus" / "targets" / "gateway.yml").read_text("utf-8")


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["severity=critical"], "on-call"),
        (["severity=warning"], "working-hours"),
        (["severity=info"], "nobody"),
        (["severity=critical", "team=search"], "teams,on-call"),
        (["severity=warning", "team=search"], "teams,working-hours"),
    ],
)
def test_alerts_reach_whom_they_concern(labels: list[str], receivers: str) -> None:
    """Severity decides who is called, and a team hears of its own money besides."""
    config = f"--config.file={OTEL / 'alertmanager' / 'alertmanager.yml'}"
    command = [require("amtool"), "config", "routes", "test", config, "service=gaugeway", *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == receivers


def test_alertmanager_takes_its_configuration() -> None:
    """Amtool accepts the file."""
    _check_alertmanager(OTEL / "alertmanager" / "alertmanager.yml")


def _check_alertmanager(path: Path) -> None:
    done = subprocess.run([require("amtool"), "check-config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _rendered(folder: Path, **addresses: str) -> dict[str, dict[str, Any]]:
    """The receivers by name that Alertmanager would start with, given these variables."""
    start = OTEL / "alertmanager" / "start.sh"
    subprocess.run(
        ["sh", str(start), str(OTEL / "alertmanager" / "alertmanager.yml"), "true"],
        env={**os.environ, "RENDERED_FOLDER": str(folder), **addresses},
        check=True,
    )
    path = folder / "alertmanager.yml"
    _check_alertmanager(path)
    assert path.stat().st_mode & 0o777 == 0o600
    return {one["name"]: one for one in yaml.safe_load(path.read_text("utf-8"))["receivers"]}


def test_receivers_get_their_addresses_from_the_environment(tmp_path: Path) -> None:
    """Each receiver takes webhook, Slack and PagerDuty from variables or secret files, and amtool accepts the outcome."""
    secret = tmp_path / "key"
    secret.write_text("it's-a-routing-key\n")
    receivers = _rendered(
        tmp_path,
        ON_CALL_PAGERDUTY_KEY_FILE=str(secret),
        ON_CALL_WEBHOOK_URL="https://hooks.example.com/on-call?a=1&b='2'",
        WORKING_HOURS_SLACK_URL="https://hooks.slack.example.com/services/T/B/x",
        TEAMS_SLACK_URL="https://hooks.slack.example.com/services/T/B/y",
    )
    assert receivers["on-call"]["pagerduty_configs"][0]["routing_key"] == "it's-a-routing-key"
    assert receivers["on-call"]["webhook_configs"][0]["url"] == "https://hooks.example.com/on-call?a=1&b='2'"
    assert "channel" not in receivers["working-hours"]["slack_configs"][0]
    assert receivers["teams"]["slack_configs"][0]["channel"] == "#llm-{{ .CommonLabels.team }}"
    assert set(receivers["nobody"]) == {"name"}


def test_without_addresses_nothing_is_sent(tmp_path: Path) -> None:
    """With no variable set, every receiver is a name alone."""
    assert all(set(one) == {"name"} for one in _rendered(tmp_path).values())


def test_data_sources_refer_to_each_other() -> None:
    """Every data source that a link names is provisioned, and its address comes from the environment."""
    path = OTEL / "grafana" / "provisioning" / "datasources" / "gaugeway.yml"
    text = path.read_text("utf-8")
    provisioned = {one["uid"]: one for one in yaml.safe_load(text)["datasources"]}
    named = set(re.findall(r"(?:datasourceUid|targetUID): (\S+)", text))
    assert named <= set(provisioned)
    assert GRAFANA_DATASOURCE in provisioned
    environment = SERVICES["grafana"]["environment"]
    assert all(re.fullmatch(r"\$\{(\w+)\}", one["url"]) for one in provisioned.values())
    assert all(one["url"][2:-1] in environment for one in provisioned.values())


def test_a_dot_in_a_graph_leads_to_its_trace() -> None:
    """The Prometheus data source links the exemplar label that the gateway sends to Tempo."""
    path = OTEL / "grafana" / "provisioning" / "datasources" / "gaugeway.yml"
    prometheus = next(
        one for one in yaml.safe_load(path.read_text("utf-8"))["datasources"] if one["type"] == "prometheus"
    )
    (link,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert (link["name"], link["datasourceUid"]) == ("trace_id", "gaugeway-tempo")


def test_both_stacks_start_the_same_files(tmp_path: Path) -> None:
    """What runs without Docker reads the configuration that the containers mount."""
    native = {
        part.name: " ".join((*part.starter, *part.arguments)) for part in parts(tmp_path, Ports(), ("start",), {})
    }
    mounted = {source for name in SERVICES for source in sources(name)}
    for name, file in (
        ("collector", "otel/collector/config.yaml"),
        ("alertmanager", "otel/alertmanager/alertmanager.yml"),
        ("alertmanager", "otel/alertmanager/start.sh"),
    ):
        assert file in native[name]
        assert f"./{file}" in mounted
    assert (tmp_path / "prometheus" / "prometheus.yml").read_bytes() == (
        OTEL / "prometheus" / "prometheus.yml"
    ).read_bytes()


def test_a_second_stack_leaves_the_first_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the gateway's port is taken nothing is started, and no file of the stack that runs is touched."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert run(tmp_path / "state", Ports(gateway=port), ("start",), {}, tour=True) == 1
    assert f"port {port} on {HOST} is not free" in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


def test_the_tour_has_providers_and_callers_in_both(tmp_path: Path) -> None:
    """Without a configuration of one's own, stand-ins answer and teams call; with one, nobody calls who was not asked."""
    native = {part.name: " ".join(part.arguments) for part in parts(tmp_path, Ports(), ("start",), {}, tour=True)}
    for name, module in (("providers", "gateway.stand_in"), ("callers", "gateway.traffic --mix tour")):
        assert module in native[name]
        assert SERVICES[name]["environment"] == {"OWN": "${GATEWAY_CONFIG_FILE:+yes}"}
        assert SERVICES[name]["command"][0].startswith(f'test -n "$$OWN" || exec python -m {module}')
    assert {part.name for part in parts(tmp_path, Ports(), ("start",), {})} == set(native) - {"providers", "callers"}


def test_the_collector_refuses_before_it_works() -> None:
    """Memory is guarded first, secrets are removed before sampling, and batches are the exporters' business."""
    config = yaml.safe_load((OTEL / "collector" / "config.yaml").read_text("utf-8"))
    assert config["service"]["pipelines"]["traces"]["processors"] == ["memory_limiter", "redaction", "tail_sampling"]
    assert "batch" not in config["processors"]
    builder = yaml.safe_load((OTEL / "collector" / "builder.yaml").read_text("utf-8"))
    image = SERVICES["otel-collector"]["image"].split(":")[1]
    assert builder["dist"]["version"] == image
