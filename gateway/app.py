"""The composition root: the only place where the gateway's objects are made and joined."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from gateway.api.application import Application, pages
from gateway.api.auth import Authenticator
from gateway.api.invoke import Invoker
from gateway.config.errors import ConfigError
from gateway.config.reload import Reloader
from gateway.config.settings import Settings
from gateway.listening import StartError, listen, url_of
from gateway.providers.registry import PROVIDERS
from gateway.serve.attempt import Attempts
from gateway.serve.circuit import Breakers, CircuitState
from gateway.serve.limits import Limits
from gateway.serve.money_signals import MoneySignals
from gateway.serve.money_upkeep import MoneyUpkeep
from gateway.serve.routing import RoutingTable, bind
from gateway.serve.serving import Serving
from gateway.server import make_server
from gateway.spend.alerts import AlertSender
from gateway.spend.budgets import BudgetBook
from gateway.spend.keys import Keyring, configured_key
from gateway.spend.ledger import Accounts
from gateway.spend.opening import Ledgers
from gateway.spend.price_file import PriceFileWatch
from gateway.spend.prices import NO_PRICE, PriceBook, packaged_prices
from gateway.store.spec import KeyRow, LedgerStore, StoreError
from gateway.store.windows import Windows
from gateway.telemetry import names
from gateway.telemetry.setup import Telemetry
from gateway.types.clock import Clock, Rng
from gateway.upstream.client import UpstreamClient
from gateway.upstream.credentials import Credentials
from gateway.upstream.outbound import Outbound
from gateway.upstream.pool import Pool

_LOG = logging.getLogger(__name__)


class Gateway:
    """One gateway process: its routing table, its telemetry, and the ASGI application that joins them.

    Args:
        administers: this process answers the administrators.
        reachable: it listens where others than this machine reach it, and says so where no key is asked for.
    """

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        clock: Clock,
        rng: Rng,
        ledgers: Ledgers,
        *,
        reloader: Reloader | None = None,
        administers: bool = True,
        reachable: bool = False,
    ) -> None:
        self._settings = settings
        self._reloader = reloader
        self._telemetry = telemetry
        self._ledgers = ledgers
        self._administers = administers
        self._reachable = reachable
        self._money = settings.money
        self.accounts: Accounts | None = None
        self.signals: MoneySignals | None = None
        self._clock = clock
        self._rng = rng
        self._limits = Limits(
            clock, _shared_windows(settings), telemetry.metrics.counter(names.LIMIT_STORAGE_ERRORS).inc
        )
        self._keyring = Keyring(_configured_keys(settings))
        self.routes: RoutingTable = {}
        self._use(settings, bind(settings.routes, PROVIDERS_BY_NAME))
        self._invoker: Invoker | None = None
        self.app = Application(
            self._running_invoker,
            pages(self._current_routes, self._health_detail, clock.now_ns() // 1_000_000_000),
        )

    async def use(self, settings: Settings) -> None:
        """Serve these settings from the next request on; requests in flight end as they began.

        Raises ConfigError, and then everything stays as it was.
        """
        routes = bind(settings.routes, PROVIDERS_BY_NAME)
        keys = _configured_keys(settings)
        if self.accounts is not None:
            await self.accounts.reload(BudgetBook(settings.money.budgets))
            self.accounts.prices.override(settings.money.prices)
            self._warn_of_unpriced(self.accounts.prices, settings)
        self._keyring.configure(keys)
        self._warn_if_open()
        for name, is_now, was in (
            ("telemetry", settings.telemetry, self._settings.telemetry),
            ("limits", settings.limits, self._settings.limits),
            ("prices_file", settings.money.prices_file, self._money.prices_file),
            ("ledger", settings.money.ledger, self._money.ledger),
            ("admin", settings.money.admin, self._money.admin),
        ):
            if is_now != was:
                _LOG.warning("a change of '%s' takes effect with the next start", name)
        self._use(settings, routes)

    def _use(self, settings: Settings, routes: RoutingTable) -> None:
        self.routes = routes
        metrics = self._telemetry.metrics
        metrics.prepare({name: bound.route for name, bound in routes.items()})
        metrics.gauge(names.CONFIG_RELOAD_SUCCESSFUL).set(1)
        metrics.gauge(names.CONFIG_RELOAD_TIMESTAMP).set(self._clock.now_ns() / 1e9)

    def _refused(self) -> None:
        self._telemetry.metrics.gauge(names.CONFIG_RELOAD_SUCCESSFUL).set(0)

    def _health_detail(self) -> str | None:
        return self._reloader.state.refused if self._reloader is not None else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The state in which `app` can serve: connections, ledger and background work are there.

        Raises StartError, and ConfigError where only now a field is found wrong.
        """
        telemetry = self._telemetry
        async with AsyncExitStack() as stack:
            pool = Pool()
            stack.push_async_callback(pool.close)
            outbound = Outbound(pool, telemetry.instrument_http)
            stack.push_async_callback(outbound.close)
            stack.push_async_callback(self._limits.close)
            credentials = Credentials(outbound.exchange, self._clock, os.environ)
            stack.callback(credentials.close)
            upstream = UpstreamClient(outbound.sender() if telemetry.instrumented else pool, credentials, self._clock)
            accounts = await self._start_accounts()
            alerts = AlertSender(accounts, outbound.post, self._clock)
            signals = self.signals = MoneySignals(accounts, alerts, telemetry.metrics, self._clock)
            stack.push_async_callback(_end_accounts, accounts, signals)
            keyring = self._keyring
            keyring.take(await accounts.call(_stored_keys))
            accounts.budgets.foresee(keyring.rows())
            self._warn_if_open()
            upkeep = MoneyUpkeep(accounts, keyring, await self._price_file(accounts.prices))
            self._warn_of_unpriced(accounts.prices, self._settings)
            attempts = Attempts(upstream, accounts, instrumented=telemetry.instrumented)
            serving = Serving(attempts, Breakers(self._clock, self._circuit_changed), self._rng)
            authenticator = Authenticator(keyring, self._clock)
            self._invoker = Invoker(telemetry.observer, serving, authenticator, self._limits, self._current_routes)
            background = [
                asyncio.create_task(telemetry.watch_loop_lag(self._clock)),
                asyncio.create_task(_every(_SIGNALS_S, signals.update)),
                asyncio.create_task(alerts.run()),
                asyncio.create_task(upkeep.run()),
            ]
            if self._reloader is not None:
                background.append(asyncio.create_task(self._reloader.run(self.use, self._refused)))
            stack.push_async_callback(_end_tasks, background)
            await stack.enter_async_context(self._administration(accounts, keyring))
            yield

    @asynccontextmanager
    async def _administration(self, accounts: Accounts, keyring: Keyring) -> AsyncIterator[None]:
        """The administrators' listener, where the configuration has a token for it."""
        file = self._money.admin
        if file.token is None or not self._administers:
            yield
            return
        # Its routes and their OpenAPI document are only built where they are served.
        from gateway.api.admin import Admin, admin_app

        admin = Admin(accounts, keyring, self._clock, secrets.token_bytes, self._ledgers.read, self._current_routes)
        listening = listen(file.host, file.port, "admin.port")
        server = make_server(admin_app(admin, file.token), signals=False)
        serving = asyncio.create_task(server.serve([listening]))
        _LOG.info("the admin API is on %s", url_of(file.host, listening.getsockname()[1]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    async def _start_accounts(self) -> Accounts:
        today = datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC).date()
        prices = PriceBook(packaged_prices(today), self._money.prices)
        commit_duration = self._telemetry.metrics.histogram(names.LEDGER_COMMIT)
        accounts = Accounts(
            self._ledgers.write,
            prices,
            BudgetBook(self._money.budgets),
            self._money.ledger,
            self._clock,
            observe_commit=commit_duration.observe,
            on_lost=lambda op, error: _LOG.error("a charge could not be recorded: %s", error),
        )
        try:
            await accounts.start()
        except StoreError as error:
            raise StartError(str(error)) from error
        self.accounts = accounts
        return accounts

    async def _price_file(self, prices: PriceBook) -> PriceFileWatch | None:
        path = self._money.prices_file
        if path is None:
            return None
        watch = PriceFileWatch(path, prices, self._clock)
        await watch.first()
        return watch

    def _warn_if_open(self) -> None:
        if self._reachable and self._administers and self._keyring.is_open:
            _LOG.warning(
                "anybody who reaches this gateway can spend: it listens beyond this machine and asks for no key. "
                "Configure `keys:`, or make one with `gateway keys create`."
            )

    def _warn_of_unpriced(self, prices: PriceBook, settings: Settings) -> None:
        if self._administers:
            for model, provider in prices.unpriced(settings.routes):
                _LOG.warning(NO_PRICE, model, provider)

    def _circuit_changed(self, provider: str, model: str, state: CircuitState) -> None:
        self._telemetry.metrics.gauge(names.CIRCUIT_STATE, provider, model).set(state)
        _LOG.warning("the circuit of %s %s is now %s", provider, model, state.name.lower())

    def _current_routes(self) -> RoutingTable:
        return self.routes

    def _running_invoker(self) -> Invoker:
        assert self._invoker is not None, "requests come only while the application runs"
        return self._invoker


def _configured_keys(settings: Settings) -> list[KeyRow]:
    rows = []
    for index, file in enumerate(settings.money.keys):
        try:
            rows.append(configured_key(file))
        except ValueError as error:
            raise ConfigError(f"keys[{index}]", str(error)) from None
    return rows


def _shared_windows(settings: Settings) -> Windows | None:
    """Where limits are counted by all processes together; raises ConfigError when its package is missing."""
    storage = settings.limits.storage
    if storage is None:
        return None
    try:
        from gateway.store.shared_windows import RedisWindows
    except ImportError:
        raise ConfigError("limits.storage", "needs the package redis: pip install 'gaugeway[redis]'") from None
    try:
        return RedisWindows(storage.reveal())
    except ValueError:
        # Its own text may quote a password.
        raise ConfigError("limits.storage", "is no address such as redis://host:6379/0") from None


_SIGNALS_S = 1.0


def _stored_keys(store: LedgerStore) -> Sequence[KeyRow]:
    return store.stored_keys()


async def _end_accounts(accounts: Accounts, signals: MoneySignals) -> None:
    # Charges of the last requests are still on their way to the disk.
    left = await accounts.close()
    if left:
        _LOG.error("%d charges could not be committed before the end", left)
    signals.update()


async def _end_tasks(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        work()
        await asyncio.sleep(seconds)


PROVIDERS_BY_NAME = {provider.name: provider for provider in PROVIDERS.values()}
