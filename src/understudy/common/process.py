"""When a process of this machine was started, and whether it is alive."""

from __future__ import annotations

import os
import time
from pathlib import Path


def start_of(pid: int) -> str:
    """Return when a process was started, in clock ticks since the boot; "" if it has ended.

    A number is given out again, so pid and start together name a process.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def age_s(pid: int) -> float:
    """Return how long a living process has been running, in seconds.

    Raises:
        ProcessLookupError: it has ended.
    """
    ticks = start_of(pid)
    if not ticks:
        raise ProcessLookupError(f"process {pid} has ended")
    # The clock of these ticks. /proc/uptime and the btime of /proc/stat, which psutil takes, may be
    # a container's own, while the ticks are the kernel's.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")


def started_at(pid: int) -> float:
    """Return when a living process was started, in Unix seconds.

    Raises:
        ProcessLookupError: it has ended.
    """
    return time.time() - age_s(pid)
