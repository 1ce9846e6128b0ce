"""Providers whose credentials, framing or shape are their own, through the whole gateway and over real HTTP."""

import json
from typing import Any
from urllib.parse import parse_qs

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.types.errors import ErrorType
from tests.aws_events import message
from tests.conftest import StartGateway
from tests.replies import RecordedRequest, StreamReply, json_reply
from tests.scripted_upstream import ScriptedUpstream

MESSAGES = [{"role": "user", "content": "Hello"}]
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"


def one_route(route_type: str, provider: str, model: str, config: dict[str, Any], section: str = "endpoints") -> str:
    """A file with the one route `r`."""
    key = "route_type" if section == "routes" else "endpoint_type"
    model_file = {"provider": provider, "name": model, "config": config}
    return json.dumps({section: [{"name": "r", key: f"llm/v1/{route_type}", "model": model_file}]})


def chunks_of(body: str) -> list[dict[str, Any]]:
    """The JSON events of a stream that ends in [DONE]."""
    *events, done, rest = body.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    # Comments, such as the cost at the end, are no events.
    return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]


def bedrock(upstream: ScriptedUpstream, **aws: str) -> dict[str, Any]:
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI"}
    return {"bedrock_api_base": upstream.url, "aws_config": keys | aws}


def signed_again(request: RecordedRequest, upstream: ScriptedUpstream, region: str) -> str:
    """The authorization that AWS computes from what arrived."""
    names = (request.header("authorization") or "").partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest(
        method=request.method,
        url=upstream.url + request.path,
        data=request.body,
        headers={name: request.header(name) for name in names},
    )
    again.context["timestamp"] = request.header("x-amz-date")
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI"), "bedrock", region)
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return f"AWS4-HMAC-SHA256 Credential={signer.scope(again)}, SignedHeaders={';'.join(names)}, Signature={signature}"


async def test_bedrock_accepts_the_signature_of_what_it_gets(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Path, host and body arrive as they were signed, with the region of the machine's own variable."""
    config = one_route("chat", "amazon-bedrock", CLAUDE, bedrock(upstream))
    gateway = await start_gateway(config, environment={"AWS_REGION": "eu-central-1"})
    upstream.script(
        json_reply(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 8, "outputTokens": 2, "totalTokens": 10},
            }
        )
    )
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "r", "messages": MESSAGES})
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "Hi"
    request = upstream.requests[0]
    assert request.path == "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
    assert request.header("host") == upstream.url.removeprefix("http://")
    assert request.header("authorization") == signed_again(request, upstream, "eu-central-1")
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.gen_ai_provider == "aws.bedrock"
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (8, 2)


