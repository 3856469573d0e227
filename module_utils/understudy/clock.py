"""The clock of a host's boot, and times as files and people have them."""

from __future__ import annotations

import time
from datetime import datetime, timezone


def boottime() -> float:
    """Return seconds since the host's boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the id of this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    # In a container the kernel's boot is not the host's: process 1 has another start then.
    with open("/proc/1/stat", encoding="ascii") as file:
        return f"{kernel}/{file.read().rpartition(')')[2].split()[19]}"


def utc_now() -> str:
    """Return the time as every file of the project has it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def lasting(seconds: float) -> str:
    """Return a duration for a person: ``45 s``, ``12 min``, ``3 h 5 min``."""
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def unix(text: str) -> float:
    """Return a time as `utc_now` writes it in Unix seconds."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
