"""The rules: which directory has which verdict, and what is said about it."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from jsonschema import Draft202012Validator

from understudy.documents import validate
from understudy.verdict import evidence, rules, scoring, timing

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
INSTALL, BENCH, BASELINE = "install-titan.json", "bench-titan.json", "baseline-panda.json"
RATED = {"ratings.json": factory.ratings()}
OUTPUT = validate.load_schemas()["verdict"]

#: Results that were validated: most broken values lead to one of a few, and validating is slow.
VALID: set[str] = set()


def decide(documents: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Decide, and hold every outcome to its schema."""
    result = rules.decide(
        documents, run_id=factory.RUN_ID, computed_at="2026-11-22T04:00:00Z", **options
    )
    text = repr(result)
    if text not in VALID:
        problems = [f"{e.json_path}: {e.message}" for e in OUTPUT.iter_errors(result)]
        assert problems == []
        assert isinstance(OUTPUT, Draft202012Validator)
        VALID.add(text)
    return result


def changed(*changes: tuple[str, str, Any], rated: bool = False) -> dict[str, Any]:
    documents: dict[str, Any] = factory.documents()
    if rated:
        documents.update(copy.deepcopy(RATED))
    for name, path, value in changes:
        factory.change(documents[name], path, value)
    return documents


def failed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    """The run with one phase that failed, and nothing but its header and ``fields``."""
    documents = changed()
    head = factory.header(documents[name]["phase"], documents[name]["host"])
    error = factory.error(kind, seen=f"exact {kind} text")
    documents[name] = {**head, "status": "failed", "error": error, **fields}
    return documents


def status(result: dict[str, Any]) -> str:
    """The nine statuses as a word: + met, - not met, . not yet."""
    signs = {"met": "+", "not_met": "-", "not_yet": "."}
    return "".join(signs[row["status"]] for row in result["criteria"])


def check(result: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = [row for row in result["checks"] if row["name"] == name]
    return row


def said(result: dict[str, Any]) -> str:
    return "\n".join(result["reasons"])


# The five verdicts


def test_awaiting_scores() -> None:
    result = decide(changed())
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, True)
    assert "Next: ansible-playbook score.yml -e run=" in said(result)
    assert status(result) == "++++..+.."
    assert result["ratings"] is None


def test_validated() -> None:
    result = decide(changed(rated=True))
    assert (result["verdict"], result["ok"]) == (rules.VALIDATED, True)
    assert "a difference of +0.00: less than 0.5" in said(result)
    assert status(result) == "+++++++.."
    assert result["ratings"] == {
        "n": 10,
        "passes": 1,
        "means": {"titan": 5.0, "panda": 5.0},
        "differences": {"titan": 0.0},
    }


@pytest.mark.parametrize(
    ("standby", "primary", "difference", "validated"),
    [
        ([5] * 6 + [4] * 4, [4] * 9 + [5], 0.5, False),  # 4.6 - 4.1 is 0.49999… in floats
        ([4] * 9 + [5], [5] * 6 + [4] * 4, -0.5, False),
        ([4] * 5 + [5] * 5, [5] * 10, -0.5, False),
        ([4] * 4 + [5] * 6, [5] * 10, -0.4, True),
        ([5] * 10, [4] * 4 + [5] * 6, 0.4, True),
        ([1] * 10, [5] * 10, -4.0, False),
    ],
)
def test_the_difference_of_the_means(
    standby: list[int], primary: list[int], difference: float, validated: bool
) -> None:
    result = decide({**changed(), "ratings.json": factory.ratings(standby, primary)})
    assert result["verdict"] == (rules.VALIDATED if validated else rules.DIVERGES)
    assert result["ok"] is validated
    row = check(result, "mean_difference.titan")
    assert (row["value"], row["ok"], row["threshold"]) == (difference, validated, 0.5)
    assert ("No redundancy is claimed" in said(result)) is not validated
    assert status(result) == "+++++++.."


@pytest.mark.parametrize(
    ("difference", "close"),
    [
        (Fraction(4999, 10000), True),
        (Fraction(-4999, 10000), True),
        (Fraction(1, 2), False),
        (Fraction(-1, 2), False),
        (Fraction(0), True),
    ],
)
def test_the_boundary(difference: Fraction, close: bool) -> None:
    assert scoring.matches(difference) is close


