"""The shipped dashboards as the tests read them: the JSON on disk, not the Python that made it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "dashboards" / "generated"
PATHS = sorted(FOLDER.glob("*.json"))
DOCUMENTS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in PATHS}

BUILTIN = {"__rate_interval": "1m", "__range": "3h", "__interval": "30s"}


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every panel that shows data; rows are headings."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def targets(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each (panel, query) of a dashboard."""
    for panel in panels(document):
        for target in panel["targets"]:
            yield panel, target


def variables(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Template variables by name."""
    return {variable["name"]: variable for variable in document["templating"]["list"]}


def filled(text: str, document: dict[str, Any], choice: dict[str, str] | None = None) -> str:
    """An expression with its variables replaced: chosen values, else the variable's All."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in BUILTIN:
            return BUILTIN[name]
        if choice and name in choice:
            return choice[name]
        return str(variables(document)[name].get("allValue") or ".*")

    return re.sub(r"\$\{(\w+)\}|\$([a-z_]\w*)", value, text)


def expressions(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(where it stands, expression as Grafana would send it with every variable All)."""
    found = [(panel["title"], target["expr"]) for panel, target in targets(document)]
    found += [(f"annotation {one['name']}", one["expr"]) for one in document["annotations"]["list"] if "expr" in one]
    return [(where, filled(expr, document)) for where, expr in found]
