"""`python -m otel.stack`: the stack of docker-compose.yml without Docker, with the same configuration files.

It starts what is installed of OpenTelemetry Collector, Prometheus, Alertmanager and Grafana, the gateway, and the
providers and callers of examples/tour.yaml; says what is not installed; and stops all of it on Ctrl-C. Only where the
parts find each other differs from the containers: Prometheus reads its targets from files of their own, the others take
addresses from the environment. State is kept under .stack/.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

ROOT = Path(__file__).parents[1]
OTEL = ROOT / "otel"
TOUR = ROOT / "examples" / "tour.yaml"
HOST = "127.0.0.1"
STOP_WITHIN_S = 30.0
EXTRA_FOLDERS = (ROOT / "build" / "bin", ROOT / "build" / "otelcol", Path("/usr/share/grafana/bin"))


class Ports(Struct, frozen=True, kw_only=True):
    """Where each part listens on this machine."""

    gateway: int = 5000
    metrics: int = 9464
    prometheus: int = 9090
    alertmanager: int = 9093
    grafana: int = 3000
    providers: int = 8090


class Part(Struct, frozen=True, kw_only=True):
    """One process of the stack; `programs` are the names that it is installed under, `starter` is what starts it."""

    name: str
    programs: tuple[str, ...]
    starter: tuple[str, ...] = ()
    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    url: str = ""


def find(programs: Sequence[str]) -> str | None:
    """The path of the first of these programs that is installed, or None."""
    for program in programs:
        found = shutil.which(program) or next(
            (path for folder in EXTRA_FOLDERS if (path := shutil.which(program, path=str(folder)))), None
        )
        if found:
            return found
    return None


def prometheus_folder(state: Path, ports: Ports) -> Path:
    """A copy of otel/prometheus with this machine's targets; returns the folder."""
    folder = state / "prometheus"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(OTEL / "prometheus", folder)
    for name, port in (("gateway", ports.metrics), ("collector", 8888), ("alertmanager", ports.alertmanager)):
        (folder / "targets" / f"{name}.yml").write_text(f'- targets: ["{HOST}:{port}"]\n', encoding="utf-8")
    return folder


