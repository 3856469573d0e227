"""What follows a play that ended inside its window."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.understudy.lease import Window
from llm_service import MARK, Service, end_all, install
from waiting import until

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "roles/llm_window/files/after_play.py"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "20261122-031500Z"
    path.mkdir()
    (path / ".window-titan").touch()
    return path


def follow(play: subprocess.Popen[bytes], run_dir: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start it, with a command in place of restore.yml."""
    marker = str(run_dir / ".window-titan")
    words = [sys.executable, str(PROGRAM), str(play.pid), marker, *command]
    after = subprocess.Popen(words, stdin=subprocess.PIPE)
    assert after.stdin
    with after.stdin:
        after.stdin.write(b"all: {hosts: {titan: {}}}\n")
    return after


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env=os.environ | environment)


def test_a_play_that_is_killed_is_followed(run_dir: Path) -> None:
    play, baseline = sleeper(), sleeper(UNDERSTUDY_RUN=run_dir.name)
    other = sleeper(UNDERSTUDY_RUN="20261122-031501Z")
    after = follow(play, run_dir, "sh", "-c", 'cat "$2"; echo titan: it is back', "sh")
    time.sleep(1)
    assert after.poll() is None
    assert not (run_dir / "restore.log").exists()
    play.kill()
    play.wait()
    assert after.wait(10) == 0
    log = (run_dir / "restore.log").read_text().splitlines()
    assert log[-2:] == ["all: {hosts: {titan: {}}}", "titan: it is back"]
    assert not (run_dir / ".window-titan").exists()
    assert baseline.wait(5) != 0
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_window_that_the_play_closed_is_left_alone(run_dir: Path) -> None:
    play = sleeper()
    after = follow(play, run_dir, "false")
    (run_dir / ".window-titan").unlink()
    assert after.wait(10) == 0
    assert not (run_dir / "restore.log").exists()
    play.kill()
    play.wait()


@pytest.mark.parametrize("command", ["false", "/no/such/program"])
def test_what_could_not_be_done_leaves_its_mark(run_dir: Path, command: str) -> None:
    play = sleeper()
    play.kill()
    after = follow(play, run_dir, command)
    play.wait()
    assert after.wait(10) != 0
    assert (run_dir / ".window-titan").exists()
    assert (run_dir / "restore.log").exists()


PLAY = """
- hosts: llm
  gather_facts: false
  tasks:
    - ansible.builtin.assert: {that: "secret == 'open'"}
    - llm_lease:
        home: "{{ llm_window_home }}"
        state: armed
        run_id: 20261122-031500Z
        run_dir: RUN_DIR
        holder: me@control
        ttl_s: 300
        keeper_command: "{{ llm_window_keeper_command }}"
        service:
          url: "{{ llm_window_url }}"
          state_command: "{{ llm_window_state_command }}"
          running_regex: ^running$
          resume_command: "{{ llm_window_resume_command }}"
          ready_timeout_s: 30
          stay_s: 0.1
    - ansible.builtin.command: {argv: "{{ stop }}"}
    - ansible.builtin.wait_for: {timeout: 120}
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv(MARK, str(tmp_path))
    yield Service(tmp_path / "service")
    end_all(str(tmp_path))


def test_neither_a_password_nor_the_command_line_is_needed_again(
    run_dir: Path, tmp_path: Path, service: Service
) -> None:
    """A vault whose password was typed, and `python -m ansible playbook`."""
    (run_dir / ".window-titan").unlink()
    home = tmp_path / "window"
    install(home)
    service.do("start")
    password = tmp_path / "password"
    password.write_text("typed\n")
    vault = ["--vault-password-file", str(password)]
    ansible = [sys.executable, "-m", "ansible"]
    secret = subprocess.run(
        [*ansible, "vault", "encrypt_string", "--name", "secret", *vault, "open"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    state = [
        "sh",
        "-c",
        "{{ '{{' }}braces}} >/dev/null 2>&1; \"$@\"",
        "sh",
        *service.command("state"),
    ]
    known = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "llm_window_home": str(home),
        "llm_window_url": service.url,
        "llm_window_model": "gemma",
        "llm_window_state_command": state,
        "llm_window_running_regex": "^running$",
        "llm_window_resume_command": service.command("start"),
        "llm_window_identity_command": [],
        "llm_window_keeper_command": [
            *("sh", "-c", f"{sys.executable} -S {home}/window.py keep >/dev/null 2>&1 &")
        ],
        "llm_window_unit": "",
        "stop": service.command("stop"),
    }
    inventory, play = tmp_path / "hosts.yml", tmp_path / "play.yml"
    inventory.write_text(json.dumps({"all": {"children": {"llm": {"hosts": {"titan": known}}}}}))
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text(secret)
    play.write_text(PLAY.replace("RUN_DIR", str(run_dir)))
    with (tmp_path / "out").open("w") as out:
        playing = subprocess.Popen(
            [*ansible, "playbook", "-i", str(inventory), str(play), *vault],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until(lambda: "stopped" in service.log or playing.poll() is not None, seconds=60)
    assert playing.poll() is None, (tmp_path / "out").read_text()
    password.unlink()
    os.killpg(playing.pid, signal.SIGKILL)
    playing.wait()
    log = run_dir / "restore.log"
    until(lambda: not (run_dir / ".window-titan").exists() or "failed=1" in read(log), seconds=60)
    assert not (run_dir / ".window-titan").exists(), read(log)
    assert read(log).rstrip().endswith("The LLM answers.")
    assert service.running
    assert Window(str(home)).last()["by"].startswith("restore.yml, ")


def read(log: Path) -> str:
    return log.read_text() if log.exists() else ""