@pytest.mark.parametrize(("answer", "validated"), [(True, True), (None, True), (False, False)])
def test_the_perceived_identity(answer: bool | None, validated: bool) -> None:
    result = decide(changed(("ratings.json", "identity_matches", answer), rated=True))
    assert result["verdict"] == (rules.VALIDATED if validated else rules.DIVERGES)
    assert ("identity does not match" in said(result)) is not validated


def test_every_standby_must_match() -> None:
    documents = changed(rated=True)
    for phase in ("install", "bench"):
        other = copy.deepcopy(documents[f"{phase}-titan.json"])
        documents[f"{phase}-spare.json"] = {**other, "host": "spare"}
    documents["run.json"]["hosts"]["standby"] = ["titan", "spare"]
    for row in documents["ratings.json"]["scores"]:
        row["spare"] = 5
    assert decide(documents)["verdict"] == rules.VALIDATED
    for row in documents["ratings.json"]["scores"]:
        row["spare"] = 4
    result = decide(documents)
    assert result["verdict"] == rules.DIVERGES
    assert result["ratings"]["differences"] == {"titan": 0.0, "spare": -1.0}
    del documents["bench-spare.json"]
    result = decide(documents)
    assert result["verdict"] == rules.INVALID
    assert "bench-spare.json is missing" in said(result)


@pytest.mark.parametrize("kind", ["blackwell", "budget_exceeded"])
@pytest.mark.parametrize("patch", ["auto", "force"])
def test_deferred(kind: str, patch: str) -> None:
    probe = {"ok": False, "cold_cache": True, "ops": [], "error": "nvrtc: error: invalid value"}
    guard = {"requested": patch, "device": "cuda", "decision": "failed", "probe": probe}
    guard["patched_probe"] = {**probe, "error": "patched, and still"}
    documents = failed(INSTALL, kind, guard=guard, budget_s=3600, spent_s=3700)
    documents["run.json"]["stft_patch"] = patch
    del documents[BENCH]
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.DEFERRED, False)
    for text in (
        f"exact {kind} text",
        "unpatched STFT path answered: nvrtc: error: invalid value",
        "patched STFT path answered: patched, and still",
        "no native failover",
        "second Panda-like host",
        "CPU synthesis on Titan",
        "cloud voice",
    ):
        assert text in said(result)
    assert status(result) == "--.+.++.."
    assert check(result, "install_budget.titan")["ok"] is False


def test_an_experiment_without_the_patch_defers_nothing() -> None:
    documents = failed(INSTALL, "blackwell")
    documents["run.json"]["stft_patch"] = "off"
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.INVALID, False)
    assert "-e stft_patch=auto" in said(result)
    assert "exact blackwell text" in said(result)
    assert rules.ALTERNATIVES not in result["reasons"]


def test_a_budget_that_ran_out_without_the_patch_still_defers() -> None:
    documents = failed(INSTALL, "budget_exceeded")
    documents["run.json"]["stft_patch"] = "off"
    assert decide(documents)["verdict"] == rules.DEFERRED


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([("restored_at", None), ("timeline", [])], "its lease of 1800 s runs out"),
        ([("restored_at", None), ("lease", None)], "before the LLM's window was open"),
        ([("timeline", [{"event": "expired"}])], "it answered again at 2026-11-22T03:19:00Z"),
        ([("timeline", [{"event": "released"}]), ("restored_at", None)], "goes on bringing it"),
    ],
)
def test_a_window_that_nobody_closed(changes: list[tuple[str, Any]], text: str) -> None:
    result = decide(
        changed(
            ("llm.json", "hosts.titan.closed", False),
            *[("llm.json", f"hosts.titan.{key}", value) for key, value in changes],
        )
    )
    assert result["verdict"] == rules.INVALID
    assert text in said(result)


def test_a_deferral_still_says_that_the_llm_is_away() -> None:
    documents = failed(INSTALL, "blackwell")
    documents["llm.json"]["hosts"]["titan"]["closed"] = False
    result = decide(documents)
    assert result["verdict"] == rules.DEFERRED
    assert "inside the LLM's window" in said(result)


@pytest.mark.parametrize("state", ["ok", "running"])
def test_only_a_failed_install_defers(state: str) -> None:
    documents = failed(INSTALL, "blackwell")
    documents[INSTALL]["status"] = state
    assert decide(documents)["verdict"] == rules.INVALID


