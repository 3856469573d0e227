"""From a run directory to its verdict.

The rules were written down before anything was measured. `decide` applies them
to documents, `compute` to a directory; neither changes anything or asks anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from understudy.verdict.criteria import criteria
from understudy.verdict.questions import questions
from understudy.verdict.ratings import examine_document
from understudy.verdict.run_directory import (
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
from understudy.verdict.timing import split
from understudy.verdict.validity import hashes, standing

VALIDATED = "titan_chatterbox_redundancy_validated"
DIVERGES = "titan_chatterbox_diverges_from_panda_investigate"
DEFERRED = "deferred_blackwell_port_cost"
AWAITING = "awaiting_ab_scores"
INVALID = "invalid_run"

#: The mean identity scores of two hosts match when they differ by less than this.
SCORE_DIFFERENCE = Fraction(1, 2)
#: Two means below this are those of two voices that are both far from the reference.
LOW_SCORE = 3
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


#: Weighs the scores: takes what `examine_document` returns, the standbys and the primary, and
#: returns the verdict's ``evidence`` and sentences for its ``warnings``. An ImportError says
#: that it cannot. It is ``verdict.evidence.weigh``, which needs more than the standard library.
Weigh = Callable[[Mapping[str, Any], Sequence[str], str], tuple[dict[str, Any], list[str]]]


@dataclass(frozen=True)
class Rated:
    """Ratings that can be used.

    Attributes:
        given: what `examine_document` returned.
        means: the mean score of each host, over all rows.
        differences: each standby's mean minus the primary's.
    """

    given: Mapping[str, Any]
    means: Mapping[str, Fraction]
    differences: Mapping[str, Fraction]

    @property
    def passes(self) -> int:
        """How many times the listener went through the utterances."""
        return len({row["pass"] for row in self.given["scores"]})

    @property
    def validates(self) -> bool:
        """What the rule says: the means are close, and nobody said that the voices differ."""
        close = all(matches(difference) for difference in self.differences.values())
        return close and self.given["identity_matches"] is not False

    @property
    def summary(self) -> dict[str, Any]:
        """The ``ratings`` of the verdict."""
        return {
            "n": len(self.given["scores"]),
            "passes": self.passes,
            "means": {host: float(mean) for host, mean in self.means.items()},
            "differences": {host: float(gap) for host, gap in self.differences.items()},
        }


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
        return [run.unusable(name, run.again)]
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


def _ratings(run: Run) -> tuple[Rated | None, list[str]]:
    """Return the ratings, if they can be used, and what is wrong with them."""
    name = "ratings.json"
    again = f"ansible-playbook score.yml -e run={run.run_id}"
    if name in run.faults:
        return None, [f"{run.unusable(name, again)}."]
    if name not in run.documents:
        return None, []
    standbys, primaries = run.hosts["standby"], run.hosts["primary"]
    hosts = [*standbys, *primaries]
    given, problems = examine_document(
        run.documents[name], utterances=[u["id"] for u in run.utterances], hosts=hosts
    )
    scores = given["scores"]
    if problems or not scores or not primaries:
        return None, [f"{name}: {problem}." for problem in problems]
    means = {host: Fraction(sum(row[host] for row in scores), len(scores)) for host in hosts}
    differences = {host: means[host] - means[primaries[0]] for host in standbys}
    return Rated(given, means, differences), []


def _rated(run: Run, rated: Rated) -> tuple[str, list[str]]:
    """Return the verdict on a complete, rated run, and its reasons."""
    primary = run.hosts["primary"][0]
    pairs = f"{len(rated.given['scores'])} pairs"
    if rated.passes > 1:
        pairs += f" in {rated.passes} passes"
    reasons = [
        f"{host}: mean score {show(float(rated.means[host]))} against {primary}'s "
        f"{show(float(rated.means[primary]))} over {pairs}, a difference of "
        f"{float(difference):+.2f}: {'less than' if matches(difference) else 'not less than'} 0.5."
        for host, difference in rated.differences.items()
    ]
    if rated.given["identity_matches"] is False:
        reasons.append("The listener answered that the identity does not match.")
    return (VALIDATED, reasons) if rated.validates else (DIVERGES, [*reasons, COMPARE])


def _low(run: Run, rated: Rated) -> list[str]:
    """Return a sentence for every standby that is as far from the reference as the primary."""
    primary = run.hosts["primary"][0]
    return [
        f"{host} and {primary} both score below {LOW_SCORE} ({show(float(rated.means[host]))} and "
        f"{show(float(rated.means[primary]))}): neither sounds like the reference, and two bad "
        "voices are not a validated one."
        for host in rated.differences
        if rated.means[host] < LOW_SCORE and rated.means[primary] < LOW_SCORE
    ]


def _weighed(
    run: Run, rated: Rated, weigh: Weigh | None
) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """Return evidence, warnings and notes; the evidence is None where nobody can weigh it."""
    reason = "it was computed without the package understudy"
    if weigh is not None:
        try:
            standbys, primary = list(rated.differences), run.hosts["primary"][0]
            return (*weigh(rated.given, standbys, primary), [])
        except ImportError as error:
            reason = str(error)
    return None, [], [f"No statistics stand beside the rule ({reason}). Next: make control"]


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
    rated: Rated | None,
    wrong: list[str],
) -> list[dict[str, Any]]:
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
    weigh: Weigh | None = None,
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
        weigh: computes the statistics beside the rule; without it there are none.

    Returns:
        The verdict, as ``verdict.schema.json`` describes it.
    """
    run = judge(documents, faults or {}, run_id)
    rated, wrong = _ratings(run)
    deferred, experiments = _deferral(run)
    problems = [*experiments, *_run_phases(run)]
    if deferred:
        verdict = DEFERRED
        reasons = [*deferred, ALTERNATIVES, *_preflight_problems(run), *_window_problems(run)]
        reasons += _absence(run, "")
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
    checks = [*_phase_checks(run), *_window_checks(run)]
    checks += _rating_checks(run, rated, wrong)
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
    summary = rated.summary if rated else None
    evidence, warnings, notes = _weighed(run, rated, weigh) if rated else (None, [], [])
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
        "evidence": evidence,
        "warnings": [*_low(run, rated), *warnings] if rated else [],
        "human": standing(run, rated.validates, audio or {}) if rated else None,
        "timing": split(run),
        "hosts": run.hosts,
        "rehearsal": run.rehearsal,
        "notes": [*_notes(run), *notes],
        "files": [dict(entry) for entry in files],
    }


def compute(
    run_dir: Path, now: datetime, ratings: bytes | None = None, weigh: Weigh | None = None
) -> dict[str, Any]:
    """Compute the verdict of a run directory.

    Args:
        run_dir: the directory; a link to it (``reports/latest``) will do.
        now: the time to be written into the verdict, aware of its zone.
        ratings: taken for ``ratings.json`` instead of what is on disk.
        weigh: computes the statistics beside the rule, and is only called when there are scores
            to weigh; without it there are no such statistics.

    Raises:
        OSError: if the directory cannot be listed. What is in it raises nothing.
    """
    run_dir = run_dir.resolve()
    documents, faults, files = read(run_dir, ratings)
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return decide(
        documents,
        run_id=run_dir.name,
        computed_at=at,
        faults=faults,
        files=files,
        audio=hashes(run_dir, pick(documents.get("ratings.json"), "audio")),
        weigh=weigh,
    )
