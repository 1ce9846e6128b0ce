"""`gateway ledger`: does it balance, who spent what, what would another model cost, what was invoiced."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from gateway.config.errors import ConfigError
from gateway.config.load import load_file
from gateway.config.money import Money, Window
from gateway.config.settings import Settings
from gateway.spend import finance
from gateway.spend.budgets import usd_text
from gateway.spend.opening import read_ledger, tool_ledger
from gateway.spend.windows import FOREVER_NS, midnight_ns, span_at
from gateway.store.spec import Entry, LedgerStore, StoreError

if TYPE_CHECKING:
    from gateway.spend.prices import PriceBook

UNBALANCED = 1
WRONG_CONFIG = 2
_DAY_NS = 86_400 * 1_000_000_000

config_option = click.option(
    "--config-path",
    type=click.Path(path_type=Path),
    envvar=["GATEWAY_CONFIG", "MLFLOW_GATEWAY_CONFIG"],
    required=True,
    help="The YAML file of the routes, which says where the ledger is.",
)


def load_settings(config_path: Path) -> Settings:
    """A configuration, or the end of the command."""
    # Knowing every provider takes a moment that `--help` need not wait for.
    from gateway.providers.registry import find_provider

    try:
        return load_file(config_path, find_provider, os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(WRONG_CONFIG)


def load_money(config_path: Path) -> Money:
    """The money part of a configuration, or the end of the command."""
    return load_settings(config_path).money


@contextmanager
def opened(opener: Callable[..., LedgerStore], config_path: Path) -> Iterator[LedgerStore]:
    """The configuration's ledger for one command; what goes wrong with it is told without a traceback."""
    try:
        store = opener(load_money(config_path).ledger, config_path, os.environ)
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def told(lines: int, *, done: bool) -> None:
    """Progress, where somebody watches; at the end the line is left clean for the result."""
    if sys.stderr.isatty():
        click.echo("\r\033[K" if done else f"\r{lines:,} lines read", nl=False, err=True)


def window_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose a stretch of the ledger."""
    for option in (
        click.option("--since", help="First day, YYYY-MM-DD."),
        click.option("--until", help="Day after the last one, YYYY-MM-DD."),
        click.option("--window", type=click.Choice([window.value for window in Window]), help="The present window."),
        click.option("--zone", default="UTC", show_default=True, help="Time zone of days and windows."),
    ):
        command = option(command)
    return command


def stretch(since: str | None, until: str | None, window: str | None, zone: str) -> tuple[int, int]:
    """The instants [start, end) that the options mean."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(f"'{zone}' is no IANA time zone such as Europe/Berlin", param_hint="--zone") from None
    if window is not None:
        if since or until:
            raise click.UsageError("give either --window or --since and --until")
        now_ns = int(datetime.now(UTC).timestamp()) * 1_000_000_000
        span = span_at(Window(window), zone, now_ns)
        return span.start_ns, span.end_ns
    return _day("--since", since, zone, 0), _day("--until", until, zone, FOREVER_NS)


def _day(option: str, text: str | None, zone: str, otherwise: int) -> int:
    if text is None:
        return otherwise
    try:
        return midnight_ns(zone, date.fromisoformat(text))
    except ValueError:
        raise click.BadParameter(f"'{text}' is no day such as 2026-11-01", param_hint=option) from None


def _moment(at_ns: int, zone: str, unbounded: str) -> str:
    """An instant as the zone's clocks show it, or `unbounded` where a stretch has no such end."""
    if at_ns in (0, FOREVER_NS):
        return unbounded
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000, ZoneInfo(zone)):%Y-%m-%d %H:%M}"


@click.group("ledger")
def ledger() -> None:
    """What was spent: verify, report, export, compare."""


