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
from gateway.upstream.expiring import Expiring
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
        self._tokens: dict[_TokenAuth, Expiring[str]] = {}
        self._aws_keys: dict[AwsAuth, Expiring[AwsKeys]] = {}

    async def headers(self, auth: Auth, wire: WireRequest) -> tuple[tuple[str, str], ...]:
        """The headers that authenticate `wire`.

        Raises:
            ServiceError: CREDENTIAL_UNAVAILABLE, when no token or key can be had.
        """
        if isinstance(auth, HeaderAuth):
            return tuple((name, secret.reveal()) for name, secret in auth.headers)
        if isinstance(auth, AwsAuth):
            return await self._signature(auth, wire)
        token = self._tokens.get(auth)
        if token is None:
            token = self._tokens[auth] = self._expiring_token(auth)
        return (("authorization", f"Bearer {await token.get()}"),)

    def _expiring_token(self, auth: _TokenAuth) -> Expiring[str]:
        if isinstance(auth, GoogleAuth):
            return Expiring(lambda: google_token(auth, self._http, self._clock, self._environment), self._clock)
        return Expiring(lambda: client_token(auth, self._http), self._clock)

    async def _signature(self, auth: AwsAuth, wire: WireRequest) -> tuple[tuple[str, str], ...]:
        held = self._aws_keys.get(auth)
        if held is None:
            held = self._aws_keys[auth] = Expiring(lambda: fetch_keys(auth, self._http, self._clock), self._clock)
        keys = await held.get()
        # By now a thread of `fetch_keys` has done botocore's slow import.
        from gateway.upstream.sigv4 import sign

        now_ns = self._clock.now_ns()
        if len(wire.body) > _SIGN_IN_THREAD_BYTES:
            return await asyncio.to_thread(sign, wire, keys, auth.region, auth.service, now_ns)
        return sign(wire, keys, auth.region, auth.service, now_ns)

    def close(self) -> None:
        """Break off the fetches under way."""
        for token in self._tokens.values():
            token.close()
        for keys in self._aws_keys.values():
            keys.close()
