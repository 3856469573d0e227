"""The rules: which directory has which verdict, and what is said about it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from decided import (
    BASELINE,
    BENCH,
    INSTALL,
    NOW,
    OUTPUT,
    RATED,
    changed,
    check,
    decide,
    failed,
    said,
    status,
)

from understudy.verdict import evidence, rules

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


# What decides ok, and what is noted


@pytest.mark.parametrize(("drift", "ok"), [(1.0, True), (1.2, True), (1.2001, False), (None, True)])
@pytest.mark.parametrize("rated", [False, True])
def test_drift_decides_ok_and_not_the_verdict(drift: float | None, ok: bool, rated: bool) -> None:
    result = decide(changed(("llm.json", "hosts.titan.drift", drift), rated=rated))
    assert result["verdict"] == (rules.VALIDATED if rated else rules.AWAITING)
    assert result["ok"] is ok
    assert check(result, "drift.titan")["ok"] is (None if drift is None else ok)
    assert ("drift.titan: 1.20 is more than 1.2" in said(result)) is not ok
    assert status(result)[6] == ("." if drift is None else "+" if ok else "-")


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


# The statistics beside the rule


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


# Purity


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
