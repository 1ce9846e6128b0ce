"""The same facts in the reply, the record and the metrics."""

from gateway.telemetry import names
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_usage
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream


async def test_reply_record_and_metrics_agree(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """One request leaves one record and one attempt, with the reply's trace id, and its tokens are counted once."""
    gateway = await start_gateway(routes_yaml(upstream.url, "endpoints"))
    upstream.script(openai_chat("hi", usage=openai_usage(11, 4)))
    reply = await gateway.client.post(
        "/v1/chat/completions", json={"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    )
    assert reply.status_code == 200
    record = await gateway.records.last()
    assert record.trace.trace_id_hex == reply.headers["x-gateway-trace-id"]
    assert (record.route, record.status_code, len(record.attempts)) == ("chat", 200, 1)
    assert record.attempts[0].usage is not None
    assert record.attempts[0].usage.input_tokens == 11
    assert gateway.metric(names.REQUESTS, route="chat", outcome="ok") == 1
    assert gateway.metric(names.TOKENS, route="chat", type="input") == 11
    assert gateway.metric(names.TOKENS, route="chat", type="output") == 4
