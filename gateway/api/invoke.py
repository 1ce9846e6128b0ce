"""The hot routes: raw ASGI handlers that carry a request from its bytes to its delivered reply, observed throughout."""

import asyncio
import logging
from collections.abc import Callable

import msgspec
from litestar.types import HTTPScope, Receive, Send

from gateway.api.auth import Authenticator, may_use
from gateway.api.body import read_body
from gateway.api.delivery import AsgiDelivery
from gateway.api.fields import read_fields
from gateway.api.surface import Surface
from gateway.serve.limits import Limits
from gateway.serve.routing import BoundRoute, RoutingTable
from gateway.serve.serving import Serving
from gateway.telemetry.observer import Observer
from gateway.telemetry.request_observation import RequestObservation, observe_request
from gateway.types.errors import ErrorType, GatewayError, RequestError, ServiceError

_LOG = logging.getLogger(__name__)


class Invoker:
    """Serves the requests of every surface.

    Args:
        authenticator: who asks.
        routes: gives the routing table in force; a reload changes what it returns.
    """

    def __init__(
        self,
        observer: Observer,
        serving: Serving,
        authenticator: Authenticator,
        limits: Limits,
        routes: Callable[[], RoutingTable],
    ) -> None:
        self._observer = observer
        self._serving = serving
        self._authenticator = authenticator
        self._limits = limits
        self._routes = routes

    async def handle(
        self, surface: Surface, parameter: str | None, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        """Serve one request of `surface`; `parameter` is the route's name where the path has it."""
        with self._observe(surface, scope) as observation:
            delivery = AsgiDelivery(surface, observation, receive, send)
            try:
                await self._serve(surface, parameter, scope, receive, observation, delivery)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - no caller sees a bare failure
                await _tell(_public(error, observation), observation, delivery)
            finally:
                delivery.stop_watching()

    async def _serve(
        self,
        surface: Surface,
        parameter: str | None,
        scope: HTTPScope,
        receive: Receive,
        observation: RequestObservation,
        delivery: AsgiDelivery,
    ) -> None:
        routes = self._routes()
        if parameter is not None:
            # A bad body is then counted under its route.
            _find(surface, routes, parameter, observation, delivery)
        if scope["method"] != "POST":
            raise RequestError(ErrorType.METHOD_NOT_ALLOWED, "Method Not Allowed")
        observation.caller, key = self._authenticator.identify(scope["headers"], _address(scope))
        waiting = observation.clock.monotonic()
        try:
            body = await read_body(receive, scope)
        finally:
            observation.caller_s += observation.clock.monotonic() - waiting
        fields = read_fields(body)
        name = surface.route_name(parameter, fields)
        route = routes[name] if parameter is not None else _find(surface, routes, name, observation, delivery)
        may_use(key, name)
        request = msgspec.structs.replace(
            surface.of(route).read(fields, route),
            created=observation.clock.now_ns() // 1_000_000_000,
            request_id=observation.request_id,
            headers=_forwarded(surface, scope),
        )
        observation.stream = request.stream
        if key is not None and key.calls_per_minute is not None:
            await self._limits.admit_key(key.id, key.calls_per_minute)
        if route.route.limits:
            await self._limits.admit(route.route, observation.caller)
        observation.admitted()
        if request.stream:
            delivery.watch()
        await self._serving.serve(observation, route, request, delivery)

    def _observe(self, surface: Surface, scope: HTTPScope) -> RequestObservation:
        traceparent = user_agent = None
        for name, value in scope["headers"]:
            if name == b"traceparent":
                traceparent = value.decode("latin-1")
            elif name == b"user-agent":
                user_agent = value.decode("latin-1")
        server = scope.get("server")
        return observe_request(
            self._observer,
            method=_METHODS.get(scope["method"], "_OTHER"),
            path_template=surface.path,
            scheme=scope["scheme"],
            server=(server[0], server[1] or 0) if server else ("", 0),
            traceparent=traceparent,
            user_agent=user_agent or "",
            address=_address(scope),
        )


async def _tell(failure: GatewayError, observation: RequestObservation, delivery: AsgiDelivery) -> None:
    # Apart from the frame that `failure` was raised through: a frame that names its own exception is a cycle, which
    # would keep the request's body until the garbage collector comes by.
    observation.failed(failure)
    delivery.stop_watching()
    await delivery.error(failure)


def _public(error: Exception | asyncio.CancelledError, observation: RequestObservation) -> GatewayError:
    """The failure that the caller hears of; what is not its cause's own text stays in the log."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, asyncio.CancelledError):
        # A caller who left is known before: this is the end of the drain.
        return ServiceError(ErrorType.SHUTTING_DOWN, "The gateway is stopping. Please try again.", retry_after_s=1)
    if isinstance(error, RecursionError):
        # A reply that is too deep is the provider's failure before it comes here.
        return RequestError(ErrorType.INVALID_JSON, "The request's body is nested too deep.")
    trace_id = observation.trace.trace_id_hex
    _LOG.error("a request failed inside the gateway", exc_info=error, extra={"trace": trace_id})
    return ServiceError(ErrorType.INTERNAL, "The gateway failed; its log has the cause by trace id.")


def _address(scope: HTTPScope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _forwarded(surface: Surface, scope: HTTPScope) -> tuple[tuple[str, str], ...]:
    if not surface.forwarded_headers:
        return ()
    return tuple(
        (name.decode("ascii"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name in surface.forwarded_headers
    )


def _find(
    surface: Surface, routes: RoutingTable, name: str, observation: RequestObservation, delivery: AsgiDelivery
) -> BoundRoute:
    route = routes.get(name)
    if route is None:
        raise surface.unknown_route(name)
    observation.routed(name, route.route.route_type.value, route.route.content)
    delivery.routed(route)
    return route


_METHODS = {method: method for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}
