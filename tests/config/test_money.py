"""What a configuration may say about money, and how it is told when it may not."""

from decimal import Decimal

import pytest

from gateway.config.errors import ConfigError
from gateway.config.load import load_text
from gateway.config.money import Enforcement, Money, Window
from gateway.providers.registry import find_provider

ROUTES = """
routes:
  - name: chat
    route_type: llm/v1/chat
    model: {provider: openai, name: gpt-4o, config: {openai_api_key: k}}
"""


def money(text: str) -> Money:
    """The money part of a configuration with one route."""
    return load_text(ROUTES + text, find_provider, {"HOOK": "s3cret"}).money


def test_a_file_without_money_has_defaults() -> None:
    """A configuration of the original form means no budgets, no keys, and an embedded ledger."""
    assert money("") == Money()


def test_everything_that_can_be_said() -> None:
    """Prices, budgets with webhooks, keys, the ledger and the admin listener are read, amounts exactly."""
    found = money("""
prices:
  - {model: llama, input_usd_per_mtok: 0, output_usd_per_mtok: 0}
  - {provider: openai, model: ft, input_usd_per_mtok: 0.1, output_usd_per_mtok: 2.50}
budgets:
  - name: red
    scope: {team: red, route: chat}
    amount_usd: 0.30
    window: day
    zone: Europe/Berlin
    enforcement: soft
    thresholds: [0.5, 1]
    webhooks: [{url: "https://x.test/hook", secret: $HOOK, format: slack}]
keys:
  - {secret: gwk_ci_0123456789abcdef, team: red, routes: [chat]}
ledger: {path: /var/lib/gaugeway/ledger.db}
admin: {port: 5002, token: $HOOK}
""")
    assert found.prices[1].input_usd_per_mtok == Decimal("0.1")
    budget = found.budgets[0]
    assert (budget.amount_usd, budget.window, budget.enforcement) == (Decimal("0.3"), Window.DAY, Enforcement.SOFT)
    assert budget.webhooks[0].secret.reveal() == "s3cret"
    assert found.keys[0].routes == ("chat",)
    assert found.admin.port == 5002


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("budgets: [{name: b}]", "budgets[0].amount_usd", "required"),
        ("budgets: [{name: b, amount_usd: ten}]", "budgets[0].amount_usd", "must be a number"),
        ("budgets: [{name: b, amount_usd: -1}]", "budgets[0]", "amount_usd must be between"),
        ("budgets: [{name: b, amount_usd: .nan}]", "budgets[0]", "amount_usd"),
        ("budgets: [{name: b, amount_usd: 1, zone: Mars/Base}]", "budgets[0]", "IANA"),
        ("budgets: [{name: b, amount_usd: 1, window: fortnight}]", "budgets[0].window", "fortnight"),
        ("budgets: [{name: b, amount_usd: 1, scope: {user: x}}]", "budgets[0].scope.user", "unknown field"),
        ("budgets: [{name: b, amount_usd: 1, thresholds: [0]}]", "budgets[0]", "thresholds"),
        ("budgets: [{name: b, amount_usd: 1}, {name: b, amount_usd: 2}]", "budgets[1].name", "twice"),
        ("budgets: [{name: b, amount_usd: 1, webhooks: [{url: 'ftp://x', secret: s}]}]", "budgets[0].webhooks[0]", "url"),
        ("prices: [{model: m, input_usd_per_mtok: 1}]", "prices[0].output_usd_per_mtok", "required"),
        ("prices: [&m {model: m, input_usd_per_mtok: 1, output_usd_per_mtok: 1}, *m]", "prices[1].model", "two prices"),
        ("ledger: {path: x, postgres: y}", "ledger", "either"),
        ("ledger: {default_output_tokens: 0}", "ledger", "default_output_tokens"),
        ("ledger: {path: /}", "ledger", "path is '/', which names no file"),
        ("admin: {port: 65536}", "admin", "port is 65536"),
        ("prices_file: ~nobody-here/prices.json", "prices_file", "home directory"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named(text: str, path: str, words: str) -> None:
    """The refusal names the path of the wrong field and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        money(text)
    assert caught.value.path.startswith(path)
    assert words in str(caught.value)


def test_a_secret_is_never_printed() -> None:
    """Neither keys nor webhooks' secrets are in a configuration's repr."""
    assert "0123456789abcdef" not in repr(money("keys: [{secret: gwk_ci_0123456789abcdef}]"))
