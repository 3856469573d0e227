"""Waits for the end of a play, and runs a command if the play left its marker behind.

    python3 after_play.py PID MARKER COMMAND… <INVENTORY

The marker is a file that the play removes when it has closed its window. When that is gone, or the
command has succeeded, there is nothing left to do. What the command says is in restore.log beside
the marker; a terminal that the play ran in shows it, too. The inventory is kept in memory and given
to the command as a file without a name (`-i`): it may hold a password that a person typed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from understudy.common.process import start_of


def terminal_of(pid: int) -> int | None:
    """Return a handle of the terminal that a process shows its errors on, if it has one."""
    try:
        handle = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return None
    return handle if os.isatty(handle) else None


def end_others(run_id: str) -> None:
    """End what the play had started on the control node: the baseline."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"UNDERSTUDY_RUN={run_id}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGTERM)
        except OSError:
            continue


def main() -> int:
    """Wait, and return the exit status of the command."""
    pid, marker, command = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    started, terminal = start_of(pid), terminal_of(pid)
    inventory = os.memfd_create("inventory")
    os.write(inventory, sys.stdin.buffer.read())
    command += ["-i", f"/proc/self/fd/{inventory}"]

    def tell(words: str) -> None:
        if terminal is not None:
            with contextlib.suppress(OSError):  # it was closed
                os.write(terminal, f"understudy: {words}\n".encode())

    while started and start_of(pid) == started:
        if not marker.exists():
            return 0
        time.sleep(0.5)
    if not marker.exists():
        return 0
    log = marker.parent / "restore.log"
    tell(f"the play ended inside the LLM's window; bringing the LLM back, see {log}")
    end_others(marker.parent.name)
    with log.open("a", encoding="utf-8") as file:
        print(*command, file=file, flush=True)
        try:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[inventory],
                check=False,
            ).returncode
        except OSError as error:
            print(error, file=file)
            status = 1
    tell(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1])
    if status == 0:
        marker.unlink(missing_ok=True)
    else:
        tell(
            "the LLM's own host brings it back when the lease is over, at the latest. "
            "Next: ansible-playbook restore.yml"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
