"""Wait until a condition holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def comes(condition: Callable[[], Any], seconds: float, every: float = 0.01) -> Any:
    """Call a condition until it is true or the time is over; return its last value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return found


def until(
    condition: Callable[[], Any], seconds: float = 10.0, what: object = "", every: float = 0.01
) -> Any:
    """Wait until a condition is true, and return its value; fail after that many seconds."""
    found = comes(condition, seconds, every)
    assert found, f"not within {seconds:g} s: {what or condition}"
    return found
