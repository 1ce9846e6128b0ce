"""Sending a wire request to its provider, and reading the provider's refusals."""

import email.utils
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Protocol

from gateway.types.auth import Auth, HeaderAuth
from gateway.types.clock import Clock
from gateway.types.errors import UpstreamAnswer
from gateway.types.model_io import Fault, WireRequest
from gateway.types.refusal import refusal
from gateway.types.route import Timeouts
from gateway.upstream.pool import Exchange


class CredentialSource(Protocol):
    """Turns an `Auth` into headers at the moment of sending; never blocks the loop."""

    async def headers(self, auth: Auth, wire: WireRequest) -> tuple[tuple[str, str], ...]:
        """The credential's headers. Raises ServiceError when no credential can be had."""
        ...


class Sender(Protocol):
    """Opens HTTP exchanges: the pool itself, or an instrumented httpx client over it."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        timeouts: Timeouts,
        *,
        stream: bool = False,
        propagate_trace: bool = False,
    ) -> Exchange:
        """Send one request and wait for the reply's headers. Raises UpstreamError."""
        ...


def _nobody(exchange: Exchange) -> None:
    """Does not want to know."""


class UpstreamClient:
    """The one way to a provider.

    Args:
        sender: opens the exchanges.
        credentials: for providers whose credential is not a fixed header.
    """

    def __init__(self, sender: Sender, credentials: CredentialSource, clock: Clock) -> None:
        self._sender = sender
        self._credentials = credentials
        self._clock = clock

    async def send(
        self,
        wire: WireRequest,
        auth: Auth,
        timeouts: Timeouts,
        read_fault: Callable[[int, bytes], Fault],
        extra_headers: tuple[tuple[str, str], ...] = (),
        *,
        on_answer: Callable[[Exchange], None] = _nobody,
        stream: bool = False,
        propagate_trace: bool = False,
    ) -> Exchange:
        """Send, and wait for a successful reply's headers; `read_fault` reads the dialect's error bodies.

        `on_answer` is told of the headers when they come, whatever their status: an error's body is still to be read.

        Raises UpstreamError for a failed exchange and for every status that is not 2xx, with the provider's own
        public message; ServiceError when the credential cannot be had.
        """
        if isinstance(auth, HeaderAuth):
            credential = tuple([(name, secret.reveal()) for name, secret in auth.headers])
        else:
            credential = await self._credentials.headers(auth, wire)
        headers = (*wire.headers, *extra_headers, *credential)
        exchange = await self._sender.send(
            wire.method, wire.url, headers, wire.body, timeouts, stream=stream, propagate_trace=propagate_trace
        )
        on_answer(exchange)
        if not 200 <= exchange.status < 300:
            try:
                body = _without(credential, await exchange.read())
            finally:
                exchange.release()
            try:
                fault = read_fault(exchange.status, body)
            except RecursionError:
                fault = Fault(message=f"The provider answered with status {exchange.status}.")
            answer = UpstreamAnswer(exchange.headers.get("content-type", ""), body)
            wait_s = retry_after(exchange.headers, self._clock)
            raise refusal(exchange.status, fault, fault.retry_after_s if wait_s is None else wait_s, answer)
        return exchange


def _without(credential: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A refusal that quotes the key which it refuses: its words are for callers, who must not have the key."""
    for _, value in credential:
        # Without the scheme before it.
        key = value.rpartition(" ")[2].encode()
        if len(key) >= _SHORTEST_KEY_BYTES:
            body = body.replace(key, b"***")
    return body


_SHORTEST_KEY_BYTES = 20
"""What is shorter may be a word, or a signature's date."""


def retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds to wait before another try, in any of the spellings that vendors use; None where none is given.

    `retry-after-ms` (OpenAI, Azure), `retry-after` in seconds or as an HTTP date, `x-ratelimit-reset-after` (Mistral).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0), ("x-ratelimit-reset-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = _until(value, clock)
        if 0 <= seconds < 86_400:
            return seconds
    return None


def _until(http_date: str, clock: Clock) -> float:
    try:
        moment: datetime = email.utils.parsedate_to_datetime(http_date)
    except (TypeError, ValueError):
        return -1.0
    return max(0.0, moment.timestamp() - clock.now_ns() / 1e9)
