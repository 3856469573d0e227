"""What follows a play that ended inside its window."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "roles/llm_window/files/after_play.py"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "20261122-031500Z"
    path.mkdir()
    (path / ".window-titan").touch()
    return path


def follow(play: subprocess.Popen[bytes], run_dir: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start it, with a command in place of restore.yml."""
    marker = str(run_dir / ".window-titan")
    return subprocess.Popen([sys.executable, PROGRAM, str(play.pid), marker, *command])


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env=os.environ | environment)


def test_a_play_that_is_killed_is_followed(run_dir: Path) -> None:
    play, baseline = sleeper(), sleeper(UNDERSTUDY_RUN=run_dir.name)
    other = sleeper(UNDERSTUDY_RUN="20261122-031501Z")
    after = follow(play, run_dir, "sh", "-c", "echo titan: it is back")
    time.sleep(1)
    assert after.poll() is None
    assert not (run_dir / "restore.log").exists()
    play.kill()
    play.wait()
    assert after.wait(10) == 0
    assert (run_dir / "restore.log").read_text().splitlines()[-1] == "titan: it is back"
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
