"""The plan of a request: tiers in order, weights as shares."""

import random
from collections import Counter

from gateway.providers.registry import PROVIDERS
from gateway.serve.routing import BoundRoute, bind, plan
from gateway.types.route import Route, RouteType, Target
from gateway.types.secret import Secret


def _route(*targets: tuple[str, float, int]) -> BoundRoute:
    provider = PROVIDERS["openai"]
    config = provider.config(openai_api_key=Secret("sk-test"), openai_api_base="http://provider.test:8080/v1/")
    route = Route(
        name="chat",
        route_type=RouteType.CHAT,
        targets=tuple(
            Target(provider="openai", model=model, weight=weight, tier=tier, config=config)
            for model, weight, tier in targets
        ),
        original_shape=False,
    )
    return bind([route], {"openai": provider})["chat"]


def _plan(route: BoundRoute, rng: random.Random) -> list[str]:
    return [bound.target.model for bound in plan(route, rng)]


def test_tiers_come_in_order_whatever_the_weights() -> None:
    """No target of a later tier is tried before one of an earlier tier."""
    route = _route(("later", 100.0, 1), ("a", 1.0, 0), ("b", 1.0, 0))
    rng = random.Random(7)
    for _ in range(50):
        order = _plan(route, rng)
        assert order[2] == "later"
        assert set(order[:2]) == {"a", "b"}


def test_weights_are_shares_of_the_first_place() -> None:
    """A target of weight 3 comes first three times as often as one of weight 1 (binomial, 5 sigma)."""
    route = _route(("heavy", 3.0, 0), ("light", 1.0, 0))
    rng = random.Random(11)
    draws = 4000
    first = Counter(_plan(route, rng)[0] for _ in range(draws))
    sigma = (draws * 0.75 * 0.25) ** 0.5
    assert abs(first["heavy"] - draws * 0.75) < 5 * sigma


def test_weight_zero_only_helps_out() -> None:
    """A target of weight 0 is never first, and still there to fall back on."""
    route = _route(("spare", 0.0, 0), ("main", 0.1, 0))
    rng = random.Random(13)
    assert all(_plan(route, rng) == ["main", "spare"] for _ in range(50))


def test_binding_reads_address_and_port_from_the_base_url() -> None:
    """server.address and server.port are the provider's, worked out once."""
    bound = _route(("m", 1.0, 0)).targets[0]
    assert (bound.server_address, bound.server_port) == ("provider.test", 8080)
    assert bound.endpoint.base_url == "http://provider.test:8080/v1"