def parts(
    state: Path, ports: Ports, gateway: Sequence[str], environment: Mapping[str, str], *, tour: bool = False
) -> list[Part]:
    """The stack's processes in the order in which they start; `gateway` are the arguments of `gateway`.

    Spans go to TEMPO_ENDPOINT where `environment` names one, else only to the collector's log; log lines to LOKI_ENDPOINT
    where there is one. `tour` adds the providers and the callers of examples/tour.yaml.
    """
    listen = ("--port", str(ports.gateway), "--metrics-port", str(ports.metrics))
    prometheus = prometheus_folder(state, ports)
    return [
        Part(
            name="collector",
            programs=("otelcol-gaugeway", "otelcol-contrib", "otelcol"),
            arguments=("--config", str(OTEL / "collector" / "config.yaml")),
            environment={
                "COLLECTOR_HOST": HOST,
                "TRACES_EXPORTER": "otlp_grpc/tempo" if "TEMPO_ENDPOINT" in environment else "debug",
                "LOGS_EXPORTER": "otlp_http/loki" if "LOKI_ENDPOINT" in environment else "debug",
            },
            url=f"http://{HOST}:4318",
        ),
        Part(
            name="alertmanager",
            programs=("alertmanager", "prometheus-alertmanager"),
            starter=("sh", str(OTEL / "alertmanager" / "start.sh"), str(OTEL / "alertmanager" / "alertmanager.yml")),
            arguments=(
                f"--storage.path={state / 'alertmanager'}",
                f"--web.listen-address={HOST}:{ports.alertmanager}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ),
            environment={"RENDERED_FOLDER": str(state)},
            url=f"http://{HOST}:{ports.alertmanager}",
        ),
        Part(
            name="prometheus",
            programs=("prometheus",),
            arguments=(
                f"--config.file={prometheus / 'prometheus.yml'}",
                f"--storage.tsdb.path={state / 'prometheus-data'}",
                f"--web.listen-address={HOST}:{ports.prometheus}",
                "--storage.tsdb.retention.time=40d",
                "--enable-feature=exemplar-storage",
                "--log.level=warn",
            ),
            url=f"http://{HOST}:{ports.prometheus}",
        ),
        Part(
            name="grafana",
            programs=("grafana-server",),
            arguments=("--homepath", "/usr/share/grafana"),
            environment={
                "GF_PATHS_DATA": str(state / "grafana"),
                "GF_PATHS_PROVISIONING": str(OTEL / "grafana" / "provisioning"),
                "GF_SERVER_HTTP_ADDR": HOST,
                "GF_SERVER_HTTP_PORT": str(ports.grafana),
                "GF_AUTH_ANONYMOUS_ENABLED": "true",
                "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(ROOT / "dashboards" / "generated" / "overview.json"),
                "DASHBOARDS_FOLDER": str(ROOT / "dashboards" / "generated"),
                "PROMETHEUS_URL": f"http://{HOST}:{ports.prometheus}",
                "ALERTMANAGER_URL": f"http://{HOST}:{ports.alertmanager}",
                "TEMPO_URL": f"http://{HOST}:3200",
                "LOKI_URL": f"http://{HOST}:3100",
            },
            url=f"http://{HOST}:{ports.grafana}",
        ),
        *([_python("providers", "gateway.stand_in", "--port", str(ports.providers))] if tour else []),
        Part(
            name="gateway",
            programs=(sys.executable,),
            arguments=("-m", "gateway", *gateway, *listen),
            environment={
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:4318",
                "OTEL_LOGS_EXPORTER": "otlp" if "LOKI_ENDPOINT" in environment else "none",
                "OTEL_SERVICE_NAME": "gaugeway",
            },
            url=f"http://{HOST}:{ports.gateway}/docs",
        ),
        *(
            [_python("callers", "gateway.traffic", "--mix", "tour", "--seconds", "1e9", "--port", str(ports.gateway))]
            if tour
            else []
        ),
    ]


def _python(name: str, module: str, *arguments: str) -> Part:
    return Part(name=name, programs=(sys.executable,), arguments=("-m", module, *arguments))


def start(part: Part, program: str, state: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start one part; its output goes to NAME.log in the state folder."""
    with (state / f"{part.name}.log").open("wb") as log:
        return subprocess.Popen(
            [*part.starter, program, *part.arguments],
            env={**environment, **part.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(running: Sequence[tuple[str, subprocess.Popen[bytes]]]) -> None:
    """Ask every process to end, the last started first, and wait; kill what does not end in time."""
    for _, process in reversed(running):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN_S
    for name, process in reversed(running):
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _say(f"{name} does not end: killed")
            process.kill()
            process.wait()


def run(
    state: Path, ports: Ports, gateway: Sequence[str], environment: Mapping[str, str], *, tour: bool = False
) -> int:
    """Run the stack until a signal, or until the gateway ends; the exit status. `tour` puts its configuration into `state`.

    Where the gateway cannot listen, most likely because another stack runs, nothing is started and `state` is left alone.
    """
    if taken := [port for port in (ports.gateway, ports.metrics) if not _free(port)]:
        _say(
            f"port {taken[0]} on {HOST} is not free: end what listens there, another stack or gateway perhaps, and try again"
        )
        return 1
    state.mkdir(parents=True, exist_ok=True)
    if tour:
        # In the state folder, so that its ledger lies there too.
        shutil.copy(TOUR, state)
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        for part in parts(state, ports, gateway, environment, tour=tour):
            program = find(part.programs)
            if program is None:
                _say(f"{part.name:<13} not installed ({', '.join(part.programs)})")
                continue
            # Without a collector, the gateway's spans and log lines have nowhere to go.
            heard = "collector" in dict(running)
            kept = {key: value for key, value in part.environment.items() if heard or not key.startswith("OTEL_")}
            running.append((part.name, start(replace(part, environment=kept), program, state, environment)))
            _say(f"{part.name:<13} {part.url}".rstrip())
        _say(f"logs are in {state}; Ctrl-C stops all of it")
        return _watch(running, state)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(running)


def _watch(running: Sequence[tuple[str, subprocess.Popen[bytes]]], state: Path) -> int:
    ended: set[str] = set()
    while True:
        for name, process in running:
            status = process.poll()
            if status is None or name in ended:
                continue
            ended.add(name)
            log = state / f"{name}.log"
            _say(f"{name} ended with status {status}; the end of {log}:\n{_tail(log)}")
            if name == "gateway":
                return status
        time.sleep(0.2)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-5:])


def _say(text: str) -> None:
    sys.stdout.write(f"stack: {text}\n")
    sys.stdout.flush()


def _interrupted(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        prog="python -m otel.stack", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--config", type=Path, help="the gateway's configuration (default: examples/tour.yaml, with traffic)"
    )
    parser.add_argument("--demo", action="store_true", help="the real local model with traffic, rather than the tour")
    parser.add_argument("--state", type=Path, default=ROOT / ".stack", help="where data and logs are kept")
    options = parser.parse_args()
    tour = options.config is None and not options.demo
    config = options.state / TOUR.name if tour else options.config
    command = ("demo", "--traffic") if options.demo else ("start", "--config-path", str(config))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    return run(options.state, Ports(), command, os.environ, tour=tour)


if __name__ == "__main__":
    sys.exit(main())
