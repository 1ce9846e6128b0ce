"""Requests and replies without I/O: what both clients share."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from urllib.parse import quote, urljoin

import msgspec
from msgspec import Struct

from gateway.client.errors import GatewayClientError, RateLimitedError, UnreachableError, error_of
from gateway.client.results import Body, ChatReply, EmbeddingsReply, Route, TextReply

Messages = str | Sequence[Mapping[str, Any]]
"""A conversation; a text alone is one message of the user."""

FIRST_BACKOFF_S = 0.5
LONGEST_WAIT_S = 30.0
"""A caller who would have to wait longer is told so instead."""

_Reply = TypeVar("_Reply", ChatReply, TextReply, EmbeddingsReply)
_Chunk = TypeVar("_Chunk", bound=Struct)
_T = TypeVar("_T")


class Page(Struct):
    """One page of the listing."""

    routes: list[Route]
    next_page_token: str | None = None


def invocation(family: str, route: str) -> str:
    """The path of a route's calls; family is `gateway` (original shape) or `endpoints`."""
    return f"/{family}/{quote(route, safe='')}/invocations"


def chat_body(messages: Messages, parameters: Mapping[str, Any], *, stream: bool) -> Body:
    """The body of a chat."""
    conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    return {"messages": conversation, **parameters, **({"stream": True} if stream else {})}


def text_body(prompt: str, parameters: Mapping[str, Any], *, stream: bool) -> Body:
    """The body of a completion."""
    return {"prompt": prompt, **parameters, **({"stream": True} if stream else {})}


def checked(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """The body of a reply that is one; raises GatewayClientError."""
    if 200 <= status < 300:
        return body
    raise error_of(status, headers, body)


def decoded(body: bytes, type_: type[_T]) -> _T:
    """A body as what it must be; raises GatewayClientError."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GatewayClientError(f"The gateway's answer is not what its API documents: {error}") from error


def reply(headers: Mapping[str, str], body: bytes, type_: type[_Reply]) -> _Reply:
    """A typed reply with the gateway's facts."""
    try:
        cost = Decimal(headers["x-gateway-cost-usd"])
    except (KeyError, InvalidOperation):
        cost = None
    return msgspec.structs.replace(decoded(body, type_), trace_id=headers.get("x-gateway-trace-id", ""), cost_usd=cost)


def absolute(route: Route, base_url: str) -> Route:
    """A route whose address can be used from here."""
    return msgspec.structs.replace(route, route_url=urljoin(base_url, route.route_url))


class _Told(Struct):
    """The word of an event that tells of an error."""

    error_type: str = ""


class Events(Struct):
    """Reads an event stream, cut anywhere.

    Lines end with a line feed alone: the texts in them may hold what else Unicode counts as a line's end.
    """

    finished: bool = False
    _begun: bytes = b""

    def feed(self, data: bytes, type_: type[_Chunk]) -> Iterator[_Chunk]:
        """The chunks that `data` completes; raises GatewayClientError for an error inside the stream."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            event = line[5:].strip()
            if event == b"[DONE]":
                self.finished = True
            elif b'"error_type"' in event and decoded(event, _Told).error_type:
                raise error_of(None, {}, event)
            else:
                yield decoded(event, type_)

    def end(self) -> None:
        """The lines are over; raises UnreachableError when the stream was not."""
        if not self.finished:
            raise UnreachableError("The stream broke off before its end.")


def wait_before_retry_s(error: GatewayClientError, tries: int, random: float) -> float | None:
    """How long to wait before trying again, or None when that cannot help.

    Only what the gateway surely did not do is tried again: it was not reached, or it said 429 or 503.
    """
    refused_for_now = isinstance(error, RateLimitedError) or error.status == 503
    not_reached = isinstance(error, UnreachableError) and error.error_type == "not_sent"
    if not (refused_for_now or not_reached):
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= LONGEST_WAIT_S else None
    return random * min(FIRST_BACKOFF_S * 2.0**tries, LONGEST_WAIT_S)
