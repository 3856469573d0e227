"""From a run directory to its verdict.

The rules were written down before anything was measured. `decide` applies them
to documents, `compute` to a directory; neither changes anything or asks anyone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

from .criteria import criteria
from .directory import (
    UTTERANCES,
    Run,
    judge,
    listing,
    number,
    pick,
    read,
    rows,
    sentence,
    show,
    strings,
)
from .questions import questions
from .ratings import examine
from .timing import split

VALIDATED = "titan_chatterbox_redundancy_validated"
DIVERGES = "titan_chatterbox_diverges_from_panda_investigate"
DEFERRED = "deferred_blackwell_port_cost"
AWAITING = "awaiting_ab_scores"
INVALID = "invalid_run"

#: The mean identity scores of two hosts match when they differ by less than this.
SCORE_DIFFERENCE = Fraction(1, 2)
#: The most that the LLM's p50 may have grown when the window is over, as a factor.
DRIFT = 1.2

ALTERNATIVES = (
    "Production then has no native failover. The alternatives: a second Panda-like host, "
    "CPU synthesis on Titan, a cloud voice."
)
COMPARE = (
    "Compare between the hosts: dtype, STFT output and kernel versions (torch, CUDA and cuDNN are "
    "in the bench files under environment). No redundancy is claimed until the cause is known."
)


def matches(difference: Fraction) -> bool:
    """Tell whether two mean scores are close enough; exactly 0.5 is not."""
    return abs(difference) < SCORE_DIFFERENCE


def good(run: Run, name: str) -> tuple[list[str], list[str]]:
    """Return which utterances a bench or baseline file has, and what is wrong with the others.

    An utterance counts if the phase called it ok, kept a WAV with its hash, and spoke the text
    that run.json gives for that id.
    """
    found = {str(row.get("id")): row for row in rows(run.get(name, "utterances"))}
    ids: list[str] = []
    wrong: list[str] = []
    for wanted in run.utterances:
        row = found.get(wanted["id"])
        if row is None:
            wrong.append(f"{wanted['id']} is missing")
        elif row.get("ok") is not True:
            wrong.append(f"{wanted['id']}: {row.get('error') or 'not ok, and no error says why'}")
        elif row.get("text_sha256") != wanted.get("text_sha256"):
            wrong.append(f"{wanted['id']} spoke another text")
        elif not (isinstance(row.get("wav"), str) and isinstance(row.get("wav_sha256"), str)):
            wrong.append(f"{wanted['id']} has no WAV")
        else:
            ids.append(wanted["id"])
    return ids, wrong


def _deferral(run: Run) -> tuple[list[str], list[str]]:
    """Return the reasons to defer the port, and those that only look like it."""
    reasons: list[str] = []
    experiments: list[str] = []
    for host in run.hosts["standby"]:
        name = f"install-{host}.json"
        error = run.get(name, "error")
        kind = pick(error, "kind")
        if run.get(name, "status") != "failed" or kind not in ("blackwell", "budget_exceeded"):
            continue
        if kind == "blackwell" and "off" in (
            run.get("run.json", "stft_patch"),
            run.get(name, "guard", "requested"),
        ):
            experiments.append(
                f"{host}: the STFT path failed with stft_patch=off, which says nothing about "
                f"a port: {pick(error, 'seen')}. "
                "Next: ansible-playbook bench.yml -e stft_patch=auto"
            )
            continue
        reasons.append(sentence(name, error))
        for label, probe in (("unpatched", "probe"), ("patched", "patched_probe")):
            text = run.get(name, "guard", probe, "error")
            if isinstance(text, str) and text:
                reasons.append(f"{host}: the {label} STFT path answered: {text}")
        if kind == "budget_exceeded":
            spent, budget = (show(run.get(name, key), 0) for key in ("spent_s", "budget_s"))
            reasons.append(
                f"{host}: {spent} s were spent on the install; the budget is {budget} s."
            )
    return reasons, experiments


def _run_problems(run: Run) -> list[str]:
    name = "run.json"
    if name in run.faults:
        return [f"{name} cannot be used: {run.faults[name]}. Next: {run.again}"]
    if name not in run.documents:
        return [f"{name} is missing: the run did not begin. Next: {run.again}"]
    problems = []
    if len(run.utterances) != UTTERANCES:
        count = len(run.utterances)
        problems.append(
            f"{name} names {count} utterances, {UTTERANCES} are needed. Next: correct the "
            f"utterance file, then {run.again}"
        )
    problems += [
        f"{name} names no {role} host. Next: add one to the inventory's group {role}"
        for role in ("standby", "primary")
        if not run.hosts[role]
    ]
    return problems


def _failed_checks(run: Run) -> list[dict[str, Any]]:
    return [row for row in rows(run.get("preflight.json", "checks")) if row.get("ok") is not True]


def _preflight_problems(run: Run) -> list[str]:
    failed = [
        f"{row.get('host') or 'control node'}: {row.get('id')}: {row.get('detail')} "
        f"(preflight.json). "
        f"Next: {row.get('next') or run.again}"
        for row in _failed_checks(run)
    ]
    return failed or run.problems("preflight.json")


def _window_problems(run: Run) -> list[str]:
    name = "llm.json"
    if "run.json" in run.documents and not run.hosts["llm"]:
        return []
    problems = run.problems(name)
    if name in run.documents:
        for host in run.hosts["llm"]:
            entry = run.get(name, "hosts", host)
            unopened = entry is None and problems  # the error of the phase says why
            if not unopened and pick(entry, "closed") is not True:
                problems.append(_open_window(host, entry, run))
    return problems


def _open_window(host: str, entry: Any, run: Run) -> str:
    """Return a sentence about a window that nobody closed."""
    name = "llm.json"
    ttl, command = number(pick(entry, "lease", "ttl_s")), pick(entry, "resume_command")
    if ttl is None:  # nothing had been touched
        return (
            f"{host}: the run ended before the LLM's window was open ({name}); the LLM was left as "
            f"it was found, {pick(entry, 'found_state') or 'unknown'}. Next: {run.again}"
        )
    events = {str(row.get("event")) for row in rows(pick(entry, "timeline"))}
    if events & {"released", "expired", "rebooted"}:
        back = pick(entry, "restored_at")
        state = f"it answered again at {back}" if back else "the keeper goes on bringing it back"
        return (
            f"{host}: the LLM's window has ended, and not as it should ({name}); {state}. "
            "Next: ansible-playbook restore.yml"
        )
    return (
        f"{host}: the run ended inside the LLM's window ({name}); {host} itself brings the LLM "
        f"back when its lease of {ttl:.0f} s runs out. Next: ansible-playbook restore.yml; "
        f"or on {host}: {command or 'start the LLM'}"
    )


def _install_problems(run: Run, host: str) -> list[str]:
    name = f"install-{host}.json"
    problems = run.problems(name)
    if problems or name not in run.documents:
        return problems
    guard = run.get(name, "guard", "decision")
    if run.get(name, "import_ok") is not True:
        problems.append("chatterbox did not import")
    if guard not in ("not_applicable", "not_needed", "patched", "unpatched"):
        problems.append(f"the Blackwell guard decided {guard!r}")
    if run.get(name, "smoke", "ok") is not True:
        problems.append("the smoke utterance was not heard")
    return [f"{host}: {what} ({name}). Next: {run.again}" for what in problems]


def _spoken_problems(run: Run, name: str, host: str) -> list[str]:
    problems = run.problems(name)
    if name not in run.documents:
        return problems
    ids, wrong = good(run, name)
    if wrong:
        problems.append(
            f"{host}: {len(ids)} of {len(ids) + len(wrong)} utterances in {name}: "
            f"{'; '.join(wrong)}. Next: {run.again}"
        )
    return problems


def _run_phases(run: Run) -> list[str]:
    """Return everything that keeps the run from being judged, in the order of the phases."""
    problems = [*_run_problems(run), *_preflight_problems(run), *_window_problems(run)]
    for host in run.hosts["standby"]:
        problems += _install_problems(run, host)
    for host in run.hosts["standby"]:
        problems += _spoken_problems(run, f"bench-{host}.json", host)
    for host in run.hosts["primary"]:
        problems += _spoken_problems(run, f"baseline-{host}.json", host)
    return [*problems, *_absence(run, "" if problems else f" Next: {run.again}")]


def _absence(run: Run, following: str) -> list[str]:
    """Return the one sentence about the phases that were not reached, if there are any."""
    if not run.absent:
        return []
    are = "are" if len(run.absent) > 1 else "is"
    return [f"{listing(run.absent)} {are} missing: the run did not get that far.{following}"]


def _ratings(run: Run) -> tuple[dict[str, Any] | None, dict[str, Fraction], list[str]]:
    """Return the ratings' summary, the exact differences by standby, and what is wrong."""
    name = "ratings.json"
    if name in run.faults:
        return None, {}, [f"{name} cannot be used: {run.faults[name]}."]
    if name not in run.documents:
        return None, {}, []
    standbys, primaries = run.hosts["standby"], run.hosts["primary"]
    hosts = [*standbys, *primaries]
    listed = run.get(name, "scores")
    sheet = [
        (f"row {index}", row)
        for index, row in enumerate(listed if isinstance(listed, list) else [], start=1)
    ]
    scores, problems = examine(sheet, utterances=[u["id"] for u in run.utterances], hosts=hosts)
    if problems or not scores or not primaries:
        return None, {}, [f"{name}: {problem}." for problem in problems]
    means = {host: Fraction(sum(row[host] for row in scores), len(scores)) for host in hosts}
    differences = {host: means[host] - means[primaries[0]] for host in standbys}
    summary = {
        "n": len(scores),
        "means": {host: float(mean) for host, mean in means.items()},
        "differences": {host: float(difference) for host, difference in differences.items()},
    }
    return summary, differences, []


