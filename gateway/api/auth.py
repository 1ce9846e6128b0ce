"""Who asks: the gateway key of a request, wherever its client's SDK puts a key.

With no keys configured the gateway is open, and what a client sends as its key is not looked at.
"""

import base64
import binascii
from collections.abc import Iterable

from gateway.spend.keys import Keyring, authorise, caller_of
from gateway.store.spec import KeyRow
from gateway.types.clock import Clock
from gateway.types.records import Caller

_KEY_HEADERS = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
"""Where Anthropic's, Azure's and Google's SDKs put a key; everybody else uses `authorization`."""


class Authenticator:
    """Turns a request's headers into its caller.

    Args:
        keyring: the keys that are known.
    """

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        self.keyring = keyring
        self._clock = clock

    def identify(self, headers: Iterable[tuple[bytes, bytes]], address: str) -> tuple[Caller, KeyRow | None]:
        """The caller, and the key that says what it may use; raises PolicyError for a missing or wrong key."""
        if self.keyring.is_open:
            return Caller(address=address), None
        row = self.keyring.authenticate(presented_key(headers), self._clock.now_ns())
        return caller_of(row, address), row


def may_use(key: KeyRow | None, route: str) -> None:
    """Check that the caller may use a route; raises PolicyError when not."""
    if key is not None:
        authorise(key, route)


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that a request presents: a bearer token, a Basic password (MLflow's clients), or a vendor's header."""
    found: str | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return rest.strip()
            if scheme.lower() == "basic":
                return _basic_password(rest.strip())
        elif name in _KEY_HEADERS:
            found = value.decode("latin-1")
    return found


def _basic_password(encoded: str) -> str | None:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None
