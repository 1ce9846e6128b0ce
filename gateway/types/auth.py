"""Ways to authenticate at an upstream, as values: a provider names one, `gateway.upstream` turns it into headers."""

from msgspec import Struct

from gateway.types.secret import Secret


class HeaderAuth(Struct, frozen=True, kw_only=True):
    """Credential headers that do not change, such as `authorization: Bearer ...`. No header: an open upstream."""

    headers: tuple[tuple[str, Secret], ...] = ()


class EntraAuth(Struct, frozen=True, kw_only=True):
    """A Microsoft Entra ID token by the client-credentials flow."""

    tenant_id: str
    client_id: str
    client_secret: Secret
    scope: str = "https://cognitiveservices.azure.com/.default"
    authority: str = "https://login.microsoftonline.com"


class GoogleAuth(Struct, frozen=True, kw_only=True):
    """A Google OAuth token from a service account's JSON, or from the machine's default credentials when None."""

    service_account: Secret | None = None
    scope: str = "https://www.googleapis.com/auth/cloud-platform"
    token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a secret


class AwsAuth(Struct, frozen=True, kw_only=True):
    """AWS Signature Version 4, from static keys, an assumed role, or the default chain."""

    region: str
    service: str = "bedrock"
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    role_arn: str | None = None
    session_length_s: int = 900
    sts_url: str | None = None


class AwsKeys(Struct, frozen=True):
    """What a request is signed with."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


class OAuthClientAuth(Struct, frozen=True, kw_only=True):
    """A bearer token by OAuth's client-credentials flow (Databricks machine-to-machine)."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str = "all-apis"


Auth = HeaderAuth | EntraAuth | GoogleAuth | AwsAuth | OAuthClientAuth
