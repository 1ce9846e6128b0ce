"""docs/configuration.md says what the schema says: every field, no other, and its default."""

import re
from enum import Enum
from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec import NODEFAULT, UNSET, Struct

from gateway.config.load import load_text
from gateway.config.schema import (
    ConfigFile,
    LimitFile,
    LimitsFile,
    ModelFile,
    RouteFile,
    TargetFile,
    TelemetryFile,
    TrafficFile,
)
from gateway.providers.registry import find_provider
from gateway.types.route import ContentCapture, Timeouts

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
ROUTE = "routes: [{name: r, route_type: llm/v1/chat, model: {provider: vllm, name: m}}]"
SECTIONS: dict[str, type[Struct]] = {
    "The file": ConfigFile,
    "A route": RouteFile,
    "A traffic route": TrafficFile,
    "Content": ContentCapture,
    "A model": ModelFile,
    "A target": TargetFile,
    "Timeouts": Timeouts,
    "A limit": LimitFile,
    "Where limits are counted": LimitsFile,
    "Telemetry": TelemetryFile,
}


def rows(page: str, section: str) -> dict[str, str]:
    """The fields of a section's table with their defaults as the page has them."""
    text = page.split(f"\n### {section}\n", 1)[1].split("\n### ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? ?\|", text, re.MULTILINE))


def written(default: object) -> str:
    """A default as the page writes it; what is not worth a word is left out."""
    if default in (NODEFAULT, UNSET, None) or isinstance(default, Struct | tuple):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default.value if isinstance(default, Enum) else default)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_table_has_the_fields_of_the_schema(section: str) -> None:
    """Every field stands in its section's table with its default, and the table has no other."""
    kind = SECTIONS[section]
    inherited = {field.name for base in kind.__bases__ if base is not Struct for field in msgspec.structs.fields(base)}
    fields = {
        field.name: written(field.default) for field in msgspec.structs.fields(kind) if field.name not in inherited
    }
    assert rows(PAGE.read_text(), section) == fields


def test_no_section_is_forgotten() -> None:
    """The sections of the page's reference are the ones that are checked."""
    reference = PAGE.read_text().split("\n## Reference\n", 1)[1]
    assert re.findall(r"^### (.+)$", reference, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md", "docs/spend.md"])
def test_the_example_works(page: str) -> None:
    """A page's YAML, with routes where it has none of its own, is a configuration that can be used."""
    example = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)[0]
    if not re.search("^(routes|endpoints):", example, re.MULTILINE):
        example += ROUTE
    values = {name: f"redis://{name}.0123456789abcdef" for name in re.findall(r"\$(\w+)", example)}
    routes = load_text(example, find_provider, values).routes
    assert [route.name for route in routes] == [
        entry["name"] for section in ("routes", "endpoints") for entry in yaml.safe_load(example).get(section, ())
    ]


def test_a_changed_default_is_seen() -> None:
    """The comparison fails when a default on the page differs from the schema's."""
    page = PAGE.read_text().replace("| `connect_s` | `5.0` |", "| `connect_s` | `4.0` |")
    assert rows(page, "Timeouts")["connect_s"] == "4.0"
