"""What a provider's failure becomes for the caller, on each surface: status, body, headers, and what is measured."""

from typing import Any

import pytest

from gateway.telemetry import names
from tests.conftest import StartGateway
from tests.openai_replies import openai_error
from tests.replies import BytesReply, GarbageReply, HangupReply, Reply, SilentReply, json_reply
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

USER = [{"role": "user", "content": "hello"}]
SURFACES = {
    "/gateway/chat/invocations": {"messages": USER},
    "/v1/chat/completions": {"model": "chat", "messages": USER},
}
HTML = b"<html><title>502 Bad Gateway</title></html>"
UNSUPPORTED = "The returned data type from the route service is not supported. Received content type: text/html"


def page(status: int, content_type: str | None = "text/html; charset=utf-8") -> BytesReply:
    return BytesReply(HTML, status=status, content_type=content_type)


@pytest.mark.parametrize(
    ("reply", "status", "detail", "error_type"),
    [
        (openai_error(401, "Incorrect API key provided."), 401, "Incorrect API key provided.", "provider_auth"),
        (openai_error(403, "No access to this model."), 403, "No access to this model.", "provider_auth"),
        (openai_error(404, "The model does not exist."), 404, "The model does not exist.", "provider_not_found"),
        (openai_error(400, "Too many tokens."), 400, "Too many tokens.", "provider_invalid_request"),
        (openai_error(422, "Bad field."), 422, "Bad field.", "provider_invalid_request"),
        (openai_error(429, "Slow down."), 429, "Slow down.", "provider_rate_limited"),
        (openai_error(500, "Oops."), 500, "Oops.", "provider_error"),
        (openai_error(503, "Overloaded."), 503, "Overloaded.", "provider_overloaded"),
        (openai_error(529, "Overloaded."), 503, "Overloaded.", "provider_overloaded"),
        (json_reply({"message": "no", "code": 7}, status=400), 400, {"message": "no", "code": 7}, None),
        (json_reply({"detail": ["a"]}, status=404), 404, {"detail": ["a"]}, None),
        (BytesReply(b"no such thing", status=404, content_type="text/plain"), 404, {"message": "no such thing"}, None),
        (json_reply({"error": "model is loading"}, status=400), 400, "model is loading", None),
        (page(404), 404, UNSUPPORTED, None),
        (page(500), 502, UNSUPPORTED, None),
        (page(503), 503, UNSUPPORTED, None),
        (page(400, None), 400, "The provider answered with status 400.", None),
        (BytesReply(b"{", status=400), 400, "The provider answered with status 400.", None),
    ],
)
async def test_refusals_on_the_mlflow_surface(
    upstream: ScriptedUpstream,
    start_gateway: StartGateway,
    reply: Reply,
    status: int,
    detail: object,
    error_type: str | None,
) -> None:
    """The provider's status and words come through as the original showed them; what no retry mends is no 5xx."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(reply)
    answer = await gateway.client.post("/gateway/chat/invocations", json={"messages": USER})
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert answer.headers["content-type"] == "application/json"
    record = await gateway.records.last()
    assert answer.json()["trace_id"] == record.trace.trace_id_hex
    assert answer.json()["error_type"] == record.error_type == answer.headers["x-gateway-error-type"]
    if error_type is not None:
        assert record.error_type == error_type
    assert upstream.hits == 1


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize(
    ("reply", "status", "error_type"),
    [
        (page(200), 502, "unreadable_reply"),
        (BytesReply(b"data: {}\n\n", content_type="text/event-stream"), 502, "unreadable_reply"),
        (BytesReply(b"[1, 2"), 502, "unreadable_reply"),
        (json_reply({"unexpected": True}), 502, "unreadable_reply"),
        (GarbageReply(), 502, "unreadable_reply"),
        (HangupReply(), 502, "connection_lost"),
    ],
)
async def test_replies_that_are_none(
    upstream: ScriptedUpstream, start_gateway: StartGateway, path: str, reply: Reply, status: int, error_type: str
) -> None:
    """A reply that cannot be read is 502 by name; the gateway counts it and serves on."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(reply)
    answer = await gateway.client.post(path, json=SURFACES[path])
    assert (answer.status_code, answer.headers["x-gateway-error-type"]) == (status, error_type)
    await gateway.records.wait(1)
    assert gateway.metric(names.REQUESTS, route="chat", outcome="provider", error_type=error_type) == 1
    assert gateway.metric(names.REQUESTS_IN_FLIGHT, route="chat") == 0
    assert (await gateway.client.get("/health")).status_code == 200