# Invalid runs

PHASES = {
    "preflight.json": ("preflight", "++++..+.."),
    "llm.json": ("llm", "++++..-.."),
    INSTALL: ("install", "-.++..+.."),
    BENCH: ("bench", "++-+..+.."),
    BASELINE: ("baseline", "+++-..+.."),
}


@pytest.mark.parametrize("rated", [False, True])
@pytest.mark.parametrize("name", PHASES)
def test_a_failed_phase(name: str, rated: bool) -> None:
    kind, statuses = PHASES[name]
    documents = failed(name, kind)
    if rated:
        documents.update(copy.deepcopy(RATED))
        statuses = statuses[:4] + "+" + statuses[5:]
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.INVALID, False)
    reason = f"titan: the {kind} step failed ({name}): exact {kind} text. Next: ssh titan true"
    assert reason in result["reasons"]
    assert status(result) == statuses


@pytest.mark.parametrize("name", ["run.json", *PHASES])
def test_a_missing_file(name: str) -> None:
    documents = changed()
    del documents[name]
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.INVALID, False)
    assert f"{name} is missing" in said(result)
    assert "-" not in status(result)


def test_what_was_not_reached_is_one_sentence_after_the_cause() -> None:
    documents = failed("preflight.json", "preflight")
    for name in ("llm.json", INSTALL, BENCH, BASELINE):
        del documents[name]
    cause, rest = decide(documents)["reasons"]
    assert "exact preflight text" in cause
    assert rest == (
        "llm.json, install-titan.json, bench-titan.json and baseline-panda.json are missing: "
        "the run did not get that far."
    )


@pytest.mark.parametrize("name", ["run.json", *PHASES])
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


@pytest.mark.parametrize("name", ["run.json", *PHASES])
def test_a_file_cut_anywhere(run_dir: Path, name: str) -> None:
    whole = (run_dir / name).read_bytes()
    for part in (1, 3, 7, 9):
        (run_dir / name).write_bytes(whole[: len(whole) * part // 10])
        result = rules.compute(run_dir, NOW)
        assert result["verdict"] == rules.INVALID
        assert name in said(result)


@pytest.mark.parametrize("name", ["run.json", *PHASES])
def test_a_file_of_another_run_or_version(name: str) -> None:
    result = decide(changed((name, "run_id", "20260101-000000Z")))
    assert f"{name} cannot be used: it belongs to run '20260101-000000Z'" in said(result)


@pytest.mark.parametrize("name", ["run.json", *PHASES, "ratings.json"])
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


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize(
    ("state", "text"), [("running", "died"), ("skipped", "was skipped"), (7, "7")]
)
def test_a_phase_that_did_not_end(name: str, state: Any, text: str) -> None:
    result = decide(changed((name, "status", state)))
    assert result["verdict"] == rules.INVALID
    (reason,) = [reason for reason in result["reasons"] if name in reason]
    assert text in reason


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([(BENCH, "utterances.2.ok", False), (BENCH, "utterances.2.error", "mute")], "u03: mute"),
        ([(BENCH, "utterances.2.ok", "yes")], "u03: not ok"),
        ([(BENCH, "utterances.9", factory.REMOVED)], "9 of 10 utterances in bench-titan.json"),
        ([(BENCH, "utterances.2.id", "u02")], "u03 is missing"),
        ([(BENCH, "utterances.2.text_sha256", "0")], "u03 spoke another text"),
        ([(BENCH, "utterances.2.wav", None)], "u03 has no WAV"),
        ([(BENCH, "utterances", "ten")], "0 of 10"),
        ([(BASELINE, "utterances.0.ok", False)], "9 of 10 utterances in baseline-panda.json"),
        ([(BASELINE, "utterances", [])], "0 of 10 utterances in baseline-panda.json"),
        (
            [("llm.json", "hosts.titan.closed", False)],
            "titan: the run ended inside the LLM's window",
        ),
        ([("llm.json", "hosts", {})], "titan: the run ended before the LLM's window was open"),
        ([("preflight.json", "checks.0.ok", False)], "titan: disk: free under /home/me"),
        ([(INSTALL, "import_ok", False)], "titan: chatterbox did not import"),
        ([(INSTALL, "guard.decision", "failed")], "the Blackwell guard decided 'failed'"),
        ([(INSTALL, "guard", None)], "the Blackwell guard decided None"),
        ([(INSTALL, "smoke.ok", False)], "the smoke utterance was not heard"),
        ([("run.json", "utterances", [])], "run.json names 0 utterances, 10 are needed"),
        ([("run.json", "hosts.standby", [])], "run.json names no standby host"),
        ([("run.json", "hosts.primary", [])], "run.json names no primary host"),
    ],
)
@pytest.mark.parametrize("rated", [False, True])
def test_what_is_incomplete(changes: list[Any], text: str, rated: bool) -> None:
    result = decide(changed(*changes, rated=rated))
    assert (result["verdict"], result["ok"]) == (rules.INVALID, False)
    (reason,) = [reason for reason in result["reasons"] if text in reason]
    assert "Next: " in reason


