"""The whole benchmark in the lab, over real SSH, with the real inventory's commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from in_lab import gemma_state, llm_answers, note_time, play
from played import ROOT


@pytest.mark.timeout(900)
def test_the_bench_and_a_drift_above_its_limit(reports: Path) -> None:
    """One run for both: everything is measured, and the drift alone makes it end badly."""
    played = play(
        reports,
        "bench.yml",
        "-e",
        "gemma_mode=pause",
        "-e",
        "tts_bench_warmup=1",
        "-e",
        json.dumps({"run_drift_limit": 0.001}),
    )
    assert played.status != 0
    verdict = played.verdict
    assert (verdict["verdict"], verdict["ok"]) == ("awaiting_ab_scores", False)
    assert [row["name"] for row in verdict["checks"] if row["ok"] is False] == ["drift.titan"]
    assert any(reason.startswith("drift.titan: ") for reason in verdict["reasons"])
    assert {row["id"]: row["status"] for row in verdict["criteria"]}[7] == "not_met"
    window = played.document("llm.json")["hosts"]["titan"]
    assert window["closed"]
    assert window["after"]["n"] >= 20
    assert [row["event"] for row in window["timeline"] if row["event"] != "keeper"] == [
        "found",
        "armed",
        "paused",
        "released",
        "started",
        "answered",
        "closed",
    ]
    note_time("the bench ends", window["back_after_s"])
    assert gemma_state() == "running"
    assert llm_answers(5)
    valid = subprocess.run(
        [sys.executable, "-m", "understudy", "validate", reports / "latest"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    impossible = "run.json: $.limits.drift: 0.001 is less than the minimum of 1"
    assert json.loads(valid.stdout)["problems"] == [impossible]
    assert played.recap("panda").get("changed") == 0