@ledger.command()
@config_option
def verify(config_path: Path) -> None:
    """Check that every counter equals its entries and holds, to the nano-dollar; exit 1 when one does not."""
    with opened(read_ledger, config_path) as store:
        found = finance.verify(store, told)
    click.echo(
        f"{found.entries:,} entries, ${usd_text(found.spent_nano_usd)} spent, {found.open_holds} open holds, "
        f"{found.unpriced} without a known price"
    )
    for one in found.wrong:
        counter = one.counter
        click.echo(
            f"WRONG {counter.scope} {counter.window_id}: spent {counter.spent_nano_usd} should be "
            f"{one.true_spent_nano_usd}, held {counter.held_nano_usd} should be {one.true_held_nano_usd} (nano-USD)"
        )
    for request_id in found.stray_adjustments:
        click.echo(f"WRONG request {request_id}: a correction without the charge that it corrects")
    if not found.balances:
        click.echo(
            f"The ledger is off by {found.difference_nano_usd} nano-USD; `gateway ledger rebuild` mends counters."
        )
        sys.exit(UNBALANCED)
    click.echo("The ledger balances: difference 0 nano-USD.")


@ledger.command()
@config_option
def rebuild(config_path: Path) -> None:
    """Set every counter to what entries and holds say. An SQLite ledger must not be in use."""
    with opened(tool_ledger, config_path) as store:
        wrong = store.rebuild()
    click.echo(f"{wrong} counters were wrong and are mended." if wrong else "Every counter was right.")


@ledger.command()
@config_option
@click.option("--by", default="team", show_default=True, help=f"Any of {', '.join(finance.By)}, joined by commas.")
@window_options
def report(config_path: Path, by: str, since: str | None, until: str | None, window: str | None, zone: str) -> None:
    """Who spent what: our price book times reported usage."""
    try:
        dimensions = finance.dimensions(by)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--by") from None
    start, end = stretch(since, until, window, zone)
    with opened(read_ledger, config_path) as store:
        rows = finance.report(store, start, end, dimensions, told)
    total = finance.ReportRow(
        group=("total", *[""] * (len(dimensions) - 1)),
        attempts=sum(row.attempts for row in rows),
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        nano_usd=sum(row.nano_usd for row in rows),
        unpriced=sum(row.unpriced for row in rows),
    )
    table = [[*dimensions, "attempts", "input", "output", "usd", "unpriced"]]
    table += [
        [*row.group, f"{row.attempts:,}", f"{row.input_tokens:,}", f"{row.output_tokens:,}", usd_text(row.nano_usd),
         f"{row.unpriced:,}"]
        for row in (*rows, total)
    ]  # fmt: skip
    _print_table(table, left=len(dimensions))
    click.echo(f"{_moment(start, zone, 'the first entry')} to {_moment(end, zone, 'now')}, {zone}", err=True)


