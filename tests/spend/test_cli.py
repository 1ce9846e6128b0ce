"""`gateway ledger` and `gateway keys`, as a person runs them."""

import csv
import io
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.config.money import LedgerFile
from gateway.ledger_cli import told
from gateway.spend.finance import counted
from gateway.spend.opening import ledger_path, open_ledger
from gateway.store.sqlite import open_sqlite
from gateway.types.usage import Usage
from tests.store.facts import AT, counter, entry, hold, settle, watch

CONFIG = """
routes:
  - name: chat
    route_type: llm/v1/chat
    model: {provider: openai, name: gpt-4o, config: {openai_api_key: k}}
ledger: {path: money/ledger.db}
prices:
  - {provider: openai, model: cheap, input_usd_per_mtok: 0.001, output_usd_per_mtok: 0.01}
"""
USED = Usage(input_tokens=100, output_tokens=5)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose ledger has two charges of $1.5 and $0.5."""
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    store = open_sqlite(tmp_path / "money" / "ledger.db")
    budget = counter(watch(10**10))
    store.commit([hold("r", 2 * 10**9, budget)])
    store.commit([settle(entry("r", 1_500_000_000, usage=USED), budget)])
    store.commit([settle(entry("s", 500_000_000, usage=USED), budget, held=False)])
    store.close()
    return path


def run(config: Path, *arguments: str, code: int = 0) -> Result:
    """One command on the configuration."""
    result = CliRunner().invoke(main, [*arguments, "--config-path", str(config)])
    assert result.exit_code == code, result.output
    return result


def test_verify_says_that_the_ledger_balances(config: Path) -> None:
    """Exit 0 and a difference of 0."""
    assert "difference 0 nano-USD" in run(config, "ledger", "verify").output


def test_verify_fails_for_one_nano_dollar_and_rebuild_mends_it(config: Path) -> None:
    """Exit 1 with the counter named; after `rebuild`, exit 0."""
    store = open_sqlite(config.parent / "money" / "ledger.db")
    sql = store._sql  # type: ignore[attr-defined]
    with sql.transaction(durable=True):
        sql.run("UPDATE counters SET spent = spent - 1")
    store.close()
    output = run(config, "ledger", "verify", code=1).output
    assert "global" in output
    assert "off by 1 nano-USD" in output
    assert "1 counters were wrong" in run(config, "ledger", "rebuild").output
    run(config, "ledger", "verify")


def test_verify_and_report_run_beside_the_owner_and_rebuild_does_not(config: Path) -> None:
    """Reading needs no stop of the gateway; writing says who is in the way."""
    owner = open_sqlite(config.parent / "money" / "ledger.db")
    try:
        run(config, "ledger", "verify")
        run(config, "ledger", "report")
        assert "in use by process" in run(config, "ledger", "rebuild", code=1).output
    finally:
        owner.close()


def test_report_by_team_and_model(config: Path) -> None:
    """Sums by the dimensions asked for, with a total, and beside them the stretch that they are of."""
    report = run(config, "ledger", "report", "--by", "team,model")
    header, *rows, total = (line.split() for line in report.stdout.splitlines())
    assert any("red" in row for row in rows)
    assert total[:2] == ["total", "2"]
    assert total[header.index("usd") - 1] == "2.00"
    assert report.stderr == "the first entry to now, UTC\n"
    nothing = run(config, "ledger", "report", "--until", "2001-01-01", "--zone", "Europe/Berlin")
    assert nothing.stdout.splitlines()[-1].split() == ["total", "0", "0", "0", "0.00", "0"]
    assert nothing.stderr == "the first entry to 2001-01-01 00:00, Europe/Berlin\n"


@pytest.mark.parametrize(
    "arguments",
    [["--by", "user"], ["--since", "soon"], ["--zone", "Mars"], ["--window", "month", "--since", "2026-01-01"]],
)
def test_a_wrong_option_is_named(config: Path, arguments: list[str]) -> None:
    """Wrong dimensions, days, zones and contradictions end with a usage error, not with a report."""
    run(config, "ledger", "report", *arguments, code=2)


def test_export_csv_and_focus(config: Path, tmp_path: Path) -> None:
    """CSV on standard output, FOCUS into a file; both add up to what was spent."""
    result = CliRunner().invoke(main, ["ledger", "export", "--config-path", str(config)])
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert sum(int(row["cost_nano_usd"]) for row in rows) == 2 * 10**9
    run(config, "ledger", "export", "--format", "focus", "--output", str(tmp_path / "focus.csv"))
    with (tmp_path / "focus.csv").open(newline="") as file:
        assert sum(float(row["BilledCost"]) for row in csv.DictReader(file)) == 2.0


@pytest.mark.parametrize("form", ["csv", "focus", "parquet"])
def test_a_file_that_cannot_be_written_is_told(config: Path, tmp_path: Path, form: str) -> None:
    """A folder that is not there: a sentence, and no traceback."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    output = str(tmp_path / "nowhere" / "file")
    result = run(config, "ledger", "export", "--format", form, "--output", output, code=1)
    assert f"Error: {output} cannot be written: " in result.output
    assert "No such file or directory" in result.output


