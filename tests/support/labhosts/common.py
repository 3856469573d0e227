"""Where the lab is, what it consists of, and how its parts run commands."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / ".lab"
SOURCES = ROOT / "tests/lab/image"
LOCKS = ROOT / "files/locks"

#: The hosts' addresses; inventory/lab has the same.
HOSTS = {
    "titan": "10.83.72.11",
    "panda": "10.83.72.12",
    "phone1": "10.83.72.21",  # the phones' clients of the voice
    "phone2": "10.83.72.22",
}
SUBNET = "10.83.72.0/24"
NETWORK = "understudy-lab"
BRIDGE = "understudy0"


class LabError(Exception):
    """What was tried, what was seen, and the next command."""


@contextmanager
def exclusive() -> Iterator[None]:
    """Let one process at a time change the lab."""
    LAB.mkdir(exist_ok=True)
    with LAB.joinpath("lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(doing: str, command: Sequence[str | Path], **options: Any) -> str:
    """Run a command and return its output; if it fails, say what was tried and seen."""
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )
    if done.returncode:
        seen = done.stdout[-3000:].strip()
        raise LabError(f"{doing}: {' '.join(map(str, command[:4]))} …:\n{seen}")
    return str(done.stdout)


def docker(doing: str, *arguments: str) -> str:
    """Call Docker."""
    return run(doing, ["docker", *arguments])


def quiet(*command: str) -> str:
    """Run a command that may fail, and return its standard output without the last newline."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def container(host: str) -> str:
    """Return the name of a host's container."""
    return f"understudy-{host}"


def wait(what: str, wrong: Callable[[], str], seconds: float, next_command: str) -> None:
    """Wait until nothing is wrong any more; past the time, say what was."""
    deadline = time.monotonic() + seconds
    while seen := wrong():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: after {seconds:.0f} s: {seen}; next: {next_command}")
        time.sleep(0.3)


def digest(*parts: str | bytes) -> str:
    """Return 12 hex digits of some parts."""
    value = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        value.update(f"{len(data)} ".encode() + data)
    return value.hexdigest()[:12]


def tree(directory: Path) -> list[str | bytes]:
    """Return names and contents of all files below a directory."""
    parts: list[str | bytes] = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        parts += [str(path.relative_to(directory)), path.read_bytes()]
    return parts


def is_made_of(directory: Path, wanted: str) -> bool:
    """Whether a directory is complete and was made of these things."""
    marker = directory / ".made-of"
    return marker.is_file() and marker.read_text() == wanted


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, the innermost first."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        mount = line.split()[1].replace("\\040", " ")
        if Path(mount).is_relative_to(directory):
            run(f"unmount {mount}", ["umount", mount])


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"lab: {text}", flush=True)