@pytest.mark.parametrize("content_type", ["text/html", "text/event-stream", "application/xml; charset=utf-8"])
async def test_wrong_content_type(upstream: ScriptedUpstream, start_gateway: StartGateway, content_type: str) -> None:
    """A reply of another kind is 502 in MLflow's words, with the content type and without its parameters."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(BytesReply(b"data: x\n\n", content_type=content_type))
    answer = await gateway.client.post("/gateway/chat/invocations", json={"messages": USER})
    assert (answer.status_code, answer.json()["detail"]) == (
        502,
        "The returned data type from the route service is not supported. Received content type: "
        + content_type.partition(";")[0],
    )


@pytest.mark.parametrize("path", SURFACES)
async def test_nobody_listens(upstream: ScriptedUpstream, start_gateway: StartGateway, path: str) -> None:
    """A provider that cannot be reached is 502 `connect_failed`, where the original broke with 500."""
    config = routes_yaml(upstream.url)
    await upstream.__aexit__(None, None, None)
    gateway = await start_gateway(config)
    answer = await gateway.client.post(path, json=SURFACES[path])
    assert (answer.status_code, answer.headers["x-gateway-error-type"]) == (502, "connect_failed")


@pytest.mark.parametrize(
    ("timeouts", "error_type"),
    [("{first_byte_s: 0.05}", "first_byte_timeout"), ("{total_s: 0.05, first_byte_s: 30}", "total_timeout")],
)
@pytest.mark.parametrize("path", SURFACES)
async def test_timeouts(
    upstream: ScriptedUpstream, start_gateway: StartGateway, path: str, timeouts: str, error_type: str
) -> None:
    """A provider that takes too long is 504, which MLflow's clients do not send again."""
    gateway = await start_gateway(routes_yaml(upstream.url, extra=f"timeouts: {timeouts}"))
    upstream.script(SilentReply())
    answer = await gateway.client.post(path, json=SURFACES[path])
    assert (answer.status_code, answer.headers["x-gateway-error-type"]) == (504, error_type)