def test_no_llm_host_needs_no_window() -> None:
    documents = changed(("run.json", "hosts.llm", []))
    del documents["llm.json"]
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, True)
    assert status(result) == "++++....."


def test_an_empty_directory(tmp_path: Path) -> None:
    run_dir = tmp_path / factory.RUN_ID
    run_dir.mkdir()
    result = rules.compute(run_dir, NOW)
    assert not list(OUTPUT.iter_errors(result))
    assert result["verdict"] == rules.INVALID
    assert status(result) == "........."
    assert "run.json is missing" in said(result)
    assert "preflight.json and llm.json are missing" in said(result)
    assert (result["files"], result["checks"]) == ([], [])
    assert [question["answer"] for question in result["questions"]] == [None] * 6


def leaves(document: Any, path: str = "") -> list[str]:
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:1])
        if isinstance(document, list)
        else []
    )
    found = [path] if path else []
    for key, value in items:
        if "." in str(key):
            continue
        found += leaves(value, f"{path}.{key}" if path else str(key))
    return found


@pytest.mark.parametrize("name", ["ratings.json", "run.json", *PHASES])
def test_no_value_makes_it_raise(name: str) -> None:
    """Each value of each file, replaced by one of each other type."""
    whole = changed(rated=True)
    for path in leaves(whole[name]):
        if "." not in path and path in ("schema_version", "run_id"):
            continue
        for value in (factory.REMOVED, None, True, 1e308, "x", [None], {"a": [1]}):
            document = copy.deepcopy(whole[name])
            factory.change(document, path, value)
            decide({**whole, name: document})


# Checks, criteria, questions


@pytest.mark.parametrize(("drift", "ok"), [(1.0, True), (1.2, True), (1.2001, False), (None, True)])
@pytest.mark.parametrize("rated", [False, True])
def test_drift_decides_ok_and_not_the_verdict(drift: float | None, ok: bool, rated: bool) -> None:
    result = decide(changed(("llm.json", "hosts.titan.drift", drift), rated=rated))
    assert result["verdict"] == (rules.VALIDATED if rated else rules.AWAITING)
    assert result["ok"] is ok
    assert check(result, "drift.titan")["ok"] is (None if drift is None else ok)
    assert ("drift.titan: 1.20 is more than 1.2" in said(result)) is not ok
    assert status(result)[6] == ("." if drift is None else "+" if ok else "-")


@pytest.mark.parametrize(("limit", "shown"), [(1.2, "1.2"), (3, "3"), (2.0, "2")])
def test_the_criterion_names_the_limit_of_the_run(limit: float, shown: str) -> None:
    result = decide(changed(("run.json", "limits.drift", limit)))
    assert result["criteria"][6]["name"] == (
        f"the LLM's p50 after the window is at most {shown} x the one before"
    )


def parallel(during: float | None, drift: float = 1.05) -> dict[str, Any]:
    path = "hosts.titan"
    return changed(
        ("run.json", "gemma_mode", "parallel"),
        ("llm.json", f"{path}.mode", "parallel"),
        ("llm.json", f"{path}.during", factory.latency(400)),
        ("llm.json", f"{path}.during_ratio", during),
        ("llm.json", f"{path}.drift", drift),
    )


def test_the_ratio_during_the_synthesis_informs_only() -> None:
    result = decide(parallel(2.1))
    row = check(result, "during_ratio.titan")
    assert (row["ok"], row["value"]) == (None, 2.1)
    assert "drift after it decides" in row["detail"]
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, True)
    assert not any(row["name"].startswith("during") for row in decide(changed())["checks"])


