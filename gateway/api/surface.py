"""A surface: one family of paths with its own shapes of requests, replies and errors, as a table of functions."""

import re
from collections.abc import Callable

from msgspec import Raw, Struct

from gateway.serve.routing import BoundRoute
from gateway.types.errors import GatewayError
from gateway.types.model_io import ModelReply, ModelRequest

Fields = dict[str, Raw]
"""The top-level members of a JSON request, values byte for byte."""


def event_of_data(error_body: bytes) -> bytes:
    """An error inside a stream that has begun, as one event that holds the surface's error body."""
    return b"data: " + error_body + b"\n\n"


_SSE = re.compile(rb"(^|&)(\$|%24)?alt=sse(&|$)")


class Surface(Struct, frozen=True, kw_only=True):
    """How one family of paths reads requests and writes answers.

    Args:
        path: the template of the path, which names the SERVER span and the log line.
        route_name: the route that a request is for, from the path's parameter (or None) and the body.
        read: the canonical request; raises RequestError.
        whole: the body of a whole reply.
        error_body: the body of an error, from the error and the trace id; a page has no trace, which vendors' bodies say by null.
        status: the HTTP status of an error.
        forwarded_headers: the caller's headers that the vendor's own API reads.
        stream_error: makes a complete event of an error's body, for streams that have begun.
        stream_end: what ends a stream, after its last event.
        request_id_header: where the clients of this surface look for the request's id.
        stream_comments: whether the clients of this surface read a stream's comments as the standard says: not at all.
        array: the surface that stands in for this one where a caller did not ask for server-sent events (`alt=sse`): its
            streams are one JSON array that grows, as Google's are.
        stream_array: streams are such an array.
        endpoint_shape: the surface that stands in for this one where a route was configured under `endpoints:`.
    """

    path: str
    route_name: Callable[[str | None, Fields], str]
    read: Callable[[Fields, BoundRoute], ModelRequest]
    whole: Callable[[ModelReply, BoundRoute], bytes]
    error_body: Callable[[GatewayError, str | None], bytes]
    status: Callable[[GatewayError], int]
    unknown_route: Callable[[str], GatewayError]
    forwarded_headers: frozenset[bytes] = frozenset()
    stream_error: Callable[[bytes], bytes] = event_of_data
    stream_end: bytes = b"data: [DONE]\n\n"
    stream_comments: bool = True
    request_id_header: bytes = b"x-request-id"
    array: "Surface | None" = None
    stream_array: bool = False
    endpoint_shape: "Surface | None" = None

    def asked(self, query: bytes) -> "Surface":
        """The surface whose streams have the form that the query asks for."""
        return self if self.array is None or _SSE.search(query) else self.array

    def of(self, route: BoundRoute) -> "Surface":
        """The surface in the shape that the route's callers expect."""
        return self if self.endpoint_shape is None or route.route.original_shape else self.endpoint_shape
