"""Waits for the end of a play, and runs a command if the play left its marker behind.

    python3 after_play.py PID MARKER COMMAND…

The marker is a file that the play removes when it has closed its window. When that is gone, or the
command has succeeded, there is nothing left to do.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def start_of(pid: int) -> str:
    """Return when a process began (another may get its number later), or "" if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def main() -> int:
    """Wait, and return the exit status of the command."""
    pid, marker, command = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    started = start_of(pid)
    while marker.exists():
        if not started or start_of(pid) != started:
            print("The play ended inside the window:", *command, flush=True)
            status = subprocess.run(command, check=False).returncode
            if status == 0:
                marker.unlink(missing_ok=True)
            return status
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
