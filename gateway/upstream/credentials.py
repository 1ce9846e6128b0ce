"""From a way to authenticate to the headers of one request, at the moment of sending.

Invariants: the event loop is never blocked (what must block or compute long runs in a thread); a token is fetched by
one task at a time, and renewed before it expires; no error text holds a secret or anything that a token service said
beyond its error code.
"""

import asyncio
from collections.abc import Mapping

from gateway.types.auth import Auth, AwsAuth, AwsKeys, EntraAuth, GoogleAuth, HeaderAuth, OAuthClientAuth
from gateway.types.clock import Clock
from gateway.types.model_io import WireRequest
from gateway.upstream.aws_keys import fetch_keys
from gateway.upstream.lease import Lease
from gateway.upstream.oauth import TokenHttp, client_token, google_token

_SIGN_IN_THREAD_BYTES = 256 * 1024
"""Hashing a body of this size takes about half a millisecond: longer ones are signed in a thread."""

_TokenAuth = EntraAuth | GoogleAuth | OAuthClientAuth


class Credentials:
    """The credentials of every provider account in use, each fetched once and shared by all requests.

    Args:
        http: how token services are reached.
        clock: decides expiry and dates signatures.
        environment: where Google's default credentials are looked for; AWS's default chain reads the process's own.
    """

    def __init__(self, http: TokenHttp, clock: Clock, environment: Mapping[str, str]) -> None:
        self._http = http
        self._clock = clock
        self._environment = environment
        self._tokens: dict[_TokenAuth, Lease[str]] = {}
        self._aws_keys: dict[AwsAuth, Lease[AwsKeys]] = {}

    async def headers(self, auth: Auth, wire: WireRequest) -> tuple[tuple[str, str], ...]:
        """The headers that authenticate `wire`.

        Raises:
            ServiceError: CREDENTIAL_UNAVAILABLE, when no token or key can be had.
        """
        if isinstance(auth, HeaderAuth):
            return tuple((name, secret.reveal()) for name, secret in auth.headers)
        if isinstance(auth, AwsAuth):
            return await self._signature(auth, wire)
        lease = self._tokens.get(auth)
        if lease is None:
            lease = self._tokens[auth] = self._token_lease(auth)
        return (("authorization", f"Bearer {await lease.get()}"),)

    def _token_lease(self, auth: _TokenAuth) -> Lease[str]:
        if isinstance(auth, GoogleAuth):
            return Lease(lambda: google_token(auth, self._http, self._clock, self._environment), self._clock)
        return Lease(lambda: client_token(auth, self._http), self._clock)

    async def _signature(self, auth: AwsAuth, wire: WireRequest) -> tuple[tuple[str, str], ...]:
        lease = self._aws_keys.get(auth)
        if lease is None:
            lease = self._aws_keys[auth] = Lease(lambda: fetch_keys(auth, self._http, self._clock), self._clock)
        keys = await lease.get()
        # By now a thread of `fetch_keys` has done botocore's slow import.
        from gateway.upstream.sigv4 import sign

        now_ns = self._clock.now_ns()
        if len(wire.body) > _SIGN_IN_THREAD_BYTES:
            return await asyncio.to_thread(sign, wire, keys, auth.region, auth.service, now_ns)
        return sign(wire, keys, auth.region, auth.service, now_ns)

    def close(self) -> None:
        """Break off the fetches under way."""
        for lease in self._tokens.values():
            lease.close()
        for keys in self._aws_keys.values():
            keys.close()
