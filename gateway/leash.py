"""Run a module that ends when its parent does, however the parent ended.

`python -m gateway.leash MODULE [ARGUMENTS...]` runs MODULE as `python -m` would. Its standard input is a pipe whose
other end only the parent holds: when the parent exits, is killed, or closes the pipe, the pipe ends, and the module
gets SIGTERM, then SIGKILL if it is still there after GRACE_S. A kill signal leaves a parent no time to stop its
children, and a pipe works on every system, where PR_SET_PDEATHSIG works on Linux alone.
"""

import os
import runpy
import signal
import sys
import threading

STDIN = 0
GRACE_S = 30.0


def _end_with_the_pipe() -> None:
    while os.read(STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the module named on the command line, on the leash."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m gateway.leash MODULE [ARGUMENTS...]")
    threading.Thread(target=_end_with_the_pipe, daemon=True, name="leash").start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
