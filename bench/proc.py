"""Processes under measurement: started on a core, and read from /proc (Linux only; see proc(5)).

CPU time is utime + stime of the process and of all its descendants. The kernel counts it in ticks of 10 ms, hence a
round must burn some hundred ticks to be exact to a percent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_POLL_S = 0.005


@dataclass(frozen=True)
class ProcStat:
    """The fields of /proc/PID/stat that matter here. `cpu_ticks` is utime + stime, in clock ticks."""

    pid: int
    parent: int
    cpu_ticks: int


def parse_stat(text: str) -> ProcStat:
    """One line of /proc/PID/stat. The command, in parentheses, may hold blanks and parentheses. ValueError if cut."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    if not before or len(fields) < 13:
        raise ValueError(f"not a line of /proc/PID/stat: {text!r}")
    return ProcStat(int(before.partition(" ")[0]), int(fields[1]), int(fields[11]) + int(fields[12]))


def parse_rss_kib(status: str) -> int:
    """VmRSS of /proc/PID/status, in KiB; 0 for a process that has no memory (a zombie)."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def family(stats: Sequence[ProcStat], root: int) -> list[ProcStat]:
    """The process `root` and its descendants."""
    members = {root}
    grown = True
    while grown:
        found = {stat.pid for stat in stats if stat.parent in members} - members
        members |= found
        grown = bool(found)
    return [stat for stat in stats if stat.pid in members]


def _read_family(root: int) -> list[ProcStat]:
    stats = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stats.append(parse_stat((entry / "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return family(stats, root)


class Measured:
    """A child process on given cores. A context manager: leaving it ends the process and its group."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: set[int],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self.command = list(command)
        self._log = log
        self.started_at = time.perf_counter()
        with ExitStack() as stack:
            # A child inherits the cores of its parent, which gives it the right ones for its start-up as well.
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores)
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stack.enter_context(log.open("wb")) if log is not None else subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, url: str, timeout_s: float = 30.0) -> float:
        """Poll `url` until it answers 200; seconds since the process was started.

        RuntimeError when the process ends or the time is over.
        """
        while time.perf_counter() - self.started_at < timeout_s:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.command} ended with {self._process.returncode}: {self._tail()}")
            try:
                with urllib.request.urlopen(url, timeout=1) as reply:
                    if reply.status == 200:
                        return time.perf_counter() - self.started_at
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            time.sleep(_POLL_S)
        raise RuntimeError(f"{self.command} does not answer {url}: {self._tail()}")

    def cpu_s(self) -> float:
        """CPU seconds used so far by the process and its living descendants."""
        return sum(stat.cpu_ticks for stat in _read_family(self._process.pid)) / TICKS_PER_S

    def rss_mib(self) -> float:
        """Resident memory of the process and its descendants; shared pages count once for each."""
        total = 0
        for stat in _read_family(self._process.pid):
            try:
                total += parse_rss_kib((_PROC / str(stat.pid) / "status").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
        return total / 1024

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, and SIGKILL to the whole group after `timeout_s`; the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log is not None else "(no log kept)"
