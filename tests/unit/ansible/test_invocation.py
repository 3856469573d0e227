"""However a play is called, it does all of its work or says at once why it does nothing."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from loopback import speechlike
from played import ROOT, Played, play

from understudy.audio.pcm import write_wav

ROOT_PLAYS = sorted(path.name for path in ROOT.glob("*.yml") if not path.name.startswith("."))
INVENTORY = ["-i", str(ROOT / "inventory/rehearsal")]


def refused(played: Played, *expected: str) -> str:
    """Assert that the play did nothing, and return its sentence."""
    assert played.status == 1, played.output
    assert "PLAY [" not in played.output
    for text in (*expected, "Nothing was done. Next: "):
        assert text in played.output
    assert not played.reports.exists()
    return played.output


@pytest.mark.parametrize("name", ROOT_PLAYS)
def test_from_another_directory_it_says_what_to_type(name: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    said = refused(play(INVENTORY, reports, str(ROOT / name), "--tags", "x", cwd=tmp_path))
    typed = said.partition("Next: ")[2]
    assert typed.startswith(f"ANSIBLE_CONFIG={ROOT}/ansible.cfg ansible-playbook -i ")
    # With the settings it comes as far as the next problem, an option.
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    arguments = shlex.split(typed)[2:]
    refused(play(arguments, reports, cwd=tmp_path, **settings), f"{name}: --tags would leave")


@pytest.mark.parametrize("name", ROOT_PLAYS)
def test_a_limit_that_leaves_out_a_host_that_is_needed(name: str, tmp_path: Path) -> None:
    limit = ["--limit", "panda"]
    refused(
        play(INVENTORY, tmp_path / "reports", name, *limit), f"{name}: --limit panda leaves out"
    )


@pytest.mark.parametrize("option", ["--tags", "--skip-tags", "--start-at-task"])
def test_an_option_that_leaves_tasks_out(option: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    refused(play(INVENTORY, reports, "failover.yml", option, "x"), f"failover.yml: {option} would")


@pytest.mark.parametrize("name", ["calibrate.yml", "restore.yml", "standby.yml"])
def test_an_inventory_without_the_hosts(name: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {children: {standby: {}, clients: {}}}")
    played = play(["-i", str(inventory)], tmp_path / "reports", name)
    refused(played, f"{name}: the inventory has no host in '")


SPEAKS = """
- name: Report something
  hosts: all
  gather_facts: false
  tasks:
    - name: Report something
      ansible.builtin.set_stats:
        data: {last_words: ["", "{{ inventory_hostname }} did it."]}
"""


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """A playbook of one play, on two hosts."""
    hosts = {name: {"ansible_connection": "local"} for name in ("one", "other")}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (tmp_path / "speaks.yml").write_text(SPEAKS)
    return ["-i", str(tmp_path / "hosts.yml"), str(tmp_path / "speaks.yml")]


@pytest.mark.parametrize("callback", ["understudy", "default", "minimal"])
def test_the_last_words_are_printed_by_every_callback(
    two: list[str], callback: str, tmp_path: Path
) -> None:
    played = play(two, tmp_path, ANSIBLE_STDOUT_CALLBACK=callback)
    assert played.status == 0
    assert len(re.findall("^(?:one|other) did it.$", played.output, re.MULTILINE)) == 2


def test_a_limit_may_choose_among_the_hosts_of_a_single_play(tmp_path: Path) -> None:
    inventory = tmp_path / "rehearsal"
    shutil.copytree(ROOT / "inventory/rehearsal", inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["children"]["standby"]["hosts"]["other"] = {"ansible_connection": "local"}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    options = ["--limit", "other", "-e", f"tts_identity_voice={tmp_path}/none.wav"]
    played = play(["-i", str(inventory)], tmp_path, "calibrate.yml", *options)
    assert played.status == 2
    assert re.search("^fatal: \\[other", played.output, re.MULTILINE)
    assert "titan" not in played.output


@pytest.mark.parametrize("name", ["bench.yml", "calibrate.yml"])
def test_what_measures_has_no_dry_run(name: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    played = play(INVENTORY, reports, name, "--check")
    assert played.status == 2
    assert f"{name} measures, and --check would let it measure nothing. Nothing was" in played.text
    assert not reports.exists()


def test_a_dry_run_of_the_install_reads_no_output_that_is_not_there(tmp_path: Path) -> None:
    include = "ansible.builtin.include_role"
    steps = [{include: {"name": "chatterbox", "tasks_from": f}} for f in ("environment", "weights")]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "standby", "tasks": steps}]))
    options = [str(tmp_path / "play.yml"), "--check", "-e", f"rehearsal_root={tmp_path}/root"]
    played = play(INVENTORY, tmp_path, *options)
    assert played.status == 0, played.output
    assert not (tmp_path / "root").exists()


def test_a_calibration_before_any_install(tmp_path: Path) -> None:
    voice = tmp_path / "voice.wav"
    write_wav(voice, speechlike(5.0))
    own = ["-e", f"tts_identity_voice={voice}", "-e", f"rehearsal_root={tmp_path}/root"]
    played = play(INVENTORY, tmp_path, "calibrate.yml", *own)
    assert played.status == 2
    assert f"titan: {tmp_path}/root/titan has no voice that could be calibrated" in played.text
    assert "Next: ansible-playbook bench.yml" in played.text


def test_an_llm_whose_state_cannot_be_read_is_not_called_well(tmp_path: Path) -> None:
    own = [f"llm_window_home={tmp_path}/window", f"rehearsal_root={tmp_path}/root"]
    own += ["llm_window_url=http://127.0.0.1:9"]  # nobody listens there
    played = play(INVENTORY, tmp_path, "restore.yml", *(word for o in own for word in ("-e", o)))
    assert played.status == 2
    last = " ".join(played.output.rpartition("PLAY RECAP")[2].split())
    assert "titan: No window was open. The state of its service could not be read: '" in last
    assert "start gemma" in last


def test_a_deprecation_in_any_output_fails_a_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the old way"):
        Played(
            0, "ok\n[DEPRECATION WARNING]: the old way. This feature will be removed\n", tmp_path
        )


def test_listing_is_always_possible() -> None:
    command = ["ansible-playbook", *INVENTORY, "bench.yml", "--list-hosts", "--limit", "panda"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
