"""Runs that were recorded by an earlier version still get the verdict that they got then."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from understudy.common.jsonio import write_json
from understudy.verdict import rules

RUNS = sorted(Path(__file__).with_name("recorded").glob("*/*Z"))
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("recorded", RUNS, ids=lambda path: path.parent.name)
def test_the_verdict_is_the_same_byte_for_byte(recorded: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / recorded.name
    shutil.copytree(recorded, run_dir)
    then = (recorded / "verdict.json").read_text(encoding="utf-8")
    found = rules.compute(run_dir, NOW)
    assert found["timing"]["split"].pop("comparison") == 0.0  # that these versions did not note
    write_json(run_dir / "verdict.json", found)
    now = (run_dir / "verdict.json").read_text(encoding="utf-8")
    computed = json.loads(then)["computed_at"]
    assert now.replace("2030-01-01T00:00:00Z", computed) == then


def test_one_is_validated_and_one_is_broken_off() -> None:
    verdicts = {json.loads((run / "verdict.json").read_text())["verdict"] for run in RUNS}
    assert verdicts == {"titan_chatterbox_redundancy_validated", "invalid_run"}
