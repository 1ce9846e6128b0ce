"""The disk is measured as the ledger uses it."""

from pathlib import Path

from bench import disk


def test_every_write_is_timed_and_nothing_stays(tmp_path: Path) -> None:
    """As many waits as writes, also at a rate, and no file is left in the folder."""
    assert all(wait_s > 0 for wait_s in disk.sync_s(tmp_path, 150))
    assert len(disk.sync_s(tmp_path, 5, rate_per_s=1_000)) == 5
    assert list(tmp_path.iterdir()) == []
