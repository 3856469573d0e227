"""The rehearsal's services: what looks at them and runs plays against them."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import played
import psutil
from played import ROOT
from waiting import comes

REHEARSAL = ROOT / ".rehearsal"
INVENTORY = ["-i", "inventory/rehearsal"]
LLM = "http://127.0.0.1:8003"


@dataclass
class Played(played.Played):
    """And the most memory that everything took meanwhile."""

    peak_rss_bytes: int


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
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.5):
            peak = max(peak, rss_of_all())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ended = played.play(inventory, reports, *arguments)
    finally:
        done.set()
        watcher.join()
    return Played(ended.status, ended.output, reports, peak)


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

    def completes() -> bool:
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            answer = httpx.post(f"{LLM}/v1/chat/completions", json=body, timeout=20)
            return bool(answer.json()["choices"])
        return False

    return bool(comes(completes, wait_s, every=0.5))
