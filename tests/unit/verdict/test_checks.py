"""The checks: what was measured, against which threshold, and whether it was kept."""

from __future__ import annotations

from decided import BENCH, INSTALL, changed, check, decide, parallel, said

from understudy.verdict import rules


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


def test_the_ratio_during_the_synthesis_informs_only() -> None:
    result = decide(parallel(2.1))
    row = check(result, "during_ratio.titan")
    assert (row["ok"], row["value"]) == (None, 2.1)
    assert "drift after it decides" in row["detail"]
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, True)
    assert not any(row["name"].startswith("during") for row in decide(changed())["checks"])


def test_a_voice_measured_beside_an_llm_that_others_started_is_marked() -> None:
    timeline = [
        {"at": "2026-11-22T03:20:00Z", "event": "paused", "detail": "exited"},
        {"at": "2026-11-22T03:25:00Z", "event": "started_inside", "detail": "by others"},
    ]
    result = decide(changed(("llm.json", "hosts.titan.timeline", timeline), rated=True))
    row = check(result, "paused.titan")
    assert (row["ok"], row["value"], row["threshold"]) == (False, 1, 0)
    assert (result["verdict"], result["ok"]) == (rules.VALIDATED, False)
    assert "paused.titan: somebody else started the LLM inside its window" in said(result)
    marked = "NOT with the LLM paused: somebody started it at 2026-11-22T03:25:00Z"
    for asked in ("memory footprint", "RTF"):
        [answer] = [row for row in result["questions"] if asked in row["question"]]
        assert marked in answer["evidence"]
