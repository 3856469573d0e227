"""Reading a run directory: files that are broken, of another run or version, or unfinished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from decided import NOW, OUTPUT, PHASE_FILES, changed, decide, said

from understudy.verdict import rules


@pytest.mark.parametrize("name", ["run.json", *PHASE_FILES])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"a": NaN}', b"[" * 99999, b"1" * 9999],
)
def test_a_broken_file(run_dir: Path, name: str, content: bytes) -> None:
    (run_dir / name).write_bytes(content)
    result = rules.compute(run_dir, NOW)
    assert not list(OUTPUT.iter_errors(result))
    assert (result["verdict"], result["ok"]) == (rules.INVALID, False)
    assert f"{name} cannot be used: " in said(result)


@pytest.mark.parametrize("name", ["run.json", *PHASE_FILES])
def test_a_file_cut_anywhere(run_dir: Path, name: str) -> None:
    whole = (run_dir / name).read_bytes()
    for part in (1, 3, 7, 9):
        (run_dir / name).write_bytes(whole[: len(whole) * part // 10])
        result = rules.compute(run_dir, NOW)
        assert result["verdict"] == rules.INVALID
        assert name in said(result)


@pytest.mark.parametrize("name", ["run.json", *PHASE_FILES])
def test_a_file_of_another_run_or_version(name: str) -> None:
    result = decide(changed((name, "run_id", "20260101-000000Z")))
    assert f"{name} cannot be used: it belongs to run '20260101-000000Z'" in said(result)


@pytest.mark.parametrize("name", ["run.json", *PHASE_FILES, "ratings.json"])
@pytest.mark.parametrize(
    ("version", "text"),
    [
        (3, "a newer one wrote it. Next: update understudy on the control node (git pull)"),
        (0, "an older one wrote it. Next: judge it with the understudy that made it"),
        ("1", "Next: ansible-playbook"),
        (True, "Next: ansible-playbook"),
        (None, "Next: ansible-playbook"),
    ],
)
def test_a_file_of_another_schema_version(name: str, version: Any, text: str) -> None:
    result = decide(changed((name, "schema_version", version), rated=True))
    (reason,) = [reason for reason in result["reasons"] if reason.startswith(name)]
    reads = "1 and 2" if name == "ratings.json" else "1"
    assert (
        f"its schema_version is {json.dumps(version)}, and this understudy reads {reads}" in reason
    )
    assert text in reason
    assert reason.count("Next: ") == 1
    expected = rules.AWAITING if name == "ratings.json" else rules.INVALID
    assert (result["verdict"], result["ok"]) == (expected, False)


@pytest.mark.parametrize("name", PHASE_FILES)
@pytest.mark.parametrize(
    ("state", "text"), [("running", "died"), ("skipped", "was skipped"), (7, "7")]
)
def test_a_phase_that_did_not_end(name: str, state: Any, text: str) -> None:
    result = decide(changed((name, "status", state)))
    assert result["verdict"] == rules.INVALID
    (reason,) = [reason for reason in result["reasons"] if name in reason]
    assert text in reason


def test_files_are_those_it_was_computed_from(run_dir: Path) -> None:
    (run_dir / "verdict.json").write_text("{}")
    result = rules.compute(run_dir, NOW)
    assert result["files"] == [
        {"name": name, "sha256": factory.sha256((run_dir / name).read_bytes())}
        for name in sorted(factory.documents())
    ]
    (run_dir / "identity.json").write_text("{}")
    assert "identity.json" in [row["name"] for row in rules.compute(run_dir, NOW)["files"]]
    assert result["computed_at"] == "2026-11-22T04:00:00Z"
