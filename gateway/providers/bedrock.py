"""Amazon Bedrock accounts: the `aws_config` of the MLflow gateway, and how it becomes an endpoint.

Source: the `bedrock` provider of mlflow 2.8 and 3.x; https://docs.aws.amazon.com/bedrock/latest/APIReference
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gateway.providers import bedrock_converse, bedrock_converse_request, bedrock_invoke, bedrock_messages
from gateway.providers.bedrock_invoke import vendor_of
from gateway.providers.spec import (
    Auth,
    AwsAuth,
    Codec,
    Dialect,
    Endpoint,
    Fault,
    Framing,
    HeaderAuth,
    Provider,
    default_fault,
    require_model,
)
from gateway.types.route import Operation
from gateway.types.secret import Secret

_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


class AwsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`aws_config`: a bearer token (a Bedrock API key), a role, static keys, or with none of them AWS's default chain.

    A role is assumed with the static keys beside it, or with the default chain's. The region may come from AWS_REGION or
    AWS_DEFAULT_REGION. `aws_sts_endpoint` replaces the region's STS.
    """

    aws_region: str
    aws_role_arn: str | None = None
    session_length_seconds: int = 900
    aws_access_key_id: Secret | None = None
    aws_secret_access_key: Secret | None = None
    aws_session_token: Secret | None = None
    aws_bearer_token: Secret | None = None
    aws_sts_endpoint: str | None = None

    def __post_init__(self) -> None:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError("aws_access_key_id and aws_secret_access_key belong together; give both or neither")
        if self.aws_bearer_token is not None and (self.aws_access_key_id is not None or self.aws_role_arn is not None):
            raise ValueError("aws_bearer_token stands alone: remove the keys or the role beside it")
        if not 900 <= self.session_length_seconds <= 43_200:
            raise ValueError("session_length_seconds must be from 900 to 43200")


class BedrockConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.config` of provider `bedrock`."""

    aws_config: AwsConfig
    bedrock_api_base: str | None = None


def from_environment(config: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """The configuration with its region from AWS's own variables, where it names none."""
    aws = config.get("aws_config")
    region = next((environment[name] for name in _REGION_VARIABLES if environment.get(name)), None)
    if not isinstance(aws, dict) or aws.get("aws_region") is not None or region is None:
        return config
    return {**config, "aws_config": {**aws, "aws_region": region}}


def _auth(aws: AwsConfig) -> Auth:
    if aws.aws_bearer_token is not None:
        return HeaderAuth(headers=(("authorization", Secret(f"Bearer {aws.aws_bearer_token.reveal()}")),))
    return AwsAuth(
        region=aws.aws_region,
        access_key_id=None if aws.aws_access_key_id is None else aws.aws_access_key_id.reveal(),
        secret_access_key=aws.aws_secret_access_key,
        session_token=aws.aws_session_token,
        role_arn=aws.aws_role_arn,
        session_length_s=aws.session_length_seconds,
        sts_url=aws.aws_sts_endpoint,
    )


def _connect(config: BedrockConfig, model: str) -> Endpoint:
    region = config.aws_config.aws_region
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return Endpoint(
        provider="bedrock",
        dialect=CLAUDE if vendor_of(model) == "anthropic" else DIALECT,
        base_url=(config.bedrock_api_base or f"https://bedrock-runtime.{region}.{suffix}").rstrip("/"),
        model=model,
        auth=_auth(config.aws_config),
        quirks=bedrock_invoke.QUIRKS.get(vendor_of(model), bedrock_invoke.NO_QUIRKS),
    )


class _UpperCase(Struct):
    Message: str


def fault(status: int, body: bytes) -> Fault:
    """Bedrock's `message`. That of a refused credential names accounts and roles, so it stays inside."""
    if status in (401, 403):
        return Fault(message="Amazon Bedrock refused the gateway's credentials for this model.")
    try:
        return Fault(message=msgspec.json.decode(body, type=_UpperCase).Message)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return default_fault(status, body)


DIALECT = Dialect(
    name="bedrock",
    codecs={
        Operation.CHAT: Codec(
            to_wire=bedrock_converse_request.to_wire,
            from_wire=bedrock_converse.from_wire,
            open_stream=bedrock_converse.ConverseStream,
        ),
        Operation.COMPLETIONS: Codec(
            to_wire=bedrock_invoke.completion_to_wire,
            from_wire=bedrock_invoke.completion_from_wire,
            header_usage=bedrock_invoke.header_usage,
        ),
        Operation.EMBEDDINGS: Codec(
            to_wire=bedrock_invoke.embeddings_to_wire,
            from_wire=bedrock_invoke.embeddings_from_wire,
            header_usage=bedrock_invoke.header_usage,
        ),
    },
    framing=Framing.AWS_EVENT_STREAM,
    fault=fault,
)
CLAUDE = msgspec.structs.replace(
    DIALECT,
    codecs={
        **DIALECT.codecs,
        Operation.MESSAGES: bedrock_messages.MESSAGES,
        Operation.COUNT_TOKENS: bedrock_messages.COUNT_TOKENS,
    },
)
"""Claude's models take Anthropic's own API as well."""


BEDROCK = Provider(
    name="bedrock",
    title="Amazon Bedrock",
    gen_ai_name="aws.bedrock",
    config=BedrockConfig,
    connect=_connect,
    aliases=("amazon-bedrock",),
    check=require_model,
    from_environment=from_environment,
)
