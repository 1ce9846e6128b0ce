"""`gateway keys`: create, list, revoke and rotate the keys that callers use.

A running gateway owns an SQLite ledger, and the keys in it; then these commands ask its admin listener instead.
"""

import http.client
import json
import os
import secrets
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from gateway.config.money import Money
from gateway.ledger_cli import config_option, load_money, load_settings
from gateway.spend.keys import KeyRefusedError, NewKey, make_key, revoked, rotated
from gateway.spend.opening import tool_ledger
from gateway.spend.windows import utc_iso
from gateway.store.spec import KeyRow, LedgerStore, StoreError, StoreInUseError

_NS = 1_000_000_000
_OPTIONS = {"team": "--team", "routes": "--route", "expires_ns": "--expires-days"}
"""Where each field of a new key is given."""
_NO_KEYS = "No key is stored; `gateway keys create --team NAME` makes one."


class _Server:
    """The admin listener of a running gateway."""

    def __init__(self, money: Money) -> None:
        self._admin = money.admin

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        token = self._admin.token
        if token is None:
            raise click.ClickException(
                "the gateway is running and owns the ledger: set `admin.token` in its configuration so that this "
                "command can ask it, or stop it first"
            )
        connection = http.client.HTTPConnection(self._admin.host, self._admin.port, timeout=10)
        try:
            headers = {"authorization": f"Bearer {token.reveal()}", "content-type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise click.ClickException(
                f"the ledger is in use, and no gateway answers on {self._admin.host}:{self._admin.port}: {error}"
            ) from None
        finally:
            connection.close()
        try:
            found = json.loads(text) if text else None
        except ValueError:
            found = None
        if answer.status >= 400:
            detail = found.get("detail") if isinstance(found, dict) else None
            raise click.ClickException(f"the gateway refused ({answer.status}): {detail or 'no reason given'}")
        return found


def _store(money: Money, config_path: Path) -> LedgerStore | None:
    """The ledger, or None when a running gateway has it."""
    try:
        return tool_ledger(money.ledger, config_path, os.environ)
    except StoreInUseError:
        return None
    except StoreError as error:
        raise click.ClickException(str(error)) from None


@click.group("keys")
def keys() -> None:
    """Gateway keys: who may call, and who pays."""


@keys.command()
@config_option
@click.option("--team", required=True, help="Who pays.")
@click.option("--route", "routes", multiple=True, help="A route that the key may use; repeat it. None means all.")
@click.option("--expires-days", type=click.IntRange(1, 36_500), help="Days until the key expires.")
@click.option("--calls-per-minute", type=click.IntRange(1), help="A rate limit of the key's own.")
def create(
    config_path: Path, team: str, routes: tuple[str, ...], expires_days: int | None, calls_per_minute: int | None
) -> None:
    """Make a key. It is printed once; only its hash is kept."""
    settings = load_settings(config_path)
    money = settings.money
    expires_ns = None
    if expires_days is not None:
        expires_ns = int((datetime.now(UTC) + timedelta(days=expires_days)).timestamp()) * _NS
    store = _store(money, config_path)
    if store is None:
        asked = {"team": team, "routes": routes, "expires_ns": expires_ns, "calls_per_minute": calls_per_minute}
        found = _Server(money).ask("POST", "/keys", asked)
        _show(found["id"], found["token"])
        return
    try:
        new = make_key(
            secrets.token_bytes, time.time_ns(), team=team, routes=routes, known_routes=settings.by_name(),
            expires_ns=expires_ns, calls_per_minute=calls_per_minute,
        )  # fmt: skip
        store.put_key(new.row)
    except KeyRefusedError as error:
        raise click.BadParameter(str(error), param_hint=_OPTIONS[error.field]) from None
    finally:
        store.close()
    _show_new(new)


@keys.command("list")
@config_option
def list_keys(config_path: Path) -> None:
    """Every stored key, without its secret."""
    money = load_money(config_path)
    store = _store(money, config_path)
    if store is None:
        listed = _Server(money).ask("GET", "/keys")
        for key in listed:
            click.echo(f"{key['id']}  team {key['team']}  {key['state']}  routes: {', '.join(key['routes']) or 'all'}")
        if not listed:
            click.echo(_NO_KEYS, err=True)
        return
    try:
        rows = store.stored_keys()
    finally:
        store.close()
    for row in rows:
        click.echo(
            f"{row.id}  team {row.team}  {key_state(row, time.time_ns())}  routes: {', '.join(row.routes) or 'all'}"
        )
    if not rows:
        click.echo(_NO_KEYS, err=True)


@keys.command()
@config_option
@click.argument("key_id")
def revoke(config_path: Path, key_id: str) -> None:
    """End a key at once; its spend stays in the ledger."""
    money = load_money(config_path)
    store = _store(money, config_path)
    if store is None:
        _Server(money).ask("DELETE", f"/keys/{key_id}")
    else:
        try:
            store.put_key(revoked(_find(store, key_id), time.time_ns()))
        finally:
            store.close()
    click.echo(f"{key_id} is revoked")


@keys.command()
@config_option
@click.argument("key_id")
def rotate(config_path: Path, key_id: str) -> None:
    """Give a key another secret; the old one ends at once."""
    money = load_money(config_path)
    store = _store(money, config_path)
    if store is None:
        found = _Server(money).ask("POST", f"/keys/{key_id}/rotate")
        _show(found["id"], found["token"])
        return
    try:
        new = rotated(_find(store, key_id), secrets.token_bytes, time.time_ns())
        store.put_key(new.row)
    except KeyRefusedError as error:
        raise click.ClickException(str(error)) from None
    finally:
        store.close()
    _show_new(new)


def key_state(row: KeyRow, now_ns: int) -> str:
    """Whether a key works, in words."""
    if row.revoked_ns is not None:
        return f"revoked {utc_iso(row.revoked_ns)}"
    if row.expires_ns is None:
        return "valid"
    return f"{'expired' if now_ns >= row.expires_ns else 'valid until'} {utc_iso(row.expires_ns)}"


def _find(store: LedgerStore, key_id: str) -> KeyRow:
    stored = {row.id: row for row in store.stored_keys()}
    if key_id in stored:
        return stored[key_id]
    raise click.ClickException(f"no stored key has the id '{key_id}'")


def _show_new(new: NewKey) -> None:
    _show(new.row.id, new.token.reveal())


def _show(key_id: str, token: str) -> None:
    # The key alone on standard output, so that a script can take it.
    click.echo(f"Key {key_id}; it is shown this once:", err=True)
    click.echo(token)
    sys.stdout.flush()
