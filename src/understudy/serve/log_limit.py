"""A bound on the log, so that nobody can fill the disk from outside."""

from __future__ import annotations

import logging
import time

#: So many warnings a minute from one place in the code.
PER_MINUTE = 10


class LogLimit(logging.Filter):
    """Passes `PER_MINUTE` warnings and errors of each place in the code, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written; the first after a pause says how many were not."""
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        since, number = self._seen.get(place, (now, 0))
        if now - since >= 60:
            if number > PER_MINUTE:
                left_out = f"{number - PER_MINUTE} more like this were left out before it"
                record.msg, record.args = f"{record.getMessage()} ({left_out})", None
            since, number = now, 0
        self._seen[place] = since, number + 1
        return number < PER_MINUTE
