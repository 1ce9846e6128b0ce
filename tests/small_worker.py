"""A worker without an application, for tests of the supervisor: it counts its start, and does what its mode says.

    python -m tests.small_worker MODE LISTEN_FD BLOCK_FD READY_FD

`steady` serves until SIGTERM; `broken` ends before it is ready; `crashing` ends with status 7 once it is ready;
`deaf` ignores SIGTERM.
"""

import os
import signal
import sys
import threading

from gateway.telemetry import names
from gateway.telemetry.cells import Block
from gateway.telemetry.metrics import Metrics

mode, _, block_fd, ready_fd = sys.argv[1], *map(int, sys.argv[2:])
stopped = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else lambda *_: stopped.set())
if mode == "broken":
    sys.exit(3)
metrics = Metrics(Block.attach(block_fd))
metrics.counter(names.SPANS_EXPORTED).inc()
metrics.gauge(names.REQUESTS_IN_FLIGHT, "chat").inc()
metrics.histogram(names.REQUEST_DURATION, "chat", "t", "ok").observe(0.02, os.getpid(), 1.0)
os.write(ready_fd, b"ready")
if mode == "crashing":
    os._exit(7)
while not stopped.wait(0.05):
    pass
