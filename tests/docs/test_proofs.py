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


def _proofs() -> list[str]:
    """The module and the name of every test marked `prove`, as `-k` looks at them."""
    found = []
    for file in ROOT.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            decorators = getattr(node, "decorator_list", ())
            if any(ast.unparse(decorator).startswith("pytest.mark.prove") for decorator in decorators):
                assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                found.append(f"{file.name} {node.name}")
    return found


def test_every_proof_is_found_by_its_command() -> None:
    """What stands after `-k` in the table, and in the pages that it refers to, selects proofs; and each proof stands there."""
    table = (ROOT / "docs/proofs.md").read_text().split("## Failures seen in the field")[0]
    keywords = [line.split(" | ")[-1].strip("`| ") for line in table.splitlines() if line.startswith("| ")][1:]
    keywords += re.findall(r'ARGS="-k (\w+)"', (ROOT / "docs/telemetry-proofs.md").read_text())
    proofs = _proofs()
    assert [keyword for keyword in keywords if not any(keyword in proof for proof in proofs)] == []
    assert [proof for proof in proofs if not any(keyword in proof for keyword in keywords)] == []
