"""Runs plays as the operator does, and shows what they left, for the rehearsal and the lab."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Played:
    """What a play left. Any deprecation in its output fails the test."""

    status: int
    output: str
    reports: Path

    def __post_init__(self) -> None:
        deprecated = re.findall(r".*(?:\[DEPRECATION WARNING\]|DeprecationWarning).*", self.output)
        assert not deprecated, "\n".join(deprecated)

    def document(self, name: str) -> dict:
        return json.loads((self.reports / "latest" / name).read_text())

    @property
    def verdict(self) -> dict:
        return self.document("verdict.json")

    @property
    def text(self) -> str:
        """The output with every run of white space as one space, as Ansible folds lines."""
        return re.sub(r"\s+", " ", self.output)

    def recap(self, host: str) -> dict[str, int]:
        row = re.findall(rf"^{host}\s+: (.*)$", self.output, re.MULTILINE)[-1]
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)}


def start_play(
    inventory: Sequence[str], reports: Path, *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.Popen[str]:
    """Start ansible-playbook with the reports elsewhere.

    It has a session of its own, so that a test can end it with all its children.
    """
    settings = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_DEPRECATION_WARNINGS": "1", **environment}
    return subprocess.Popen(
        ["ansible-playbook", *inventory, *arguments, "-e", f"run_reports_dir={reports}"],
        cwd=cwd,
        env=os.environ | settings,
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def play(
    inventory: Sequence[str],
    reports: Path,
    *arguments: str,
    timeout: float = 900,
    cwd: Path = ROOT,
    **environment: str,
) -> Played:
    """Run ansible-playbook to its end."""
    process = start_play(inventory, reports, *arguments, cwd=cwd, **environment)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        raise
    return Played(process.returncode, output, reports)
