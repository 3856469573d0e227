"""What systemd is told (sd_notify(3)): ready, how it goes, still alive, stopping."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("understudy.notify")


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1`` to the service manager.

    Args:
        assignments: one line each; a line's end inside one becomes a space.

    Returns:
        Whether they were sent; False also where no service manager listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract name space
        address = "\0" + address[1:]
    message = "\n".join(" ".join(line.splitlines()) for line in assignments)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            sock.connect(address)
            sock.sendall(message.encode())
    except OSError as error:
        log.warning("the service manager cannot be told %s: %s", assignments[0], error)
        return False
    return True


def watchdog_s() -> float | None:
    """Return within how many seconds ``WATCHDOG=1`` is expected; None if it is not."""
    try:
        if int(os.environ.get("WATCHDOG_PID") or os.getpid()) != os.getpid():
            return None
        seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None
