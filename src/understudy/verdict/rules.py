"""From a run directory to its verdict.

The rules were written down before anything was measured. `decide` applies them
to documents, `compute` to a directory; neither changes anything or asks anyone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from understudy.common.times import utc_text
from understudy.verdict import scoring
from understudy.verdict.checks import phase_checks, rating_checks, window_checks
from understudy.verdict.criteria import criteria
from understudy.verdict.problems import (
    absence,
    all_problems,
    deferral,
    good,
    preflight_problems,
    window_problems,
)
from understudy.verdict.questions import questions
from understudy.verdict.run_directory import (
    UTTERANCES,
    Run,
    first,
    judge,
    pick,
    read,
    show,
    strings,
)
from understudy.verdict.scoring import Rated
from understudy.verdict.timing import split
from understudy.verdict.validity import hashes, human_validity

VALIDATED = "titan_chatterbox_redundancy_validated"
DIVERGES = "titan_chatterbox_diverges_from_panda_investigate"
DEFERRED = "deferred_blackwell_port_cost"
AWAITING = "awaiting_ab_scores"
INVALID = "invalid_run"

ALTERNATIVES = (
    "Production then has no native failover. The alternatives: a second Panda-like host, "
    "CPU synthesis on Titan, a cloud voice."
)
COMPARE = (
    "Compare between the hosts: dtype, STFT output and kernel versions (torch, CUDA and cuDNN are "
    "in the bench files under environment). No redundancy is claimed until the cause is known."
)


def _rated(run: Run, rated: Rated) -> tuple[str, list[str]]:
    """Return the verdict on a complete, rated run, and its reasons."""
    primary = run.hosts["primary"][0]
    pairs = f"{len(rated.given['scores'])} pairs"
    if rated.passes > 1:
        pairs += f" in {rated.passes} passes"
    reasons = [
        f"{host}: mean score {show(float(rated.means[host]))} against {primary}'s "
        f"{show(float(rated.means[primary]))} over {pairs}, a difference of "
        f"{float(difference):+.2f}: {'' if scoring.matches(difference) else 'not '}less than 0.5."
        for host, difference in rated.differences.items()
    ]
    if rated.given["identity_matches"] is False:
        reasons.append("The listener answered that the identity does not match.")
    return (VALIDATED, reasons) if rated.validates else (DIVERGES, [*reasons, COMPARE])


def _weighed(run: Run, rated: Rated | None) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the statistics beside the rule, and warnings; without scores there are none."""
    if rated is None:
        return None, []
    from understudy.verdict.evidence import weigh  # scipy takes a second

    evidence, warnings = weigh(rated.given, list(rated.differences), run.hosts["primary"][0])
    return evidence, [*scoring.low(run, rated), *warnings]


def _notes(run: Run) -> list[str]:
    """Return what a reader must know about the run: what in it was random, small or made up."""
    notes = strings(run.get("run.json", "notes"))
    notes += [
        f"{host}: the weights are random; its voice says nothing about identity."
        for host in run.hosts["standby"]
        if run.get(f"install-{host}.json", "weights", "random") is True
    ]
    if run.rehearsal:
        notes.append("A rehearsal proves the procedure; its verdict is about no real host.")
        if run.get("ratings.json", "given_before_audio") is True:
            notes.append("The scores were written before the audio existed.")
    return notes


def decide(
    documents: Mapping[str, Any],
    *,
    run_id: str,
    computed_at: str,
    faults: Mapping[str, str] | None = None,
    files: Sequence[Mapping[str, str]] = (),
    audio: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Apply the rules to the documents of a run.

    Args:
        documents: the documents by file name, as far as they could be read.
        run_id: the run's id.
        computed_at: the time to be written into the verdict.
        faults: files that could not be read, and why.
        files: name and sha256 of what the documents were read from.
        audio: the sha256 of the recordings in the directory now, by relative path, at least of
            those that the listener heard.

    Returns:
        The verdict, as ``verdict.schema.json`` describes it.
    """
    run = judge(documents, faults or {}, run_id)
    rated, wrong = scoring.usable(run)
    deferred, experiments = deferral(run)
    problems = [*experiments, *all_problems(run)]
    if deferred:
        verdict = DEFERRED
        reasons = [*deferred, ALTERNATIVES, *preflight_problems(run), *window_problems(run)]
        reasons += absence(run, "")
    elif problems:
        verdict, reasons = INVALID, problems
    elif rated is None:
        verdict = AWAITING
        reasons = [
            f"Everything was measured; {UTTERANCES} pairs wait for a listener's scores. "
            f"Next: ansible-playbook score.yml -e run={run_id}"
        ]
    else:
        verdict, reasons = _rated(run, rated)
    checks = [*phase_checks(run), *window_checks(run)]
    checks += rating_checks(run, rated, wrong)
    reasons += [
        f"{row['name']}: {show(row['value'])} is more than {row['threshold']}: {row['detail']}."
        for row in checks
        if row["name"].startswith("drift.") and row["ok"] is False
    ]
    reasons += [
        f"{row['name']}: {row['detail']}. Next: find what starts it (autoheal, a person), then "
        f"{run.again}"
        for row in checks
        if row["name"].startswith("paused.") and row["ok"] is False
    ]
    if not problems:
        reasons += wrong
        reasons += [
            f"{row['name']}: {row['detail']}. Next: {run.again}"
            for row in checks
            if row["ok"] is False and row["name"].startswith(("install_budget.", "ratings_after"))
        ]
    summary = rated.summary if rated else None
    evidence, warnings = _weighed(run, rated)
    return {
        "schema_version": 1,
        "run_id": run_id,
        "computed_at": computed_at,
        "verdict": verdict,
        "ok": verdict in (VALIDATED, AWAITING) and all(row["ok"] is not False for row in checks),
        "reasons": first(reasons),
        "criteria": criteria(
            run,
            complete={
                name: not good(run, name)[1] and len(good(run, name)[0]) == UTTERANCES
                for name in run.documents
                if name.startswith(("bench-", "baseline-"))
            },
            checks=checks,
            rated=summary,
            rating_problems=wrong,
            verdict=verdict,
        ),
        "questions": questions(run),
        "checks": checks,
        "ratings": summary,
        "evidence": evidence,
        "warnings": warnings,
        "human": human_validity(run, rated.validates, audio or {}) if rated else None,
        "timing": split(run),
        "hosts": run.hosts,
        "rehearsal": run.rehearsal,
        "notes": first(_notes(run)),
        "files": [dict(entry) for entry in files],
    }


def compute(run_dir: Path, now: datetime, ratings: bytes | None = None) -> dict[str, Any]:
    """Compute the verdict of a run directory.

    Args:
        run_dir: the directory; a link to it (``reports/latest``) will do.
        now: the time to be written into the verdict, aware of its zone.
        ratings: taken for ``ratings.json`` instead of what is on disk.

    Raises:
        OSError: if the directory cannot be listed. What is in it raises nothing.
    """
    run_dir = run_dir.resolve()
    documents, faults, files = read(run_dir, ratings)
    return decide(
        documents,
        run_id=run_dir.name,
        computed_at=utc_text(now),
        faults=faults,
        files=files,
        audio=hashes(run_dir, pick(documents.get("ratings.json"), "audio")),
    )
