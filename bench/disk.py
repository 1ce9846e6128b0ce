"""What the disk takes to keep bytes, without a ledger: whatever waits for the disk can be no faster."""

import os
import time
from pathlib import Path

_BYTES = b"x" * 16_384
_PLACES = 100


def sync_s(folder: Path, times: int, rate_per_s: float | None = None) -> list[float]:
    """The seconds of each of `times` writes and fdatasyncs to a file in `folder`, back to back or at a rate.

    The rate matters: a disk that stalls twice a second does so for hardly any of thousands of writes in that second.
    """
    path = folder / "sync"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        # Making a file longer is more than keeping its bytes.
        os.pwrite(descriptor, _BYTES * _PLACES, 0)
        os.fsync(descriptor)
        waits_s = []
        start_s = time.perf_counter()
        for number in range(times):
            if rate_per_s is not None:
                time.sleep(max(0.0, start_s + number / rate_per_s - time.perf_counter()))
            began_s = time.perf_counter()
            os.pwrite(descriptor, _BYTES, number % _PLACES * len(_BYTES))
            os.fdatasync(descriptor)
            waits_s.append(time.perf_counter() - began_s)
    finally:
        os.close(descriptor)
        path.unlink()
    return waits_s
