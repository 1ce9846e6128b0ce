"""Gateway keys: `gwk_<id>_<secret>`. Who a caller is, who pays for it, and what it may use.

Only a hash of the secret is kept. It has 256 random bits, so one round of SHA-256 is enough; comparing takes the same
time for a wrong secret, a wrong id and a right key.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from gateway.config.money import KeyFile
from gateway.store.spec import KeyRow
from gateway.types.errors import ErrorType, PolicyError
from gateway.types.records import Caller
from gateway.types.secret import Secret

PREFIX = "gwk"
_ID_BYTES = 8
_SECRET_BYTES = 32
_NOBODY = hashlib.sha256(b"no such key").hexdigest()

RandomBytes = Callable[[int], bytes]


class NewKey(Struct, frozen=True, kw_only=True):
    """A key just made. `token` is shown once and kept nowhere."""

    token: Secret
    row: KeyRow


class KeyRefusedError(ValueError):
    """A key that cannot be made: `field` says which member of the request is in the way, the text why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def make_key(
    random_bytes: RandomBytes,
    now_ns: int,
    *,
    team: str,
    routes: Sequence[str] = (),
    known_routes: Collection[str] = (),
    expires_ns: int | None = None,
    calls_per_minute: int | None = None,
) -> NewKey:
    """A new key.

    Raises:
        KeyRefusedError: the team has no name, a route is none of `known_routes`, or the key has expired already.
    """
    if not team.strip():
        raise KeyRefusedError("team", "a team has a name")
    for route in routes:
        if route not in known_routes:
            there = ", ".join(known_routes) or "none"
            raise KeyRefusedError("routes", f"no route is named '{route}'; there are {there}")
    if expires_ns is not None and expires_ns <= now_ns:
        raise KeyRefusedError("expires_ns", f"{expires_ns} nanoseconds since the epoch have passed")
    row = KeyRow(
        id=random_bytes(_ID_BYTES).hex(),
        secret_hash="",
        team=team,
        routes=tuple(routes),
        created_ns=now_ns,
        expires_ns=expires_ns,
        calls_per_minute=calls_per_minute,
    )
    return _with_secret(row, random_bytes)


def rotated(row: KeyRow, random_bytes: RandomBytes, now_ns: int) -> NewKey:
    """The same key with another secret, so that budgets and reports go on; the old secret works no more.

    Raises:
        KeyRefusedError: the key is revoked.
    """
    if row.revoked_ns is not None:
        raise KeyRefusedError("key_id", f"the key '{row.id}' is revoked; make a new one")
    return _with_secret(msgspec.structs.replace(row, created_ns=now_ns), random_bytes)


def _with_secret(row: KeyRow, random_bytes: RandomBytes) -> NewKey:
    token = f"{PREFIX}_{row.id}_{random_bytes(_SECRET_BYTES).hex()}"
    return NewKey(token=Secret(token), row=msgspec.structs.replace(row, secret_hash=_hash(token)))


def configured_key(file: KeyFile) -> KeyRow:
    """A key that the configuration holds.

    Raises:
        ValueError: the secret does not look like a key, or `expires` is no instant.
    """
    token = file.secret.reveal()
    key_id = _key_id(token)
    if key_id is None:
        raise ValueError(f"secret must look like {PREFIX}_<id>_<secret>, the secret at least 16 characters")
    expires_ns = None
    if file.expires is not None:
        try:
            moment = datetime.fromisoformat(file.expires)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise ValueError(f"expires '{file.expires}' is no instant such as 2027-01-31T00:00:00+00:00")
        expires_ns = int(moment.timestamp()) * 1_000_000_000
    return KeyRow(
        id=key_id,
        secret_hash=_hash(token),
        team=file.team,
        routes=file.routes,
        created_ns=0,
        expires_ns=expires_ns,
        calls_per_minute=file.calls_per_minute,
    )


class Keyring:
    """The keys that are known. The configuration's win over stored ones of the same id.

    With no key at all the gateway is open: everybody is anonymous, and `is_open` says so.
    """

    def __init__(self, configured: Iterable[KeyRow] = (), stored: Iterable[KeyRow] = ()) -> None:
        self._configured: dict[str, KeyRow] = {}
        self._stored: tuple[KeyRow, ...] = tuple(stored)
        self._keys: dict[str, KeyRow] = {}
        self.configure(configured)

    def configure(self, configured: Iterable[KeyRow]) -> None:
        """Use what the configuration holds now."""
        self._configured = {row.id: row for row in configured}
        self.take(self._stored)

    def take(self, stored: Iterable[KeyRow]) -> None:
        """Use what the store holds now."""
        self._stored = tuple(stored)
        self._keys = {row.id: row for row in self._stored} | self._configured

    @property
    def is_open(self) -> bool:
        """Whether callers need no key. Revoking the last key does not open the gateway."""
        return not self._keys

    def rows(self) -> list[KeyRow]:
        """Every key, by age."""
        return sorted(self._keys.values(), key=lambda row: (row.created_ns, row.id))

    def authenticate(self, token: str | None, now_ns: int) -> KeyRow:
        """The key that a bearer token is.

        Raises:
            PolicyError: there is none, it is wrong, revoked or expired. One text for all of them: it tells nobody
                which ids exist.
        """
        key_id = _key_id(token) if token else None
        row = self._keys.get(key_id) if key_id else None
        right = hmac.compare_digest(_hash(token or ""), row.secret_hash if row else _NOBODY)
        if not right or row is None or row.revoked_ns is not None or _expired(row, now_ns):
            raise PolicyError(
                ErrorType.UNAUTHENTICATED,
                "A valid gateway key is required: send it as `Authorization: Bearer gwk_...`.",
            )
        return row


def authorise(row: KeyRow, route: str) -> None:
    """Check that a key may use a route; raises PolicyError when not."""
    if row.routes and route not in row.routes:
        raise PolicyError(ErrorType.FORBIDDEN_ROUTE, f"This gateway key may not use the route '{route}'.")


def caller_of(row: KeyRow, address: str = "") -> Caller:
    """Who asks and who pays, by their key."""
    return Caller(team=row.team, key_id=row.id, address=address)


def revoked(row: KeyRow, now_ns: int) -> KeyRow:
    """The key, no longer valid."""
    return msgspec.structs.replace(row, revoked_ns=now_ns)


def _expired(row: KeyRow, now_ns: int) -> bool:
    return row.expires_ns is not None and now_ns >= row.expires_ns


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _key_id(token: str) -> str | None:
    parts = token.split("_", 2)
    if len(parts) != 3 or parts[0] != PREFIX or not parts[1] or len(parts[2]) < 16:
        return None
    return parts[1]
