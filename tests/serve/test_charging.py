"""What a hold is computed from is what goes upstream."""

import json
from typing import Any

import msgspec
import pytest

from gateway.serve.charging import capped, charge_facts, payer_of
from gateway.spend.ledger import Caps
from gateway.spend.settle import IMAGE_TOKENS, input_bound_tokens
from gateway.types.model_io import ModelRequest
from gateway.types.records import Caller
from gateway.types.route import Operation

PAYER = payer_of(Caller(team="red", key_id="k"), "chat", "openai", "gpt-4o")


def request(operation: Operation = Operation.CHAT, **body: Any) -> ModelRequest:
    """A request with this JSON body."""
    return ModelRequest(
        operation=operation, fields=msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])
    )


def sent(given: ModelRequest) -> Any:
    """The body that goes upstream."""
    return json.loads(msgspec.json.encode(given.fields))


def test_input_is_bounded_by_its_bytes() -> None:
    """Every byte of every field counts, each message adds its overhead, non-ASCII text counts in UTF-8."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "héllo"}, {"role": "user", "content": "x" * 100}],
        "tools": [{"a": 1}],
    }
    facts = charge_facts(request(**body), PAYER, "r", 1)
    assert facts.input_bytes == sum(len(json.dumps(value).encode()) for value in body.values())
    assert facts.messages == 2
    assert input_bound_tokens(facts) > facts.input_bytes


def test_what_makes_tokens_dearer_is_held() -> None:
    """A tier that the request asks for, in each vendor's spelling, and a cache mark of an hour; nothing where it asks none."""
    said = [{"role": "user", "content": "Hello, this is said at some length."}]
    tiers = [
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "auto"}, ""),
        ({"serviceTier": {"type": "FLEX"}}, "flex"),
        ({"speed": "fast"}, "fast"),
        ({"service_tier": 7}, ""),
        ({}, ""),
    ]
    for body, tier in tiers:
        facts = charge_facts(request(messages=said, **body), PAYER, "r", 1)
        assert (facts.service_tier, facts.long_cache) == (tier, False)
    marked = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert charge_facts(request(Operation.MESSAGES, messages=said, system=marked), PAYER, "r", 1).long_cache


def test_a_picture_counts_as_a_picture_and_not_as_its_bytes() -> None:
    """A megabyte of base64 is one image of bounded tokens; an image by address is bounded too."""
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}},
        {"type": "image_url", "image_url": {"url": "https://pictures.test/1.png"}},
        {"type": "text", "text": "What is this image?"},
    ]
    facts = charge_facts(request(messages=[{"role": "user", "content": parts}]), PAYER, "r", 1)
    assert facts.images == 2
    assert facts.input_bytes < 1000
    for order in (("media_type", "data"), ("data", "media_type")):
        source = {"type": "base64", **{name: "image/png" if name != "data" else "A" * 1_000_000 for name in order}}
        said = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        assert charge_facts(request(Operation.MESSAGES, messages=said), PAYER, "r", 1).input_bytes < 1000
    inline = {"inlineData": {"mimeType": "image/png", "data": "A" * 1_000_000}}
    google = charge_facts(request(Operation.GENERATE_CONTENT, contents=[{"parts": [inline]}]), PAYER, "r", 1)
    assert (google.images, google.input_bytes < 1000) == (1, True)
    audio = {"inlineData": {"mimeType": "audio/wav", "data": "A" * 10_000}}
    assert (
        charge_facts(request(Operation.GENERATE_CONTENT, contents=[{"parts": [audio]}]), PAYER, "r", 1).input_bytes
        > 9000
    )
    assert input_bound_tokens(facts) >= 2 * IMAGE_TOKENS


BASE64 = "A" * 3_000_000
PDF = {"type": "base64", "media_type": "application/pdf", "data": BASE64}


