"""Every provider has a page in docs/providers whose facts are those of the code."""

import re

import pytest

from gateway.providers.registry import PROVIDERS
from gateway.providers.spec import Provider
from tests.providers.pages import PAGES, serves, yaml_of

_PROVIDERS = tuple(dict.fromkeys(PROVIDERS.values()))


@pytest.mark.parametrize("provider", _PROVIDERS, ids=lambda provider: provider.name)
def test_a_page_says_what_its_provider_takes_and_serves(provider: Provider) -> None:
    """The page's YAML loads, its table names the configuration's keys and no other, and it says what is served."""
    page = (PAGES / f"{provider.name}.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(keys) == sorted(provider.config.__struct_encode_fields__)
    assert f"Serves {serves(provider.name, yaml_of(page))}." in page.splitlines()


def test_the_index_lists_every_page() -> None:
    """README.md has a row for each provider, with what it serves, and no row for another."""
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+)\]\(\1\.md\) \| (.+) \|$", index, re.MULTILINE)
    pages = {provider.name: (PAGES / f"{provider.name}.md").read_text(encoding="utf-8") for provider in _PROVIDERS}
    assert rows == [(name, serves(name, yaml_of(page))) for name, page in pages.items()]
    assert {path.stem for path in PAGES.glob("*.md")} == {*pages, "README"}
