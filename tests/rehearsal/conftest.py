"""The rehearsal's services, once for all tests, and what runs plays against them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import played
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
REHEARSAL = ROOT / ".rehearsal"
INVENTORY = ["-i", "inventory/rehearsal"]
LLM = "http://127.0.0.1:8003"


@dataclass
class Played(played.Played):
    """And the most memory that everything took meanwhile."""

    peak_rss_bytes: int


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test the time of the run that it is the first to need, on a slow machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1200), append=False)


def rss_of_all() -> int:
    """Resident memory of the rehearsal's services and of everything this process started."""
    total = 0
    for process in [*psutil.Process().children(recursive=True), *services()]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def services() -> list[psutil.Process]:
    try:
        supervisor = psutil.Process(int((REHEARSAL / "supervisord.pid").read_text()))
        return [supervisor, *supervisor.children(recursive=True)]
    except (OSError, ValueError, psutil.NoSuchProcess):
        return []


def play(reports: Path, *arguments: str, inventory: list[str] = INVENTORY) -> Played:
    """Run ansible-playbook as the operator does, with the reports elsewhere."""
    command = ["ansible-playbook", *inventory, *arguments, "-e", f"run_reports_dir={reports}"]
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1"}
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.5):
            peak = max(peak, rss_of_all())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, text=True, check=False, timeout=900,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    finally:
        done.set()
        watcher.join()
    return Played(ended.returncode, ended.stdout, reports, peak)


def service(action: str, name: str) -> str:
    """Call supervisorctl, as the inventory does."""
    command = ["supervisorctl", "-c", str(REHEARSAL / "supervisord.conf"), action, name]
    return subprocess.run(command, text=True, check=False, capture_output=True).stdout


def llm_answers(wait_s: float = 60) -> bool:
    """Whether the LLM gives a real completion."""
    body = {
        "model": str(REHEARSAL / "made/llm"),
        "messages": [{"role": "user", "content": f"{time.time()} hello"}],
        "max_tokens": 4,
    }
    deadline = time.monotonic() + wait_s
    while True:
        try:
            answer = httpx.post(f"{LLM}/v1/chat/completions", json=body, timeout=20)
            return bool(answer.json()["choices"])
        except (httpx.HTTPError, ValueError, KeyError):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)


@pytest.fixture(scope="session", autouse=True)
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    reports = tmp_path_factory.mktemp("services")
    started = play(reports, "playbooks/rehearsal.yml", "-e", "rehearsal_state=started")
    assert started.status == 0, started.output[-3000:]
    yield
    stopped = play(reports, "playbooks/rehearsal.yml", "-e", "rehearsal_state=stopped")
    assert stopped.status == 0, stopped.output[-3000:]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture(scope="session")
def whole_run(rehearsal: None, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One whole run in mode pause, with two warm-ups; the tests only look at it."""
    return play(
        tmp_path_factory.mktemp("whole"), "bench.yml", "-e", "gemma_mode=pause",
        "-e", "tts_bench_warmup=2",
    )  # fmt: skip
