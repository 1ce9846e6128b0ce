"""The `gateway` command."""

import gc
import logging
import os
import random
import sys
import time
from pathlib import Path

import click

from gateway import __version__
from gateway.config.errors import ConfigError
from gateway.config.load import load_file
from gateway.config.settings import Settings
from gateway.keys_cli import keys
from gateway.ledger_cli import ledger

WRONG_CONFIG = 2
"""The exit status for a configuration that cannot be used."""


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.perf_counter()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gaugeway")
def main() -> None:
    """A gateway in front of LLM providers, observability first."""


main.add_command(ledger)
main.add_command(keys)


def _load(path: Path) -> Settings:
    from gateway.app import find_provider

    try:
        return load_file(path, find_provider, os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(WRONG_CONFIG)


@main.command()
@click.option(
    "--config-path",
    type=click.Path(path_type=Path),
    envvar=["GATEWAY_CONFIG", "MLFLOW_GATEWAY_CONFIG"],
    required=True,
    help="The YAML file of the routes. Environment: GATEWAY_CONFIG or MLFLOW_GATEWAY_CONFIG.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where callers reach the gateway.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Serving processes.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Where Prometheus scrapes.")
@click.option("--metrics-port", default=9464, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--traces",
    type=click.Choice(["otlp", "console", "none"]),
    default=None,
    help="Where spans go. Default: OTEL_TRACES_EXPORTER, else otlp when an OTLP endpoint is set, else none.",
)
def start(
    config_path: Path, host: str, port: int, workers: int, metrics_host: str, metrics_port: int, traces: str | None
) -> None:
    """Serve the routes of a configuration file."""
    # The telemetry and web libraries take most of the start: check-config and --help do without them.
    from gateway.app import Gateway
    from gateway.server import make_server
    from gateway.spend.opening import configured_ledgers
    from gateway.telemetry.listener import MetricsListener
    from gateway.telemetry.setup import Telemetry, configure_logging, trace_export

    configure_logging()
    log = logging.getLogger("gateway")
    settings = _load(config_path)
    try:
        export = trace_export(traces, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    clock = SystemClock()
    # The fast generator, seeded by the system: ids must be unique, not secret.
    rng = random.Random(random.SystemRandom().getrandbits(256))
    telemetry = Telemetry(settings.telemetry, export, clock, rng)
    try:
        gateway = Gateway(
            settings, telemetry, clock, rng, configured_ledgers(settings.money.ledger, config_path, os.environ)
        )
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(WRONG_CONFIG)
    try:
        listener = MetricsListener(telemetry.exposition, metrics_host, metrics_port)
    except OSError as error:
        click.echo(f"--metrics-port {metrics_port}: {error.strerror}; choose another port", err=True)
        sys.exit(1)
    log.info(
        "serving %d routes on http://%s:%d, documentation on /docs, metrics on http://%s:%d/metrics, traces: %s",
        len(settings.routes),
        host,
        port,
        metrics_host,
        listener.port,
        export.value,
    )
    server = make_server(gateway.app, host, port)
    # What has been imported and built stays for good: the collector need not walk it again with every full pass.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    try:
        server.run()
    finally:
        telemetry.close()
        listener.close()
    if not server.started:
        # Uvicorn has logged why: the port is taken, or the address is not ours.
        sys.exit(1)
    log.info("stopped")


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Check a configuration file; exit 2 and name the wrong field when it cannot be used."""
    settings = _load(file)
    click.echo(f"{file}: OK, {len(settings.routes)} routes: {', '.join(route.name for route in settings.routes)}")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--metrics-port", default=9464, show_default=True, type=click.IntRange(1, 65535))
@click.option("--traffic", is_flag=True, help="Send a steady mix of requests, so that there is something to see.")
def demo(host: str, port: int, metrics_port: int, traffic: bool) -> None:
    """Run the gateway over a real local model: no key, no download."""
    from gateway.demo import run

    sys.exit(run(host, port, metrics_port, traffic))
