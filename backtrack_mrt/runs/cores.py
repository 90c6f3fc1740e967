"""The cores that other programs leave.

Threads of OpenMP wait for each other at every piece of work. With more of them than free cores all go at the pace of
the scheduler: beside two busy programs two threads on two cores take several times what one takes.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

_STAT = Path("/proc/stat")
_INTERVAL = 1.0  # seconds between two looks; the system counts hundredths
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk. The ninth and tenth are counted in the first two.


class Cores:
    """How many cores this process may count on, at least one: all, less those that others keep busy."""

    def __init__(self) -> None:
        self._free = self._all = os.cpu_count() or 1
        self._seen, self._others = time.monotonic(), others_seconds()

    @property
    def free(self) -> int:
        """As of the last look, at most a second ago."""
        now = time.monotonic()
        if now - self._seen >= _INTERVAL:
            others = others_seconds()
            self._free = max(round(self._all - (others - self._others) / (now - self._seen)), 1)
            self._seen, self._others = now, others
        return self._free


def others_seconds() -> float:
    """Processor seconds of all others since the machine was started. 0 where the system does not tell, and where the
    user has chosen the number of threads: then all cores are free."""
    if "OMP_NUM_THREADS" in os.environ:
        return 0.0
    try:
        ticks = [int(count) for count in _STAT.read_text(encoding="ascii").partition("\n")[0].split()[1:9]]
    except OSError:  # not Linux, or hidden
        return 0.0
    busy = sum(count for column, count in enumerate(ticks) if column not in _IDLE)
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


@cache
def cores() -> Cores:
    """Those of this process."""
    return Cores()