def _rated(
    run: Run, summary: Mapping[str, Any], differences: Mapping[str, Fraction]
) -> tuple[str, list[str]]:
    """Return the verdict on a complete, rated run, and its reasons."""
    primary = run.hosts["primary"][0]
    identity = run.get("ratings.json", "identity_matches")
    reasons = [
        f"{host}: mean score {show(summary['means'][host])} against {primary}'s "
        f"{show(summary['means'][primary])} over {summary['n']} pairs, a difference of "
        f"{float(difference):+.2f}: {'less than' if matches(difference) else 'not less than'} 0.5."
        for host, difference in differences.items()
    ]
    if identity is False:
        reasons.append("The listener answered that the identity does not match.")
    if identity is not False and all(matches(difference) for difference in differences.values()):
        return VALIDATED, reasons
    return DIVERGES, [*reasons, COMPARE]


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


def _phase_checks(run: Run) -> list[dict[str, Any]]:
    """Return the checks of what ran; a phase that did not run has none."""
    checks = []
    if "preflight.json" in run.documents:
        failed = _failed_checks(run)
        detail = (
            listing([f"{row.get('id')} on {row.get('host')}" for row in failed])
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


def _window_checks(run: Run) -> list[dict[str, Any]]:
    """Return the checks of the LLM window: drift decides, the ratio during synthesis informs."""
    checks = []
    limit = number(run.get("run.json", "limits", "drift")) or DRIFT
    for host in run.hosts["llm"]:
        entry = run.get("llm.json", "hosts", host)
        if not isinstance(entry, dict):
            continue
        before, during, after = (
            show(pick(entry, when, "p50_ms"), 0) for when in ("before", "during", "after")
        )
        drift = number(entry.get("drift"))
        ok = None if drift is None else drift <= limit
        detail = f"the LLM's p50: {before} ms before, {after} ms after the window"
        checks.append(_check(f"drift.{host}", ok, drift, limit, "x", detail))
        if entry.get("mode") == "parallel":
            ratio = entry.get("during_ratio")
            detail = (
                f"p50 {during} ms during the synthesis; for information, the drift after it decides"
            )
            checks.append(_check(f"during_ratio.{host}", None, ratio, DRIFT, "x", detail))
    return checks


def _rating_checks(
    run: Run,
    summary: Mapping[str, Any] | None,
    differences: Mapping[str, Fraction],
    wrong: list[str],
) -> list[dict[str, Any]]:
    checks = []
    if wrong:
        checks.append(_check("ratings_usable", False, len(wrong), 0, "problems", " ".join(wrong)))
    if summary is None:
        return checks
    for host, difference in differences.items():
        detail = f"mean score minus {run.hosts['primary'][0]}'s; its size must be below 0.5"
        close, value = matches(difference), float(difference)
        checks.append(_check(f"mean_difference.{host}", close, value, 0.5, "points", detail))
    identity = run.get("ratings.json", "identity_matches")
    if isinstance(identity, bool):
        detail = f"the listener's answer: {'yes' if identity else 'no'}"
        checks.append(_check("identity_matches", identity, None, None, None, detail))
    if run.get("ratings.json", "given_before_audio") is True:
        ok = None if run.rehearsal else False
        detail = "the scores are older than the audio that they are about"
        checks.append(_check("ratings_after_audio", ok, None, None, None, detail))
    return checks


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
) -> dict[str, Any]:
    """Apply the rules to the documents of a run.

    Args:
        documents: the documents by file name, as far as they could be read.
        run_id: the run's id.
        computed_at: the time to be written into the verdict.
        faults: files that could not be read, and why.
        files: name and sha256 of what the documents were read from.

    Returns:
        The verdict, as ``verdict.schema.json`` describes it.
    """
    run = judge(documents, faults or {}, run_id)
    summary, differences, wrong = _ratings(run)
    deferred, experiments = _deferral(run)
    problems = [*experiments, *_run_phases(run)]
    if deferred:
        verdict = DEFERRED
        reasons = [*deferred, ALTERNATIVES, *_preflight_problems(run), *_window_problems(run)]
        reasons += _absence(run, "")
    elif problems:
        verdict, reasons = INVALID, problems
    elif summary is None:
        verdict = AWAITING
        reasons = [
            f"Everything was measured; {UTTERANCES} pairs wait for a listener's scores. "
            f"Next: ansible-playbook score.yml -e run={run_id} -e ab_scores=FILE"
        ]
    else:
        verdict, reasons = _rated(run, summary, differences)
    checks = [*_phase_checks(run), *_window_checks(run)]
    checks += _rating_checks(run, summary, differences, wrong)
    reasons += [
        f"{row['name']}: {show(row['value'])} is more than {row['threshold']}: {row['detail']}."
        for row in checks
        if row["name"].startswith("drift.") and row["ok"] is False
    ]
    if not problems:
        reasons += wrong
        reasons += [
            f"{row['name']}: {row['detail']}. Next: {run.again}"
            for row in checks
            if row["ok"] is False and row["name"].startswith(("install_budget.", "ratings_after"))
        ]
    return {
        "schema_version": 1,
        "run_id": run_id,
        "computed_at": computed_at,
        "verdict": verdict,
        "ok": verdict in (VALIDATED, AWAITING) and all(row["ok"] is not False for row in checks),
        "reasons": reasons,
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
        "timing": split(run),
        "hosts": run.hosts,
        "rehearsal": run.rehearsal,
        "notes": _notes(run),
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
    at = now.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return decide(documents, run_id=run_dir.name, computed_at=at, faults=faults, files=files)
