"""What the vendors' configurations may say, and what their replies must not be."""

import json
from typing import Any

import pytest

from gateway.config.errors import ConfigError
from gateway.providers.registry import PROVIDERS
from gateway.providers.spec import Endpoint
from gateway.types.errors import ErrorType, UpstreamError
from gateway.types.model_io import ModelRequest, StreamEvent
from gateway.types.route import Operation, Target
from tests.running_gateway import settings_of

KEYS = {"aws_access_key_id": "AKID", "aws_secret_access_key": "s"}


def target(
    provider: str, name: str, config: dict[str, Any] | None, route_type: str = "chat", **environment: str
) -> Target:
    """The target of a file with one route; raises ConfigError."""
    model = {"provider": provider, "name": name} | ({} if config is None else {"config": config})
    text = json.dumps({"endpoints": [{"name": "r", "endpoint_type": f"llm/v1/{route_type}", "model": model}]})
    return settings_of(text, environment).routes[0].targets[0]


def endpoint(found: Target) -> Endpoint:
    provider = PROVIDERS[found.provider.replace("-", "_")]
    return provider.connect(found.config, found.model)


@pytest.mark.parametrize(
    ("provider", "name", "config", "said"),
    [
        ("mosaicml", "mpt-7b", {"mosaicml_api_key": "k"}, "Ensure the model selected starts with one of: ['llama2']"),
        ("ai21labs", "j3", {"ai21labs_api_key": "k"}, "An Unsupported AI21Labs model has been specified: 'j3'."),
        ("cohere", "c", {"cohere_api_key": "k", "cohere_api_version": "v3"}, "v3"),
        ("cohere", "", {"cohere_api_key": "k"}, "model.name is required"),
        ("cohere", "c", None, "A config must be supplied"),
        ("portkey", "m", {"portkey_provider": "openai"}, "portkey_api_key is required"),
        ("bedrock", "m", {"aws_config": {}}, "aws_region"),
        ("bedrock", "m", {"aws_config": {"aws_region": "r", "aws_access_key_id": "a"}}, "belong together"),
        ("bedrock", "m", {"aws_config": {"aws_region": "r", "aws_bearer_token": "b", **KEYS}}, "stands alone"),
        (
            "bedrock",
            "m",
            {"aws_config": {"aws_region": "r", "aws_role_arn": "a", "session_length_seconds": 60}},
            "from 900 to 43200",
        ),
        ("bedrock", "m", {"aws_config": {"aws_region": "r", "aws_secret": "x"}}, "aws_secret"),
        ("databricks", "m", {}, "host is required"),
        ("databricks", "m", {"host": "h", "client_id": "c"}, "token is required, or client_id and client_secret"),
        ("mlflow-model-serving", "m", {}, "model_server_url: is required"),
    ],
)
def test_a_wrong_configuration_is_refused(provider: str, name: str, config: dict[str, Any] | None, said: str) -> None:
    """Each refusal names the field or keeps the words of the MLflow gateway."""
    with pytest.raises(ConfigError) as refusal:
        target(provider, name, config)
    assert said in str(refusal.value)


def test_a_mosaicml_route_for_completions_takes_any_model() -> None:
    """Only chats need a model whose template is known."""
    assert target("mosaicml", "mpt-7b", {"mosaicml_api_key": "k"}, "completions").model == "mpt-7b"


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_bedrocks_region_may_come_from_the_environment(variable: str) -> None:
    """A file of 2.8 without a region works where AWS's own clients work; a region in the file wins."""
    found = target("amazon-bedrock", "m", {"aws_config": {}}, **{variable: "eu-west-3"})
    assert found.provider == "bedrock"
    assert endpoint(found).base_url == "https://bedrock-runtime.eu-west-3.amazonaws.com"
    named = target("bedrock", "m", {"aws_config": {"aws_region": "us-west-2"}}, **{variable: "eu-west-3"})
    assert endpoint(named).base_url == "https://bedrock-runtime.us-west-2.amazonaws.com"


def test_databricks_credentials_of_file_and_environment_are_not_mixed() -> None:
    """A credential in the file keeps the environment's out; the host may still come from there."""
    environment = {"DATABRICKS_HOST": "https://a.example", "DATABRICKS_TOKEN": "environment"}
    auth = endpoint(target("databricks", "m", {"client_id": "i", "client_secret": "s"}, **environment)).auth
    assert getattr(auth, "token_url", None) == "https://a.example/oidc/v1/token"
    found = endpoint(target("databricks", "m", None, **environment)).auth
    assert getattr(found, "headers")[0][1].reveal() == "Bearer environment"  # noqa: B009


