"""Running one of the inventory's commands, and reporting the outcome."""

from __future__ import annotations

import subprocess


class CommandError(Exception):
    """It could not be run, did not end, or ended badly; the message says which."""


def run(command: list[str], timeout_s: float, *, check: bool = True) -> str:
    """Return a command's output, both streams, without white space around it.

    Args:
        command: as a list.
        timeout_s: how long it may take, in seconds.
        check: whether a status other than 0 is an error.

    Raises:
        CommandError: see there.
    """
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            check=False,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{shown} did not end within {timeout_s:.0f} s") from None
    except OSError as error:
        raise CommandError(f"{shown}: {error.strerror}") from error
    output = done.stdout.strip()
    if check and done.returncode:
        raise CommandError(
            f"{shown} ended with status {done.returncode}: {output[-500:] or 'no output'}"
        )
    return output