@pytest.mark.parametrize(
    ("documents", "start"),
    [
        (parallel(1.1), "titan: Yes: 1.10 x"),
        (parallel(2.1), "titan: It recovers, but is slower meanwhile"),
        (parallel(2.1, 1.5), "titan: No, pause it"),
        (parallel(None), None),
        (changed(), None),
    ],
)
def test_whether_parallel_is_safe(documents: dict[str, Any], start: str | None) -> None:
    row = decide(documents)["questions"][5]
    assert row["answer"] is None if start is None else row["answer"].startswith(start)
    assert row["evidence"]


def test_the_six_answers() -> None:
    answers = [row["answer"] for row in decide(changed())["questions"]]
    for index, parts in enumerate(
        [
            [
                "aarch64, Python 3.12.3",
                "torch 2.11.0 instead of 2.6.0",
                "3 packages, none was built",
            ],
            ["does not occur on NVIDIA GB10"],
            [
                "allocated at its peak 3.72 GB",
                "not known (Not Supported)",
                "resident memory was 5.00",
            ],
            ["resemble-perth 1.0.1 is a hard dependency and installs and works on aarch64"],
            ["titan: mean 0.50, p50 0.50, p95 0.60 (n = 10)", "panda, over HTTP: mean 0.50"],
        ]
    ):
        for part in parts:
            assert part in answers[index]
    assert answers[5] is None


def test_an_x86_host_answers_nothing_about_aarch64() -> None:
    result = decide(changed(("preflight.json", "hosts.titan.arch", "x86_64")))
    for index in (0, 3):
        assert "not aarch64, so nothing is known" in result["questions"][index]["answer"]


def guard(**fields: Any) -> dict[str, Any]:
    documents = changed()
    documents[INSTALL]["guard"].update(fields)
    return documents


PROBE = {"ok": False, "cold_cache": True, "ops": [], "error": "nvrtc: error"}
FINE = {**PROBE, "ok": True, "error": None}
VERIFIED = {"ok": True, "max_relative_error": 1e-6, "tolerance": 1e-4, "detail": None}


@pytest.mark.parametrize(
    ("documents", "sign", "answer"),
    [
        (guard(), "+", "No: it does not occur"),
        (guard(decision="not_applicable", device="cpu", device_name=None), "+", None),
        (
            guard(decision="patched", probe=PROBE, patched_probe=FINE, verify=VERIFIED),
            "+",
            "nvrtc: error. The patch works as a drop-in",
        ),
        (guard(decision="patched", probe=PROBE, patched_probe=PROBE), "-", "does not cure it"),
        (guard(decision="unpatched", probe=PROBE), "-", "switched off"),
        (guard(decision="unpatched", probe=FINE), "+", "No: it does not occur"),
    ],
)
def test_the_guard(documents: dict[str, Any], sign: str, answer: str | None) -> None:
    result = decide(documents)
    assert status(result)[1] == sign
    found = result["questions"][1]["answer"]
    assert found is None if answer is None else answer in found


def test_the_checks_of_a_good_run() -> None:
    result = decide(changed(rated=True))
    assert {
        row["name"]: (row["ok"], row["value"], row["threshold"]) for row in result["checks"]
    } == {
        "preflight_problems": (True, 0, 0),
        "install_budget.titan": (True, 240.0, 3600),
        "utterances_ok.titan": (True, 10, 10),
        "baseline_ok.panda": (True, 10, 10),
        "token_cap_hits.titan": (True, 0, 0),
        "drift.titan": (True, 1.026, 1.2),
        "mean_difference.titan": (True, 0.0, 0.5),
        "identity_matches": (True, None, None),
    }


def test_an_overdrawn_budget_and_capped_utterances_are_seen() -> None:
    result = decide(changed((INSTALL, "spent_s", 3601), (BENCH, "utterances.3.hit_cap", True)))
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert "install_budget.titan" in said(result)
    capped = check(result, "token_cap_hits.titan")
    assert (capped["ok"], capped["value"]) == (None, 1)
    assert "u04" in capped["detail"]


