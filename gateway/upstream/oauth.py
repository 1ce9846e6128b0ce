"""Access tokens: OAuth's client-credentials flow (Microsoft Entra ID, Databricks), and Google's three kinds.

Sources: RFC 6749 section 4.4; RFC 7523 (Google's service accounts sign a JWT);
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow;
https://developers.google.com/identity/protocols/oauth2/service-account;
https://cloud.google.com/docs/authentication/application-default-credentials
"""

import asyncio
import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from gateway.types.auth import EntraAuth, GoogleAuth, OAuthClientAuth
from gateway.types.clock import Clock
from gateway.types.errors import ErrorType, ServiceError, UpstreamError
from gateway.types.model_io import WireRequest

_FORM = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
_ASSUMED_LIFETIME_S = 300.0
_JWT_LIFETIME_S = 3600
_GOOGLE_TOKEN_URL = GoogleAuth().token_url
_ERROR_CODE = re.compile(r"[A-Za-z_]{1,40}")


class TokenHttp(Protocol):
    """How a token service is reached: one exchange, as (status, body). Raises UpstreamError when there is none."""

    async def __call__(
        self, method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[int, bytes]: ...


class _Token(Struct):
    access_token: str
    expires_in: float = _ASSUMED_LIFETIME_S


class _Refusal(Struct):
    error: str = ""


_TOKEN = msgspec.json.Decoder(_Token, strict=False)


def unavailable(reason: str, *, retry_after_s: float | None = None) -> ServiceError:
    """The error of a request that cannot be authenticated; `reason` is public and holds no secret."""
    return ServiceError(
        ErrorType.CREDENTIAL_UNAVAILABLE,
        f"The gateway could not get a credential for this route's provider: {reason}.",
        retry_after_s=retry_after_s,
    )


async def exchange(http: TokenHttp, wire: WireRequest, service: str) -> bytes:
    """The body of a token service's 2xx answer; raises ServiceError for everything else."""
    try:
        status, body = await http(wire.method, wire.url, wire.headers, wire.body)
    except UpstreamError as error:
        raise unavailable(f"{service} could not be reached ({error.error_type})", retry_after_s=1.0) from error
    if 200 <= status < 300:
        return body
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        code = ""
    # The code is one of a few words (RFC 6749, 5.2); a description may quote ids or more, and is left out.
    detail = f" ({code})" if _ERROR_CODE.fullmatch(code) else ""
    raise unavailable(f"{service} answered with status {status}{detail}", retry_after_s=1.0 if status >= 500 else None)


async def _token(http: TokenHttp, wire: WireRequest, service: str) -> tuple[str, float]:
    body = await exchange(http, wire, service)
    try:
        token = _TOKEN.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Without its cause: the text of a decoding error can quote the body.
        raise unavailable(f"{service} answered without an access token") from None
    return token.access_token, token.expires_in


def _form(url: str, fields: Mapping[str, str], headers: tuple[tuple[str, str], ...] = ()) -> WireRequest:
    return WireRequest(url=url, body=urlencode(fields).encode(), headers=(*_FORM, *headers))


async def client_token(auth: EntraAuth | OAuthClientAuth, http: TokenHttp) -> tuple[str, float]:
    """A token by the client-credentials flow, and its lifetime in seconds. Raises ServiceError."""
    if isinstance(auth, EntraAuth):
        fields = {
            "grant_type": "client_credentials",
            "client_id": auth.client_id,
            "client_secret": auth.client_secret.reveal(),
            "scope": auth.scope,
        }
        url = f"{auth.authority.rstrip('/')}/{quote(auth.tenant_id, safe='')}/oauth2/v2.0/token"
        return await _token(http, _form(url, fields), "Microsoft Entra ID")
    # RFC 6749, 2.3.1: id and secret are form-encoded before they become a Basic credential.
    pair = f"{quote(auth.client_id, safe='')}:{quote(auth.client_secret.reveal(), safe='')}"
    basic = ("authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    fields = {"grant_type": "client_credentials", "scope": auth.scope}
    return await _token(http, _form(auth.token_url, fields, (basic,)), "the provider's token service")


# --- Google -----------------------------------------------------------------------------------------------------


class _ServiceAccount(Struct, tag="service_account", tag_field="type"):
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = _GOOGLE_TOKEN_URL


class _AuthorizedUser(Struct, tag="authorized_user", tag_field="type"):
    client_id: str
    client_secret: str
    refresh_token: str
    token_uri: str = _GOOGLE_TOKEN_URL


_GoogleFile = _ServiceAccount | _AuthorizedUser


async def google_token(
    auth: GoogleAuth, http: TokenHttp, clock: Clock, environment: Mapping[str, str]
) -> tuple[str, float]:
    """A Google access token, and its lifetime in seconds. Raises ServiceError.

    Without a service account the machine's default credentials are used, in Google's order: the file that
    GOOGLE_APPLICATION_CREDENTIALS names, gcloud's own file, the metadata server.
    """
    if auth.service_account is not None:
        return await _file_token(auth.service_account.reveal().encode(), auth, http, clock)
    content = await asyncio.to_thread(_default_file, environment)
    if content is not None:
        return await _file_token(content, auth, http, clock)
    host = environment.get("GCE_METADATA_HOST") or "metadata.google.internal"
    query = urlencode({"scopes": auth.scope})
    wire = WireRequest(
        method="GET",
        url=f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token?{query}",
        headers=(("metadata-flavor", "Google"),),
        body=b"",
    )
    return await _token(http, wire, "Google's metadata server")


def _default_file(environment: Mapping[str, str]) -> bytes | None:
    named = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        try:
            return Path(named).read_bytes()
        except OSError:
            raise unavailable("the file that GOOGLE_APPLICATION_CREDENTIALS names cannot be read") from None
    folder = environment.get("CLOUDSDK_CONFIG") or f"{environment.get('HOME', '')}/.config/gcloud"
    try:
        return (Path(folder) / "application_default_credentials.json").read_bytes()
    except OSError:
        return None


async def _file_token(content: bytes, auth: GoogleAuth, http: TokenHttp, clock: Clock) -> tuple[str, float]:
    try:
        account = msgspec.json.decode(content, type=_GoogleFile)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise unavailable(
            "the Google credentials are not the JSON of a service account or of an authorized user"
        ) from None
    url = account.token_uri if auth.token_url == _GOOGLE_TOKEN_URL else auth.token_url
    if isinstance(account, _AuthorizedUser):
        fields = {
            "grant_type": "refresh_token",
            "client_id": account.client_id,
            "client_secret": account.client_secret,
            "refresh_token": account.refresh_token,
        }
    else:
        # An RSA signature takes milliseconds.
        assertion = await asyncio.to_thread(_assertion, account, auth.scope, url, clock.now_ns() // 1_000_000_000)
        fields = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    return await _token(http, _form(url, fields), "Google's token service")


def _assertion(account: _ServiceAccount, scope: str, audience: str, now_s: int) -> str:
    """The signed JWT by which a service account asks for a token (RS256)."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    try:
        key = serialization.load_pem_private_key(account.private_key.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise unavailable("the private key of the Google service account is not an RSA key in PEM form")
    header = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
    claims = {
        "iss": account.client_email,
        "scope": scope,
        "aud": audience,
        "iat": now_s,
        "exp": now_s + _JWT_LIFETIME_S,
    }
    signed = b".".join(_base64url(msgspec.json.encode(part)) for part in (header, claims))
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + _base64url(signature)).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
