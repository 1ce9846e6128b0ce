"""Routes joined with their providers, and the order in which a request tries its targets."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct, structs

from gateway.providers.spec import Endpoint, Provider
from gateway.types.clock import Rng
from gateway.types.route import Operation, Route, Target


class BoundTarget(Struct, frozen=True, kw_only=True):
    """A target with all that sending to it needs, worked out once."""

    target: Target
    endpoint: Endpoint
    gen_ai_provider: str
    provider_title: str
    server_address: str
    server_port: int


class BoundRoute(Struct, frozen=True, kw_only=True):
    """A route with its targets bound, sorted by tier."""

    route: Route
    targets: tuple[BoundTarget, ...]


RoutingTable = Mapping[str, BoundRoute]
"""The routes that are served now, by name. A reload replaces the whole table."""


def bind(routes: Iterable[Route], providers: Mapping[str, Provider]) -> RoutingTable:
    """Join checked routes with the providers' descriptions; `providers` is keyed by `Provider.name`."""
    return {
        route.name: BoundRoute(
            route=route,
            targets=tuple(
                _bind(target, providers[target.provider], original_shape=route.original_shape)
                for target in sorted(route.targets, key=lambda t: t.tier)
            ),
        )
        for route in routes
    }


def _bind(target: Target, provider: Provider, *, original_shape: bool) -> BoundTarget:
    endpoint = provider.connect(target.config, target.model)
    if original_shape and provider.original_completions is not None:
        dialect = endpoint.dialect
        codecs = {**dialect.codecs, Operation.COMPLETIONS: provider.original_completions}
        endpoint = structs.replace(endpoint, dialect=structs.replace(dialect, codecs=codecs))
    address = urlsplit(endpoint.base_url)
    return BoundTarget(
        target=target,
        endpoint=endpoint,
        gen_ai_provider=provider.gen_ai_name,
        provider_title=provider.title or provider.name,
        server_address=address.hostname or "",
        server_port=address.port or (80 if address.scheme == "http" else 443),
    )


def plan(route: BoundRoute, rng: Rng) -> tuple[BoundTarget, ...]:
    """The targets of one request in the order to try them.

    Tiers in order; inside a tier a random order in which a target comes first as often as its weight says. A target of
    weight 0 comes last in its tier: it gets no traffic of its own, but it can still help.
    """
    targets = route.targets
    if len(targets) == 1:
        return targets
    # Sorting by u^(1/w) is weighted sampling without replacement (Efraimidis and Spirakis, 2006).
    keys = {
        id(bound): rng.random() ** (1.0 / bound.target.weight) if bound.target.weight > 0 else -1.0 for bound in targets
    }
    return tuple(sorted(targets, key=lambda bound: (bound.target.tier, -keys[id(bound)])))
