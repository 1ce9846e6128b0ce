"""Signatures against AWS's published vectors, and against botocore's own signing."""

from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.types.auth import AwsKeys
from gateway.types.model_io import WireRequest
from gateway.types.secret import Secret
from gateway.upstream.sigv4 import sign
from tests.clocks import ManualClock

KEYS = AwsKeys("AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
NOW_NS = ManualClock().now_ns()


@pytest.mark.parametrize(
    ("wire", "service", "signature"),
    [
        pytest.param(
            WireRequest(method="POST", url="https://example.amazonaws.com/", body=b"", headers=()),
            "service",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            id="post-vanilla",
        ),
        pytest.param(
            WireRequest(
                method="GET",
                url="https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
                body=b"",
                headers=(("content-type", "application/x-www-form-urlencoded; charset=utf-8"),),
            ),
            "iam",
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            id="iam-list-users",
        ),
    ],
)
def test_published_vectors(wire: WireRequest, service: str, signature: str) -> None:
    """The signatures that AWS documents come out to the letter."""
    headers = dict(sign(wire, KEYS, "us-east-1", service, NOW_NS))
    assert headers["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    "url",
    [
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke",
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fa.b/converse-stream",
        "http://127.0.0.1:8080/model/m/converse?b=2&a=1",
    ],
)
@pytest.mark.parametrize("token", [None, "session/token+="])
def test_same_as_botocore(url: str, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For quoted model names, ports and session tokens the headers are those that botocore itself would send."""
    now = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    expected = AWSRequest(method="POST", url=url, data=b'{"a":1}', headers={"content-type": "application/json"})
    SigV4Auth(Credentials(KEYS.access_key_id, KEYS.secret_access_key.reveal(), token), "bedrock", "us-east-1").add_auth(
        expected
    )
    keys = AwsKeys(KEYS.access_key_id, KEYS.secret_access_key, Secret(token) if token else None)
    signed = dict(sign(WireRequest(url=url, body=b'{"a":1}'), keys, "us-east-1", "bedrock", NOW_NS))
    wanted = {name.lower(): value for name, value in expected.headers.items()}
    assert signed == {name: value for name, value in wanted.items() if name != "content-type"}
