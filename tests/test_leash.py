import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Says that it is there, and then would run for an hour. Stubborn ones do not heed SIGTERM.
PATIENT = """
import signal, sys, threading
print(*sys.argv, flush=True)
threading.Event().wait(3600)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "gateway.leash", "patient"], stdin=subprocess.PIPE)
child.wait()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "patient.py").write_text(PATIENT)
    root = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}


def test_a_module_ends_when_its_parent_is_killed(environment: dict[str, str]) -> None:
    """A parent that is killed outright, with no time to clean up, takes its leashed child with it."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline()
        parent.kill()
        # The child holds the other end of this pipe: it ends when the child has.
        assert parent.stdout.read() == b""
        assert parent.wait() == -signal.SIGKILL


def test_a_module_ends_when_the_pipe_is_closed(environment: dict[str, str]) -> None:
    """Closing the pipe ends the module by SIGTERM."""
    command = [sys.executable, "-m", "gateway.leash", "patient"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline()
        child.stdin.close()
        assert child.wait(timeout=30) == -signal.SIGTERM


def test_a_module_gets_its_own_arguments(environment: dict[str, str]) -> None:
    """The module sees the command line that `python -m` would give it."""
    command = [sys.executable, "-m", "gateway.leash", "patient", "--port", "7"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        name, *arguments = child.stdout.readline().decode().split()
        child.terminate()
    assert name.endswith("patient.py")
    assert arguments == ["--port", "7"]
