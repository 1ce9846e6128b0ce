"""The administrators' API, on a listener of its own: keys, budgets and spend. Never on the callers' listener.

Everything is denied unless the request carries the configured token, the API's description included; without a
configured token everything is denied.
"""

import asyncio
import hmac
from collections.abc import Callable, Collection
from datetime import date
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Litestar, Request, Response, delete, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException, NotAuthorizedException, NotFoundException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Struct

from gateway.spend.budgets import usd_text
from gateway.spend.finance import ReportRow, dimensions, report
from gateway.spend.keys import KeyRefusedError, Keyring, NewKey, RandomBytes, make_key, revoked, rotated
from gateway.spend.ledger import Accounts, LedgerStats
from gateway.spend.windows import midnight_ns, utc_iso
from gateway.store.spec import KeyRow, LedgerStore, StoreError
from gateway.types.clock import Clock
from gateway.types.secret import Secret

_T = TypeVar("_T")


class KeyView(Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    id: str
    team: str
    routes: tuple[str, ...]
    state: str
    created: str
    expires: str | None
    calls_per_minute: int | None


class KeyToken(Struct, frozen=True, kw_only=True):
    """A new key. `token` is shown this once."""

    id: str
    token: str


class KeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made. No routes means all, now and later; `expires_ns` is nanoseconds since the epoch."""

    team: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    routes: tuple[str, ...] = ()
    expires_ns: int | None = None
    calls_per_minute: Annotated[int, msgspec.Meta(ge=1)] | None = None


class BudgetView(Struct, frozen=True, kw_only=True):
    """A budget in its present window. Amounts are exact: dollars as text, nano-dollars as integers."""

    budget: str
    scope: str
    window: str
    enforcement: str
    limit_usd: str
    spent_usd: str
    held_usd: str
    left_usd: str
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int
    resets: str | None


class SpendView(Struct, frozen=True, kw_only=True):
    """Spend of one group; `group` has one value for each dimension that was asked for."""

    group: tuple[str, ...]
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_usd: str
    cost_nano_usd: int
    unpriced: int


class Admin:
    """What the API works on.

    Args:
        accounts: budgets, and the way to the ledger.
        keyring: told about every change of keys.
        clock: wall time.
        random_bytes: where secrets come from.
        read_ledger: opens the ledger to read, so that long reports do not keep commits waiting.
        route_names: the routes that there are now.
        patience_s: how long a request waits for a ledger that takes no commits; `gateway keys` waits longer.
    """

    def __init__(
        self,
        accounts: Accounts,
        keyring: Keyring,
        clock: Clock,
        random_bytes: RandomBytes,
        read_ledger: Callable[[], LedgerStore],
        route_names: Callable[[], Collection[str]],
        patience_s: float = 5.0,
    ) -> None:
        self.accounts = accounts
        self.keyring = keyring
        self.clock = clock
        self.random_bytes = random_bytes
        self.read_ledger = read_ledger
        self.route_names = route_names
        self._patience_s = patience_s

    async def ask(self, work: Callable[[LedgerStore], _T]) -> _T:
        """Run `work` on the ledger; raises StoreError when it does not come to it, and then it never will."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await self.accounts.call(work)
        except TimeoutError:
            raise StoreError("the ledger takes no commits") from None

    async def change(self, work: Callable[[LedgerStore], _T]) -> _T:
        """Change stored keys in one step, with no other change between, and use them from the next request on."""

        def changed(store: LedgerStore) -> tuple[_T, list[KeyRow]]:
            return work(store), store.stored_keys()

        result, rows = await self.ask(changed)
        self.keyring.take(rows)
        return result


def admin_app(admin: Admin, token: Secret | None) -> Litestar:
    """The administrators' ASGI application."""

    def only_administrators(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if token is None or not token.reveal():
            raise PermissionDeniedException("The admin API is off: set `admin.token` in the configuration.")
        given = connection.headers.get("authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, b"Bearer " + token.reveal().encode()):
            raise NotAuthorizedException("The admin token is required: send it as `Authorization: Bearer ...`.")

    return Litestar(
        route_handlers=[list_keys, create_key, revoke_key, rotate_key, list_budgets, spend, ledger],
        guards=[only_administrators],
        dependencies={},
        state=_state(admin),
        exception_handlers={StoreError: _ledger_failed, KeyRefusedError: _key_refused},
        openapi_config=OpenAPIConfig(
            title="Gaugeway administration",
            version="1",
            path="/schema",
            # Pages for browsers load their scripts from elsewhere, and a browser could not send the token anyway.
            render_plugins=[JsonRenderPlugin(path=("/", "/openapi.json"))],
        ),
        logging_config=None,
    )


def _state(admin: Admin) -> Any:
    from litestar.datastructures import State

    return State({"admin": admin})


def _admin(request: Request[Any, Any, Any]) -> Admin:
    found: Admin = request.app.state.admin
    return found


def _ledger_failed(_: Request[Any, Any, Any], error: StoreError) -> Response[dict[str, Any]]:
    del error  # It may name hosts and paths.
    return Response({"detail": "The ledger does not answer at the moment.", "status_code": 503}, status_code=503)


def _key_refused(_: Request[Any, Any, Any], error: KeyRefusedError) -> Response[dict[str, Any]]:
    """In the form of Litestar's own 400 for a field of the wrong type."""
    extra = [{"message": str(error), "key": error.field}]
    return Response({"status_code": 400, "detail": str(error), "extra": extra}, status_code=400)


@get("/keys", summary="Every key, the configuration's own included")
async def list_keys(request: Request[Any, Any, Any]) -> list[KeyView]:
    """List keys."""
    admin = _admin(request)
    admin.keyring.take(await admin.ask(lambda store: store.stored_keys()))
    return [_key_view(row, admin.clock.now_ns()) for row in admin.keyring.rows()]


@post("/keys", summary="Make a key; its token is shown once")
async def create_key(request: Request[Any, Any, Any], data: JSONBody[KeyRequest]) -> KeyToken:
    """Create a key."""
    admin = _admin(request)
    new = make_key(
        admin.random_bytes,
        admin.clock.now_ns(),
        team=data.team,
        routes=data.routes,
        known_routes=admin.route_names(),
        expires_ns=data.expires_ns,
        calls_per_minute=data.calls_per_minute,
    )
    await admin.change(lambda store: store.put_key(new.row))
    return _token(new)


@delete("/keys/{key_id:str}", summary="End a key at once")
async def revoke_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> None:
    """Revoke a key."""
    admin = _admin(request)

    def work(store: LedgerStore) -> None:
        row = _stored(store, key_id)
        if row.revoked_ns is None:
            store.put_key(revoked(row, admin.clock.now_ns()))

    await admin.change(work)


@post("/keys/{key_id:str}/rotate", summary="Give a key another secret; the old one ends at once")
async def rotate_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> KeyToken:
    """Rotate a key."""
    admin = _admin(request)

    def work(store: LedgerStore) -> NewKey:
        new = rotated(_stored(store, key_id), admin.random_bytes, admin.clock.now_ns())
        store.put_key(new.row)
        return new

    return _token(await admin.change(work))


@get("/budgets", summary="Every budget in its present window")
async def list_budgets(request: Request[Any, Any, Any]) -> list[BudgetView]:
    """List budgets."""
    return [
        BudgetView(
            budget=state.budget,
            scope=state.scope,
            window=state.window,
            enforcement="hard" if state.hard else "soft",
            limit_usd=usd_text(state.limit_nano_usd),
            spent_usd=usd_text(state.spent_nano_usd),
            held_usd=usd_text(state.held_nano_usd),
            left_usd=usd_text(max(0, state.limit_nano_usd - state.spent_nano_usd - state.held_nano_usd)),
            limit_nano_usd=state.limit_nano_usd,
            spent_nano_usd=state.spent_nano_usd,
            held_nano_usd=state.held_nano_usd,
            resets=None if state.resets_ns is None else utc_iso(state.resets_ns),
        )
        for state in _admin(request).accounts.budget_states()
    ]


@get(
    "/spend",
    summary="Spend by any of team, key, route, provider, model, basis, hour, day and month",
    sync_to_thread=True,
)
def spend(
    request: Request[Any, Any, Any],
    by: Annotated[str, QueryParameter(description="Dimensions, joined by commas.")] = "team",
    since: Annotated[date | None, QueryParameter(description="First UTC day.")] = None,
    until: Annotated[date | None, QueryParameter(description="UTC day after the last one.")] = None,
) -> list[SpendView]:
    """Report spend."""
    try:
        asked = dimensions(by)
    except ValueError as error:
        raise ClientException(str(error)) from None
    start = 0 if since is None else midnight_ns("UTC", since)
    end = 2**62 if until is None else midnight_ns("UTC", until)
    store = _admin(request).read_ledger()
    try:
        return [_spend_view(row) for row in report(store, start, end, asked)]
    finally:
        store.close()


@get("/ledger", summary="The money path's own state")
async def ledger(request: Request[Any, Any, Any]) -> LedgerStats:
    """Show the ledger's state."""
    return _admin(request).accounts.stats()


def _stored(store: LedgerStore, key_id: str) -> KeyRow:
    """The stored key of this id; 404 without one (the configuration's own keys are changed in its file)."""
    for row in store.stored_keys():
        if row.id == key_id:
            return row
    raise NotFoundException(f"No stored key has the id '{key_id}'.")


def _key_view(row: KeyRow, now_ns: int) -> KeyView:
    expired = row.expires_ns is not None and now_ns >= row.expires_ns
    return KeyView(
        id=row.id,
        team=row.team,
        routes=row.routes,
        state="revoked" if row.revoked_ns is not None else "expired" if expired else "valid",
        created=utc_iso(row.created_ns),
        expires=None if row.expires_ns is None else utc_iso(row.expires_ns),
        calls_per_minute=row.calls_per_minute,
    )


def _token(new: NewKey) -> KeyToken:
    return KeyToken(id=new.row.id, token=new.token.reveal())


def _spend_view(row: ReportRow) -> SpendView:
    return SpendView(
        group=row.group,
        attempts=row.attempts,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_usd=usd_text(row.nano_usd),
        cost_nano_usd=row.nano_usd,
        unpriced=row.unpriced,
    )
