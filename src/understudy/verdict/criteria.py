"""The nine success criteria, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from understudy.verdict.run_directory import Run, pick, rows, show

MET, NOT_MET, NOT_YET = "met", "not_met", "not_yet"

#: The names of the criteria; ``drift`` is the limit of the run.
NAMES = (
    "chatterbox-tts is installed on the standby and imports",
    "the STFT problem does not occur, or is patched",
    "10 of 10 cloned-voice utterances synthesise",
    "the primary's baseline exists for the same utterances",
    "the A/B similarity scores are in",
    "the verdict is one of the three pre-committed ones",
    "the LLM's p50 after the window is at most {drift:g} x the one before",
    "docs/RESEARCH-CHATTERBOX-TITAN-REDUNDANCY.md is written",
    "the pull request is open",
)

#: A status and its evidence.
Finding = tuple[str, str]


def _over(hosts: Sequence[str], judge_host: Callable[[str], Finding], role: str) -> Finding:
    """Join the findings of several hosts: the worst status, every evidence."""
    if not hosts:
        return NOT_YET, f"the run names no {role} host"
    findings = [judge_host(host) for host in hosts]
    statuses = [status for status, _ in findings]
    worst = next(status for status in (NOT_MET, NOT_YET, MET) if status in statuses)
    return worst, "; ".join(f"{host}: {findings[i][1]}" for i, host in enumerate(hosts))


def _absent(run: Run, name: str) -> Finding | None:
    """Return the finding for a file that is not there or cannot be used."""
    if name in run.faults:
        return NOT_YET, f"{name} cannot be used: {run.faults[name]}"
    return None if name in run.documents else (NOT_YET, f"there is no {name}")


def _failure(run: Run, name: str, otherwise: str) -> Finding:
    """Return not_met with what was seen for a phase that failed, else not_yet."""
    if run.get(name, "status") == "failed":
        return NOT_MET, f"{name}: {run.get(name, 'error', 'seen') or otherwise}"
    return NOT_YET, f"{name}: {otherwise}"


def packages(run: Run, host: str) -> dict[str, dict[str, Any]]:
    """Return the packages of a standby's venv by name."""
    listed = rows(run.get(f"install-{host}.json", "venv", "packages"))
    return {str(row.get("name")): row for row in listed}


def _installed(run: Run, host: str) -> Finding:
    name = f"install-{host}.json"
    absent = _absent(run, name)
    if absent:
        return absent
    if run.get(name, "import_ok") is not True:
        return _failure(run, name, "the import was not reached")
    found = packages(run, host)
    versions = " and ".join(
        f"{package} {found[package].get('version')}"
        for package in ("chatterbox-tts", "torch")
        if package in found
    )
    python = run.get(name, "venv", "python")
    return MET, f"imports {versions or 'chatterbox'} on Python {python}, {len(found)} packages"


def guarded(run: Run, host: str) -> Finding:
    """Judge the Blackwell guard of a standby."""
    name = f"install-{host}.json"
    absent = _absent(run, name)
    if absent:
        return absent
    guard = run.get(name, "guard")
    decision, seen = pick(guard, "decision"), pick(guard, "probe", "error")
    where = f"on {pick(guard, 'device_name') or pick(guard, 'device')}"
    if decision == "not_applicable":
        return (
            MET,
            f"no CUDA device to compile for {where}; this says nothing about a Blackwell GPU",
        )
    if decision == "not_needed":
        return (
            MET,
            f"the probe passed {where} (compute capability {pick(guard, 'compute_capability')})",
        )
    if decision == "patched":
        deviation = pick(guard, "verify", "max_relative_error")
        proved = pick(guard, "patched_probe", "ok") is True and pick(guard, "verify", "ok") is True
        error = f"{deviation:.1e}" if isinstance(deviation, float) else str(deviation)
        text = f"patched {where}, largest relative error {error}; unpatched: {seen or 'passed'}"
        return (MET, text) if proved else (NOT_MET, f"{text}; but the patch was not verified")
    if decision == "unpatched":
        passed = pick(guard, "probe", "ok") is True
        return (
            MET if passed else NOT_MET
        ), f"not patched {where}, as asked; the probe: {seen or 'passed'}"
    if decision == "failed" or run.get(name, "error", "kind") == "blackwell":
        return NOT_MET, f"not cured {where}: {seen or run.get(name, 'error', 'seen')}"
    return NOT_YET, f"{name}: the guard was not reached"


