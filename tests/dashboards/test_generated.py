"""The JSON that is shipped is what the Python makes, and what Grafana's own model accepts."""

import subprocess
import sys
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model

from dashboards.boards import BOARDS, render_all
from tests.dashboards.documents import DOCUMENTS, FOLDER, PATHS, panels


def test_the_files_are_current() -> None:
    """Each generated file holds exactly what the builders write now, and no other file lies beside them."""
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in PATHS}
    assert on_disk == render_all(), "run python -m dashboards"


def test_check_finds_a_stale_file(tmp_path: Path) -> None:
    """`--check` exits 1 for a file that differs and for one that nobody generates."""
    command = [sys.executable, "-m", "dashboards", "--out", str(tmp_path)]
    root = FOLDER.parents[1]
    subprocess.run(command, check=True, cwd=root)
    assert subprocess.run([*command, "--check"], check=False, cwd=root).returncode == 0
    (tmp_path / "stray.json").write_text("{}")
    assert subprocess.run([*command, "--check"], check=False, cwd=root).returncode == 1


def test_uids_are_stable() -> None:
    """The uids that links and bookmarks hold do not change."""
    assert [board.uid for board in BOARDS] == [
        "gaugeway-overview",
        "gaugeway-latency",
        "gaugeway-spend",
        "gaugeway-providers",
        "gaugeway-gateway",
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_sdk_reads_them_back(name: str) -> None:
    """Grafana's model of a classic dashboard takes the file, with the same panels."""
    register_default_plugins()
    read = model.Dashboard.from_json(DOCUMENTS[name])
    assert read.uid == DOCUMENTS[name]["uid"]
    assert len(read.panels or []) == len(DOCUMENTS[name]["panels"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_grid_is_whole(name: str) -> None:
    """Panels lie side by side in 24 columns without overlap, and have ids of their own."""
    taken: dict[tuple[int, int], str] = {}
    for panel in DOCUMENTS[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
    ids = [panel["id"] for panel in DOCUMENTS[name]["panels"]]
    assert len(ids) == len(set(ids))
    assert panels(DOCUMENTS[name])
