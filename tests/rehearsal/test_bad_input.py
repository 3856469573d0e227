"""What goes wrong is named, with the host and the next command, and leaves the LLM as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from in_rehearsal import INVENTORY, REHEARSAL, Played, llm_answers, play, service
from loopback import HTML, Answer, Scripted, pcm_answer
from played import ROOT


@pytest.fixture(autouse=True)
def llm_is_as_it_was() -> Iterator[None]:
    before = service("status", "gemma").split()[1]
    yield
    assert service("status", "gemma").split()[1] == before
    assert before != "RUNNING" or llm_answers()


def refused(played: Played, *expected: str) -> None:
    """Assert that the run ended badly, said so, and left a verdict that says it too."""
    assert played.status != 0
    for text in expected:
        assert text in played.text, played.output[-4000:]
    assert played.verdict["verdict"] == "invalid_run"
    assert played.output.rstrip().splitlines()[-1].startswith("report: ")
    assert not (played.reports / "latest/bench-titan.json").exists()


def test_unknown_mode(reports: Path) -> None:
    played = play(reports, "bench.yml", "-e", "gemma_mode=stop")
    assert played.status != 0
    assert "gemma_mode is 'stop'" in played.text
    assert "ansible-playbook bench.yml -e gemma_mode=pause" in played.text
    assert not reports.exists()


@pytest.mark.parametrize("run", ["..", "20261122-031500Z/.."])
def test_a_run_that_is_not_in_the_reports(reports: Path, run: str) -> None:
    played = play(reports, "score.yml", "-e", f"run={run}", "-e", "ab_scores=scores.csv")
    assert played.status != 0
    assert f"run is '{run}'; it names a directory in {reports}" in played.text
    assert f"Next: ls {reports}" in played.text
    assert not reports.exists()


def test_reports_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "reports"
    blocked.write_text("a file where the directory should be\n")
    played = play(blocked, "bench.yml")
    assert played.status != 0
    assert f"{blocked}" in played.text
    assert "cannot be made" in played.text
    assert "-e run_reports_dir=DIRECTORY" in played.text
    assert blocked.read_text() == "a file where the directory should be\n"


def test_callers_who_hear_the_standby(reports: Path) -> None:
    """A failover is in force: a bench that pauses the LLM is refused before anything starts."""
    phone = REHEARSAL / "phone/voice-agent.env"
    before = phone.read_text()
    phone.write_text(before.replace(":8772", ":8773"))
    try:
        played = play(reports, "bench.yml", "-e", "gemma_mode=pause")
    finally:
        phone.write_text(before)
    said = "callers may speak with its voice, which a bench disturbs: phone uses it"
    refused(played, said, "ansible-playbook failback.yml", "-e gemma_mode=pause -e force=true")


#: What is wrong with titan, what is said, and what to type then. Nobody listens at port 9.
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
LOST = [
    (AWAY, "Connection refused", "next: ssh -v titan true"),
    (
        {"ansible_python_interpreter": "/no/python3"},
        "/no/python3' was not found",
        "next: ssh titan sudo apt install python3",
    ),
]


@pytest.mark.parametrize(("titan", "seen", "then"), LOST, ids=["unreachable", "no python"])
def test_a_host_on_which_nothing_can_be_run(
    reports: Path, tmp_path: Path, titan: dict[str, object], seen: str, then: str
) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventory/rehearsal", inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["children"]["standby"]["hosts"]["titan"] = titan
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    played = play(
        reports, "bench.yml", "-e", f"rehearsal_root={REHEARSAL}", inventory=["-i", str(inventory)]
    )
    refused(played, "titan:", seen, then)


def test_everything_at_once(reports: Path, tmp_path: Path) -> None:
    rows = yaml.safe_load((ROOT / "files/utterances.yml").read_text())
    rows[1]["text"] = rows[0]["text"]
    rows[2]["text"] = "word " * 600
    utterances = tmp_path / "utterances.yml"
    utterances.write_text(yaml.safe_dump(rows[:9]))
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, np.zeros((8000 * 5, 2)), 8000)
    with Scripted(HTML) as primary:
        played = play(
            reports,
            "bench.yml",
            "-e",
            "gemma_mode=pause",
            "-e",
            f"run_utterances={utterances}",
            "-e",
            f"run_voice={voice}",
            "-e",
            "preflight_disk_gib=1000000",
            "-e",
            "run_drift_limit=3",
            "-e",
            f"tts_baseline_url={primary.url}",
        )
    refused(
        played,
        "9 entries, 10 are expected",
        "the same text as entry 1",
        "3000 characters",
        "2 channels",
        "8000 Hz",
        "titan:",
        "1000000.0 GiB are needed",
        "panda:",
        "a web page",
        "nothing was started and nothing was changed",
    )
    assert played.document("run.json")["limits"] == {"drift": 3.0}  # a number, not what was typed
    bad = [row for row in played.document("preflight.json")["checks"] if not row["ok"]]
    assert {row["id"] for row in bad} >= {"utterances", "voice", "disk", "primary"}
    assert all(row["next"] for row in bad)


def test_mute_primary_and_a_bad_sheet(reports: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "scores.csv"
    sheet.write_text("utterance,titan,panda\nu01,9,4\n")
    with Scripted(pcm_answer(np.zeros(48_000, dtype=np.float32))) as primary:
        played = play(
            reports,
            "bench.yml",
            "-e",
            f"tts_baseline_url={primary.url}",
            "-e",
            f"ab_scores={sheet}",
        )
    refused(played, "panda:", "silent", "it answers, but not with speech", "scores.csv", "u02")


def test_llm_that_lists_models_and_completes_nothing(reports: Path) -> None:
    models = Answer(b'{"data": [{"id": "gemma"}]}', content_type="application/json")
    broken = Answer(b'{"error": "engine is starting"}', 503, "application/json")
    with Scripted(broken, health=models) as llm:
        played = play(
            reports,
            "bench.yml",
            "-e",
            "gemma_mode=pause",
            "-e",
            f"llm_window_url={llm.url}",
            "-e",
            "llm_window_model=",
        )
    refused(played, "titan:", "the LLM is not healthy", "engine is starting", "start gemma")


def test_llm_that_was_stopped_before(reports: Path) -> None:
    service("stop", "gemma")
    try:
        played = play(reports, "bench.yml", "-e", "gemma_mode=pause")
        refused(played, "titan:", "the LLM is not healthy", "STOPPED", "start gemma")
        assert "STOPPED" in service("status", "gemma")
    finally:
        service("start", "gemma")
        assert llm_answers()


@pytest.fixture
def broken_weights(tmp_path: Path) -> Path:
    copy = tmp_path / "weights"
    shutil.copytree(REHEARSAL / "made/weights", copy)
    with (copy / "t3_cfg.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    return copy


def test_weights_cut_short(reports: Path, broken_weights: Path) -> None:
    played = play(reports, "bench.yml", "-e", f"chatterbox_weights_dir={broken_weights}")
    refused(played, "titan:", "t3_cfg.safetensors: cut short: 1000000 bytes of")
    error = played.document("install-titan.json")["error"]
    assert error["kind"] == "weights"
    assert str(broken_weights) in error["next"]


def test_bench_that_dies_inside_the_window(reports: Path) -> None:
    played = play(
        reports,
        "bench.yml",
        "-e",
        "gemma_mode=pause",
        "-e",
        "tts_bench_timeout_s=5",
        "-e",
        "tts_baseline_total_timeout_s=5",
    )
    assert played.status != 0
    verdict, bench = played.verdict, played.document("bench-titan.json")
    assert verdict["verdict"] == "invalid_run"
    assert bench["status"] == "failed"
    assert "status 124" in bench["error"]["seen"]
    window = played.document("llm.json")["hosts"]["titan"]
    assert window["paused_at"]
    assert window["closed"] is True


def test_port_taken(reports: Path) -> None:
    # The voice server itself, while the rehearsal's own one has the port.
    config = json.loads((REHEARSAL / "serve.json").read_text())
    command = [str(REHEARSAL / "panda/current/bin/understudy"), "serve", "--config", "-"]
    ended = subprocess.run(
        command, input=json.dumps(config), text=True, capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert "8772" in ended.stderr
    assert "ss -ltnp" in ended.stderr


def test_inventory_of_the_rehearsal_is_the_real_one_but_for_its_sizes() -> None:
    def groups(inventory: list[str]) -> dict:
        text = subprocess.run(
            ["ansible-inventory", *inventory, "--list"],
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        listed = json.loads(text)
        return {name: listed[name]["hosts"] for name in ("standby", "primary", "llm")}

    assert groups(INVENTORY) == groups(["-i", "inventory/hosts.yml"])