def _spoken(run: Run, name: str, complete: Mapping[str, bool]) -> Finding:
    absent = _absent(run, name)
    if absent:
        return absent
    fine = len([row for row in rows(run.get(name, "utterances")) if row.get("ok") is True])
    if not run.utterances:
        return NOT_YET, f"{fine} say ok in {name}, but no run.json says which ten were asked for"
    rtf = show(run.get(name, "aggregate", "rtf", "mean"))
    if run.get(name, "status") == "ok" and complete.get(name):
        return MET, f"{fine} of 10, mean RTF {rtf}"
    if run.get(name, "status") in ("ok", "failed"):
        seen = run.get(name, "error", "seen")
        return NOT_MET, f"{fine} of 10" + (f"; {seen}" if seen else "")
    return NOT_YET, f"{fine} of 10 when the phase stopped"


def _drift(run: Run, host: str, checks: Sequence[Mapping[str, Any]]) -> Finding:
    name = "llm.json"
    absent = _absent(run, name)
    if absent:
        return absent
    check = next((row for row in checks if row["name"] == f"drift.{host}"), None)
    if check is None or check["ok"] is None:
        return _failure(run, name, "the drift was not measured")
    return (MET if check["ok"] else NOT_MET), f"drift {show(check['value'])}; {check['detail']}"


def criteria(
    run: Run,
    *,
    complete: Mapping[str, bool],
    checks: Sequence[Mapping[str, Any]],
    rated: Mapping[str, Any] | None,
    rating_problems: Sequence[str],
    verdict: str,
) -> list[dict[str, Any]]:
    """Return the nine rows.

    Args:
        run: the run.
        complete: for every bench and baseline file whether it has all utterances.
        checks: the verdict's checks.
        rated: the summary of the ratings, or None.
        rating_problems: why there is none although there is a ratings.json.
        verdict: the verdict.
    """
    standbys, primaries, llms = (run.hosts[role] for role in ("standby", "primary", "llm"))
    if rated:
        means = ", ".join(f"{host} {show(mean)}" for host, mean in rated["means"].items())
        scores = (MET, f"{rated['n']} pairs; means: {means}")
    elif rating_problems:
        scores = (NOT_MET, " ".join(rating_problems))
    else:
        scores = (NOT_YET, "there is no ratings.json; a listener gives it with score.yml")
    decided = verdict not in ("awaiting_ab_scores", "invalid_run")
    findings: list[Finding] = [
        _over(standbys, lambda host: _installed(run, host), "standby"),
        _over(standbys, lambda host: guarded(run, host), "standby"),
        _over(standbys, lambda host: _spoken(run, f"bench-{host}.json", complete), "standby"),
        _over(primaries, lambda host: _spoken(run, f"baseline-{host}.json", complete), "primary"),
        scores,
        (MET if decided else NOT_YET, f"verdict.json says {verdict}"),
        _over(llms, lambda host: _drift(run, host, checks), "llm"),
        (NOT_YET, "no phase of a run writes it; it comes when the run is published"),
        (NOT_YET, "no phase of a run opens one; it comes when the run is published"),
    ]
    return [
        {
            "id": index,
            "name": name.format(drift=run.drift_limit),
            "status": findings[index - 1][0],
            "evidence": findings[index - 1][1],
        }
        for index, name in enumerate(NAMES, start=1)
    ]
