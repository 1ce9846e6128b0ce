"""docs/proofs.md names tests that exist: a failure that was seen elsewhere keeps its test here."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _tests() -> set[str]:
    """The names of all tests of the money path."""
    files = [
        *ROOT.glob("tests/journeys/test_money*.py"),
        *ROOT.glob("tests/spend/*.py"),
        *ROOT.glob("tests/store/*.py"),
    ]
    trees = (ast.parse(file.read_text()) for file in files)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, functions)}


def test_every_failure_of_the_field_has_its_tests() -> None:
    """Each row of the table names at least one test, and each test that it names is there."""
    text = (ROOT / "docs/proofs.md").read_text()
    table = text.split("## Failures seen in the field")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 16
    named = {row[0]: re.findall(r"`(test_\w+)`", row[-1]) for row in rows}
    assert [failure for failure, tests in named.items() if not tests] == []
    assert {test for tests in named.values() for test in tests} - _tests() == set()
