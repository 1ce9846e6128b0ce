"""AWS keys to sign with: static ones, an assumed role's, or the default chain's.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

import asyncio
import importlib
import re
from datetime import datetime
from urllib.parse import urlencode

from gateway.types.auth import AwsAuth, AwsKeys
from gateway.types.clock import Clock
from gateway.types.errors import ServiceError
from gateway.types.model_io import WireRequest
from gateway.types.secret import Secret
from gateway.upstream.oauth import TokenHttp, exchange, unavailable

_CHAIN_REREAD_S = 60.0
"""How often the default chain is asked again: it renews its own keys (15 minutes before their end) when asked."""
_SESSION_NAME = "gaugeway"


async def fetch_keys(auth: AwsAuth, http: TokenHttp, clock: Clock) -> tuple[AwsKeys, float]:
    """The keys that `auth` stands for, and for how many seconds they may be used. Raises ServiceError."""
    if auth.access_key_id is not None and auth.secret_access_key is not None:
        keys, lifetime_s = AwsKeys(auth.access_key_id, auth.secret_access_key, auth.session_token), float("inf")
        await asyncio.to_thread(importlib.import_module, "gateway.upstream.sigv4")
    else:
        keys, lifetime_s = await asyncio.to_thread(_chain_keys), _CHAIN_REREAD_S
    if auth.role_arn is None:
        return keys, lifetime_s
    return await _assume_role(auth, auth.role_arn, keys, http, clock)


def _chain_keys() -> AwsKeys:
    """What the default chain gives: environment, shared files, web identity, container, instance metadata. It blocks."""
    importlib.import_module("gateway.upstream.sigv4")
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        found = Session().get_credentials()
        frozen = None if found is None else found.get_frozen_credentials()
    except BotoCoreError as error:
        raise unavailable(f"AWS's default chain failed ({type(error).__name__})") from error
    if frozen is None:
        raise unavailable("AWS's default chain found no keys (environment, shared files, container, instance)")
    token = Secret(frozen.token) if frozen.token else None
    return AwsKeys(frozen.access_key, Secret(frozen.secret_key), token)


async def _assume_role(
    auth: AwsAuth, role_arn: str, keys: AwsKeys, http: TokenHttp, clock: Clock
) -> tuple[AwsKeys, float]:
    from gateway.upstream.sigv4 import sign

    form = {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": role_arn,
        "RoleSessionName": _SESSION_NAME,
        "DurationSeconds": str(auth.session_length_s),
    }
    suffix = "amazonaws.com.cn" if auth.region.startswith("cn-") else "amazonaws.com"
    wire = WireRequest(
        url=auth.sts_url or f"https://sts.{auth.region}.{suffix}/",
        body=urlencode(form).encode(),
        headers=(("content-type", "application/x-www-form-urlencoded; charset=utf-8"),),
    )
    now_ns = clock.now_ns()
    signed = WireRequest(
        url=wire.url, body=wire.body, headers=wire.headers + sign(wire, keys, auth.region, "sts", now_ns)
    )
    body = (await exchange(http, signed, "AWS STS")).decode("utf-8", "replace")
    try:
        expires = datetime.fromisoformat(_element(body, "Expiration"))
        assumed = AwsKeys(
            _element(body, "AccessKeyId"),
            Secret(_element(body, "SecretAccessKey")),
            Secret(_element(body, "SessionToken")),
        )
    except ValueError:
        raise _unreadable() from None
    return assumed, max(0.0, expires.timestamp() - now_ns / 1e9)


def _unreadable() -> ServiceError:
    return unavailable("AWS STS answered without keys")


def _element(xml: str, name: str) -> str:
    """The text of the only element `name`; keys and dates hold nothing that XML escapes. ValueError without one."""
    found = re.search(rf"<{name}>([^<&]+)</{name}>", xml)
    if found is None:
        raise ValueError(name)
    return found.group(1).strip()
