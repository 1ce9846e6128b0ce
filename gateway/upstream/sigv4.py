"""AWS Signature Version 4 of one request, by botocore's signer with the gateway's clock.

Importing this module imports botocore, which takes a while: do it in a thread.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from datetime import UTC, datetime

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from gateway.types.auth import AwsKeys
from gateway.types.model_io import WireRequest


def sign(wire: WireRequest, keys: AwsKeys, region: str, service: str, now_ns: int) -> tuple[tuple[str, str], ...]:
    """The headers to send beside `wire.headers`: `x-amz-date`, `authorization`, and the session's token if there is one.

    Signed are the method, the URL as it is (its path must be percent-encoded already), the body, `wire.headers`, the
    host and what is returned. `now_ns` is nanoseconds since the epoch; AWS accepts 5 minutes of difference.
    """
    timestamp = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": timestamp}
    if keys.session_token is not None:
        added["x-amz-security-token"] = keys.session_token.reveal()
    request = AWSRequest(method=wire.method, url=wire.url, data=wire.body, headers=dict(wire.headers) | added)
    request.context["timestamp"] = timestamp
    # The steps of SigV4Auth.add_auth, which would take the time from the system.
    signer = SigV4Auth(BotoCredentials(keys.access_key_id, keys.secret_access_key.reveal()), service, region)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    signed_headers = signer.signed_headers(signer.headers_to_sign(request))
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={signed_headers}, Signature={signature}"
    )
    return (*added.items(), ("authorization", authorization))
