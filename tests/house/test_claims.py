"""Every test says in a sentence what it claims, so that a failure reads as a broken promise."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def unclaimed(source: str) -> list[str]:
    """The names of the tests in a module that have no docstring."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]


def test_every_test_states_its_claim() -> None:
    """No test function under tests/ is without a docstring."""
    found = {
        f"{path.relative_to(TESTS)}::{name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for name in unclaimed(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_a_test_without_a_claim_is_seen() -> None:
    """The search finds tests without a docstring, in classes and async ones too."""
    source = "class A:\n    def test_a(self): ...\nasync def test_b(): ...\ndef test_c():\n    'It is so.'\ndef other(): ...\n"
    assert sorted(unclaimed(source)) == ["test_a", "test_b"]
