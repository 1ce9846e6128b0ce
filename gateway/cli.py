"""The `gateway` command."""

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import structs

from gateway import __version__
from gateway.config.errors import ConfigError
from gateway.config.load import load_file
from gateway.config.settings import Settings
from gateway.keys_cli import keys
from gateway.ledger_cli import ledger, price_book
from gateway.listening import StartError

if TYPE_CHECKING:
    from gateway.config.reload import Reloader
    from gateway.spend.opening import Ledgers
    from gateway.telemetry.setup import TraceExport

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


def _loader(path: Path) -> Callable[[], Settings]:
    from gateway.providers.registry import find_provider

    return lambda: load_file(path, find_provider, os.environ)


def _or_exit(load: Callable[[], Settings]) -> Settings:
    try:
        return load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(WRONG_CONFIG)


@main.command()
@click.option(
    "--config-path",
    type=click.Path(path_type=Path),
    envvar=["GATEWAY_CONFIG", "MLFLOW_GATEWAY_CONFIG"],
    show_envvar=True,
    required=True,
    help="The YAML file of the routes.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where callers reach the gateway.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Serving processes; several need `ledger.postgres`.",
)
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
    clock = SystemClock()
    reloader, settings, export = _prepare(config_path, traces, clock)
    _warn_of_variables()
    if workers == 1:
        from gateway.process import serve

        ledgers = _ledgers(settings, config_path)
        metrics_address = (metrics_host, metrics_port)
        sys.exit(_checked(lambda: serve(settings, reloader, ledgers, export, clock, (host, port), metrics_address)))
    if settings.money.ledger.postgres is None:
        # Several writers of one SQLite file can lose its log, and a file each would be several budgets.
        raise click.UsageError(
            f"--workers {workers} needs a ledger that processes can share, and an SQLite file has one writer: set "
            f"`ledger: {{postgres: $LEDGER_URL}}` in {config_path}, or serve with one worker"
        )
    from gateway.supervise import supervise

    def command(number: int, listen_fd: int, block_fd: int, ready_fd: int) -> list[str]:
        handed = [
            "--number",
            str(number),
            "--listen-fd",
            str(listen_fd),
            "--block-fd",
            str(block_fd),
            "--ready-fd",
            str(ready_fd),
        ]
        return ["gateway", "worker", "--config-path", str(config_path), "--traces", export.value, *handed]

    metrics_address = (metrics_host, metrics_port)
    sys.exit(
        _checked(lambda: supervise(command, workers, (host, port), metrics_address, settings.telemetry, os.environ))
    )


@main.command(hidden=True)
@click.option("--config-path", type=click.Path(path_type=Path), required=True)
@click.option("--traces", required=True)
@click.option("--number", type=int, required=True)
@click.option("--listen-fd", type=int, required=True)
@click.option("--block-fd", type=int, required=True)
@click.option("--ready-fd", type=int, required=True)
def worker(config_path: Path, traces: str, number: int, listen_fd: int, block_fd: int, ready_fd: int) -> None:
    """Serve as one of several workers; their supervisor starts them."""
    clock = SystemClock()
    reloader, settings, export = _prepare(config_path, traces, clock)
    from gateway.process import Handed, work

    handed = Handed(number=number, listen=listen_fd, block=block_fd, ready=ready_fd)
    ledgers = _ledgers(settings, config_path, number)
    sys.exit(_checked(lambda: work(settings, reloader, ledgers, export, clock, handed)))


def _prepare(config_path: Path, traces: str | None, clock: SystemClock) -> "tuple[Reloader, Settings, TraceExport]":
    # The telemetry and web libraries take most of the start: check-config and --help do without them.
    from gateway.config.reload import Reloader
    from gateway.telemetry.messages import configure_logging
    from gateway.telemetry.setup import trace_export

    configure_logging()
    reloader = Reloader(config_path, _loader(config_path), clock)
    settings = _or_exit(reloader.first)
    try:
        return reloader, settings, trace_export(traces, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _warn_of_variables() -> None:
    from gateway.telemetry.variables import in_vain

    try:
        for sentence in in_vain(os.environ):
            logging.getLogger("gateway").warning("%s", sentence)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _ledgers(settings: Settings, config_path: Path, worker_number: int | None = None) -> "Ledgers":
    from gateway.spend.opening import configured_ledgers

    ledger = settings.money.ledger
    if worker_number is not None:
        # A worker that dies is told from the others by its name, and its open holds are charged.
        ledger = structs.replace(ledger, node=f"{ledger.node}-{worker_number}")
    return configured_ledgers(ledger, config_path, os.environ)


def _checked(run: Callable[[], int]) -> int:
    from gateway.telemetry.variables import VariableError

    # Some fields and variables can only be found wrong where they are used.
    try:
        return run()
    except VariableError as error:
        raise click.UsageError(str(error)) from None
    except ConfigError as error:
        click.echo(str(error), err=True)
        return WRONG_CONFIG
    except StartError as error:
        logging.getLogger("gateway").error("cannot start: %s", error)
        return 1


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Check a configuration file; exit 2 and name the wrong field when it cannot be used.

    Prices that are missing, of a model or the whole `prices_file`, are told and no failure.
    """
    from gateway.spend.prices import NO_PRICE

    settings = _or_exit(_loader(file))
    for model, provider in price_book(settings.money).unpriced(settings.routes):
        click.echo(NO_PRICE % (model, provider), err=True)
    names = [route.name for route in settings.routes]
    click.echo(f"{file}: OK, {len(names)} route{'s' * (len(names) > 1)}: {', '.join(names)}")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--metrics-port", default=9464, show_default=True, type=click.IntRange(1, 65535))
@click.option("--traffic", is_flag=True, help="Send a steady mix of requests, so that there is something to see.")
def demo(host: str, port: int, metrics_port: int, traffic: bool) -> None:
    """Run the gateway over a real local model: no key, no download."""
    from gateway.demo import run

    sys.exit(run(host, port, metrics_port, traffic))