@pytest.mark.parametrize(
    ("header", "seconds"), [("retry-after", "7"), ("retry-after-ms", "6100"), ("x-ratelimit-reset-after", "6.5")]
)
@pytest.mark.parametrize("path", SURFACES)
async def test_retry_after(
    upstream: ScriptedUpstream, start_gateway: StartGateway, path: str, header: str, seconds: str
) -> None:
    """The provider's wait reaches the caller as Retry-After in whole seconds, rounded up, in each vendor's spelling."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_error(429, headers=[(header, seconds)]))
    answer = await gateway.client.post(path, json=SURFACES[path])
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "nope", "messages": USER}, 404, {"code": "unknown_route", "param": "model"}),
        ({"model": "embeddings", "messages": USER}, 400, {"code": "wrong_route_type", "param": "model"}),
        ({"messages": USER}, 400, {"code": "invalid_request", "param": "model"}),
        ({"model": 3, "messages": USER}, 400, {"code": "invalid_request", "param": "model"}),
        ({"model": "chat"}, 400, {"code": "invalid_request", "param": "messages"}),
        ({"model": "chat", "messages": []}, 400, {"code": "invalid_request", "param": "messages"}),
        ({"model": "chat", "messages": USER, "stream": "yes"}, 400, {"code": "invalid_request", "param": "stream"}),
        ([1], 400, {"code": "invalid_request", "param": None}),
    ],
)
async def test_wrong_requests_on_v1(
    upstream: ScriptedUpstream, start_gateway: StartGateway, body: object, status: int, error: dict[str, Any]
) -> None:
    """Mistakes on /v1 have OpenAI's error object with the closed code and the member that is wrong."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    answer = await gateway.client.post("/v1/chat/completions", json=body)
    found = answer.json()["error"]
    assert answer.status_code == status
    assert set(found) == {"message", "type", "param", "code", "error_type", "trace_id"}
    assert found["error_type"] == found["code"]
    assert {name: found[name] for name in error} == error
    assert found["type"] == "invalid_request_error"
    assert upstream.hits == 0


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (
            {"error": {"message": "Too long.", "type": "invalid_request_error", "code": "context_length_exceeded"}},
            "Too long.",
            "context_length_exceeded",
        ),
        ({"error": {"message": "Blocked.", "code": "content_filter", "status": 400}}, "Blocked.", "content_filter"),
        (
            {"message": "This model's maximum context length is 8192 tokens.", "code": 400},
            "This model's maximum context length is 8192 tokens.",
            "context_length_exceeded",
        ),
        (
            {
                "object": "error",
                "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
            },
            "seed: Extra inputs are not permitted",
            "provider_invalid_request",
        ),
        ({"detail": [{"type": "missing", "msg": "Field required"}]}, "Field required", "provider_invalid_request"),
        ({"detail": [{"type": "missing"}]}, "The provider answered with status 400.", "provider_invalid_request"),
        ({"error": {"message": "No.", "code": 7}}, "No.", "provider_invalid_request"),
    ],
)
async def test_a_providers_code_is_what_apps_look_at(
    upstream: ScriptedUpstream, start_gateway: StartGateway, body: object, message: str, code: str
) -> None:
    """The provider's own code and words reach OpenAI's clients; our word stands beside it."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(json_reply(body, status=400))
    answer = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER})
    found = answer.json()["error"]
    assert (answer.status_code, found["message"], found["code"]) == (400, message, code)
    assert found["error_type"] == answer.headers["x-gateway-error-type"] == "provider_invalid_request"


async def test_a_refusal_keeps_its_reasons(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Azure's filters reach the app that asks which one it was; what else a provider adds does not."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    filtered = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
    stated = {"message": "Filtered.", "code": "content_filter", "innererror": filtered, "account": "a-1"}
    upstream.script(json_reply({"error": stated}, status=400), json_reply({"error": stated}, status=403))
    request = {"model": "chat", "messages": USER}
    error = (await gateway.client.post("/v1/chat/completions", json=request)).json()["error"]
    assert (error["innererror"], error["code"], "account" in error) == (filtered, "content_filter", False)
    refused = (await gateway.client.post("/v1/chat/completions", json=request)).json()["error"]
    assert "innererror" not in refused


async def test_spent_money_is_not_waited_for(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A 429 that says that the account is empty is not tried again, since waiting mends nothing."""
    gateway = await start_gateway(routes_yaml(upstream.url, extra="retries: 2"))
    upstream.script(openai_error(429, "You exceeded your current quota.", code="insufficient_quota"))
    answer = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": USER})
    assert (answer.status_code, answer.json()["error"]["code"], upstream.hits) == (429, "insufficient_quota", 1)


async def test_wrong_type_and_unknown_route_in_words(start_gateway: StartGateway) -> None:
    """The sentences are MLflow's, so that what searches for them still finds them."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    for model, sentence in (
        ("nope", "Route nope not found in the configuration."),
        ("embeddings", "Endpoint 'embeddings' is not a chat endpoint."),
    ):
        answer = await gateway.client.post("/v1/chat/completions", json={"model": model, "messages": USER})
        assert answer.json()["error"]["message"].startswith(sentence)


async def test_method_and_size_on_v1(start_gateway: StartGateway) -> None:
    """GET is 405 with Allow, and a body over 64 MiB is 413."""
    gateway = await start_gateway(routes_yaml("http://provider.invalid"))
    answer = await gateway.client.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"
    large = await gateway.client.post("/v1/chat/completions", content=b" " * (64 * 1024 * 1024 + 1))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
