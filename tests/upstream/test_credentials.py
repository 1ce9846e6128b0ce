"""Every way to authenticate, against a token service on a real socket."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.types.auth import AwsAuth, EntraAuth, GoogleAuth, HeaderAuth, OAuthClientAuth
from gateway.types.errors import ErrorType, ServiceError, UpstreamError
from gateway.types.model_io import WireRequest
from gateway.types.secret import Secret
from gateway.upstream.credentials import Credentials
from tests.clocks import ManualClock
from tests.scripted_upstream import BytesReply, ScriptedUpstream, json_reply

WIRE = WireRequest(url="https://provider.example/v1/chat", body=b"{}")


@pytest.fixture
async def service() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Http:
    """Real exchanges over httpx; a failure is what `gateway.upstream` makes of it."""

    async def __call__(
        self, method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[int, bytes]:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            try:
                reply = await client.request(method, url, headers=list(headers), content=body)
            except httpx.ConnectError as error:
                raise UpstreamError(ErrorType.CONNECT_FAILED, "unreachable", sent=False) from error
            return reply.status_code, reply.content


@pytest.fixture
def credentials(clock: ManualClock, tmp_path: Path) -> Credentials:
    return Credentials(Http(), clock, {"HOME": str(tmp_path)})


def form(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}


def entra(service: ScriptedUpstream) -> EntraAuth:
    return EntraAuth(tenant_id="contoso", client_id="app", client_secret=Secret("s3cr&t"), authority=service.url + "/")


async def test_fixed_headers_are_given_as_they_are(credentials: Credentials) -> None:
    """A fixed credential needs no service."""
    auth = HeaderAuth(headers=(("x-api-key", Secret("k")),))
    assert await credentials.headers(auth, WIRE) == (("x-api-key", "k"),)
    assert await credentials.headers(HeaderAuth(), WIRE) == ()


async def test_entra_id_asks_by_the_client_credentials_flow(
    service: ScriptedUpstream, credentials: Credentials
) -> None:
    """Entra ID gets the tenant in the path and id, secret and scope in the form; its token becomes the bearer."""
    service.script(json_reply({"token_type": "Bearer", "expires_in": 3599, "access_token": "entra-token"}))
    assert await credentials.headers(entra(service), WIRE) == (("authorization", "Bearer entra-token"),)
    request = service.requests[0]
    assert (request.method, request.path) == ("POST", "/contoso/oauth2/v2.0/token")
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    assert form(request.body) == {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": "s3cr&t",
        "scope": "https://cognitiveservices.azure.com/.default",
    }


async def test_oauth_client_sends_a_basic_credential(service: ScriptedUpstream, credentials: Credentials) -> None:
    """Databricks' flow has id and secret in the Basic credential, and only grant and scope in the form."""
    service.script(json_reply({"access_token": "dbx", "expires_in": "3600"}))
    auth = OAuthClientAuth(token_url=service.url + "/oidc/v1/token", client_id="id:1", client_secret=Secret("se cret"))
    assert await credentials.headers(auth, WIRE) == (("authorization", "Bearer dbx"),)
    request = service.requests[0]
    assert base64.b64decode((request.header("authorization") or "").removeprefix("Basic ")) == b"id%3A1:se%20cret"
    assert form(request.body) == {"grant_type": "client_credentials", "scope": "all-apis"}


async def test_a_token_is_fetched_once_and_renewed_after_its_life(
    service: ScriptedUpstream, credentials: Credentials, clock: ManualClock
) -> None:
    """Concurrent and later requests of equal accounts share a token until it expires."""
    service.script(json_reply({"access_token": "one", "expires_in": 3600}))
    results = await asyncio.gather(*(credentials.headers(entra(service), WIRE) for _ in range(20)))
    assert set(results) == {(("authorization", "Bearer one"),)}
    assert service.hits == 1
    clock.advance(3600)
    service.script(json_reply({"access_token": "two", "expires_in": 3600}))
    assert await credentials.headers(entra(service), WIRE) == (("authorization", "Bearer two"),)
    assert service.hits == 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            json_reply({"error": "invalid_client", "error_description": "secret s3cr&t is bad"}, status=401),
            "401 (invalid_client)",
        ),
        (json_reply({"error": "s3cr&t leaked <here>"}, status=400), "status 400."),
        (BytesReply(b"<html>s3cr&t</html>", status=502, content_type="text/html"), "status 502."),
        (json_reply({"token": "s3cr&t"}), "without an access token"),
        (BytesReply(b"s3cr&t"), "without an access token"),
    ],
)
async def test_a_refusing_token_service_is_a_typed_error_without_secrets(
    service: ScriptedUpstream, credentials: Credentials, reply: BytesReply, said: str
) -> None:
    """Whatever the token service answers, the caller sees the status or the error code and nothing else."""
    service.script(reply)
    with pytest.raises(ServiceError) as caught:
        await credentials.headers(entra(service), WIRE)
    assert caught.value.error_type is ErrorType.CREDENTIAL_UNAVAILABLE
    assert said in caught.value.message
    assert "s3cr" not in caught.value.message


