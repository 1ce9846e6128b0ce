"""Gateway keys: only the right secret of a valid key opens the door."""

from collections.abc import Callable

import msgspec
import pytest

from gateway.config.money import KeyFile
from gateway.spend.keys import Keyring, authorise, caller_of, configured_key, make_key, revoked, rotated
from gateway.types.errors import ErrorType, PolicyError
from gateway.types.secret import Secret

NOW = 1_795_392_000 * 10**9


def counting() -> Callable[[int], bytes]:
    """Bytes that are never the same twice."""
    state = [0]

    def random_bytes(count: int) -> bytes:
        state[0] += 1
        return state[0].to_bytes(count, "big")

    return random_bytes


def refused(ring: Keyring, token: str | None, now_ns: int = NOW) -> str:
    """The text of a refusal."""
    with pytest.raises(PolicyError) as caught:
        ring.authenticate(token, now_ns)
    assert caught.value.error_type is ErrorType.UNAUTHENTICATED
    return caught.value.message


def test_a_key_opens_and_its_hash_does_not() -> None:
    """The token is valid; what is stored does not contain it and is no key."""
    new = make_key(counting(), NOW, team="red")
    ring = Keyring(stored=[new.row])
    token = new.token.reveal()
    assert token.startswith(f"gwk_{new.row.id}_")
    assert ring.authenticate(token, NOW) == new.row
    assert token.split("_")[2] not in msgspec.json.encode(new.row).decode()
    refused(ring, f"gwk_{new.row.id}_{new.row.secret_hash}")


def test_wrong_keys_are_told_the_same() -> None:
    """No key, no such id, a wrong secret, a revoked and an expired key get one text."""
    random_bytes = counting()
    good = make_key(random_bytes, NOW, team="red")
    old = make_key(random_bytes, NOW - 1, team="red", expires_ns=NOW)
    gone = make_key(random_bytes, NOW, team="red")
    ring = Keyring(stored=[good.row, old.row, revoked(gone.row, NOW)])
    tokens = [
        None,
        "",
        "x",
        "gwk__",
        "gwk_none_" + "0" * 64,
        good.token.reveal()[:-1],
        good.token.reveal() + "0",
        "gwk_\ud800_" + "0" * 20,
    ]
    texts = {refused(ring, token) for token in [*tokens, old.token.reveal(), gone.token.reveal()]}
    assert len(texts) == 1


def test_a_key_expires_at_its_instant() -> None:
    """Valid until just before, invalid from the instant on."""
    new = make_key(counting(), NOW, team="red", expires_ns=NOW + 10)
    ring = Keyring(stored=[new.row])
    ring.authenticate(new.token.reveal(), NOW + 9)
    refused(ring, new.token.reveal(), NOW + 10)


def test_rotation_keeps_the_id_and_ends_the_old_secret() -> None:
    """After a rotation the new secret works, the old does not, and spend stays under one id."""
    random_bytes = counting()
    old = make_key(random_bytes, NOW, team="red", routes=("chat",), known_routes=("chat",))
    new = rotated(old.row, random_bytes, NOW + 1)
    ring = Keyring(stored=[new.row])
    assert (new.row.id, new.row.team, new.row.routes) == (old.row.id, "red", ("chat",))
    ring.authenticate(new.token.reveal(), NOW)
    refused(ring, old.token.reveal())


def test_a_key_uses_its_routes_only() -> None:
    """A key with routes is refused on others; one without is free."""
    row = make_key(counting(), NOW, team="red", routes=("chat",), known_routes=("chat",)).row
    authorise(row, "chat")
    with pytest.raises(PolicyError) as caught:
        authorise(row, "embeddings")
    assert caught.value.error_type is ErrorType.FORBIDDEN_ROUTE
    authorise(make_key(counting(), NOW, team="red").row, "anything")


def test_who_pays_is_the_key_s_team() -> None:
    """The caller of a key is its id and its team, and nothing else decides it."""
    row = make_key(counting(), NOW, team="red").row
    caller = caller_of(row, "10.0.0.1")
    assert (caller.team, caller.key_id) == ("red", row.id)


def test_the_gateway_is_open_only_without_any_key() -> None:
    """No key: open. One key, even a revoked one: closed."""
    row = make_key(counting(), NOW, team="red").row
    assert Keyring().is_open
    assert not Keyring(stored=[revoked(row, NOW)]).is_open


def test_a_configured_key_wins_and_is_checked() -> None:
    """A key from the configuration works; one that is malformed or has no instant is refused by its field."""
    token = "gwk_ci_" + "a1" * 16
    row = configured_key(KeyFile(secret=Secret(token), team="blue", expires="2027-01-31T00:00:00+00:00"))
    ring = Keyring([row], [msgspec.structs.replace(row, secret_hash="0", team="red")])
    assert ring.authenticate(token, NOW).team == "blue"
    for file in (
        KeyFile(secret=Secret("gwk_x_short")),
        KeyFile(secret=Secret("sk-" + "a" * 40)),
        KeyFile(secret=Secret(token), expires="2027-01-31"),
        KeyFile(secret=Secret(token), expires="soon"),
    ):
        with pytest.raises(ValueError, match=r"secret|expires"):
            configured_key(file)
