"""Every check of the pre-flight, and what the operator is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from understudy.documents import validate
from understudy.verdict import preflight

GIB = 1024**3
NEEDS = {
    "ssh": "ssh titan true",
    "disk_bytes": 12 * GIB,
    "mem_available_bytes": 8 * GIB,
    "python": [3, 11],
    "gpu": True,
}
FACTS = {
    "reachable": True,
    "arch": "aarch64",
    "os": "Ubuntu 24.04.2 LTS",
    "kernel": "6.11",
    "python": "3.12.3",
    "venv": True,
    "cpus": 20,
    "mem_total_bytes": 120 * GIB,
    "mem_available_bytes": 9 * GIB,
    "disk_path": "/home/op",
    "disk_free_bytes": 12 * GIB,
    "driver": "580.95.05",
    "cuda": "13.0",
    "gpu_note": "",
    "gpus": [
        {
            "name": "NVIDIA GB10",
            "compute_capability": "12.1",
            "memory_total_bytes": None,
            "memory_note": "shared",
        }
    ],
}


def judge(needs: dict[str, Any] | None = None, **changes: Any) -> dict[str, dict[str, Any]]:
    rows = preflight.host_checks("titan", FACTS | changes, NEEDS if needs is None else needs)
    return {row["id"]: row for row in rows}


def test_a_host_that_has_everything() -> None:
    rows = judge()
    assert list(rows) == ["reachable", "disk", "memory", "python", "venv", "gpu"]
    assert all(
        row["ok"] and row["next"] is None and row["host"] == "titan" for row in rows.values()
    )
    assert rows["reachable"]["detail"] == "Ubuntu 24.04.2 LTS, aarch64"
    assert rows["gpu"]["detail"] == "NVIDIA GB10 (sm_121), driver 580.95.05"
    assert preflight.message(list(rows.values())) == ""


def test_a_host_that_only_speaks_is_only_reached() -> None:
    assert list(judge({"ssh": "ssh panda true"})) == ["reachable"]


@pytest.mark.parametrize(("seen", "detail"), [("No route", "No route"), ("", "no answer")])
def test_a_host_that_does_not_answer(seen: str, detail: str) -> None:
    [row] = preflight.host_checks("titan", {"reachable": False, "seen": seen}, NEEDS)
    assert (row["id"], row["ok"], row["detail"]) == ("reachable", False, detail)
    assert row["next"] == "ssh titan true"


def test_a_disk_that_is_too_small() -> None:
    row = judge(disk_free_bytes=12 * GIB - 1)["disk"]
    assert row["ok"] is False
    assert (row["value"], row["threshold"], row["unit"]) == (12 * GIB - 1, 12 * GIB, "bytes")
    assert row["next"] == "ssh titan df -h /home/op"
    row = judge(disk_free_bytes=3 * GIB)["disk"]
    assert row["detail"] == "3.0 GiB free at /home/op, 12.0 GiB are needed"


@pytest.mark.parametrize("have", [GIB, None])
def test_too_little_memory(have: int | None) -> None:
    row = judge(mem_available_bytes=have)["memory"]
    assert row["ok"] is False
    assert row["detail"].endswith("GiB MemAvailable, 8.0 GiB are needed")
    assert row["next"] == "ssh titan free -h; free some of it"


@pytest.mark.parametrize(
    ("version", "ok"),
    [("3.9.18", False), ("3.10.12", False), ("3.11.0", True), ("3.13.0rc1", True), ("4.0.0", True)],
)
def test_pythons_are_compared_as_numbers(version: str, ok: bool) -> None:
    row = judge(python=version)["python"]
    assert row["ok"] is ok
    assert row["detail"] == f"Python {version}, 3.11 or newer is needed"
    assert (row["next"] is None) is ok


def test_a_python_without_environments() -> None:
    row = judge(venv=False)["venv"]
    assert row["ok"] is False
    assert "ensurepip is missing" in row["detail"]
    assert row["next"] == "ssh titan sudo apt install python3-venv"


def test_a_host_without_python() -> None:
    seen = "The module interpreter '/usr/bin/python3' was not found."
    (row,) = preflight.host_checks("titan", {"reachable": False, "seen": seen}, NEEDS)
    assert (row["id"], row["ok"], row["detail"]) == ("python", False, seen)
    assert row["next"].startswith("ssh titan sudo apt install python3")


def test_programs_that_a_host_lacks() -> None:
    packages = ["coreutils", "tar"]
    row = judge(missing_commands=["env", "tail", "tar"], missing_packages=packages)["commands"]
    assert (row["ok"], row["detail"]) == (False, "missing: env, tail, tar")
    assert row["next"] == "ssh titan sudo apt install coreutils tar"
    row = judge(missing_commands=["/opt/own/tool"], missing_packages=[])["commands"]
    assert row["next"] == "install it on titan, or correct the command in the inventory"
    assert judge(missing_commands=[])["commands"]["ok"] is True


@pytest.mark.parametrize("reachable", [True, False])
def test_a_control_node_without_ssh(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reachable: bool
) -> None:
    hosts = {"titan": {"facts": {"reachable": reachable}}}
    for name in ("ssh", *preflight.CONTROL_COMMANDS):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preflight.control_node_checks(hosts) == []
    (tmp_path / "ssh").unlink()
    rows = preflight.control_node_checks(hosts)
    assert [(row["id"], row["host"], row["next"]) for row in rows] == [
        ("ssh", None, "sudo apt install openssh-client")
    ] * (not reachable)


def test_programs_that_the_control_node_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (row,) = preflight.control_node_checks({})
    assert (row["host"], row["detail"]) == (None, "missing: grep, tail, tar, timeout")
    assert row["next"] == "sudo apt install coreutils grep tar"


def test_no_gpu() -> None:
    row = judge(gpus=[], gpu_note="nvidia-smi is not installed")["gpu"]
    assert row["ok"] is False
    assert row["detail"] == "no GPU: nvidia-smi is not installed"
    assert row["next"] == "ssh titan nvidia-smi; without a GPU set chatterbox_device: cpu"


def test_a_host_without_a_gpu_where_none_is_needed() -> None:
    assert "gpu" not in judge(NEEDS | {"gpu": False}, gpus=[], gpu_note="none")


LATENCY = {"p50_ms": 41.7}


def llm(**facts: Any) -> dict[str, Any]:
    facts = {"url": "http://127.0.0.1:8003", "state": None, "model": None, **facts}
    [row] = preflight.llm_check("titan", facts, mode="pause", next_step="docker start gemma")
    return row


def test_an_llm_that_answers() -> None:
    row = llm(healthy=True, model="gemma", latency=LATENCY)
    assert (row["ok"], row["value"], row["unit"], row["next"]) == (True, 41.7, "ms", None)
    assert row["detail"] == "gemma at http://127.0.0.1:8003 answers, p50 42 ms"


def test_an_llm_that_does_not_answer() -> None:
    row = llm(healthy=False, seen="connection refused", state="exited")
    assert (row["ok"], row["next"]) == (False, "docker start gemma")
    assert row["detail"] == (
        "the LLM is not healthy before a run in mode pause: connection refused "
        "(its service says: exited)"
    )
    assert llm(healthy=False)["detail"].endswith(": no completion")


def test_a_primary_that_speaks() -> None:
    facts = {
        "spoke": True,
        "problems": [],
        "audio": {"duration_s": 2.44},
        "wall_s": 1.26,
        "url": "http://panda:8772",
    }
    [row] = preflight.primary_check("panda", facts)
    assert (row["ok"], row["value"], row["unit"]) == (True, 1.26, "s")
    assert row["detail"] == "spoke 2.4 s in 1.3 s at http://panda:8772"
    [row] = preflight.primary_check("panda", facts | {"rehearsal": True})
    assert row["ok"]
    assert row["detail"].endswith(", with a rehearsal's weights: not judged as speech")


def test_a_primary_that_does_not_speak() -> None:
    problems = [{"seen": "silent", "next": "listen to it"}, {"seen": "8 kHz", "next": "set 24 kHz"}]
    rows = preflight.primary_check("panda", {"spoke": True, "problems": problems})
    assert [(row["ok"], row["detail"], row["next"]) for row in rows] == [
        (False, "silent", "listen to it"),
        (False, "8 kHz", "set 24 kHz"),
    ]
    [row] = preflight.primary_check("panda", {"spoke": False, "url": "http://panda:8772"})
    assert (row["detail"], row["next"]) == ("it did not speak", "curl http://panda:8772")
    [row] = preflight.primary_check("panda", {"spoke": False, "seen": "refused", "url": "u"})
    assert row["detail"] == "refused"


def test_what_the_operator_provided() -> None:
    assert [(row["id"], row["ok"]) for row in preflight.input_checks([])] == [
        ("utterances", True),
        ("voice", True),
    ]
    problems = [
        {"id": "voice", "seen": "samantha.wav has 2 channels", "next": "put a mono WAV there"},
        {"id": "voice", "seen": "samantha.wav is 8 kHz", "next": "put 24 kHz there"},
    ]
    rows = preflight.input_checks(problems)
    assert [(row["id"], row["ok"]) for row in rows] == [
        ("voice", False),
        ("voice", False),
        ("utterances", True),
    ]
    assert {row["host"] for row in rows} == {None}


def test_all_problems_are_told_at_once_with_host_sight_and_next_command() -> None:
    bad = FACTS | {
        "disk_free_bytes": 0,
        "mem_available_bytes": 0,
        "python": "3.9.1",
        "venv": False,
        "gpus": [],
        "gpu_note": "none",
    }
    checks = [
        *preflight.host_checks("titan", bad, NEEDS),
        *preflight.host_checks(
            "panda", {"reachable": False, "seen": "timed out"}, {"ssh": "ssh panda true"}
        ),
        *preflight.input_checks([{"id": "voice", "seen": "v.wav is empty", "next": "record it"}]),
        llm(healthy=False, seen="refused"),
    ]
    lines = preflight.message(checks).splitlines()
    assert lines[0] == "8 problems; nothing was started and nothing was changed."
    told = dict(zip(lines[1::2], lines[2::2], strict=True))
    assert len(told) == 8
    assert all(line.startswith("    next: ") for line in told.values())
    assert told["panda: timed out"] == "    next: ssh panda true"
    assert told["control node: v.wav is empty"] == "    next: record it"
    assert sum(line.startswith("titan: ") for line in told) == 6


def test_one_problem_is_one() -> None:
    row = preflight.check("disk", "titan", False, "full", "df")
    assert preflight.message([row]) == (
        "1 problem; nothing was started and nothing was changed.\ntitan: full\n    next: df"
    )


def test_every_row_keeps_to_the_schema() -> None:
    bad = FACTS | {"disk_free_bytes": 0, "python": "3.9.1", "gpus": [], "gpu_note": "none"}
    document = {
        "schema_version": 1,
        "run_id": "20261122-031500Z",
        "phase": "preflight",
        "host": None,
        "status": "failed",
        "started_at": "2026-11-22T03:15:00Z",
        "finished_at": "2026-11-22T03:15:10Z",
        "error": {"kind": "preflight", "host": None, "trying": "t", "seen": "s", "next": "n"},
        "checks": [
            *judge().values(),
            *preflight.host_checks("titan", bad, NEEDS),
            llm(healthy=True, model="gemma", latency=LATENCY),
            *preflight.input_checks([]),
        ],
        "hosts": {"titan": FACTS},
        "llm": {},
        "primary": {},
        "busy": [],
    }
    validator = validate.load_schemas()["preflight"]
    assert [error.message for error in validator.iter_errors(document)] == []


def window(window_state: str = "none", *, lingering: bool = True, **more: Any) -> dict[str, Any]:
    """What is known of the LLM's window on a host."""
    facts = {
        "window": {"state": window_state, "lingering": lingering, "user": "op"},
        "unit": "w.service",
    }
    return facts | {"running": True, "window_said": "ann has it"} | more