CANONICAL = (Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS)
ACCOUNTS: list[tuple[str, dict[str, Any], str]] = [
    ("ai21labs", {"ai21labs_api_key": "k"}, "j2-mid"),
    ("bedrock", {"aws_config": {"aws_region": "r"}}, "anthropic.claude-v2"),
    ("bedrock", {"aws_config": {"aws_region": "r"}}, "amazon.titan-x"),
    ("bedrock", {"aws_config": {"aws_region": "r"}}, "cohere.command"),
    ("bedrock", {"aws_config": {"aws_region": "r"}}, "ai21.j2"),
    ("cohere", {"cohere_api_key": "k"}, "m"),
    ("cohere", {"cohere_api_key": "k", "cohere_api_version": "v2"}, "m"),
    ("huggingface-text-generation-inference", {"hf_server_url": "http://h"}, "m"),
    ("mlflow-model-serving", {"model_server_url": "http://h"}, "m"),
    ("mosaicml", {"mosaicml_api_key": "k"}, "llama2-7b"),
    ("palm", {"palm_api_key": "k"}, "m"),
]


LENIENT = {("palm", Operation.CHAT), ("palm", Operation.COMPLETIONS), ("cohere", Operation.CHAT)}
"""Where every member may be missing: PaLM leaves its candidates out when it filters them all."""


UNREADABLE = [
    pytest.param(endpoint(target(provider, model, config)), operation, body, id=f"{provider}-{model}-{operation}-{n}")
    for provider, config, model in ACCOUNTS
    for operation in CANONICAL
    if operation in endpoint(target(provider, model, config)).dialect.codecs
    for n, body in enumerate((b"not json", b"[]", b"\xff", b'{"predictions": {}, "outputs": 1}'))
    if not (body.startswith(b"{") and (provider, operation) in LENIENT)
]


@pytest.mark.parametrize(("account", "operation", "body"), UNREADABLE)
def test_an_undocumented_reply_is_the_providers_fault(account: Endpoint, operation: Operation, body: bytes) -> None:
    """Whatever a provider sends instead of its documented reply is one typed error."""
    with pytest.raises(UpstreamError) as caught:
        account.dialect.codecs[operation].from_wire(body, ModelRequest(operation=operation, fields={}), account)
    assert caught.value.error_type is ErrorType.UNREADABLE_REPLY


@pytest.mark.parametrize(("provider", "config", "model"), ACCOUNTS)
def test_an_undocumented_event_is_the_providers_fault(provider: str, config: dict[str, Any], model: str) -> None:
    """So it is inside a stream."""
    account = endpoint(target(provider, model, config))
    for operation, codec in account.dialect.codecs.items():
        if codec.open_stream is None or operation not in CANONICAL:
            continue
        translator = codec.open_stream(ModelRequest(operation=operation, fields={}, stream=True), account)
        with pytest.raises(UpstreamError) as caught:
            translator.feed(StreamEvent(b"not json", b"", "contentBlockDelta"))
        assert caught.value.error_type is ErrorType.UNREADABLE_REPLY


@pytest.mark.parametrize(
    "predictions",
    [[], "text", [1], {"a": ["x"], "b": ["y"]}, {"choices": []}, {"choices": [1], "b": 2}],
)
def test_a_served_models_predictions_must_be_texts(predictions: object) -> None:
    """What cannot be told to be the texts is refused, with a reason."""
    account = endpoint(target("mlflow-model-serving", "m", {"model_server_url": "http://h"}))
    with pytest.raises(UpstreamError, match="served model's reply cannot be used"):
        account.dialect.codecs[Operation.CHAT].from_wire(
            json.dumps({"predictions": predictions}).encode(),
            ModelRequest(operation=Operation.CHAT, fields={}),
            account,
        )


@pytest.mark.parametrize("predictions", [[], [[]], [[0.5], []], [[0.5], 0.5], ["text"]])
def test_a_served_models_predictions_must_be_vectors(predictions: object) -> None:
    """Empty, mixed and worded vectors are refused, with a reason."""
    account = endpoint(target("mlflow-model-serving", "m", {"model_server_url": "http://h"}, "embeddings"))
    with pytest.raises(UpstreamError, match="served model's reply cannot be used"):
        account.dialect.codecs[Operation.EMBEDDINGS].from_wire(
            json.dumps({"predictions": predictions}).encode(),
            ModelRequest(operation=Operation.EMBEDDINGS, fields={}),
            account,
        )


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
@pytest.mark.parametrize("body", [b'{"usageMetadata":{"promptTokenCount":3}}', b'{"candidates":[]}'])
def test_a_reply_without_a_choice_is_none(operation: Operation, body: bytes) -> None:
    """Gemini sometimes answers with neither a candidate nor a reason: no client could do anything with it."""
    account = endpoint(target("gemini", "gemini-2.5-flash", {"gemini_api_key": "k"}))
    with pytest.raises(UpstreamError, match="holds no candidate") as caught:
        account.dialect.codecs[operation].from_wire(body, ModelRequest(operation=operation, fields={}), account)
    assert caught.value.error_type is ErrorType.UNREADABLE_REPLY
