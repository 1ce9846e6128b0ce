"""Providers that speak the `openai` dialect, a row each.

A row's configuration keys are `<name>_api_key` and `<name>_api_base` (every provider can be pointed at a proxy or a
test server); `api_key` and `api_base`, the spelling of MLflow 3.x, mean the same.

Source: each vendor's API reference, named in docs/providers/<name>.md.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from gateway.providers import typed_content
from gateway.providers.completions_by_chat import completions_by_chat
from gateway.providers.openai import DIALECT
from gateway.providers.openai_accounts import bearer
from gateway.providers.spec import Codec, Dialect, Endpoint, Provider, Quirks
from gateway.providers.togetherai import together_completions
from gateway.types.route import Operation
from gateway.types.secret import Secret

_CHAT = (Operation.CHAT,)
_CHAT_EMBEDDINGS = (Operation.CHAT, Operation.EMBEDDINGS)
_ALL = (Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS)
_RESPONSES = (Operation.RESPONSES,)


class Row(Struct, frozen=True, kw_only=True):
    """One compatible provider. `base_url` "" means that the configuration must give one.

    `codecs` stand for operations that the provider has in a way of its own.
    """

    name: str
    base_url: str
    operations: tuple[Operation, ...] = _ALL
    gen_ai_name: str = ""
    key_required: bool = True
    quirks: Quirks = Quirks()
    codecs: Mapping[Operation, Codec] = {}
    no_key: str = ""
    """A key that clients write where the provider wants none: it is not sent."""


_OLD_ROLE = Quirks(developer_role=False)
_OLD_LIMIT = (("max_completion_tokens", "max_tokens"),)
"""For vendors that refuse the newer name, or pass over it and so over the limit."""
_OLD_WORDS = Quirks(developer_role=False, rename=_OLD_LIMIT)
_MESSAGE = ("role", "content", "tool_calls", "tool_call_id")
_NOT_MISTRALS = (
    "stream_options",
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "verbosity",
    "modalities",
)
"""Hints to OpenAI, which Mistral refuses as extra inputs."""

ROWS = (
    Row(
        name="openai-compatible",
        base_url="",
        operations=_ALL + _RESPONSES,
        key_required=False,
        quirks=_OLD_ROLE,
    ),
    Row(
        name="ollama",
        base_url="http://localhost:11434/v1",
        operations=_ALL + _RESPONSES,
        key_required=False,
        no_key="ollama",
        quirks=_OLD_ROLE,
    ),
    Row(
        name="vllm",
        base_url="http://localhost:8000/v1",
        operations=_ALL + _RESPONSES,
        key_required=False,
        quirks=_OLD_ROLE,
    ),
    Row(
        name="llamacpp",
        base_url="http://localhost:8080/v1",
        operations=_ALL + _RESPONSES,
        key_required=False,
        quirks=_OLD_ROLE,
    ),
    Row(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        operations=_CHAT_EMBEDDINGS + _RESPONSES,
        quirks=Quirks(developer_role=False, refuses_defaults=True, message_members=(*_MESSAGE, "reasoning")),
    ),
    Row(
        name="deepseek",
        base_url="https://api.deepseek.com/v1",
        operations=_CHAT_EMBEDDINGS,
        quirks=_OLD_WORDS,
    ),
    Row(name="xai", base_url="https://api.x.ai/v1", gen_ai_name="x_ai", operations=_CHAT_EMBEDDINGS + _RESPONSES),
    Row(name="openrouter", base_url="https://openrouter.ai/api/v1", operations=_ALL + _RESPONSES),
    Row(
        name="togetherai",
        base_url="https://api.together.xyz/v1",
        codecs={Operation.COMPLETIONS: together_completions()},
        quirks=_OLD_WORDS,
    ),
    Row(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        gen_ai_name="mistral_ai",
        operations=_CHAT_EMBEDDINGS,
        quirks=Quirks(
            stream_options=False,
            developer_role=False,
            drop=_NOT_MISTRALS,
            rename=(*_OLD_LIMIT, ("seed", "random_seed")),
            refuses_defaults=True,
            message_members=(*_MESSAGE, "name", "prefix"),
        ),
        # Its temperature ends at 1 where ours ends at 2; a completions request's is scaled, as mlflow 2.22 did.
        codecs={
            Operation.CHAT: typed_content.CHAT,
            Operation.COMPLETIONS: completions_by_chat(drop=("stop", "n"), temperature_scale=0.5),
        },
    ),
    Row(
        name="fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        operations=_ALL + _RESPONSES,
        quirks=Quirks(
            developer_role=False, rename=_OLD_LIMIT, message_members=(*_MESSAGE, "name", "reasoning_content")
        ),
    ),
    Row(
        name="perplexity",
        base_url="https://api.perplexity.ai",
        operations=_CHAT,
        # It reports usage in every chunk, unasked.
        quirks=Quirks(stream_options=False, developer_role=False, rename=_OLD_LIMIT),
    ),
)


def _config(row: Row) -> type[Struct]:
    """The row's configuration Struct, so that a wrong key is refused by name like any other field."""
    prefix = row.name.replace("-", "_")
    names = (f"{prefix}_api_key", f"{prefix}_api_base", "api_key", "api_base")

    def check(self: Struct) -> None:
        if row.key_required and not (getattr(self, names[0]) or getattr(self, names[2])):
            raise ValueError(f"{names[0]} is required")
        if not row.base_url and not (getattr(self, names[1]) or getattr(self, names[3])):
            raise ValueError(f"{names[1]} is required")

    return msgspec.defstruct(
        f"{prefix.title()}Config",
        [
            (names[0], Secret | None, None),
            (names[1], str | None, None),
            (names[2], Secret | None, None),
            (names[3], str | None, None),
        ],
        namespace={"__post_init__": check, "__doc__": f"`model.config` of provider `{row.name}`."},
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )


def _provider(row: Row) -> Provider:
    prefix = row.name.replace("-", "_")
    own = {operation: DIALECT.codecs[operation] for operation in row.operations}
    dialect = Dialect(name=DIALECT.name, codecs={**own, **row.codecs})

    def connect(config: Struct, model: str) -> Endpoint:
        key = getattr(config, f"{prefix}_api_key") or getattr(config, "api_key")  # noqa: B009 - defstruct's fields
        if key == Secret(row.no_key):
            key = None
        base = getattr(config, f"{prefix}_api_base") or getattr(config, "api_base") or row.base_url  # noqa: B009
        return Endpoint(
            provider=row.name,
            dialect=dialect,
            base_url=base.rstrip("/"),
            model=model,
            auth=bearer(key),
            quirks=row.quirks,
        )

    return Provider(
        name=row.name,
        gen_ai_name=row.gen_ai_name or row.name,
        config=_config(row),
        connect=connect,
        config_required=row.key_required or not row.base_url,
    )


COMPATIBLE = tuple(_provider(row) for row in ROWS)
