"""Configurations: what MLflow's files mean here, and how a wrong one is refused, by the path of its field."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config.errors import ConfigError
from gateway.config.load import load_file, load_text
from gateway.config.settings import Settings
from gateway.providers.registry import find_provider
from gateway.types.route import Route, RouteType, Timeouts

ENVIRONMENT = {"OPENAI_API_KEY": "sk-env", "EMPTY": "", "WITH_NEWLINE": "sk-env\n"}
ROUTE = """
routes:
  - name: completions
    route_type: llm/v1/completions
    model: {provider: openai, name: gpt-3.5-turbo, config: {openai_api_key: $OPENAI_API_KEY}}
  - name: chat
    route_type: llm/v1/chat
    model: {provider: openai, name: gpt-3.5-turbo, config: {openai_api_key: $OPENAI_API_KEY}}
  - name: embeddings
    route_type: llm/v1/embeddings
    model: {provider: openai, name: text-embedding-ada-002, config: {openai_api_key: $OPENAI_API_KEY}}
"""


def load(text: str) -> Settings:
    return load_text(text, find_provider, ENVIRONMENT)


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        load(text)
    return refused.value


def one(model: str, route_type: str = "llm/v1/chat", name: str = "r") -> str:
    return f"routes: [{{name: {name}, route_type: {route_type}, model: {model}}}]"


def the_route(text: str) -> Route:
    (route,) = load(text).routes
    return route


def test_the_original_file() -> None:
    """The file of MLflow 2.5's documentation is taken as it is."""
    routes = load(ROUTE).routes
    assert [(route.name, route.route_type, route.original_shape) for route in routes] == [
        ("completions", RouteType.COMPLETIONS, True),
        ("chat", RouteType.CHAT, True),
        ("embeddings", RouteType.EMBEDDINGS, True),
    ]
    assert {route.targets[0].config.openai_api_key.reveal() for route in routes} == {"sk-env"}  # type: ignore[attr-defined]


def test_the_later_file() -> None:
    """`endpoints` and `endpoint_type` of MLflow 2.9 mean routes that speak OpenAI's shape; both may stand in a file."""
    text = ROUTE + ROUTE.replace("routes", "endpoints").replace("route_type", "endpoint_type").replace(
        "name: c", "name: later_c"
    ).replace("name: embeddings", "name: later_embeddings")
    assert [(route.name, route.original_shape) for route in load(text).routes] == [
        ("completions", True),
        ("chat", True),
        ("embeddings", True),
        ("later_completions", False),
        ("later_chat", False),
        ("later_embeddings", False),
    ]


