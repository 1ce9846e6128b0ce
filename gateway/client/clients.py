"""The two clients, alike call by call; what they share is in `wire`.

`query` speaks a route's own shape, as MLflow's client does. All else speaks OpenAI's shape, which every route has.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from msgspec import Struct
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.trace import TracerProvider

from gateway.client import wire
from gateway.client.errors import GatewayClientError, UnreachableError
from gateway.client.results import (
    Body,
    ChatChunk,
    ChatReply,
    EmbeddingsReply,
    Route,
    TextChunk,
    TextReply,
)

_ROUTES = "/api/2.0/gateway/routes/"
_JSON = {"content-type": "application/json"}
_Chunk = TypeVar("_Chunk", bound=Struct)


def gateway_uri_of(given: str | None) -> str:
    """The address: as given, else GATEWAY_URI, else MLFLOW_GATEWAY_URI; ValueError when there is none."""
    uri = given or os.environ.get("GATEWAY_URI") or os.environ.get("MLFLOW_GATEWAY_URI")
    if not uri:
        raise ValueError("No gateway is named: call set_gateway_uri(), or set GATEWAY_URI.")
    return uri.rstrip("/")


def _headers(api_key: str | None) -> dict[str, str]:
    key = api_key or os.environ.get("GATEWAY_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}


def _unreachable(error: httpx.HTTPError) -> UnreachableError:
    # The word tells retries that nothing was sent; the gateway has no such error type.
    sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return UnreachableError(
        f"The gateway did not answer: {str(error) or type(error).__name__}", error_type="" if sent else "not_sent"
    )


class GatewayClient:
    """A client for threads and scripts.

    Args:
        gateway_uri: such as `http://localhost:5000`; else the environment's GATEWAY_URI or MLFLOW_GATEWAY_URI.
        api_key: a gateway key; else GATEWAY_API_KEY; an open gateway needs none.
        timeout_s: how long a call may take between two signs of life.
        retries: how often a call is tried again that was not served (no connection, 429, 503).
        tracer_provider: whose spans the calls become; else the app's global one.
    """

    def __init__(
        self,
        gateway_uri: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 300.0,
        retries: int = 2,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.gateway_uri = gateway_uri_of(gateway_uri)
        self._retries = retries
        self._http = httpx.Client(
            base_url=self.gateway_uri, headers=_headers(api_key), timeout=httpx.Timeout(timeout_s, connect=5.0)
        )
        HTTPXClientInstrumentor.instrument_client(self._http, tracer_provider=tracer_provider)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def query(self, route: str, data: Mapping[str, Any]) -> Body:
        """Call a route in its own shape, as `mlflow.gateway.query` does; raises GatewayClientError."""
        _, body = self._call("POST", wire.invocation("gateway", route), data)
        return wire.decoded(body, Body)

    def chat(self, route: str, messages: wire.Messages, **parameters: Any) -> ChatReply:
        """A whole chat reply; `parameters` are OpenAI's. Raises GatewayClientError."""
        body = wire.chat_body(messages, parameters, stream=False)
        return wire.reply(*self._call("POST", wire.invocation("endpoints", route), body), ChatReply)

    def complete(self, route: str, prompt: str, **parameters: Any) -> TextReply:
        """A whole completion. Raises GatewayClientError."""
        body = wire.text_body(prompt, parameters, stream=False)
        return wire.reply(*self._call("POST", wire.invocation("endpoints", route), body), TextReply)

    def embed(self, route: str, texts: str | Sequence[str], **parameters: Any) -> EmbeddingsReply:
        """Vectors of one text or several. Raises GatewayClientError."""
        body = {"input": texts, **parameters}
        return wire.reply(*self._call("POST", wire.invocation("endpoints", route), body), EmbeddingsReply)

    def stream_chat(self, route: str, messages: wire.Messages, **parameters: Any) -> Iterator[ChatChunk]:
        """A chat as it comes. Leaving the loop early ends the provider's work too. Raises GatewayClientError."""
        return self._stream(route, wire.chat_body(messages, parameters, stream=True), ChatChunk)

    def stream_complete(self, route: str, prompt: str, **parameters: Any) -> Iterator[TextChunk]:
        """A completion as it comes. Raises GatewayClientError."""
        return self._stream(route, wire.text_body(prompt, parameters, stream=True), TextChunk)

    def get_route(self, name: str) -> Route:
        """One route. Raises NotFoundError."""
        _, body = self._call("GET", _ROUTES + name)
        return wire.absolute(wire.decoded(body, Route), self.gateway_uri)

    def search_routes(self) -> list[Route]:
        """All routes, over as many pages as there are."""
        routes: list[Route] = []
        token: str | None = None
        while True:
            _, body = self._call("GET", _ROUTES, page_token=token)
            page = wire.decoded(body, wire.Page)
            routes += [wire.absolute(route, self.gateway_uri) for route in page.routes]
            token = page.next_page_token
            if token is None:
                return routes

    def _call(
        self, method: str, path: str, data: Mapping[str, Any] | None = None, *, page_token: str | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        tries = 0
        while True:
            try:
                return self._try(method, path, data, page_token)
            except GatewayClientError as error:
                wait_s = wire.wait_before_retry_s(error, tries, random.random())
                if wait_s is None or tries >= self._retries:
                    raise
            time.sleep(wait_s)
            tries += 1

    def _try(
        self, method: str, path: str, data: Mapping[str, Any] | None, page_token: str | None
    ) -> tuple[Mapping[str, str], bytes]:
        params = {"page_token": page_token} if page_token else None
        content = None if data is None else msgspec.json.encode(data)
        try:
            reply = self._http.request(method, path, params=params, content=content, headers=_JSON)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return reply.headers, wire.checked(reply.status_code, reply.headers, reply.content)

    def _stream(self, route: str, body: Body, type_: type[_Chunk]) -> Iterator[_Chunk]:
        path, content = wire.invocation("endpoints", route), msgspec.json.encode(body)
        events = wire.Events()
        try:
            with self._http.stream("POST", path, content=content, headers=_JSON) as reply:
                if reply.status_code != 200:
                    wire.checked(reply.status_code, reply.headers, reply.read())
                for data in reply.iter_bytes():
                    yield from events.feed(data, type_)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        events.end()


class AsyncGatewayClient:
    """A client for asyncio. The arguments and calls are those of GatewayClient."""

    def __init__(
        self,
        gateway_uri: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 300.0,
        retries: int = 2,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.gateway_uri = gateway_uri_of(gateway_uri)
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.gateway_uri, headers=_headers(api_key), timeout=httpx.Timeout(timeout_s, connect=5.0)
        )
        HTTPXClientInstrumentor.instrument_client(self._http, tracer_provider=tracer_provider)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def query(self, route: str, data: Mapping[str, Any]) -> Body:
        """Call a route in its own shape; raises GatewayClientError."""
        _, body = await self._call("POST", wire.invocation("gateway", route), data)
        return wire.decoded(body, Body)

    async def chat(self, route: str, messages: wire.Messages, **parameters: Any) -> ChatReply:
        """A whole chat reply; `parameters` are OpenAI's. Raises GatewayClientError."""
        body = wire.chat_body(messages, parameters, stream=False)
        return wire.reply(*await self._call("POST", wire.invocation("endpoints", route), body), ChatReply)

    async def complete(self, route: str, prompt: str, **parameters: Any) -> TextReply:
        """A whole completion. Raises GatewayClientError."""
        body = wire.text_body(prompt, parameters, stream=False)
        return wire.reply(*await self._call("POST", wire.invocation("endpoints", route), body), TextReply)

    async def embed(self, route: str, texts: str | Sequence[str], **parameters: Any) -> EmbeddingsReply:
        """Vectors of one text or several. Raises GatewayClientError."""
        body = {"input": texts, **parameters}
        return wire.reply(*await self._call("POST", wire.invocation("endpoints", route), body), EmbeddingsReply)

    def stream_chat(self, route: str, messages: wire.Messages, **parameters: Any) -> AsyncIterator[ChatChunk]:
        """A chat as it comes; close the iterator (`contextlib.aclosing`) to end it early."""
        return self._stream(route, wire.chat_body(messages, parameters, stream=True), ChatChunk)

    def stream_complete(self, route: str, prompt: str, **parameters: Any) -> AsyncIterator[TextChunk]:
        """A completion as it comes. Raises GatewayClientError."""
        return self._stream(route, wire.text_body(prompt, parameters, stream=True), TextChunk)

    async def get_route(self, name: str) -> Route:
        """One route. Raises NotFoundError."""
        _, body = await self._call("GET", _ROUTES + name)
        return wire.absolute(wire.decoded(body, Route), self.gateway_uri)

    async def search_routes(self) -> list[Route]:
        """All routes, over as many pages as there are."""
        routes: list[Route] = []
        token: str | None = None
        while True:
            _, body = await self._call("GET", _ROUTES, page_token=token)
            page = wire.decoded(body, wire.Page)
            routes += [wire.absolute(route, self.gateway_uri) for route in page.routes]
            token = page.next_page_token
            if token is None:
                return routes

    async def _call(
        self, method: str, path: str, data: Mapping[str, Any] | None = None, *, page_token: str | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        tries = 0
        while True:
            try:
                return await self._try(method, path, data, page_token)
            except GatewayClientError as error:
                wait_s = wire.wait_before_retry_s(error, tries, random.random())
                if wait_s is None or tries >= self._retries:
                    raise
            await asyncio.sleep(wait_s)
            tries += 1

    async def _try(
        self, method: str, path: str, data: Mapping[str, Any] | None, page_token: str | None
    ) -> tuple[Mapping[str, str], bytes]:
        params = {"page_token": page_token} if page_token else None
        content = None if data is None else msgspec.json.encode(data)
        try:
            reply = await self._http.request(method, path, params=params, content=content, headers=_JSON)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return reply.headers, wire.checked(reply.status_code, reply.headers, reply.content)

    async def _stream(self, route: str, body: Body, type_: type[_Chunk]) -> AsyncIterator[_Chunk]:
        path, content = wire.invocation("endpoints", route), msgspec.json.encode(body)
        events = wire.Events()
        try:
            async with self._http.stream("POST", path, content=content, headers=_JSON) as reply:
                if reply.status_code != 200:
                    wire.checked(reply.status_code, reply.headers, await reply.aread())
                async for data in reply.aiter_bytes():
                    for chunk in events.feed(data, type_):
                        yield chunk
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        events.end()
