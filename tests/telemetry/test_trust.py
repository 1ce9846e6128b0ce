"""Whose traces are continued."""

import pytest

from gateway.config.errors import ConfigError
from gateway.telemetry.trust import trusting
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat
from tests.running_gateway import routes_yaml, settings_of
from tests.scripted_upstream import ScriptedUpstream

THEIRS = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("rule", "address", "trusted"),
    [
        (True, "192.0.2.1", True),
        (False, "10.0.0.1", False),
        ((), "10.0.0.1", False),
        (("10.0.0.0/8",), "10.9.8.7", True),
        (("10.0.0.0/8",), "::ffff:10.9.8.7", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", True),
        (("10.0.0.0/8",), "", False),
    ],
)
def test_a_caller_is_trusted_by_its_network(rule: bool | tuple[str, ...], address: str, *, trusted: bool) -> None:
    """All, nobody, or those whose address lies in one of the networks, however it is written."""
    trusts = trusting(rule)
    assert [trusts(address), trusts(address)] == [trusted, trusted]


@pytest.mark.parametrize(("network", "continued"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
async def test_only_a_trusted_network_continues_its_trace(
    upstream: ScriptedUpstream, start_gateway: StartGateway, network: str, *, continued: bool
) -> None:
    """Over HTTP: a caller inside is continued, one outside gets a root of its own that links to its trace."""
    gateway = await start_gateway(f"telemetry: {{trust_inbound_trace: [{network}]}}\n" + routes_yaml(upstream.url))
    upstream.script(openai_chat())
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
    headers = {"traceparent": f"00-{THEIRS}-00f067aa0ba902b7-00"}
    reply = await gateway.client.post("/v1/chat/completions", json=body, headers=headers)
    trace = (await gateway.records.last()).trace
    assert (reply.headers["x-gateway-trace-id"] == THEIRS) == continued
    assert (trace.link_trace_id == int(THEIRS, 16)) == (not continued)


def test_a_network_that_is_none_is_refused() -> None:
    """The file is refused and says which."""
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/33"):
        settings_of("telemetry: {trust_inbound_trace: [10.0.0.0/33]}\n" + routes_yaml("http://127.0.0.1:1"))
