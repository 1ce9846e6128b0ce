"""What the benchmark reads from /proc."""

from __future__ import annotations

import os

import pytest

from bench.proc import ProcStat, family, parse_rss_kib, parse_stat

_NUMBERS = "4194304 1000 0 0 0 250 50 7 9 20 0 1 0 12345 1000000 2000"


def test_stat_line_with_a_hostile_command() -> None:
    """Blanks and parentheses in a command do not shift the fields."""
    assert parse_stat(f"42 (a) (b c)) S 7 42 42 0 -1 {_NUMBERS}") == ProcStat(pid=42, parent=7, cpu_ticks=300)


def test_stat_line_of_the_running_kernel() -> None:
    """The parser agrees with the kernel about the own process and its parent."""
    with open("/proc/self/stat", encoding="utf-8") as file:  # noqa: PTH123
        stat = parse_stat(file.read())
    assert (stat.pid, stat.parent) == (os.getpid(), os.getppid())
    assert stat.cpu_ticks > 0


def test_cut_stat_line_is_refused() -> None:
    """A line that ends early is an error, never zero CPU."""
    with pytest.raises(ValueError, match="not a line"):
        parse_stat("42 (python) S 7")


def test_family_is_the_process_and_its_descendants() -> None:
    """Grandchildren count, strangers do not, in whatever order they are listed."""
    stats = [ProcStat(4, 3, 1), ProcStat(3, 2, 1), ProcStat(2, 1, 1), ProcStat(9, 1, 1)]
    assert [stat.pid for stat in family(stats, 2)] == [4, 3, 2]


def test_resident_memory() -> None:
    """VmRSS is taken in KiB; a zombie has none."""
    assert parse_rss_kib("Name:\tpython\nVmHWM:\t 9000 kB\nVmRSS:\t   4321 kB\n") == 4321
    assert parse_rss_kib("Name:\tpython\nState:\tZ (zombie)\n") == 0
