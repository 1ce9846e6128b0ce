"""What becomes of a provider's refusal: cause, text and when to come again."""

import pytest

from gateway.types.auth import HeaderAuth
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import Fault, WireRequest
from gateway.types.route import Timeouts
from gateway.upstream.client import UpstreamClient
from gateway.upstream.credentials import Credentials
from gateway.upstream.pool import Pool
from tests.clocks import ManualClock
from tests.scripted_upstream import ScriptedUpstream, json_reply


class NoService:
    """No credential is fetched here."""

    async def __call__(
        self, method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> tuple[int, bytes]:
        raise AssertionError("a fixed header needs no service")


@pytest.mark.parametrize(("headers", "wait_s"), [((), 21.5), ((("retry-after", "3"),), 3.0)])
async def test_a_wait_stands_in_the_body_or_in_a_header(headers: tuple[tuple[str, str], ...], wait_s: float) -> None:
    """Vendors without a retry header may name the wait in the body; a header, where there is one, decides."""
    clock = ManualClock()
    async with ScriptedUpstream() as upstream:
        upstream.script(json_reply({}, status=429, headers=headers))
        pool = Pool()
        client = UpstreamClient(pool, Credentials(NoService(), clock, {}), clock)
        try:
            with pytest.raises(UpstreamError) as refusal:
                await client.send(
                    WireRequest(url=upstream.url, body=b"{}"),
                    HeaderAuth(),
                    Timeouts(),
                    lambda status, body: Fault(message="Slow down.", retry_after_s=21.5),
                )
        finally:
            await pool.close()
    error = refusal.value
    assert (error.error_type, error.retryable, error.retry_after_s) == (ErrorType.PROVIDER_RATE_LIMITED, True, wait_s)