@pytest.mark.parametrize(
    ("operation", "part", "least", "most"),
    [
        (Operation.MESSAGES, {"type": "document", "source": PDF}, 1_000_000, 1_001_000),
        (Operation.MESSAGES, {"type": "document", "source": PDF | {"data": "A" * 999}}, 200_000, 201_000),
        (Operation.MESSAGES, {"type": "document", "source": {"type": "url", "url": "https://x.test/a"}}, 200_000, 201_000),
        (Operation.MESSAGES, {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi."}},
         50, 1_000),
        (Operation.CHAT, {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BASE64}"}},
         1_000_000, 1_001_000),
        (Operation.RESPONSES, {"type": "input_file", "file_url": "https://x.test/a"}, 200_000, 201_000),
        (Operation.GENERATE_CONTENT, {"inlineData": {"mimeType": "video/mp4", "data": BASE64}}, 1_000_000, 1_010_000),
        (Operation.GENERATE_CONTENT, {"fileData": {"mimeType": "video/mp4", "fileUri": "https://x.test/a"}},
         200_000, 210_000),
        (Operation.CHAT, {"type": "text", "text": json.dumps({"type": "document", "mimeType": "application/pdf"})},
         50, 1_000),
    ],
)  # fmt: skip
def test_a_document_counts_by_its_pages_and_not_by_its_bytes(
    operation: Operation, part: dict[str, Any], least: int, most: int
) -> None:
    """What a PDF, a video or a file by its address may hold is bound; what only speaks of such is text."""
    said = {
        Operation.GENERATE_CONTENT: {"contents": [{"parts": [part]}]},
        Operation.RESPONSES: {"input": [{"role": "user", "content": [part]}]},
    }.get(operation, {"messages": [{"role": "user", "content": [part]}]})
    facts = charge_facts(request(operation, **said), PAYER, "r", 1)
    assert least <= input_bound_tokens(facts) <= most


@pytest.mark.parametrize(
    ("operation", "body", "max_tokens", "choices"),
    [
        (Operation.CHAT, {}, None, 1),
        (Operation.CHAT, {"max_tokens": 5}, 5, 1),
        (Operation.CHAT, {"max_tokens": 5, "max_completion_tokens": 9}, 9, 1),
        (Operation.CHAT, {"max_tokens": "1e9"}, None, 1),
        (Operation.CHAT, {"max_tokens": 1e9}, None, 1),
        (Operation.CHAT, {"max_tokens": None}, None, 1),
        (Operation.CHAT, {"max_tokens": -1}, None, 1),
        (Operation.CHAT, {"max_tokens": 5, "max_completion_tokens": None}, 5, 1),
        (Operation.CHAT, {"max_tokens": 5, "max_completion_tokens": -1}, None, 1),
        (Operation.CHAT, {"max_tokens": 5, "max_completion_tokens": "1000000"}, None, 1),
        (Operation.CHAT, {"max_tokens": 5, "n_predict": -1}, None, 1),
        (Operation.CHAT, {"max_tokens": 5, "n": "128"}, 5, 128),
        (Operation.CHAT, {"max_tokens": 5, "n": 7.0}, 5, 7),
        (Operation.CHAT, {"n": "many"}, None, 1),
        (Operation.CHAT, {"max_tokens": 5, "generationConfig": {"candidateCount": 8}}, 5, 8),
        (Operation.COMPLETIONS, {"max_tokens": 5, "prompt": ["a", "b", "c"], "n": 2}, 5, 6),
        (Operation.COMPLETIONS, {"max_tokens": 5, "prompt": [[1, 2], [3]]}, 5, 2),
        (Operation.COMPLETIONS, {"max_tokens": 5, "prompt": [1, 2, 3]}, 5, 1),
        (Operation.CHAT, {"max_tokens": 10**12, "n": 128}, 10**12, 128),
        (Operation.CHAT, {"max_tokens": 10**200}, None, 1),
        (Operation.CHAT, {"n": -3}, None, 1),
        (Operation.COMPLETIONS, {"max_tokens": 5, "n": 2, "best_of": 7}, 5, 7),
        (Operation.RESPONSES, {"max_output_tokens": 5, "max_tokens": 9}, 5, 1),
        (Operation.MESSAGES, {"max_tokens": 5}, 5, 1),
        (Operation.GENERATE_CONTENT, {"generationConfig": {"maxOutputTokens": 5, "candidateCount": 3}}, 5, 3),
        (Operation.GENERATE_CONTENT, {"generation_config": {"max_output_tokens": 5}}, 5, 1),
        (Operation.GENERATE_CONTENT, {"generationConfig": "none"}, None, 1),
        (Operation.GENERATE_CONTENT, {"generationConfig": {"maxOutputTokens": 5, "candidateCount": "8"}}, 5, 8),
        (Operation.GENERATE_CONTENT, {"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": "9"}}, None, 1),
        (Operation.EMBEDDINGS, {"input": "x", "max_tokens": 9}, None, 1),
    ],
)
def test_limits_are_read_where_each_operation_has_them(
    operation: Operation, body: dict[str, Any], max_tokens: int | None, choices: int
) -> None:
    """Each vendor's spelling is read; values that are no integers are no limits."""
    facts = charge_facts(request(operation, **body), PAYER, "r", 1)
    assert (facts.max_tokens, facts.choices) == (max_tokens, choices)


