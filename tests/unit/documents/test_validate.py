"""The schemas accept a good run, and nothing that differs from the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from jsonschema import Draft202012Validator

from understudy.documents import validate

INSTALL, BENCH, BASELINE = "install-titan.json", "bench-titan.json", "baseline-panda.json"


def test_each_schema_is_a_schema() -> None:
    names = sorted(path.name for path in validate.SCHEMAS.glob("*.schema.json"))
    kinds = (
        "baseline",
        "bench",
        "calibration",
        "common",
        "identity",
        "install",
        "llm",
        "preflight",
        "ratings",
        "run",
        "server_config",
        "switch",
        "verdict",
    )
    assert names == [f"{kind}.schema.json" for kind in kinds]
    for name in names:
        document = json.loads((validate.SCHEMAS / name).read_text())
        Draft202012Validator.check_schema(document)
        assert document["$id"] == name


def test_a_complete_run_is_valid(run_dir: Path) -> None:
    for ratings in (factory.ratings(), factory.listened([4] * 20, [5] * 20)):
        factory.put(run_dir, "ratings.json", ratings)
        assert validate.validate_run(run_dir) == []


LISTENED: list[tuple[str, Any, str]] = [
    ("schema_version", 3, "schema_version"),
    ("source.kind", "email", "source.kind"),
    ("source.kind", "sheet", "listener"),
    ("scores.12.pass", factory.REMOVED, "pass"),
    ("scores.12.pass", 0, "scores[12].pass"),
    ("scores.12.titan", 6, "scores[12].titan"),
    ("scores.12.panda", factory.REMOVED, "scores[12]"),
    ("given_for", factory.REMOVED, "given_for"),
    ("given_for.titan.driver", 580, "given_for.titan.driver"),
    ("audio", {"/etc/passwd": "0" * 64}, "passwd"),
    ("listener.impostor.0.score", 0, "listener.impostor[0].score"),
    ("listener.telephone", factory.REMOVED, "telephone"),
]


@pytest.mark.parametrize(("path", "value", "named"), LISTENED)
def test_a_deviation_in_a_session_is_named(
    run_dir: Path, path: str, value: Any, named: str
) -> None:
    ratings = factory.listened([4] * 20, [5] * 20)
    factory.change(ratings, path, value)
    factory.put(run_dir, "ratings.json", ratings)
    problems = validate.validate_run(run_dir)
    assert problems
    assert named in " ".join(problems)


def test_a_link_to_a_run_will_do(run_dir: Path) -> None:
    (run_dir.parent / "latest").symlink_to(run_dir.name)
    assert validate.validate_run(run_dir.parent / "latest") == []


MUTATIONS: list[tuple[str, str, Any, str]] = [
    ("run.json", "gemma_mode", "stop", "gemma_mode"),
    ("run.json", "git_commit", "yesterday", "git_commit"),
    ("run.json", "started_at", "2026-11-22 03:15", "started_at"),
    ("run.json", "utterances.9", factory.REMOVED, "utterances"),
    ("run.json", "utterances.3.id", "u11", "utterances[3].id"),
    ("run.json", "hosts.llm", factory.REMOVED, "llm"),
    ("run.json", "schema_version", 2, "schema_version"),
    ("run.json", "comment", "hello", "comment"),
    ("preflight.json", "checks.0.ok", False, "checks[0]"),
    ("preflight.json", "hosts.titan.arch", factory.REMOVED, "arch"),
    ("preflight.json", "phase", "pre-flight", "phase"),
    ("llm.json", "hosts.titan.closed", False, "closed"),
    ("llm.json", "hosts.titan.during_ratio", 1.5, "during_ratio"),
    ("llm.json", "hosts.titan.drift", "1.0", "drift"),
    ("llm.json", "hosts.titan.before.p50_ms", factory.REMOVED, "p50_ms"),
    ("llm.json", "busy.0.what", "waiting", "busy[0].what"),
    (INSTALL, "status", "done", "status"),
    (INSTALL, "import_ok", False, "import_ok"),
    (INSTALL, "guard.decision", "failed", "guard.decision"),
    (INSTALL, "guard.probe.ops.0.error", factory.REMOVED, "error"),
    (INSTALL, "venv.lock_sha256", "abc", "lock_sha256"),
    (INSTALL, "venv.packages.0.kind", "egg", "kind"),
    (INSTALL, "weights.files.0.ok", False, "weights.files[0].ok"),
    (INSTALL, "smoke", factory.REMOVED, "smoke"),
    (INSTALL, "finished_at", None, "finished_at"),
    (BENCH, "utterances.2.ok", False, "utterances[2].ok"),
    (BENCH, "utterances.2.wav", "/etc/passwd.wav", "utterances[2].wav"),
    (BENCH, "utterances.9", factory.REMOVED, "utterances"),
    (BENCH, "memory.process_driver_bytes", "N/A", "process_driver_bytes"),
    (BENCH, "aggregate.rtf.p95", factory.REMOVED, "p95"),
    (BENCH, "environment", None, "environment"),
    (BENCH, "error", factory.error("bench"), "error"),
    (BASELINE, "utterances.0.http_status", "200", "http_status"),
    (BASELINE, "utterances.0.wav_sha256", None, "wav_sha256"),
    (BASELINE, "run_id", "20261122-031501Z", "run_id"),
    ("ratings.json", "scores.0.titan", 6, "scores[0].titan"),
    ("ratings.json", "scores.0.titan", 4.5, "scores[0].titan"),
    ("ratings.json", "scores.0.panda", factory.REMOVED, "scores[0]"),
    ("ratings.json", "scores.9", factory.REMOVED, "scores"),
    ("ratings.json", "identity_matches", "yes", "identity_matches"),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: "-".join(mutation[:2]))
def test_a_deviation_is_named(run_dir: Path, mutation: tuple[str, str, Any, str]) -> None:
    name, path, value, named = mutation
    document = {**factory.documents(), "ratings.json": factory.ratings()}[name]
    factory.change(document, path, value)
    factory.put(run_dir, name, document)
    problems = validate.validate_run(run_dir)
    assert problems
    assert all(problem.startswith(f"{name}: ") for problem in problems)
    assert named in " ".join(problems)


@pytest.mark.parametrize("status", ["running", "failed", "skipped"])
@pytest.mark.parametrize("name", ["preflight.json", "llm.json", INSTALL, BENCH, BASELINE])
def test_a_phase_that_stopped_may_lack_its_payload(run_dir: Path, name: str, status: str) -> None:
    document = factory.documents()[name]
    fields = factory.header(document["phase"], document["host"])
    fields.update(status=status, error=factory.error("other") if status == "failed" else None)
    factory.put(run_dir, name, fields)
    assert validate.validate_run(run_dir) == []


def test_a_failure_needs_its_error(run_dir: Path) -> None:
    document = factory.documents()[BENCH]
    document["status"] = "failed"
    factory.put(run_dir, BENCH, document)
    assert any(".error" in problem for problem in validate.validate_run(run_dir))


def test_wavs_are_compared_with_their_record(run_dir: Path) -> None:
    (run_dir / "titan_native/u01.wav").unlink()
    (run_dir / "panda_baseline/u02.wav").write_bytes(factory.wav(1000))
    assert validate.validate_run(run_dir) == [
        "baseline-panda.json: panda_baseline/u02.wav: its sha256 is not the recorded one",
        "bench-titan.json: titan_native/u01.wav: the file is missing",
    ]


def test_what_is_not_a_wav_is_named(run_dir: Path) -> None:
    document = factory.documents()[BENCH]
    (run_dir / "titan_native/u01.wav").write_bytes(b"<html>")
    document["utterances"][0]["wav_sha256"] = factory.sha256("<html>")
    factory.put(run_dir, BENCH, document)
    (problem,) = validate.validate_run(run_dir)
    assert "titan_native/u01.wav: not a WAV" in problem


def test_a_wav_elsewhere_is_refused(run_dir: Path) -> None:
    outside = run_dir.parent / "elsewhere.wav"
    outside.write_bytes(factory.wav(100))
    (run_dir / "titan_native/u01.wav").unlink()
    (run_dir / "titan_native/u01.wav").symlink_to(outside)
    (problem,) = validate.validate_run(run_dir)
    assert "outside the run directory" in problem


@pytest.mark.parametrize("text", ["", "{", '{"value": NaN}', "\x00"])
def test_what_is_not_json_is_named(run_dir: Path, text: str) -> None:
    (run_dir / "llm.json").write_text(text)
    (problem,) = validate.validate_run(run_dir)
    assert problem.startswith("llm.json: not JSON")


def test_strange_files_and_a_missing_run_are_named(run_dir: Path) -> None:
    (run_dir / "notes.json").write_text("{}")
    (run_dir / "run.json").unlink()
    problems = validate.validate_run(run_dir)
    assert any(problem.startswith("run.json: there is none") for problem in problems)
    assert "notes.json: not a file of a run directory" in problems