async def test_an_unreachable_token_service_may_be_tried_again(
    service: ScriptedUpstream, credentials: Credentials, unused_tcp_port: int
) -> None:
    """A token service that cannot be reached is the gateway's failure, with a hint to try again."""
    auth = EntraAuth(
        tenant_id="t", client_id="a", client_secret=Secret("x"), authority=f"http://127.0.0.1:{unused_tcp_port}"
    )
    with pytest.raises(ServiceError) as caught:
        await credentials.headers(auth, WIRE)
    assert caught.value.error_type is ErrorType.CREDENTIAL_UNAVAILABLE
    assert "connect_failed" in caught.value.message
    assert caught.value.retry_after_s == 1.0


# --- Google -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def service_account(key: rsa.RSAPrivateKey, token_uri: str) -> str:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "kid-1",
            "private_key": pem.decode(),
            "client_email": "robot@p.iam.gserviceaccount.com",
            "token_uri": token_uri,
        }
    )


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_a_google_service_account_signs_its_own_assertion(
    service: ScriptedUpstream, credentials: Credentials, clock: ManualClock, rsa_key: rsa.RSAPrivateKey
) -> None:
    """The assertion is an RS256 JWT with Google's claims, whose signature the account's public key verifies."""
    service.script(json_reply({"access_token": "ya29", "expires_in": 3599, "token_type": "Bearer"}))
    auth = GoogleAuth(service_account=Secret(service_account(rsa_key, service.url + "/token")))
    assert await credentials.headers(auth, WIRE) == (("authorization", "Bearer ya29"),)
    sent = form(service.requests[0].body)
    assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims, signature = sent["assertion"].split(".")
    rsa_key.public_key().verify(decoded(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(decoded(header)) == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    now_s = clock.now_ns() // 1_000_000_000
    assert json.loads(decoded(claims)) == {
        "iss": "robot@p.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": service.url + "/token",
        "iat": now_s,
        "exp": now_s + 3600,
    }


async def test_google_default_credentials_come_from_the_named_file(
    service: ScriptedUpstream, clock: ManualClock, tmp_path: Path
) -> None:
    """An authorized user's file exchanges its refresh token."""
    path = tmp_path / "adc.json"
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    path.write_text(json.dumps(user | {"token_uri": service.url + "/t", "quota_project_id": "p"}))
    service.script(json_reply({"access_token": "user-token", "expires_in": 3599}))
    credentials = Credentials(Http(), clock, {"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    assert await credentials.headers(GoogleAuth(), WIRE) == (("authorization", "Bearer user-token"),)
    assert form(service.requests[0].body) == {
        "grant_type": "refresh_token",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
    }


async def test_google_default_credentials_fall_back_to_the_metadata_server(
    service: ScriptedUpstream, clock: ManualClock, tmp_path: Path
) -> None:
    """On a machine without files the metadata server gives the token, asked with its required header."""
    service.script(json_reply({"access_token": "vm-token", "expires_in": 3599}))
    environment = {"HOME": str(tmp_path), "GCE_METADATA_HOST": service.url.removeprefix("http://")}
    credentials = Credentials(Http(), clock, environment)
    assert await credentials.headers(GoogleAuth(), WIRE) == (("authorization", "Bearer vm-token"),)
    request = service.requests[0]
    assert request.method == "GET"
    assert request.path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert request.header("metadata-flavor") == "Google"


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        '{"type": "external_account"}',
        '{"type":"service_account","client_email":"a","private_key":"s3cret"}',
    ],
)
async def test_unusable_google_credentials_are_refused_without_quoting_them(
    credentials: Credentials, content: str
) -> None:
    """A wrong file is named as such, and its content stays out of the text."""
    with pytest.raises(ServiceError) as caught:
        await credentials.headers(GoogleAuth(service_account=Secret(content)), WIRE)
    assert caught.value.error_type is ErrorType.CREDENTIAL_UNAVAILABLE
    assert "Google" in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_a_missing_named_file_is_said(clock: ManualClock, tmp_path: Path) -> None:
    """A file that the environment names and that is not there is an error, not a reason to look elsewhere."""
    credentials = Credentials(Http(), clock, {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")})
    with pytest.raises(ServiceError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        await credentials.headers(GoogleAuth(), WIRE)


# --- AWS --------------------------------------------------------------------------------------------------------

STATIC = AwsAuth(
    region="us-east-1",
    service="service",
    access_key_id="AKIDEXAMPLE",
    secret_access_key=Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
)
ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/demo/gaugeway</Arn></AssumedRoleUser>
<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>rolesecret</SecretAccessKey>
<SessionToken>AQoDYXdz/+=token</SessionToken><Expiration>2015-08-30T12:51:00Z</Expiration></Credentials>
</AssumeRoleResult></AssumeRoleResponse>"""


async def test_static_aws_keys_sign_with_the_gateways_clock(credentials: Credentials) -> None:
    """AWS's own test vector `get-vanilla` comes out to the letter."""
    wire = WireRequest(method="GET", url="https://example.amazonaws.com/", body=b"", headers=())
    assert await credentials.headers(STATIC, wire) == (
        ("x-amz-date", "20150830T123600Z"),
        (
            "authorization",
            (
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
                "SignedHeaders=host;x-amz-date, "
                "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
            ),
        ),
    )


async def test_a_large_body_signs_the_same_in_a_thread(credentials: Credentials, clock: ManualClock) -> None:
    """Where a signature is computed does not change it."""
    from gateway.types.auth import AwsKeys
    from gateway.upstream.sigv4 import sign

    assert STATIC.access_key_id is not None
    assert STATIC.secret_access_key is not None
    wire = WireRequest(url="https://bedrock-runtime.us-east-1.amazonaws.com/model/m/converse", body=b"x" * 300_000)
    keys = AwsKeys(STATIC.access_key_id, STATIC.secret_access_key)
    assert await credentials.headers(STATIC, wire) == sign(wire, keys, "us-east-1", "service", clock.now_ns())


async def test_a_role_is_assumed_and_renewed(
    service: ScriptedUpstream, credentials: Credentials, clock: ManualClock
) -> None:
    """STS is asked once, signed with the account's keys; requests are signed with the role's keys and its token."""
    auth = AwsAuth(
        region="eu-west-1",
        access_key_id="AKIDEXAMPLE",
        secret_access_key=Secret("base-secret"),
        role_arn="arn:aws:iam::123456789012:role/demo",
        session_length_s=900,
        sts_url=service.url + "/",
    )
    service.script(BytesReply(ASSUMED.encode(), content_type="text/xml"))
    headers = dict(await credentials.headers(auth, WIRE))
    assert headers["x-amz-security-token"] == "AQoDYXdz/+=token"
    assert "Credential=ASIAROLE/20150830/eu-west-1/bedrock/aws4_request" in headers["authorization"]
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token" in headers["authorization"]
    request = service.requests[0]
    assert "Credential=AKIDEXAMPLE/20150830/eu-west-1/sts/aws4_request" in (request.header("authorization") or "")
    assert form(request.body) == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::123456789012:role/demo",
        "RoleSessionName": "gaugeway",
        "DurationSeconds": "900",
    }
    await credentials.headers(auth, WIRE)
    assert service.hits == 1
    clock.advance(900)
    service.script(BytesReply(ASSUMED.replace("12:51:00Z", "13:21:00.123Z").encode(), content_type="text/xml"))
    await credentials.headers(auth, WIRE)
    assert service.hits == 2


@pytest.mark.parametrize("body", [b"<AssumeRoleResponse/>", ASSUMED.replace("2015-08-30T12:51:00Z", "soon").encode()])
async def test_an_unreadable_sts_answer_is_a_typed_error(
    service: ScriptedUpstream, credentials: Credentials, body: bytes
) -> None:
    """An answer without keys or without a date is not used."""
    auth = AwsAuth(
        region="eu-west-1",
        access_key_id="A",
        secret_access_key=Secret("s"),
        role_arn="arn:aws:iam::1:role/r",
        sts_url=service.url,
    )
    service.script(BytesReply(body, content_type="text/xml"))
    with pytest.raises(ServiceError, match="AWS STS answered without keys"):
        await credentials.headers(auth, WIRE)


async def test_the_default_chain_reads_the_environment(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without keys in the configuration AWS's own chain is asked, the environment first."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
    headers = dict(await credentials.headers(AwsAuth(region="us-west-2"), WIRE))
    assert "Credential=AKIDENV/20150830/us-west-2/bedrock/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "env-token"


async def test_an_empty_default_chain_is_a_typed_error(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine without any AWS keys says so."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ServiceError, match="found no keys") as caught:
        await credentials.headers(AwsAuth(region="us-west-2"), WIRE)
    assert caught.value.error_type is ErrorType.CREDENTIAL_UNAVAILABLE