KEY = "{openai_api_key: k}"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            ROUTE.replace("name: chat", "name: completions"),
            "routes",
            (
                "Duplicate names found in route configurations. Please remove the duplicate route name from the "
                "configuration to ensure that route endpoints are created properly."
            ),
        ),
        (
            one("{}", name="'my route'"),
            "routes[0].name",
            (
                "The route name provided contains disallowed characters for a url endpoint. 'my route' is invalid. Names "
                "cannot contain spaces or any non alphanumeric characters other than hyphen and underscore."
            ),
        ),
        (
            one(f"{{provider: nobody, config: {KEY}}}"),
            "routes[0].model.provider",
            "The provider 'nobody' is not supported.",
        ),
        (
            one(f"{{config: {KEY}}}"),
            "routes[0].model.provider",
            "A provider must be provided for each gateway route.",
        ),
        (
            one("{provider: openai, name: m}"),
            "routes[0].model.config",
            "A config must be supplied when setting a provider. The provider entry for openai is incorrect.",
        ),
        (
            one(f"{{provider: openai, name: m, config: {KEY}}}", route_type="llm/v1/talk"),
            "routes[0].route_type",
            (
                "The route_type 'llm/v1/talk' is not supported. Use one of: llm/v1/chat, llm/v1/completions, "
                "llm/v1/embeddings"
            ),
        ),
        (
            one("{provider: mosaicml, name: mpt-7b, config: {mosaicml_api_key: k}}"),
            "routes[0].model.name",
            (
                "An invalid model has been specified for the chat route. 'mpt-7b'. Ensure the model selected starts with "
                "one of: ['llama2']"
            ),
        ),
        (
            one("{provider: ai21labs, name: j3, config: {ai21labs_api_key: k}}", "llm/v1/completions"),
            "routes[0].model.name",
            "An Unsupported AI21Labs model has been specified: 'j3'. Please see documentation for supported models.",
        ),
        (
            one("{provider: openai, name: m, config: {openai_api_key: 5}}"),
            "routes[0].model.config.openai_api_key",
            (
                "The api key provided is not a string. Please provide either an environment variable key, a path to a "
                "file containing the api key, or the api key itself"
            ),
        ),
        (
            ROUTE.replace("$OPENAI_API_KEY}}\n", "$UNSET}}\n").replace("$UNSET", "$OPENAI_API_KEY", 2),
            "routes[2].model.config.openai_api_key",
            "Environment variable 'UNSET' is not set",
        ),
        (
            one("{provider: openai, name: m, config: {openai_api_key: $EMPTY}}"),
            "routes[0].model.config.openai_api_key",
            "Environment variable 'EMPTY' is not set",
        ),
        (
            one("{provider: openai, name: m, config: {}}"),
            "routes[0].model.config.openai_api_key",
            "openai_api_key is required",
        ),
        (
            one("{provider: openai, name: m, config: {openai_api_key: k, openai_api_type: aws}}"),
            "routes[0].model.config.openai_api_type",
            "openai_api_type is 'aws'; it must be one of openai, azure, azuread",
        ),
        (
            one(f"{{provider: openai, name: m, config: {KEY}, extra: 1}}"),
            "routes[0].model.extra",
            "unknown field; allowed here: provider, name, config, timeouts, propagate_trace",
        ),
        ("route: []", "route", "unknown field; allowed here: routes, endpoints"),
        ("{}", "routes", "the file has no 'routes' and no 'endpoints'; give at least one list"),
        ("routes: 5", "routes", "Expected `array`, got `int`"),
        ("routes: [5]", "routes[0]", "Expected `object`, got `int`"),
        ("- a", "", "configuration must be a mapping with a list of 'routes' or 'endpoints'"),
        (
            "routes: [{name: r, model: {provider: openai}}]",
            "routes[0].route_type",
            "is required",
        ),
        (
            "routes: [{name: r, route_type: llm/v1/chat, endpoint_type: llm/v1/chat, model: {provider: openai}}]",
            "routes[0].route_type",
            "stands beside its other spelling; keep one",
        ),
        ("routes: [{name: r, route_type: llm/v1/chat}]", "routes[0].model", "give either 'model' or 'targets'"),
        (
            "routes: [{name: r, route_type: llm/v1/chat, targets: []}]",
            "routes[0].targets",
            "the list is empty; give at least one target",
        ),
        ("limits: {storage: 'memcached://x'}\n" + ROUTE, "limits", "storage must begin with redis://"),
        ("routes: []\n1: 2", "", "the name of a field is no text"),
        (ROUTE + ROUTE, "", "The file at configuration is not a valid yaml file: 'routes' stands there twice, line "),
        ("routes: 2026-13-01", "", "The file at configuration is not a valid yaml file: month must be in 1..12"),
        (f"routes: {'9' * 5000}", "", "The file at configuration is not a valid yaml file: Exceeds the limit"),
    ],
)
def test_refusals(text: str, path: str, message: str) -> None:
    """Each mistake is refused with the path of its field, and in MLflow's words where MLflow had some."""
    error = refusal(text)
    assert (error.path, error.message[: len(message)]) == (path, message)
    assert str(error) == (f"{path}: {error.message}" if path else error.message)


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, and one that is no YAML, are named by their path; a key in a broken line is not shown."""
    missing, broken = tmp_path / "missing.yaml", tmp_path / "broken.yaml"
    with pytest.raises(ConfigError) as refused:
        load_file(missing, find_provider, {})
    assert str(refused.value) == f"{missing} does not exist"
    broken.write_text("routes:\n  - key: sk-4711: oops")
    with pytest.raises(ConfigError) as refused:
        load_file(broken, find_provider, {})
    assert str(refused.value).startswith(f"The file at {broken} is not a valid yaml file: ")
    assert "line 2" in str(refused.value)
    assert "4711" not in str(refused.value)


@pytest.mark.parametrize("name", ["OpenAI", "OPENAI", "openai", "OpenAi"])
def test_a_providers_case_does_not_matter(name: str) -> None:
    """Providers are found as in MLflow 2.6 and later, whatever the case."""
    assert the_route(one(f"{{provider: {name}, name: m, config: {KEY}}}")).provider == "openai"


@pytest.mark.parametrize("name", ["mlflow-model-serving", "mlflow_model_serving", "MLFlow-Model_Serving"])
def test_hyphens_do_not_matter(name: str) -> None:
    """Hyphens and underscores are one, as in MLflow."""
    config = "{model_server_url: http://x}"
    assert the_route(one(f"{{provider: {name}, name: m, config: {config}}}")).provider == "mlflow-model-serving"


@pytest.mark.parametrize(
    "address", ["localhost:8000/v1", "ftp://x", "http://", "http://x:99999", "http://a b", "$BASE"]
)
def test_what_is_no_address(address: str) -> None:
    """A provider's address that is none is refused at the start, and not with each request."""
    for field, model in (
        (
            "openai_api_base",
            f"{{provider: openai, name: m, config: {{openai_api_key: k, openai_api_base: '{address}'}}}}",
        ),
        ("model_server_url", f"{{provider: mlflow-model-serving, config: {{model_server_url: '{address}'}}}}"),
    ):
        error = refusal(one(model))
        assert (error.path, "http://" in error.message) == (f"routes[0].model.config.{field}", True)