@pytest.mark.parametrize("rehearsal", [False, True])
def test_scores_older_than_the_audio(rehearsal: bool) -> None:
    result = decide(
        changed(
            ("ratings.json", "given_before_audio", True),
            ("run.json", "rehearsal", rehearsal),
            rated=True,
        )
    )
    assert result["verdict"] == rules.VALIDATED
    assert result["ok"] is rehearsal
    assert check(result, "ratings_after_audio")["ok"] is (None if rehearsal else False)
    assert ("older than the audio" in said(result)) is not rehearsal
    assert any("before the audio" in note for note in result["notes"]) is rehearsal


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scores.4.titan", 6),
        ("scores.4.titan", 4.0),
        ("scores.4", factory.REMOVED),
        ("scores.4.panda", factory.REMOVED),
        ("scores", None),
        ("run_id", "20260101-000000Z"),
    ],
)
def test_unusable_ratings_are_never_averaged(path: str, value: Any) -> None:
    result = decide(changed(("ratings.json", path, value), rated=True))
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert "ratings.json" in said(result)
    assert result["ratings"] is None
    assert status(result)[4] == "-"


def test_broken_ratings_on_disk(run_dir: Path) -> None:
    (run_dir / "ratings.json").write_text("{")
    result = rules.compute(run_dir, NOW)
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert "ratings.json cannot be used: it is not complete JSON" in said(result)


# Passes, statistics, and whether the scores still stand


@pytest.mark.parametrize(
    ("second", "difference", "validated"),
    [([4] * 10, -0.5, False), ([4] * 9 + [5], -0.45, True), ([5] * 10, 0.0, True)],
)
def test_the_mean_is_over_every_pass(second: list[int], difference: float, validated: bool) -> None:
    ratings = factory.listened([5] * 10 + second, [5] * 20)
    result = decide({**changed(), "ratings.json": ratings})
    assert result["verdict"] == (rules.VALIDATED if validated else rules.DIVERGES)
    assert result["ratings"]["differences"] == {"titan": difference}
    assert (result["ratings"]["n"], result["ratings"]["passes"]) == (20, 2)
    assert "over 20 pairs in 2 passes" in said(result)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("scores.12.titan", 4.5, "ratings.json: row 13 (pass 2, u03): titan: saw 4.5"),
        ("scores.12.pass", 7, "ratings.json: pass 7: there is no pass 3"),
        ("identity_matches", "no", 'ratings.json: identity_matches: saw "no"'),
        ("listener.impostor.0.score", 6, "ratings.json: listener: impostor, row 1: score: saw 6"),
    ],
)
def test_edited_ratings_give_no_verdict(path: str, value: Any, text: str) -> None:
    documents = changed()
    documents["ratings.json"] = factory.listened([5] * 20, [5] * 20)
    factory.change(documents["ratings.json"], path, value)
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert text in said(result)
    for key in ("ratings", "evidence", "human"):
        assert result[key] is None


