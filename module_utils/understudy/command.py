"""Running one of the inventory's commands, and reporting the outcome."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

#: A killed process is gone after so many seconds, or is not waited for.
KILL_S = 5.0


class CommandError(Exception):
    """It could not be run, did not end, or ended badly; the message says which."""


def expanded(command: Sequence[str]) -> list[str]:
    """Return a command with the home for a ``~`` or ``$HOME`` that a word begins with."""
    words = (re.sub(r"^(\$HOME|\$\{HOME\})(?=/|$)", "~", word) for word in command)
    return [os.path.expanduser(word) for word in words]


def environment() -> dict[str, str]:
    """Return the environment for a command, with what a login would have set.

    sshd without PAM, cron and ``su`` do not say where the user's systemd and bus are.
    """
    found = {"HOME": os.path.expanduser("~"), **os.environ}
    directory = found.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if os.path.isdir(directory):
        found["XDG_RUNTIME_DIR"] = directory
    bus = os.path.join(directory, "bus")
    if os.path.exists(bus) and not found.get("DBUS_SESSION_BUS_ADDRESS"):
        found["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
    return found


def run(command: Sequence[str], timeout_s: float, *, check: bool = True) -> str:
    """Return a command's output, both streams, without white space around it.

    It ends when its first process does: a service that was started by it, and has inherited its
    output, is not waited for. Its output need not be UTF-8.

    Args:
        command: as a list; see `expanded`.
        timeout_s: how long it may take, in seconds; then everything that it has started is killed,
            as far as that is in its process group.
        check: whether a status other than 0 is an error.

    Raises:
        CommandError: see there.
    """
    shown = " ".join(command)
    try:
        with _output() as file:
            process = subprocess.Popen(
                expanded(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
            try:
                status = process.wait(timeout_s)
            except BaseException:
                _kill(process)
                raise
            output = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
    except subprocess.TimeoutExpired:
        raise CommandError(f"{shown} did not end within {timeout_s:.0f} s") from None
    except OSError as error:
        raise CommandError(f"{shown}: {error.strerror}") from error
    text = output.decode(errors="replace").strip()
    if check and status:
        raise CommandError(f"{shown} ended with status {status}: {text[-500:] or 'no output'}")
    return text


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process group; one that is another user's, through sudo, is left to itself."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_S)


def _output() -> IO[bytes]:
    """Return a file for what a command prints: in memory where there is such a thing.

    A pipe would stay open as long as any process has it, and kill a service that still writes.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("output"), "w+b")
    return tempfile.TemporaryFile()
