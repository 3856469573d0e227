"""Windows on a made-up LLM's host: what tests of the lease, the keeper and the program do there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ansible.module_utils.understudy.keeper import INSIDE, PAUSING
from ansible.module_utils.understudy.lease import Window
from llm_service import HOLDER, RUN, Service, install
from waiting import until

#: Starts a keeper in a thread; its result is the keeper's exit status.
Keep = Callable[[], "Future[int]"]

#: What `program` started in this test.
STARTED: list[subprocess.Popen[str]] = []


def arm(window: Window, service: Service | None, ttl_s: float = 60, **changes: Any) -> Any:
    return window.arm(RUN, HOLDER, ttl_s, service.described(**changes) if service else {})


def watched(window: Window) -> None:
    until(lambda: window.look()["alive"])


def program(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the program on the host; its interpreter sees nothing but the standard library."""
    path = home / "window.py"
    started = subprocess.Popen(
        [sys.executable, "-S", str(path if path.exists() else install(home)), *arguments],
        text=True,
        stdin=subprocess.DEVNULL,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )
    STARTED.append(started)
    return started


def close_started() -> None:
    """Wait for everything that `program` started, and close its pipes."""
    while STARTED:
        with STARTED.pop():
            pass


def inside(home: Path, mark: str, lease: dict[str, Any], *command: str) -> subprocess.Popen[str]:
    """Start a command inside a window, as the play does."""
    name = {"inside": INSIDE, "pause": PAUSING}[mark]
    return program(home, "enter", "--lease", f"{name}={lease['id']}", "--", *command)


def change(home: Path, name: str, **changes: Any) -> None:
    path = home / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def fill(directory: Path, pages: int = 0) -> None:
    """Fill a disk up to so many pages."""
    if pages:
        (directory / "kept").write_bytes(bytes(4096 * pages))
    with (directory / "full").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    (directory / "kept").unlink(missing_ok=True)
