import shutil
import sys
from pathlib import Path

import pytest

from tests import servers


def test_a_present_program_is_found() -> None:
    """A program on PATH is found under the name that was asked for."""
    assert servers.require("sh") == shutil.which("sh")


def test_a_program_is_found_under_its_other_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's prometheus-alertmanager answers for alertmanager."""
    (tmp_path / "prometheus-alertmanager").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert servers.find("alertmanager") == str(tmp_path / "prometheus-alertmanager")


def test_a_missing_program_skips_on_a_users_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, a missing server skips the test and the reason names it."""
    monkeypatch.delenv("GAUGEWAY_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
        servers.require("no-such-server")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """With GAUGEWAY_REQUIRE_SERVERS=1, a missing server fails the test."""
    monkeypatch.setenv("GAUGEWAY_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-server is not installed"):
        servers.require("no-such-server")