async def test_a_bedrock_stream_becomes_server_sent_events(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Binary frames, cut in the middle, reach the caller as OpenAI's chunks, the usage too when asked for."""
    gateway = await start_gateway(one_route("chat", "bedrock", CLAUDE, bedrock(upstream, aws_region="us-east-1")))
    frames = b"".join(
        message(name, json.dumps(payload).encode())
        for name, payload in (
            ("messageStart", {"role": "assistant"}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": {"inputTokens": 8, "outputTokens": 2, "totalTokens": 10}}),
        )
    )
    upstream.script(StreamReply([frames[:150], frames[150:]], content_type="application/vnd.amazon.eventstream"))
    body = {"model": "r", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    reply = await gateway.client.post("/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, last, usage = chunks_of(reply.text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["total_tokens"] == 10
    assert upstream.requests[0].path.endswith("/converse-stream")
    assert (await gateway.records.last()).attempts[0].finish_reasons == ("stop",)


async def test_a_throttled_bedrock_stream_is_the_providers_error(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """An exception frame ends the stream with its own cause, in the caller's stream and in the record."""
    gateway = await start_gateway(one_route("chat", "bedrock", CLAUDE, bedrock(upstream, aws_region="us-east-1")))
    frames = message("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hi"}}')
    frames += message("throttlingException", b'{"message":"Too many tokens"}', kind="exception")
    upstream.script(StreamReply([frames], content_type="application/vnd.amazon.eventstream"))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "r", "messages": MESSAGES, "stream": True})
    assert "Too many tokens" in reply.text
    assert (await gateway.records.last()).error_type is ErrorType.PROVIDER_RATE_LIMITED


async def test_a_cohere_stream_of_lines_becomes_server_sent_events(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """JSON lines reach the caller as OpenAI's chunks."""
    config = {"cohere_api_key": "co", "cohere_api_base": upstream.url + "/v1"}
    gateway = await start_gateway(one_route("chat", "cohere", "command-r", config))
    lines = (
        {"event_type": "stream-start", "generation_id": "g"},
        {"event_type": "text-generation", "text": "How are you"},
        {
            "event_type": "stream-end",
            "finish_reason": "COMPLETE",
            "response": {"response_id": "r-1", "token_count": {"prompt_tokens": 3, "response_tokens": 4}},
        },
    )
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    upstream.script(StreamReply([data[:90], data[90:]], content_type="application/stream+json"))
    reply = await gateway.client.post("/endpoints/r/invocations", json={"messages": MESSAGES, "stream": True})
    first, last = chunks_of(reply.text)
    assert first["choices"][0]["delta"]["content"] == "How are you"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert upstream.requests[0].header("authorization") == "Bearer co"
    attempt = (await gateway.records.last()).attempts[0]
    assert attempt.response_id == "r-1"
    assert attempt.usage is not None
    assert attempt.usage.output_tokens == 4


async def test_a_service_principal_gets_one_token_for_many_requests(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Databricks' token service is asked once; its token is on every request."""
    environment = {
        "DATABRICKS_HOST": upstream.url,
        "DATABRICKS_CLIENT_ID": "app",
        "DATABRICKS_CLIENT_SECRET": "secret",
    }
    gateway = await start_gateway(one_route("chat", "databricks", "dbrx", {}), environment=environment)
    answer = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "dbrx",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    upstream.script(
        json_reply({"access_token": "dbx-token", "expires_in": 3600}), json_reply(answer), json_reply(answer)
    )
    for _ in range(2):
        reply = await gateway.client.post("/v1/chat/completions", json={"model": "r", "messages": MESSAGES})
        assert reply.status_code == 200, reply.text
    paths = [request.path for request in upstream.requests]
    assert paths == ["/oidc/v1/token", "/serving-endpoints/chat/completions", "/serving-endpoints/chat/completions"]
    assert parse_qs(upstream.requests[0].body.decode())["grant_type"] == ["client_credentials"]
    assert {request.header("authorization") for request in upstream.requests[1:]} == {"Bearer dbx-token"}


async def test_a_refused_credential_is_the_gateways_error_and_says_no_secret(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Without a token nothing is sent to the model, and the caller learns that the gateway has no credential."""
    config = {"host": upstream.url, "client_id": "app", "client_secret": "hush-hush"}
    gateway = await start_gateway(one_route("chat", "databricks", "dbrx", config))
    upstream.script(json_reply({"error": "invalid_client", "error_description": "hush-hush"}, status=401))
    reply = await gateway.client.post("/v1/chat/completions", json={"model": "r", "messages": MESSAGES})
    assert reply.status_code >= 500
    assert "invalid_client" in reply.text
    assert "hush-hush" not in reply.text
    assert upstream.hits == 1
    assert (await gateway.records.last()).error_type is ErrorType.CREDENTIAL_UNAVAILABLE


async def test_the_original_shape_reaches_a_provider_as_it_did(
    upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """A Text Generation Inference route of a 2.8 file gets its own temperature, and gives finish reason and seed."""
    config = {"hf_server_url": upstream.url}
    gateway = await start_gateway(
        one_route("completions", "huggingface-text-generation-inference", "falcon", config, section="routes")
    )
    details = {"finish_reason": "eos_token", "generated_tokens": 2, "prefill": [{"id": 1, "text": "a"}], "seed": 42}
    upstream.script(json_reply({"generated_text": "b", "details": details}))
    reply = await gateway.client.post("/gateway/r/invocations", json={"prompt": "a", "temperature": 0.3})
    assert reply.json() == {
        "candidates": [{"text": "b", "metadata": {"finish_reason": "eos_token", "seed": "42"}}],
        "metadata": {
            "input_tokens": 1,
            "output_tokens": 2,
            "total_tokens": 3,
            "model": "falcon",
            "route_type": "llm/v1/completions",
        },
    }
    assert upstream.requests[0].json() == {
        "inputs": "a",
        "parameters": {"temperature": 0.3, "candidate_count": 1, "details": True, "decoder_input_details": True},
    }