@pytest.mark.parametrize("seconds", ["0", "-1", ".nan", ".inf"])
@pytest.mark.parametrize("clock", ["connect_s", "first_byte_s", "between_chunks_s", "total_s"])
def test_timeouts_that_are_none(clock: str, seconds: str) -> None:
    """A timeout is a time: none that never comes, and none that is over before it begins."""
    error = refusal(one(f"{{provider: openai, name: m, config: {KEY}, timeouts: {{{clock}: {seconds}}}}}"))
    assert (error.path, error.message.partition(" ")[0]) == ("routes[0].model.timeouts", clock)


@pytest.mark.parametrize("weight", ["-1", ".nan", ".inf"])
def test_weights_that_are_none(weight: str) -> None:
    """A share of the traffic is a number from 0 on."""
    target = f"{{provider: openai, name: m, config: {KEY}, weight: {weight}}}"
    error = refusal(f"routes: [{{name: r, route_type: llm/v1/chat, targets: [{target}]}}]")
    assert error.path == "routes[0].targets[0].weight"


def key_of(value: str) -> str:
    config: Any = the_route(one(f"{{provider: openai, name: m, config: {{openai_api_key: '{value}'}}}}")).targets[0]
    revealed: str = config.config.openai_api_key.reveal()
    return revealed


def test_where_a_key_comes_from(tmp_path: Path) -> None:
    """The environment or a file, without a trailing newline, or the text itself, however long."""
    file = tmp_path / "key"
    file.write_text("  sk-file\n")
    assert key_of("$OPENAI_API_KEY") == key_of("$WITH_NEWLINE") == "sk-env"
    assert key_of(str(file)) == "sk-file"
    assert key_of("sk-literal") == "sk-literal"
    assert key_of("k" * 5000) == "k" * 5000


