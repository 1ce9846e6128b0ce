"""The locked sets say what pyproject.toml asks for, with a hash for every file, and no place to get them from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(lock: str) -> dict[str, set[str]]:
    """The versions that a lock pins, by name. There are two where Python versions differ."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([a-z0-9._-]+)(?:\[.*?\])?==(\S+)", (REQUIREMENTS / lock).read_text(), re.MULTILINE
    ):
        pins.setdefault(canonicalize_name(name), set()).add(version)
    return pins


def asked(*, extras: bool, groups: tuple[str, ...]) -> list[Requirement]:
    project = PROJECT["project"]
    texts = list(project["dependencies"])
    names = project["optional-dependencies"] if extras else ["local"]
    for name in names:
        texts += project["optional-dependencies"][name]
    for group in groups:
        texts += PROJECT["dependency-groups"][group]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("run.txt", asked(extras=False, groups=("build",))),
        ("dev.txt", asked(extras=True, groups=("build", "dev"))),
    ],
)
def test_a_lock_has_all_that_the_project_asks_for(lock: str, requirements: list[Requirement]) -> None:
    """Each dependency is pinned to a version that pyproject.toml allows (`make lock` after a change there)."""
    pins = pinned(lock)
    missing = [
        str(requirement)
        for requirement in requirements
        if not any(
            requirement.specifier.contains(v, prereleases=True)
            for v in pins.get(canonicalize_name(requirement.name), ())
        )
    ]
    assert missing == []


def test_what_is_tested_is_what_is_run() -> None:
    """`make test` has the same version of every package that `make run` has."""
    run, dev = pinned("run.txt"), pinned("dev.txt")
    assert {name: versions for name, versions in run.items() if dev.get(name) != versions} == {}


@pytest.mark.parametrize("lock", ["run.txt", "dev.txt", "model.txt"])
def test_a_lock_has_hashes_and_no_address(lock: str) -> None:
    """Every pin has a hash, and no line names a registry, a file or a repository."""
    text = (REQUIREMENTS / lock).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"https?:|file:|git\+|--index|--extra-index|--find-links| @ ", text) == []