def test_a_truncated_ratings_file(run_dir: Path) -> None:
    whole = json.dumps(factory.listened([5] * 20, [5] * 20))
    for part in range(1, 10):
        (run_dir / "ratings.json").write_text(whole[: len(whole) * part // 10])
        result = rules.compute(run_dir, NOW)
        assert (result["verdict"], result["ratings"]) == (rules.AWAITING, None)
        assert "ratings.json cannot be used: it is not complete JSON" in said(result)
        assert f"ansible-playbook score.yml -e run={factory.RUN_ID}" in said(result)


WEIGH, WEIGHED = evidence.weigh, dict[str, Any]()


def weigh_once(*arguments: Any) -> Any:
    """`weigh`, computed once for equal arguments: it depends on nothing else, and is slow."""
    key = repr(arguments)
    if key not in WEIGHED:
        WEIGHED[key] = WEIGH(*arguments)
    return copy.deepcopy(WEIGHED[key])


@pytest.mark.parametrize("value", [None, True, 7, "x", [None], {"a": [1]}, {"titan": {}}])
def test_no_value_of_a_session_makes_it_raise(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "weigh", weigh_once)
    whole = changed()
    whole["identity.json"] = factory.identity("diverged", "a reason")
    for name, document in (
        ("ratings.json", factory.listened([5] * 20, [4] * 20)),
        ("identity.json", whole["identity.json"]),
        (BENCH, whole[BENCH]),
    ):
        whole.setdefault("ratings.json", document)
        for path in leaves(document):
            if path not in ("schema_version", "run_id"):
                broken = copy.deepcopy(document)
                factory.change(broken, path, value)
                decide({**whole, name: broken}, audio={})


def test_the_statistics_stand_beside_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    result = decide(changed(rated=True))
    assert result["evidence"]["level"] == "weak"
    assert result["notes"] == []
    monkeypatch.setattr(evidence, "weigh", lambda *_: (None, []))
    plain = decide(changed(rated=True))
    assert plain["evidence"] is None
    for key in ("verdict", "ok", "reasons", "checks", "criteria", "ratings"):
        assert result[key] == plain[key]


def test_without_scores_nothing_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("there is nothing to weigh")

    monkeypatch.setattr(evidence, "weigh", never)
    result = decide(changed())
    assert (result["evidence"], result["warnings"], result["human"]) == (None, [], None)


@pytest.mark.parametrize(
    ("standby", "primary", "warned"),
    [
        ([2] * 10, [2] * 10, True),
        ([3] * 9 + [2], [3] * 9 + [2], True),
        ([3] * 10, [3] * 9 + [2], False),
        ([2] * 10, [5] * 10, False),
    ],
)
def test_two_bad_voices(standby: list[int], primary: list[int], warned: bool) -> None:
    result = decide({**changed(), "ratings.json": factory.ratings(standby, primary)})
    assert result["verdict"] == (rules.DIVERGES if primary[0] == 5 else rules.VALIDATED)
    assert [("both score below 3" in warning) for warning in result["warnings"]] == [True] * warned


def listened(**changes: Any) -> dict[str, Any]:
    documents = changed()
    documents["ratings.json"] = factory.listened([5] * 10, [5] * 10)
    for name, change in changes.items():
        documents[f"{name}.json".replace("_", "-")] = change
    return documents


def audio() -> dict[str, str]:
    return {name: factory.sha256(content) for name, content in factory.waves().items()}


def test_scores_that_stand() -> None:
    result = decide(listened(), audio=audio())
    assert result["human"] == {"state": "stands", "why": []}


def test_scores_that_do_not_say_what_they_were_given_for() -> None:
    human = decide(changed(rated=True))["human"]
    assert human["state"] == "stands"
    assert "do not say what they were given for" in human["why"][0]


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (
            "driver",
            "590.1",
            "titan: the driver was 580.95.05 when the scores were given, and is 590",
        ),
        ("lock_sha256", "a" * 64, f"the lock was {factory.sha256('lock')[:12]}… when the scores"),
        ("voice_sha256", "a" * 64, "and is aaaaaaaaaaaa…."),
        (
            "weights",
            {"ve.safetensors": "a" * 64, "new.safetensors": "b" * 64},
            "titan: the weights new.safetensors was none when the scores were given, and is bbbbbb",
        ),
        ("weights", {"t3.safetensors": "a" * 64}, "the weights ve.safetensors was"),
    ],
)
@pytest.mark.parametrize("result", [None, "diverged"])
def test_stale(path: str, value: Any, text: str, result: str | None) -> None:
    documents = listened()
    documents[BENCH]["environment"][path] = value
    if result:
        documents["identity.json"] = factory.identity(result, "The xvector is below the gate.")
    found = decide(documents, audio=audio())
    assert (found["verdict"], found["ok"]) == (rules.VALIDATED, True)
    assert found["human"]["state"] == "stale"
    assert text in " ".join(found["human"]["why"])
    assert ("The xvector is below the gate." in found["human"]["why"]) is (result is not None)


@pytest.mark.parametrize("path", ["driver", "lock_sha256", "voice_sha256"])
def test_what_is_not_known_is_not_stale(path: str) -> None:
    for side in ("now", "then"):
        documents = listened()
        place = (
            documents[BENCH]["environment"]
            if side == "now"
            else documents["ratings.json"]["given_for"]["titan"]
        )
        place[path] = None
        assert decide(documents, audio=audio())["human"]["state"] == "stands"