def test_key_files_are_known(tmp_path: Path) -> None:
    """The files that keys came from are told, so that they can be watched, of a refused configuration too."""
    file = tmp_path / "key"
    file.write_text("sk-file")
    text = one(f"{{provider: openai, name: m, config: {{openai_api_key: {file}}}}}")
    assert load(text).key_files == (file,)
    file.write_text("")
    assert refusal(text).key_files == (file,)


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A key file that is no text is refused, instead of its path being sent as the key."""
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfe")
    assert refusal(one(f"{{provider: openai, name: m, config: {{openai_api_key: {file}}}}}")).message == (
        "the key file cannot be read"
    )


ORIGINAL_CONFIGS: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"openai_api_key": "k", "openai_api_base": "http://x", "openai_organization": "o"},
        {"openai_api_key": "k", "openai_api_type": "OpenAI"},
        {
            "openai_api_key": "k",
            "openai_api_type": "azure",
            "openai_api_base": "http://x",
            "openai_api_version": "2023-05-15",
            "openai_deployment_name": "d",
        },
        {
            "openai_api_key": "k",
            "openai_api_type": "azuread",
            "openai_api_base": "http://x",
            "openai_api_version": "2023-05-15",
            "openai_deployment_name": "d",
        },
    ],
    "anthropic": [{"anthropic_api_key": "k"}],
    "cohere": [{"cohere_api_key": "k"}],
    "ai21labs": [{"ai21labs_api_key": "k"}],
    "mosaicml": [{"mosaicml_api_key": "k", "mosaicml_api_base": "http://x"}],
    "palm": [{"palm_api_key": "k"}],
    "mlflow-model-serving": [{"model_server_url": "http://x"}],
    "huggingface-text-generation-inference": [{"hf_server_url": "http://x"}],
    "bedrock": [
        {"aws_config": {"aws_role_arn": "arn:aws:iam::1:role/r", "session_length_seconds": 900, "aws_region": "r"}},
        {
            "aws_config": {
                "aws_access_key_id": "a",
                "aws_secret_access_key": "s",
                "aws_session_token": "t",
                "aws_region": "us-east-1",
            }
        },
        {"aws_config": {"aws_region": "us-east-1"}},
    ],
}


@pytest.mark.parametrize(
    ("provider", "config"), [(name, config) for name, configs in ORIGINAL_CONFIGS.items() for config in configs]
)
def test_every_key_of_the_original_providers(provider: str, config: dict[str, Any]) -> None:
    """Each provider of MLflow 2.8.1 takes each form of `config` that it took there."""
    model = {"ai21labs": "j2-ultra", "bedrock": "anthropic.claude-v2"}.get(provider, "m")
    text = str(
        {
            "routes": [
                {
                    "name": "r",
                    "route_type": "llm/v1/completions",
                    "model": {"provider": provider, "name": model, "config": config},
                }
            ]
        }
    )
    assert the_route(text).provider == provider


LIMITED = "routes: [{{name: r, route_type: llm/v1/chat, limit: {limit}, model: {{provider: openai, name: m, config: {{openai_api_key: k}}}}}}]"


@pytest.mark.parametrize(
    ("limit", "calls", "period_s", "per_route", "words"),
    [
        ("{calls: 5, renewal_period: second}", 5, 1, False, "5 per 1 second"),
        ("{calls: 5, renewal_period: minute, key: user}", 5, 60, False, "5 per 1 minute"),
        ("{calls: 5, renewal_period: hour, key: route}", 5, 3600, True, "5 per 1 hour"),
        ("{calls: 5, renewal_period: day, key: null}", 5, 86_400, False, "5 per 1 day"),
        ("{calls: 5, renewal_period: month}", 5, 2_592_000, False, "5 per 1 month"),
        ("{calls: 5, renewal_period: year}", 5, 31_104_000, False, "5 per 1 year"),
        ("{calls: 5, renewal_period: 10 minutes}", 5, 600, False, "5 per 10 minute"),
    ],
)
def test_limits(limit: str, calls: int, period_s: int, per_route: bool, words: str) -> None:
    """`limit:` as in MLflow 2.10: each period, for each caller unless the key is `route`."""
    (found,) = the_route(LIMITED.format(limit=limit)).limits
    assert (found.calls, found.period_s, found.per_route, found.text) == (calls, period_s, per_route, words)


def test_several_limits() -> None:
    """A list holds a route to each of its limits."""
    limits = the_route(
        LIMITED.format(limit="[{calls: 1, renewal_period: second}, {calls: 9, renewal_period: day, key: route}]")
    ).limits
    assert [(limit.calls, limit.per_route) for limit in limits] == [(1, False), (9, True)]


@pytest.mark.parametrize(
    ("limit", "path", "message"),
    [
        ("{calls: 0, renewal_period: minute}", "routes[0].limit", "calls is 0; it must be at least 1"),
        ("{calls: 1, renewal_period: week}", "routes[0].limit", "renewal_period is 'week'; it must be one of second"),
        ("{calls: 1, renewal_period: 0 minutes}", "routes[0].limit", "renewal_period is '0 minutes'"),
        ("{calls: 1, renewal_period: minute, key: ip}", "routes[0].limit", "key is 'ip'; it must be route or user"),
        ("{calls: 1}", "routes[0].limit.renewal_period", "is required"),
        ("{calls: 1, renewal_period: day, burst: 1}", "routes[0].limit.burst", "unknown field"),
        ("{calls: many, renewal_period: day}", "routes[0].limit.calls", "Expected `int`, got `str`"),
    ],
)
def test_wrong_limits(limit: str, path: str, message: str) -> None:
    """A wrong limit is refused by its path."""
    error = refusal(LIMITED.format(limit=limit))
    assert (error.path, error.message[: len(message)]) == (path, message)


def test_what_is_wrong_with_each_route_and_target_is_told_at_once() -> None:
    """A file whose environment lacks several keys can be mended in one go."""
    text = """