@pytest.mark.parametrize(
    ("operation", "provider", "body", "expected"),
    [
        (Operation.CHAT, "openai", {}, {"max_completion_tokens": 7}),
        (Operation.CHAT, "anthropic", {}, {"max_tokens": 7}),
        (Operation.CHAT, "openai", {"max_tokens": -1}, {"max_tokens": 7}),
        (Operation.CHAT, "openai", {"max_tokens": 1, "max_completion_tokens": 10**12},
         {"max_tokens": 7, "max_completion_tokens": 7}),
        (Operation.COMPLETIONS, "openai", {"prompt": "x"}, {"prompt": "x", "max_tokens": 7}),
        (Operation.RESPONSES, "openai", {}, {"max_output_tokens": 7}),
        (Operation.MESSAGES, "anthropic", {"max_tokens": 10**12}, {"max_tokens": 7}),
        (Operation.GENERATE_CONTENT, "gemini", {}, {"generationConfig": {"maxOutputTokens": 7}}),
        (Operation.GENERATE_CONTENT, "gemini", {"generation_config": {"max_output_tokens": 9, "temperature": 1}},
         {"generationConfig": {"temperature": 1, "maxOutputTokens": 7}}),
        (Operation.GENERATE_CONTENT, "gemini",
         {"generationConfig": {"maxOutputTokens": 1}, "generation_config": {"max_output_tokens": 10**9}},
         {"generationConfig": {"maxOutputTokens": 7}}),
        (Operation.CHAT, "llamacpp", {"n_predict": -1}, {"max_tokens": 7}),
        (Operation.EMBEDDINGS, "openai", {"input": "x"}, {"input": "x"}),
    ],
)  # fmt: skip
def test_the_cap_goes_upstream(
    operation: Operation, provider: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    """What is held is what the provider is told, in every spelling that the request uses."""
    assert sent(capped(request(operation, **body), Caps(output_tokens=7), provider)) == expected


@pytest.mark.parametrize("operation", list(Operation))
def test_a_capped_request_is_held_at_its_cap(operation: Operation) -> None:
    """Reading a capped request again gives the cap: the two functions agree for every operation."""
    again = charge_facts(capped(request(operation), Caps(output_tokens=7), "openai"), PAYER, "r", 1)
    generates_nothing = {Operation.EMBEDDINGS, Operation.EMBED_CONTENT, Operation.COUNT_TOKENS}
    assert again.max_tokens == (None if operation in generates_nothing else 7)


def test_nothing_in_a_body_changes_who_pays() -> None:
    """Teams, keys, budgets, users and prices in a body are text like any other."""
    body: dict[str, Any] = {
        "team": "blue",
        "key": "k2",
        "user": "x",
        "budget": 9,
        "metadata": {"team": "blue"},
        "price": 0,
    }
    assert charge_facts(request(**body), PAYER, "r", 1).payer == PAYER


def test_counting_tokens_is_not_generating() -> None:
    """Gemini's countTokens is the same operation with another call; it is held for nothing."""
    count = msgspec.structs.replace(request(Operation.GENERATE_CONTENT), path_suffix=":countTokens")
    assert charge_facts(count, PAYER, "r", 1).operation is Operation.COUNT_TOKENS


def test_tools_bring_tokens_that_the_request_does_not_show() -> None:
    """Using any tool adds the vendor's instructions, and its own tools their descriptions, to what is held."""
    custom = {"name": "now", "input_schema": {"type": "object"}}
    own = {"type": "bash_20250124", "name": "bash"}
    without, one, both = (
        charge_facts(request(Operation.MESSAGES, tools=tools), PAYER, "r", 1) for tools in ([], [custom], [custom, own])
    )
    added = [input_bound_tokens(facts) - facts.input_bytes for facts in (without, one, both)]
    assert added[1] >= added[0] + 530
    assert added[2] >= added[1] + 735
