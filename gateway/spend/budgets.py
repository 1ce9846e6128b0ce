"""Budgets compiled for the hot path: which counters does an attempt fall under, and which budgets look at them.

Who pays is the key, its team, the route and the target, all of them configured names: nothing of a request's body or
headers is looked at here.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from urllib.parse import quote

from msgspec import Struct

from gateway.config.money import NANO_PER_USD, BudgetFile, Enforcement, ScopeFile, WebhookFile, Window
from gateway.spend.windows import FOREVER_NS, Span, span_at
from gateway.store.spec import Balance, Counter, CounterRow, KeyRow, Payer, Watch

_COLUMNS = {"team": "team", "key": "key_id", "route": "route", "provider": "provider", "model": "model"}
EACH = "*"
GLOBAL = "global"
_MAX_PAYERS = 10_000


class BudgetState(Struct, frozen=True, kw_only=True):
    """A budget in its present window. `resets_ns` is None for the window that never ends."""

    budget: str
    scope: str
    window: str
    hard: bool
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int
    resets_ns: int | None


class _Line:
    """All budgets of one scope, window kind and zone; it makes their counter for any instant."""

    def __init__(self, scope: str, match: tuple[tuple[str, str], ...], family: str, window: Window, zone: str) -> None:
        self.scope = scope
        self.window = window
        self.zone = zone
        self.watches: list[Watch] = []
        self._match = match
        self._family = family
        self._last: Counter | None = None

    def counter(self, at_ns: int) -> Counter:
        last = self._last
        if last is not None and last.start_ns <= at_ns < last.end_ns:
            return last
        span: Span = span_at(self.window, self.zone, at_ns)
        self._last = Counter(
            scope=self.scope,
            window_id=span.window_id,
            start_ns=span.start_ns,
            end_ns=span.end_ns,
            family=self._family,
            match=self._match,
            watches=tuple(self.watches),
        )
        return self._last


class Applied(Struct, frozen=True):
    """The counters of one payer, in locking order, valid for `start_ns <= t < end_ns`."""

    counters: tuple[Counter, ...]
    start_ns: int
    end_ns: int
    hard: bool


NOTHING = Applied((), 0, FOREVER_NS, hard=False)


class BudgetBook:
    """The configured budgets. Immutable; a reload makes a new one."""

    def __init__(self, budgets: Sequence[BudgetFile]) -> None:
        names = [budget.name for budget in budgets]
        if len(set(names)) != len(names):
            raise ValueError("two budgets have the same name")
        self._budgets = [(budget, _pattern(budget.scope), _watch(budget)) for budget in budgets]
        self.empty = not budgets
        self.hard = any(budget.enforcement is Enforcement.HARD for budget in budgets)
        self.families = frozenset(_family(budget) for budget in budgets)
        self.webhooks: Mapping[str, WebhookFile] = {
            webhook_id(webhook): webhook for budget in budgets for webhook in budget.webhooks
        }
        self._lines: dict[tuple[str, ...], tuple[_Line, ...]] = {}
        self._applied: dict[tuple[str, ...], Applied] = {}
        self._instances: dict[tuple[str, str], _Line] = {}
        # Budgets of a fixed scope have a state from the start, zero included.
        for budget, pattern, _ in self._budgets:
            if all(value != EACH for _, value in pattern):
                self._line(budget, pattern)

    def applied(self, payer: Payer, at_ns: int) -> Applied:
        """The counters that an attempt of `payer`, admitted at `at_ns`, falls under."""
        if self.empty:
            return NOTHING
        key = (payer.team, payer.key_id, payer.route, payer.provider, payer.model)
        known = self._applied.get(key)
        if known is not None and known.start_ns <= at_ns < known.end_ns:
            return known
        counters = sorted((line.counter(at_ns) for line in self._matching(key)), key=lambda counter: counter.key)
        applied = Applied(
            tuple(counters),
            max((counter.start_ns for counter in counters), default=0),
            min((counter.end_ns for counter in counters), default=FOREVER_NS),
            hard=any(watch.hard for counter in counters for watch in counter.watches),
        )
        if len(self._applied) >= _MAX_PAYERS:
            self._applied.clear()
        self._applied[key] = applied
        return applied

    def _matching(self, key: tuple[str, ...]) -> tuple[_Line, ...]:
        lines = self._lines.get(key)
        if lines is None:
            if len(self._lines) >= _MAX_PAYERS:
                self._lines.clear()
            given = dict(zip(_COLUMNS.values(), key, strict=True))
            found: dict[int, _Line] = {}
            for budget, pattern, _ in self._budgets:
                # A key's budget is for callers who have one.
                if all(given[column] == value or (value == EACH and given[column]) for column, value in pattern):
                    line = self._line(budget, tuple((column, given[column]) for column, _ in pattern))
                    found[id(line)] = line
            lines = self._lines[key] = tuple(found.values())
        return lines

    def _line(self, budget: BudgetFile, match: tuple[tuple[str, str], ...]) -> _Line:
        """The line of an instance of a budget's scope, with every budget that looks at the same one."""
        scope = _scope_text(match)
        family = _family(budget)
        line = self._instances.get((scope, family))
        if line is None:
            line = self._instances[scope, family] = _Line(scope, match, family, budget.window, budget.zone)
            line.watches = [watch for other, _, watch in self._budgets if _family(other) == family]
        return line

    def present(self, now_ns: int) -> list[Counter]:
        """The counters of all known scopes in their present windows."""
        return [line.counter(now_ns) for line in list(self._instances.values())]

    def adopt(self, rows: Iterable[CounterRow]) -> None:
        """Learn from stored counters which values the `*` of scopes stands for."""
        budgets = {_family(budget): budget for budget, _, _ in self._budgets}
        for row in rows:
            if row.family in budgets:
                self._line(budgets[row.family], row.match)

    def foresee(self, keys: Iterable[KeyRow]) -> None:
        """Have a state for what keys can spend before their first request, where a scope's `*` is a team or a key."""
        for row in keys:
            given = {"team": row.team, "key_id": row.id}
            for budget, pattern, _ in self._budgets:
                if row.revoked_ns is None and all(
                    given[column] == value or value == EACH if column in given else value != EACH
                    for column, value in pattern
                ):
                    self._line(
                        budget, tuple((column, given[column] if value == EACH else value) for column, value in pattern)
                    )

    def states(self, balances: Mapping[tuple[str, str], Balance], now_ns: int) -> list[BudgetState]:
        """Every budget in its present window, from the balances that the ledger last committed."""
        states: list[BudgetState] = []
        for line in list(self._instances.values()):
            counter = line.counter(now_ns)
            balance = balances.get(counter.key, Balance(0, 0))
            states.extend(
                BudgetState(
                    budget=watch.budget,
                    scope=counter.scope,
                    window=line.window.value,
                    hard=watch.hard,
                    limit_nano_usd=watch.limit_nano_usd,
                    spent_nano_usd=balance.spent_nano_usd,
                    held_nano_usd=balance.held_nano_usd,
                    resets_ns=None if line.window is Window.NONE else counter.end_ns,
                )
                for watch in line.watches
            )
        return sorted(states, key=lambda state: (state.budget, state.scope))


