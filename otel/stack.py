"""`python -m otel.stack`: the stack of docker-compose.yml without Docker, with the same configuration files.

It starts what is installed of gateway, OpenTelemetry Collector, Prometheus, Alertmanager and Grafana, says what is not, and stops all of it on Ctrl-C. Only where the parts find each other differs from the containers: Prometheus reads
its targets from files of their own, the others take addresses from the environment. State is kept under .stack/.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[1]
OTEL = ROOT / "otel"
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


class Part(Struct, frozen=True, kw_only=True):
    """One process of the stack; `programs` are the names that it is installed under."""

    name: str
    programs: tuple[str, ...]
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


def parts(state: Path, ports: Ports, gateway: Sequence[str], environment: Mapping[str, str]) -> list[Part]:
    """The stack's processes in the order in which they start; `gateway` are the arguments of `gateway`.

    Spans go to TEMPO_ENDPOINT where `environment` names one, else only to the collector's log.
    """
    prometheus = prometheus_folder(state, ports)
    return [
        Part(
            name="collector",
            programs=("otelcol-gaugeway", "otelcol-contrib", "otelcol"),
            arguments=("--config", str(OTEL / "collector" / "config.yaml")),
            environment={
                "COLLECTOR_HOST": HOST,
                "TRACES_EXPORTER": "otlp_grpc/tempo" if "TEMPO_ENDPOINT" in environment else "debug",
            },
            url=f"http://{HOST}:4318",
        ),
        Part(
            name="alertmanager",
            programs=("alertmanager", "prometheus-alertmanager"),
            arguments=(
                f"--config.file={OTEL / 'alertmanager' / 'alertmanager.yml'}",
                f"--storage.path={state / 'alertmanager'}",
                f"--web.listen-address={HOST}:{ports.alertmanager}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ),
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
                "DASHBOARDS_FOLDER": str(ROOT / "dashboards" / "generated"),
                "PROMETHEUS_URL": f"http://{HOST}:{ports.prometheus}",
                "ALERTMANAGER_URL": f"http://{HOST}:{ports.alertmanager}",
                "TEMPO_URL": f"http://{HOST}:3200",
                "LOKI_URL": f"http://{HOST}:3100",
            },
            url=f"http://{HOST}:{ports.grafana}",
        ),
        Part(
            name="gateway",
            programs=(sys.executable,),
            arguments=("-m", "gateway", *gateway),
            environment={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:4318", "OTEL_SERVICE_NAME": "gaugeway"},
            url=f"http://{HOST}:{ports.gateway}/docs",
        ),
    ]


def start(part: Part, program: str, state: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start one part; its output goes to .stack/NAME.log, the gateway's to this terminal."""
    log = None if part.name == "gateway" else (state / f"{part.name}.log").open("ab")
    try:
        return subprocess.Popen(
            [program, *part.arguments],
            env={**environment, **part.environment},
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
        )
    finally:
        if log:
            log.close()


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


def run(state: Path, ports: Ports, gateway: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the stack until a signal, or until the gateway ends; the exit status."""
    state.mkdir(parents=True, exist_ok=True)
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        for part in parts(state, ports, gateway, environment):
            program = find(part.programs)
            if program is None:
                _say(f"{part.name:<13} not installed ({', '.join(part.programs)})")
                continue
            # Without a collector, the gateway's spans have nowhere to go.
            without = "OTEL_EXPORTER_OTLP_ENDPOINT" if "collector" not in dict(running) else ""
            given = {key: value for key, value in part.environment.items() if key != without}
            process = start(_with_environment(part, given), program, state, environment)
            running.append((part.name, process))
            _say(f"{part.name:<13} {part.url}")
        return _watch(running)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(running)


def _with_environment(part: Part, environment: dict[str, str]) -> Part:
    return Part(name=part.name, programs=part.programs, arguments=part.arguments, environment=environment, url=part.url)


def _watch(running: Sequence[tuple[str, subprocess.Popen[bytes]]]) -> int:
    ended: set[str] = set()
    while True:
        for name, process in running:
            status = process.poll()
            if status is not None and name == "gateway":
                return status
            if status is not None and name not in ended:
                ended.add(name)
                _say(f"{name} ended with status {status}; its log has the reason")
        time.sleep(0.2)


def _say(text: str) -> None:
    sys.stdout.write(f"stack: {text}\n")
    sys.stdout.flush()


def _interrupted(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        prog="python -m otel.stack", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--config", type=Path, help="the gateway's configuration (default: the demo, with traffic)")
    parser.add_argument("--state", type=Path, default=ROOT / ".stack", help="where data and logs are kept")
    options = parser.parse_args()
    ports = Ports()
    listen = ("--port", str(ports.gateway), "--metrics-port", str(ports.metrics))
    command = ("start", "--config-path", str(options.config)) if options.config else ("demo", "--traffic")
    signal.signal(signal.SIGTERM, _interrupted)
    return run(options.state, ports, (*command, *listen), os.environ)


if __name__ == "__main__":
    sys.exit(main())
