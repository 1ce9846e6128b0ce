"""Rows of the tables to Structs and back, column for column as `gateway.store.schema` orders them."""

from typing import Any

import msgspec

from gateway.store import schema
from gateway.store.spec import Alert, CounterRow, Entry, EntryKind, HoldOp, KeyRow, OpenHold, Payer
from gateway.types.records import Basis
from gateway.types.usage import Usage, UsageSource

Row = tuple[Any, ...]

_FIRST_COUNT = len(schema.ENTRY_COLUMNS) - len(schema.USAGE_COLUMNS)
_NO_USAGE = (None,) * (2 + len(schema.USAGE_COLUMNS))
_pairs = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_names = msgspec.json.Decoder(tuple[str, ...])


def match_text(match: tuple[tuple[str, str], ...]) -> str:
    """(column, value) pairs as stored."""
    return msgspec.json.encode(match).decode()


def entry_row(entry: Entry) -> Row:
    """The columns of an entry."""
    payer, usage = entry.payer, entry.usage
    head = (
        entry.request_id,
        entry.attempt,
        entry.kind.value,
        entry.at_ns,
        entry.settled_ns,
        payer.team,
        payer.key_id,
        payer.route,
        payer.provider,
        payer.model,
        entry.basis.value,
        entry.nano_usd,
        entry.price_version,
    )
    if usage is None:
        return (*head, *_NO_USAGE)
    return (
        *head,
        usage.source.value,
        usage.service_tier,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        usage.cache_write_1h_tokens,
        usage.web_searches,
        usage.file_searches,
        usage.other_tool_calls,
    )


def entry_of(row: Row) -> Entry:
    """The entry of a row."""
    usage = None
    source, service_tier = row[_FIRST_COUNT - 2 : _FIRST_COUNT]
    if source is not None:
        counts = dict(zip(schema.USAGE_COLUMNS, row[_FIRST_COUNT:], strict=True))
        usage = Usage(**counts, service_tier=service_tier, source=UsageSource(source))
    return Entry(
        request_id=row[0],
        attempt=row[1],
        kind=EntryKind(row[2]),
        at_ns=row[3],
        settled_ns=row[4],
        payer=Payer(team=row[5], key_id=row[6], route=row[7], provider=row[8], model=row[9]),
        basis=Basis(row[10]),
        nano_usd=row[11],
        price_version=row[12],
        usage=usage,
    )


def hold_row(op: HoldOp, node: str, epoch: int) -> Row:
    """The columns of a hold that this process takes."""
    payer = op.payer
    return (
        op.request_id,
        op.attempt,
        node,
        epoch,
        op.at_ns,
        op.nano_usd,
        payer.team,
        payer.key_id,
        payer.route,
        payer.provider,
        payer.model,
        op.price_version,
        match_text(tuple(counter.key for counter in op.counters)),
    )


def hold_of(row: Row) -> OpenHold:
    """The hold of a row."""
    return OpenHold(
        request_id=row[0],
        attempt=row[1],
        owner=row[2],
        epoch=row[3],
        at_ns=row[4],
        nano_usd=row[5],
        payer=Payer(team=row[6], key_id=row[7], route=row[8], provider=row[9], model=row[10]),
        price_version=row[11],
        counters=_pairs.decode(row[12]),
    )


def counter_of(row: Row) -> CounterRow:
    """The counter of a row."""
    return CounterRow(
        scope=row[0],
        window_id=row[1],
        start_ns=row[2],
        end_ns=row[3],
        family=row[4],
        match=_pairs.decode(row[5]),
        spent_nano_usd=row[6],
        held_nano_usd=row[7],
    )


def alert_row(alert: Alert, delivered_ns: int | None) -> Row:
    """The columns of a new alert, due at once."""
    return (
        alert.id,
        alert.budget,
        alert.scope,
        alert.window_id,
        alert.threshold,
        alert.webhook,
        alert.spent_nano_usd,
        alert.limit_nano_usd,
        alert.created_ns,
        alert.tries,
        alert.created_ns,
        delivered_ns,
    )


def alert_of(row: Row) -> Alert:
    """The alert of a row."""
    return Alert(
        id=row[0],
        budget=row[1],
        scope=row[2],
        window_id=row[3],
        threshold=row[4],
        webhook=row[5],
        spent_nano_usd=row[6],
        limit_nano_usd=row[7],
        created_ns=row[8],
        tries=row[9],
    )


def key_row(key: KeyRow) -> Row:
    """The columns of a key."""
    return (
        key.id,
        key.secret_hash,
        key.team,
        msgspec.json.encode(key.routes).decode(),
        key.created_ns,
        key.expires_ns,
        key.revoked_ns,
        key.calls_per_minute,
    )


def key_of(row: Row) -> KeyRow:
    """The key of a row."""
    return KeyRow(
        id=row[0],
        secret_hash=row[1],
        team=row[2],
        routes=_names.decode(row[3]),
        created_ns=row[4],
        expires_ns=row[5],
        revoked_ns=row[6],
        calls_per_minute=row[7],
    )
