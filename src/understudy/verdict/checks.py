"""The checks of a verdict: a measured value, its threshold, and whether it was kept."""

from __future__ import annotations

from typing import Any

from understudy.verdict.problems import failed_checks, good, started_inside
from understudy.verdict.run_directory import (
    DRIFT,
    UTTERANCES,
    Run,
    first,
    listing,
    number,
    pick,
    rows,
    show,
)
from understudy.verdict.scoring import Rated, matches


def _check(
    name: str, ok: bool | None, value: Any, threshold: Any, unit: str | None, detail: str
) -> dict[str, Any]:
    return {
        "name": name,
        "ok": ok,
        "value": number(value),
        "threshold": number(threshold),
        "unit": unit,
        "detail": detail,
    }


def phase_checks(run: Run) -> list[dict[str, Any]]:
    """Return the checks of what ran; a phase that did not run has none."""
    checks = []
    if "preflight.json" in run.documents:
        failed = failed_checks(run)
        detail = (
            listing(first(f"{row.get('id')} on {row.get('host')}" for row in failed))
            if failed
            else "none"
        )
        checks.append(_check("preflight_problems", not failed, len(failed), 0, "problems", detail))
    for host in run.hosts["standby"]:
        name = f"install-{host}.json"
        if name in run.documents:
            spent, budget = number(run.get(name, "spent_s")), number(run.get(name, "budget_s"))
            within = None if spent is None or budget is None else spent <= budget
            detail = "time spent on the install, against its budget"
            checks.append(_check(f"install_budget.{host}", within, spent, budget, "s", detail))
    for role, phase, label in (
        ("standby", "bench", "utterances_ok"),
        ("primary", "baseline", "baseline_ok"),
    ):
        for host in run.hosts[role]:
            name = f"{phase}-{host}.json"
            if name in run.documents and run.utterances:
                ids, wrong = good(run, name)
                detail = "; ".join(wrong) or "every utterance was spoken"
                complete = len(ids) == UTTERANCES
                row = _check(
                    f"{label}.{host}", complete, len(ids), UTTERANCES, "utterances", detail
                )
                checks.append(row)
    for host in run.hosts["standby"]:
        timed = rows(run.get(f"bench-{host}.json", "utterances"))
        if timed:
            capped = [str(row.get("id")) for row in timed if row.get("hit_cap") is True]
            detail = (
                f"listen to {listing(capped)}: cut at the token cap" if capped else "none was cut"
            )
            ok = None if capped else True
            checks.append(
                _check(f"token_cap_hits.{host}", ok, len(capped), 0, "utterances", detail)
            )
    return checks


def window_checks(run: Run) -> list[dict[str, Any]]:
    """Return the checks of the LLM window: drift decides, the ratio during synthesis informs."""
    checks = []
    for host in run.hosts["llm"]:
        entry = run.get("llm.json", "hosts", host)
        if not isinstance(entry, dict):
            continue
        before, during, after = (
            show(pick(entry, when, "p50_ms"), 0) for when in ("before", "during", "after")
        )
        drift = number(entry.get("drift"))
        ok = None if drift is None else drift <= run.drift_limit
        detail = f"the LLM's p50: {before} ms before, {after} ms after the window"
        checks.append(_check(f"drift.{host}", ok, drift, run.drift_limit, "x", detail))
        inside = started_inside(run, host)
        if inside:
            detail = (
                f"somebody else started the LLM inside its window, at {listing(inside)}: the "
                "voice's times and memory from then on were measured beside it"
            )
            checks.append(_check(f"paused.{host}", False, len(inside), 0, "starts", detail))
        if entry.get("mode") == "parallel":
            ratio = entry.get("during_ratio")
            detail = (
                f"p50 {during} ms during the synthesis; for information, the drift after it decides"
            )
            checks.append(_check(f"during_ratio.{host}", None, ratio, DRIFT, "x", detail))
    return checks


def rating_checks(run: Run, rated: Rated | None, wrong: list[str]) -> list[dict[str, Any]]:
    """Return the checks of the scores; `wrong` is why a ratings.json cannot be used."""
    checks = []
    if wrong:
        checks.append(_check("ratings_usable", False, len(wrong), 0, "problems", " ".join(wrong)))
    if rated is None:
        return checks
    for host, difference in rated.differences.items():
        detail = f"mean score minus {run.hosts['primary'][0]}'s; its size must be below 0.5"
        close, value = matches(difference), float(difference)
        checks.append(_check(f"mean_difference.{host}", close, value, 0.5, "points", detail))
    identity = rated.given["identity_matches"]
    if identity is not None:
        detail = f"the listener's answer: {'yes' if identity else 'no'}"
        checks.append(_check("identity_matches", identity, None, None, None, detail))
    if rated.given["given_before_audio"]:
        ok = None if run.rehearsal else False
        detail = "the scores are older than the audio that they are about"
        checks.append(_check("ratings_after_audio", ok, None, None, None, detail))
    return checks
