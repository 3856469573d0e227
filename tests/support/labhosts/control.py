"""A control node with another Debian: its Python is newer, and so is its Ansible."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .build import base_image, pip_options
from .common import LAB, ROOT, container, quiet, run

SUITE = "trixie"  # its Python is 3.13
PACKAGES = ("make", "git", "openssh-client", "procps", "util-linux")


def control(command: tuple[str, ...]) -> int:
    """Run a command on the control node, in a copy of the project, and return its exit status.

    The copy has its own environment, which is kept; the lab's keys are the machine's.
    """
    image = base_image(SUITE, *PACKAGES)
    tree = LAB / "control" / ROOT.name
    copy_project(tree)
    name = container("control")
    quiet("docker", "rm", "--force", name)  # of an interrupted call
    once = ["docker", "run", "--rm", "--pull=never", "--init", f"--name={name}", *pip_options()]
    once += [f"--volume={LAB}:{LAB}", f"--workdir={tree}", "--env=HOME=/root", image]
    return subprocess.run([*once, *command], check=False).returncode


def copy_project(tree: Path) -> None:
    """Copy the project's files as they are now; what is ignored by git is left as it is."""
    tree.mkdir(parents=True, exist_ok=True)
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in run("list the project's files", listed, cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    if not (tree / ".git").exists():
        run("make it a repository", ["git", "init", "--quiet", tree])
    if not (tree / ".lab").is_symlink():
        (tree / ".lab").symlink_to(LAB)