def test_other_audio_than_was_heard(run_dir: Path) -> None:
    factory.put(run_dir, "ratings.json", factory.listened([5] * 10, [5] * 10))
    assert rules.compute(run_dir, NOW)["human"] == {"state": "stands", "why": []}
    (run_dir / "titan_native/u03.wav").write_bytes(factory.wav(999))
    (run_dir / "panda_baseline/u04.wav").unlink()
    result = rules.compute(run_dir, NOW)
    assert result["human"]["state"] == "stale"
    gone, other = result["human"]["why"]
    assert gone == "panda_baseline/u04.wav: heard, and no longer in the directory."
    assert other.startswith("titan_native/u03.wav: not what was heard (sha256 of titan_native/u03")
    assert factory.sha256(factory.wav(999))[:12] in other
    assert result["verdict"] == rules.VALIDATED


def test_a_name_of_audio_leads_nowhere_else(run_dir: Path) -> None:
    (run_dir.parent / "secret.wav").write_bytes(b"secret")
    ratings = factory.listened([5] * 10, [5] * 10)
    ratings["audio"] = {"../secret.wav": factory.sha256(b"secret")}
    factory.put(run_dir, "ratings.json", ratings)
    (why,) = rules.compute(run_dir, NOW)["human"]["why"]
    assert "no longer in the directory" in why


@pytest.mark.parametrize(
    ("score", "result", "state"),
    [
        (5, "diverged", "contradicted"),
        (5, "passed", "stands"),
        (5, "uncalibrated", "stands"),
        (3, "passed", "contradicted"),
        (3, "diverged", "stands"),
        (3, "uncalibrated", "stands"),
    ],
)
def test_the_automatic_ear_contradicts(score: int, result: str, state: str) -> None:
    documents = listened(identity=factory.identity(result, "F0 differs by a semitone."))
    documents["ratings.json"]["scores"] = factory.listened([score] * 10, [5] * 10)["scores"]
    found = decide(documents, audio=audio())
    assert found["verdict"] == (rules.VALIDATED if score == 5 else rules.DIVERGES)
    assert found["ok"] is (score == 5)
    assert found["human"]["state"] == state
    assert ("F0 differs by a semitone." in found["human"]["why"]) is (state == "contradicted")


def test_an_unusable_identity_file_changes_nothing(run_dir: Path) -> None:
    factory.put(run_dir, "ratings.json", factory.listened([5] * 10, [5] * 10))
    (run_dir / "identity.json").write_text("{")
    result = rules.compute(run_dir, NOW)
    assert (result["verdict"], result["ok"]) == (rules.VALIDATED, True)
    assert result["human"]["state"] == "stands"
    assert "identity.json cannot be used" in result["human"]["why"][0]


def test_a_rehearsal_says_so() -> None:
    documents = changed(
        ("run.json", "rehearsal", True),
        ("run.json", "notes", ["The LLM has two layers."]),
        (INSTALL, "weights.random", True),
    )
    result = decide(documents)
    assert result["rehearsal"] is True
    assert result["notes"][0] == "The LLM has two layers."
    assert any("weights are random" in note for note in result["notes"])
    assert decide(changed())["notes"] == []


# Time, files, purity


def test_where_the_time_went() -> None:
    assert decide(changed())["timing"] == {
        "total_s": 600.0,
        "busy_s": 190.0,
        "split": {
            "install": 200.0,
            "model_load": 20.0,
            "synthesis": 160.0,
            "llm_probe": 10.0,
            "comparison": 0.0,
            "other": 210.0,
        },
        "ratio": round(600 / 390, 3),
    }


def test_a_run_that_is_not_over_ends_with_its_last_phase() -> None:
    result = decide(changed(("run.json", "finished_at", None)))
    assert result["timing"]["total_s"] == 300.0
    assert decide({})["timing"]["total_s"] is None


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 1), (2, 4)], 3),
        ([(0, 10), (2, 4), (9, 12)], 12),
        ([(2, 4), (0, 3), (0, 1)], 4),
        ([(1, 1)], 0),
    ],
)
def test_union(intervals: list[tuple[float, float]], length: float) -> None:
    assert timing.union(intervals) == length


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


def test_compute_changes_nothing_and_follows_a_link(run_dir: Path) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    (run_dir.parent / "latest").symlink_to(run_dir.name)
    assert rules.compute(run_dir.parent / "latest", NOW) == rules.compute(run_dir, NOW)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_decide_leaves_its_documents_alone() -> None:
    documents = changed(rated=True)
    before = json.dumps(documents)
    decide(documents)
    assert json.dumps(documents) == before