def test_progress_leaves_a_clean_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where somebody watches, the count of lines is gone before the result stands there."""
    monkeypatch.setattr("gateway.spend.finance._PROGRESS_EVERY", 2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert len(list(counted([entry(name, 1) for name in "abc"], told))) == 3
    assert capsys.readouterr().err == "\r2 lines read\r\033[K"


def test_what_if_uses_the_configuration_s_prices(config: Path) -> None:
    """2 x (100 + 50) nano-dollars at the other model; an unpriced one is refused."""
    output = run(config, "ledger", "what-if", "--model", "cheap").output
    assert "0.0000003" in output
    assert "no price is known" in run(config, "ledger", "what-if", "--model", "dear", code=1).output


def test_an_invoice_is_compared_by_day(config: Path, tmp_path: Path) -> None:
    """Half of a $4 invoice is captured by a ledger of $2."""
    invoice = tmp_path / "invoice.csv"
    invoice.write_text("date,amount_usd\n2026-11-23,4.00\n")
    output = run(config, "ledger", "import-invoice", str(invoice), "--provider", "openai").output
    assert output.splitlines()[1].split() == ["2026-11-23", "4.00", "2.00", "50.00%"]
    assert AT // 10**9 == 1_795_392_000
    for extreme in ("0001-01-01", "9999-12-31"):
        invoice.write_text(f"date,amount_usd\n{extreme},4.00\n2026-11-23,4.00\n")
        assert "50.00%" in run(config, "ledger", "import-invoice", str(invoice), "--provider", "openai").output
    other = run(config, "ledger", "import-invoice", str(invoice), "--provider", "opnai").output
    assert "no line of provider 'opnai'; it has openai" in other


def test_a_missing_ledger_and_a_wrong_configuration_are_told(tmp_path: Path) -> None:
    """No traceback: a sentence and an exit status."""
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    assert "there is no ledger" in run(path, "ledger", "verify", code=1).output
    path.write_text(CONFIG + "budgets: [{name: x}]")
    assert "budgets[0].amount_usd" in run(path, "ledger", "verify", code=2).output


def test_keys_are_made_listed_rotated_and_revoked(config: Path) -> None:
    """The token is printed once and stored as a hash; rotation and revocation change the list."""
    made = CliRunner().invoke(
        main, ["keys", "create", "--team", "red", "--route", "chat", "--config-path", str(config)]
    )
    token = made.stdout.strip()
    key_id = token.split("_")[1]
    assert token.startswith("gwk_")
    stored = b"".join(path.read_bytes() for path in (config.parent / "money").iterdir())
    assert token.split("_")[2].encode() not in stored
    listed = run(config, "keys", "list").output
    assert f"{key_id}  team red  valid  routes: chat" in listed
    assert token.split("_")[2] not in listed
    rotated = CliRunner().invoke(main, ["keys", "rotate", key_id, "--config-path", str(config)]).stdout.strip()
    assert rotated.startswith(f"gwk_{key_id}_")
    assert rotated != token
    run(config, "keys", "revoke", key_id)
    assert "revoked" in run(config, "keys", "list").output
    assert "no stored key" in run(config, "keys", "revoke", "nobody", code=1).output
    assert "revoked" in run(config, "keys", "rotate", key_id, code=1).output


def test_a_key_is_for_teams_and_routes_that_there_are(config: Path) -> None:
    """A slip in a route's name is told, not stored; so is a team without a name; an empty list says how to begin."""
    assert "makes one" in run(config, "keys", "list").output
    assert (
        "no route is named 'caht'; there are chat"
        in run(config, "keys", "create", "--team", "red", "--route", "caht", code=2).output
    )
    run(config, "keys", "create", "--team", " ", code=2)
    assert "makes one" in run(config, "keys", "list").output


def test_keys_of_a_running_gateway_need_its_admin_token(config: Path) -> None:
    """While another process owns the ledger and no token is set, the command says what to do."""
    owner = open_sqlite(config.parent / "money" / "ledger.db")
    try:
        assert "admin.token" in run(config, "keys", "list", code=1).output
    finally:
        owner.close()


def test_the_ledger_stands_beside_its_configuration(tmp_path: Path) -> None:
    """Without a path the ledger is beside the file; where that folder is read-only, in the user's state folder."""
    config = tmp_path / "a" / "gateway.yaml"
    config.parent.mkdir()
    beside = ledger_path(LedgerFile(), config, {})
    assert beside == config.parent / "gateway.ledger.db"
    open_ledger(LedgerFile(), config, {}).close()
    assert beside.stat().st_mode & 0o077 == 0
    missing = tmp_path / "nowhere" / "gateway.yaml"
    elsewhere = ledger_path(LedgerFile(), missing, {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert elsewhere.parent == tmp_path / "state" / "gaugeway"
