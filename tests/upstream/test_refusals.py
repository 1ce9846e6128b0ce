"""What becomes of a provider's refusal: cause, text and when to come again."""

import pytest

from gateway.providers.spec import default_fault
from gateway.types.auth import HeaderAuth
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import Fault, WireRequest
from gateway.types.route import Timeouts
from gateway.types.secret import Secret
from gateway.upstream.client import UpstreamClient
from gateway.upstream.credentials import Credentials
from gateway.upstream.pool import Pool
from tests.clocks import ManualClock
from tests.scripted_upstream import Reply, ScriptedUpstream, json_reply


class NoService:
    """No credential is fetched here."""

    async def __call__(
        self, method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[int, bytes]:
        raise AssertionError("a fixed header needs no service")


async def refused(reply: Reply, fault: Fault | None = None, auth: HeaderAuth = HeaderAuth()) -> UpstreamError:  # noqa: B008 - frozen
    """The error that a reply is told as; with a fault, that is what its body says."""
    clock = ManualClock()
    async with ScriptedUpstream() as upstream:
        upstream.script(reply)
        pool = Pool()
        client = UpstreamClient(pool, Credentials(NoService(), clock, {}), clock)
        read = default_fault if fault is None else lambda status, body: fault
        try:
            with pytest.raises(UpstreamError) as refusal:
                await client.send(WireRequest(url=upstream.url, body=b"{}"), auth, Timeouts(), read)
        finally:
            await pool.close()
    return refusal.value


@pytest.mark.parametrize(("headers", "wait_s"), [((), 21.5), ((("retry-after", "3"),), 3.0)])
async def test_a_wait_stands_in_the_body_or_in_a_header(headers: tuple[tuple[str, str], ...], wait_s: float) -> None:
    """Vendors without a retry header may name the wait in the body; a header, where there is one, decides."""
    error = await refused(json_reply({}, status=429, headers=headers), Fault(message="Slow.", retry_after_s=21.5))
    assert (error.error_type, error.retryable, error.retry_after_s) == (ErrorType.PROVIDER_RATE_LIMITED, True, wait_s)


@pytest.mark.parametrize("value", ["{}", "Bearer {}"])
async def test_a_refusal_does_not_tell_the_key(value: str) -> None:
    """A provider that quotes the key which it refuses does not thereby give it to the caller."""
    key = "sk-0123456789abcdefghij"
    auth = HeaderAuth(headers=(("authorization", Secret(value.format(key))),))
    said = {"error": {"message": f"Incorrect API key provided: {key}."}}
    error = await refused(json_reply(said, status=401), auth=auth)
    assert error.message == "Incorrect API key provided: ***."
    assert error.answer is not None
    assert key.encode() not in error.answer.body