@ledger.command()
@config_option
@click.option("--format", "format_", type=click.Choice(["csv", "parquet", "focus"]), default="csv", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file; standard output without it.")
@window_options
def export(
    config_path: Path, format_: str, output: Path | None, since: str | None, until: str | None, window: str | None,
    zone: str,
) -> None:  # fmt: skip
    """Every line as CSV or Parquet, or hourly sums in the FOCUS 1.2 format for FinOps tools."""
    from gateway.spend.export import write_csv, write_focus, write_parquet

    start, end = stretch(since, until, window, zone)
    with opened(read_ledger, config_path) as store:
        entries: Iterator[Entry] = finance.counted(store.entries(start, end), told)
        if format_ == "parquet":
            if output is None:
                raise click.UsageError("--format parquet needs --output")
            try:
                count = write_parquet(entries, output)
            except ImportError:
                raise click.ClickException("Parquet needs the extra: pip install 'gaugeway[parquet]'") from None
            except OSError as error:
                raise _unwritable(output, error) from None
            click.echo(f"{count:,} lines written to {output}", err=True)
            return
        with _sink(output) as file:
            if format_ == "csv":
                click.echo(f"{write_csv(entries, file):,} lines written", err=True)
                return
            result = write_focus(entries, file, account=load_money(config_path).ledger.node)
            click.echo(f"{result.rows:,} rows written", err=True)
            if result.unpriced_attempts:
                click.echo(f"{result.unpriced_attempts:,} attempts without a known price are left out", err=True)


@contextmanager
def _sink(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise _unwritable(output, error) from None


def _unwritable(output: Path, error: OSError) -> click.ClickException:
    return click.ClickException(f"{output} cannot be written: {error.strerror or error}")


@ledger.command("what-if")
@config_option
@click.option("--model", required=True, help="The model to compare with.")
@click.option("--provider", default="openai", show_default=True, help="Its provider.")
@window_options
def what_if(
    config_path: Path, model: str, provider: str, since: str | None, until: str | None, window: str | None, zone: str
) -> None:
    """The same token counts at another model's prices, by present model. Tokenizers differ: an estimate."""
    start, end = stretch(since, until, window, zone)
    prices = price_book(load_money(config_path))
    with opened(read_ledger, config_path) as store:
        try:
            rows = finance.what_if(finance.counted(store.entries(start, end), told), prices, provider, model)
        except LookupError as error:
            raise click.ClickException(f"{error}; add one under `prices:`") from None
    table = [["provider", "model", "attempts", "usd", f"usd as {model}", "difference", "left out"]]
    for row in rows:
        saved = row.other_nano_usd - row.nano_usd
        table.append(
            [row.provider, row.model, f"{row.attempts:,}", usd_text(row.nano_usd), usd_text(row.other_nano_usd),
             usd_text(saved), f"{row.left_out:,}"]
        )  # fmt: skip
    _print_table(table, left=2)


def price_book(money: Money) -> "PriceBook":
    """The prices that a configuration means today; says so when its `prices_file` is not used."""
    from gateway.spend.price_data import PriceDataError
    from gateway.spend.prices import PriceBook, packaged_prices, read_prices

    today = datetime.now(UTC).date()
    prices = PriceBook(packaged_prices(today), money.prices)
    if money.prices_file is not None:
        try:
            prices.take(read_prices(money.prices_file.read_bytes(), today))
        except (PriceDataError, OSError) as error:
            click.echo(f"{money.prices_file} is not used: {error}", err=True)
    return prices


@ledger.command("import-invoice")
@config_option
@click.argument("invoice", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--provider", required=True, help="Whose invoice it is, by the name in the configuration.")
def import_invoice(config_path: Path, invoice: Path, provider: str) -> None:
    """Compare a provider's invoice (CSV with date and amount_usd) with the ledger, day by day in UTC."""
    try:
        with invoice.open(newline="", encoding="utf-8-sig") as file:
            lines = finance.read_invoice(file)
    except (finance.InvoiceError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{invoice}: {error}") from None
    if not lines:
        raise click.ClickException(f"{invoice} has no lines")
    start = midnight_ns("UTC", lines[0].day)
    end = midnight_ns("UTC", lines[-1].day) + _DAY_NS
    seen: set[str] = set()

    def noted(entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            seen.add(entry.payer.provider)
            yield entry

    with opened(read_ledger, config_path) as store:
        days = finance.capture_rates(noted(finance.counted(store.entries(start, end), told)), provider, lines)
    if provider not in seen:
        known = f"it has {', '.join(sorted(seen))}" if seen else "it has none at all"
        click.echo(f"On these days the ledger has no line of provider '{provider}'; {known}.", err=True)
    table = [["day", "invoiced", "ledger", "capture"]]
    for day in days:
        ratio = "" if day.ratio is None else f"{day.ratio:.2%}"
        table.append([day.day.isoformat(), usd_text(day.invoiced_nano_usd), usd_text(day.ledger_nano_usd), ratio])
    _print_table(table, left=1)


def _print_table(rows: list[list[str]], left: int) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())
