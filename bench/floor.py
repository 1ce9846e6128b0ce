"""The same work without a gateway: bare ASGI that passes a request on with aiohttp. The reference row of the tables.

`python -m bench.floor --port P --upstream http://127.0.0.1:Q [--server uvicorn|granian|hypercorn]`. The path `/bare`
answers by itself, which shows the price of the ASGI server alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

from bench.payloads import chat_reply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

UPSTREAM_VARIABLE = "BENCH_FLOOR_UPSTREAM"
SERVERS = ("uvicorn", "granian", "hypercorn")
_REPLY = chat_reply()
_REQUEST_HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-bench"}


class Floor:
    """The ASGI application."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope["path"], receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, path: str, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if path in ("/health", "/bare"):
            await _reply(send, _REPLY)
            return
        assert self._session is not None
        async with self._session.post(self._upstream + path, data=body, headers=_REQUEST_HEADERS) as reply:
            if reply.headers.get("content-type", "").startswith("text/event-stream"):
                await _stream(send, reply)
            else:
                await _reply(send, await reply.read())


async def _reply(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, reply: aiohttp.ClientResponse) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for piece in reply.content.iter_any():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def make() -> Floor:
    """The application for servers that import it by name; the upstream comes by the environment."""
    return Floor(os.environ[UPSTREAM_VARIABLE])


def _uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(make(), host="127.0.0.1", port=port, access_log=False, log_level="warning", loop="uvloop")


def _granian(port: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces, Loops

    Granian(
        "bench.floor:make",
        factory=True,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        log_access=False,
    ).serve()


def _hypercorn(port: int) -> None:
    import uvloop
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(make(), config))  # type: ignore[arg-type]


def main() -> None:
    """Serve with the server of the command line."""
    parser = argparse.ArgumentParser(prog="bench.floor", description="Bare ASGI and aiohttp.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--server", choices=SERVERS, default="uvicorn")
    options = parser.parse_args()
    os.environ[UPSTREAM_VARIABLE] = options.upstream
    {"uvicorn": _uvicorn, "granian": _granian, "hypercorn": _hypercorn}[options.server](options.port)


if __name__ == "__main__":
    main()