routes:
  - {name: a, route_type: llm/v1/chat, model: {provider: openai, name: m, config: {openai_api_key: $ABSENT_A}}}
  - {name: fine, route_type: llm/v1/chat, model: {provider: openai, name: m, config: {openai_api_key: k}}}
  - name: several
    route_type: llm/v1/chat
    targets:
      - {provider: openai, name: m, config: {openai_api_key: $ABSENT_B}}
      - {provider: openai, name: m, config: {openai_api_key: k}}
      - {provider: nobody, name: m}
"""
    error = refusal(text)
    assert str(error).splitlines() == [
        "routes[0].model.config.openai_api_key: Environment variable 'ABSENT_A' is not set",
        "routes[2].targets[0].config.openai_api_key: Environment variable 'ABSENT_B' is not set",
        "routes[2].targets[2].provider: The provider 'nobody' is not supported.",
    ]
    assert error.path == "routes[0].model.config.openai_api_key"


def test_targets_and_timeouts() -> None:
    """A route's timeouts hold for its targets unless a target has its own; weights and tiers are kept."""
    text = """
routes:
  - name: r
    route_type: llm/v1/chat
    retries: 2
    timeouts: {total_s: 9}
    targets:
      - {provider: openai, name: a, config: {openai_api_key: k}, weight: 3}
      - {provider: openai, name: b, config: {openai_api_key: k}, tier: 1, timeouts: {connect_s: 1}}
"""
    route = the_route(text)
    assert route.retries == 2
    assert [(target.model, target.weight, target.tier) for target in route.targets] == [("a", 3.0, 0), ("b", 1.0, 1)]
    assert [target.timeouts for target in route.targets] == [Timeouts(total_s=9), Timeouts(connect_s=1)]
    assert refusal(text.replace("weight: 3", "weight: -1")).path == "routes[0].targets[0].weight"
    assert refusal(text.replace("retries: 2", "retries: -1")).path == "routes[0].retries"


def test_secrets_do_not_show() -> None:
    """Neither the settings' text nor a target's shows a key."""
    assert "sk-env" not in repr(load(ROUTE))
    assert "sk-env" not in str(load(ROUTE).routes[0].targets[0])
