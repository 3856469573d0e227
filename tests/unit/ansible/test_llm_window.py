"""The role llm_window in a play of its own, with the service and keeper of llm_service.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy.lease import Window
from llm_service import MARK, RUN, Service, end_all, install

ROOT = Path(__file__).resolve().parents[3]

PLAY = """
- hosts: localhost:llm
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        run_facts: {id: RUN_ID, dir: RUN_DIR, gemma_mode: pause}
        run_failed: false
    - ansible.builtin.include_role: {name: llm_window, tasks_from: open}
      when: inventory_hostname == 'titan'
    - ansible.builtin.include_role: {name: llm_window, tasks_from: close}
      when: llm_window_lease is defined
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv(MARK, str(tmp_path))
    made = Service(tmp_path / "service")
    made.do("start")
    yield made
    end_all(str(tmp_path))


class Played:
    """A window that was opened and closed, with what it left."""

    def __init__(self, directory: Path, service: Service, **variables: Any) -> None:
        run_dir, home = directory / RUN, directory / "window"
        run_dir.mkdir()
        install(home)
        keeper = f"{sys.executable} -S {home}/window.py keep >/dev/null 2>&1 &"
        known = {
            "llm_window_home": str(home),
            "llm_window_url": service.url,
            "llm_window_state_command": service.command("state"),
            "llm_window_pause_command": service.command("stop"),
            "llm_window_resume_command": service.command("start"),
            "llm_window_identity_command": ["cat", str(service.directory / "pid")],
            "llm_window_python": sys.executable,
            "llm_window_keeper_command": ["sh", "-c", keeper],
            "llm_window_unit": "",
            "llm_window_stay_s": 1,
            "llm_window_requests": 3,
            "llm_window_warmup": 0,
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "understudy_home": str(directory),
            "understudy_reports_dir": str(directory),
        }
        inventory = {"all": {"children": {"llm": {"hosts": {"titan": known | variables}}}}}
        (directory / "hosts.yml").write_text(json.dumps(inventory))
        play = PLAY.replace("RUN_DIR", str(run_dir)).replace("RUN_ID", RUN)
        (directory / "play.yml").write_text(play)
        command = ["ansible-playbook", "-i", str(directory / "hosts.yml")]
        self.output = subprocess.run(
            [*command, str(directory / "play.yml")],
            cwd=ROOT,
            text=True,
            check=False,
            timeout=90,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        ).stdout
        assert (run_dir / "llm.json").exists(), self.output
        self.llm = json.loads((run_dir / "llm.json").read_text())
        self.window = Window(str(home))


def test_a_window_that_is_not_closed_in_time_is_no_success(
    tmp_path: Path, service: Service
) -> None:
    """The LLM answers, and is not seen to stay up while the play waits."""
    played = Played(tmp_path, service, llm_window_stay_s=60, llm_window_ready_timeout_s=2)
    error = played.llm["error"]
    assert (played.llm["status"], error["kind"]) == ("failed", "llm")
    assert "the window was not closed within 2 s" in error["seen"]
    assert "restore.yml" in error["next"]
    assert not played.llm["hosts"]["titan"].get("closed")
    assert played.window.look()["state"] == "ending"


def test_a_start_command_that_is_text_is_refused_before_anything_is_stopped(
    tmp_path: Path, service: Service
) -> None:
    played = Played(tmp_path, service, llm_window_resume_command="docker start gemma")
    error = played.llm["error"]
    assert "llm_window_resume_command is text ('docker start gemma')" in error["seen"]
    assert error["next"] == 'write llm_window_resume_command: ["docker", "start", "gemma"]'
    assert played.llm["hosts"]["titan"]["resume_command"] == "docker start gemma"
    assert service.log.count("stop") == 0
    assert played.window.lease() is None