def webhook_id(webhook: WebhookFile) -> str:
    """Names a webhook in the ledger without its address or secret."""
    return hashlib.sha256(f"{webhook.format.value} {webhook.url}".encode()).hexdigest()[:16]


def nano_usd(amount: Decimal) -> int:
    """US dollars as nano-dollars, rounded down: a limit is never made larger."""
    return int((amount * NANO_PER_USD).to_integral_value(ROUND_FLOOR))


def usd_text(nano: int) -> str:
    """Nano-dollars as dollars for people and headers, exact, with at least two decimals."""
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    decimals = f"{part:09}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def _watch(budget: BudgetFile) -> Watch:
    limit = nano_usd(budget.amount_usd)
    alerts = tuple(
        (format(threshold.normalize(), "f"), max(1, int((threshold * limit).to_integral_value(ROUND_CEILING))))
        for threshold in sorted(budget.thresholds)
    )
    return Watch(
        budget=budget.name,
        limit_nano_usd=limit,
        hard=budget.enforcement is Enforcement.HARD,
        alerts=alerts,
        webhooks=tuple(sorted({webhook_id(webhook) for webhook in budget.webhooks})),
    )


def _pattern(scope: ScopeFile) -> tuple[tuple[str, str], ...]:
    return tuple((column, value) for name, column in _COLUMNS.items() if (value := getattr(scope, name)) is not None)


def _family(budget: BudgetFile) -> str:
    return f"{_scope_text(_pattern(budget.scope))} {budget.window.value} {budget.zone}"


def _scope_text(pattern: Sequence[tuple[str, str]]) -> str:
    if not pattern:
        return GLOBAL
    names = {column: name for name, column in _COLUMNS.items()}
    return ",".join(f"{names[column]}={quote(value, safe='/:.@*-_')}" for column, value in pattern)