def test_a_window_that_can_be_opened() -> None:
    rows = preflight.window_checks("titan", window())
    assert [(row["id"], row["ok"]) for row in rows] == [("window", True), ("lingering", True)]


@pytest.mark.parametrize(
    ("facts", "id_", "detail", "following"),
    [
        (window("held"), "window", "ann has it", "restore.yml"),
        (window("ending"), "window", "ann has it", "restore.yml"),
        ({"window_said": "no such file"}, "window", "no such file", "ssh titan ls"),
        (window(lingering=False), "lingering", "of op end with", "loginctl enable-linger op"),
        (
            window(running=False, state="permission denied", next="newgrp"),
            "service",
            "permission denied",
            "newgrp",
        ),
    ],
)
def test_a_window_that_cannot(facts: dict[str, Any], id_: str, detail: str, following: str) -> None:
    bad = [row for row in preflight.window_checks("titan", facts) if not row["ok"]]
    assert [row["id"] for row in bad] == [id_]
    assert detail in bad[0]["detail"]
    assert following in bad[0]["next"]


def test_without_systemd_nobody_lingers() -> None:
    rows = preflight.window_checks("titan", window(lingering=False, unit=""))
    assert [row["id"] for row in rows] == ["window"]


@pytest.mark.parametrize(
    ("users", "age", "mode", "force", "ok"),
    [
        ([], None, "pause", False, True),
        ([], 301, "pause", False, True),
        (["phone1 uses it"], None, "pause", False, False),
        (["phone1 uses it"], None, "pause", True, True),
        (["phone1 uses it"], None, "parallel", False, True),
        (["phone2 may use it, since it was not looked at: no route"], 500, "pause", False, False),
        ([], 12.4, "pause", False, False),
        ([], 12.4, "parallel", False, True),
    ],
)
def test_callers_who_speak_with_the_standby(
    users: list[str], age: float | None, mode: str, force: bool, ok: bool
) -> None:
    facts = {"users": users, "asked_age_s": age}
    [row] = preflight.callers_check("titan", facts, mode=mode, force=force)
    assert (row["id"], row["ok"]) == ("callers", ok)
    assert all(user in row["detail"] for user in users)
    assert ("was asked to speak 12 s ago" in row["detail"]) is (age == 12.4)
    if not ok:
        assert "failback.yml" in row["next"]
        assert f"-e gemma_mode={mode} -e force=true" in row["next"]


def test_a_standby_whose_callers_are_known_is_judged_with_the_others() -> None:
    found = {"facts": FACTS, "needs": NEEDS, "callers": {"users": ["phone1 uses it"]}}
    checks = preflight.judge({"titan": found}, [], "pause")["checks"]
    assert [row["id"] for row in checks if not row["ok"]] == ["callers"]
    checks = preflight.judge({"titan": found}, [], "pause", force=True)["checks"]
    assert all(row["ok"] for row in checks)


def test_a_command_that_is_text() -> None:
    commands = {
        "llm_window_state_command": ["docker", "inspect", "gemma"],
        "llm_window_resume_command": "docker start 'my gemma'",
        "llm_window_pause_command": "echo 'unfinished",
    }
    rows = preflight.command_checks("titan", commands)
    assert [row["next"] for row in rows] == [
        'write llm_window_resume_command: ["docker", "start", "my gemma"]',
        'write llm_window_pause_command: ["sh", "-c", "echo \'unfinished"]',
    ]
