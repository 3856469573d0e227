"""A control node with Debian 13: Python 3.13 and the newest Ansible of the lock."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from in_lab import LAB, inside, lab, panda_speaks, wait
from played import ROOT, Played

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.long(reason="the control node of every other test covers the oldest Ansible"),
]
TREE = LAB / "control" / ROOT.name


def control(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line there."""
    return subprocess.run(
        ["scripts/lab", "control", "bash", "-c", command],
        cwd=ROOT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def play(*arguments: str) -> Played:
    """Run a play of the real inventory from there, with its reports in the copy."""
    inventory = "-i inventory/hosts.yml -i inventory/lab"
    done = control(
        "export ANSIBLE_NOCOLOR=1 ANSIBLE_DEPRECATION_WARNINGS=1 PATH=$PWD/.venv/bin:$PATH; "
        f"ansible-playbook {inventory} {' '.join(arguments)} -e run_reports_dir=$PWD/reports"
    )
    return Played(done.returncode, done.stdout, TREE / "reports")


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    """The environment of the project's own locks."""
    made = control("make dev && .venv/bin/ansible --version")
    assert made.returncode == 0, made.stdout[-3000:]
    assert "ansible [core 2.21" in made.stdout
    assert "3.13" in made.stdout


@pytest.mark.parametrize("target", ["lint", "unit"])
def test_linters_and_unit_tests(target: str) -> None:
    """With the newest types of numpy and the rules of the newest Ansible, among others."""
    done = control(f"make {target}")
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.fixture
def panda_is_mended() -> Iterator[None]:
    yield
    lab("mend", "panda")


def test_failover(panda_is_mended: None) -> None:
    ready = play("standby.yml")
    assert ready.status == 0, ready.output[-4000:]
    lab("cut", "panda")
    over = play("failover.yml")
    assert over.status == 0, over.output[-4000:]
    newest = max((TREE / "reports/switches").iterdir())
    assert json.loads((newest / "switch.json").read_text())["status"] == "ok"
    lab("mend", "panda")
    wait(panda_speaks, what="panda speaks", seconds=60)
    back = play("failback.yml", "-e failback_hold_down=0", "-e tts_route_hold_down_times=2")
    assert back.status == 0, back.output[-4000:]
    assert "10.83.72.12" in inside("phone1", "cat /home/op/voice-agent.env")


def test_bench() -> None:
    played = play("bench.yml", "-e gemma_mode=pause", "-e tts_bench_warmup=1")
    assert played.status == 0, played.output[-4000:]
    assert played.verdict["verdict"] == "awaiting_ab_scores"
