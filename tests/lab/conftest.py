"""The lab, as it is after `make lab-up`, and what looks at it and plays against it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from played import Played

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / ".lab"
INVENTORY = ["-i", "inventory/hosts.yml", "-i", "inventory/lab"]
TITAN, PANDA = "10.83.72.11", "10.83.72.12"


def lab(*arguments: str, timeout: float = 300) -> str:
    """Call scripts/lab, which must succeed, and return its output."""
    done = subprocess.run(
        ["scripts/lab", *arguments], cwd=ROOT, text=True, check=False, timeout=timeout,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"scripts/lab {' '.join(arguments)}: {done.stdout}"
    return done.stdout.strip()


def inside(host: str, script: str) -> str:
    """Run a script as root inside a host, whatever its network does."""
    return lab("exec", host, "bash", "-c", script)


def ssh(host: str, script: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script as the operator, over SSH."""
    options = ["-F", str(LAB / "ssh/config"), "-o", "ConnectTimeout=5", "-o", "BatchMode=yes"]
    return subprocess.run(
        ["ssh", *options, host, script], text=True, check=False, timeout=timeout,
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def wait(what: str, holds: Callable[[], Any], seconds: float = 90) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)


def gemma_state() -> str:
    return inside("titan", "docker inspect --format '{{.State.Status}}' vllm-gemma4")


def llm_answers(wait_s: float = 60) -> bool:
    """Whether Gemma gives a real completion within that time."""
    body = {
        "model": "/opt/lab/made/llm",
        "messages": [{"role": "user", "content": f"{time.time()} hello"}],
        "max_tokens": 4,
    }
    return _asked(f"http://{TITAN}:8003/v1/chat/completions", body, {}, wait_s, b'"choices"')


def panda_speaks(wait_s: float = 60) -> bool:
    """Whether panda returns speech within that time."""
    token = (LAB / "ssh/panda/token").read_text().strip()
    body = {"text": f"It is {time.strftime('%H:%M:%S')} in the lab."}
    return _asked(f"http://{PANDA}:8772/synthesize", body, {"X-Internal-Token": token}, wait_s)


def _asked(url: str, body: dict, headers: dict, wait_s: float, expected: bytes = b"") -> bool:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    deadline = time.monotonic() + wait_s
    while True:
        try:
            with urllib.request.urlopen(request, timeout=max(1, wait_s)) as answer:
                said = answer.read()
            return bool(said) and expected in said
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)


def start_play(reports: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start ansible-playbook as the operator does, with the reports elsewhere.

    It has a session of its own, so that a test can end it with all its children.
    """
    return subprocess.Popen(
        ["ansible-playbook", *INVENTORY, *arguments, "-e", f"run_reports_dir={reports}"],
        cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def play(reports: Path, *arguments: str, timeout: float = 900) -> Played:
    """Run ansible-playbook to its end."""
    process = start_play(reports, *arguments)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        raise
    return Played(process.returncode, output, reports)


#: How long Gemma took to come back, by what had happened.
TIMES: dict[str, float] = {}


def note_time(what: str, seconds: float) -> None:
    """Keep a time for the table at the end of the tests."""
    TIMES.setdefault(what, seconds)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TIMES:
        terminalreporter.section("Gemma answered again after")
        for what, seconds in TIMES.items():
            terminalreporter.write_line(f"{seconds:5.0f} s  {what}")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture
def mended() -> Iterator[None]:
    """Leaves both hosts reachable and everything running, whatever the test did."""
    yield
    for host in ("titan", "panda"):
        lab("mend", host)
    inside("titan", "docker start vllm-gemma4")
    assert llm_answers()
