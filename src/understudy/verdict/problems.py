"""What keeps a run from being judged, phase by phase, and what defers the port."""

from __future__ import annotations

from typing import Any

from understudy.verdict.run_directory import (
    UTTERANCES,
    Run,
    listing,
    number,
    pick,
    rows,
    sentence,
    show,
)


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


def deferral(run: Run) -> tuple[list[str], list[str]]:
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


def failed_checks(run: Run) -> list[dict[str, Any]]:
    """Return the rows of pre-flight that are not ok."""
    return [row for row in rows(run.get("preflight.json", "checks")) if row.get("ok") is not True]


def preflight_problems(run: Run) -> list[str]:
    """Return a sentence for every failed check of pre-flight, or why it has no result."""
    failed = [
        f"{row.get('host') or 'control node'}: {row.get('id')}: {row.get('detail')} "
        f"(preflight.json). "
        f"Next: {row.get('next') or run.again}"
        for row in failed_checks(run)
    ]
    return failed or run.problems("preflight.json")


def window_problems(run: Run) -> list[str]:
    """Return what went wrong with the LLM's maintenance window, and windows still open."""
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


def started_inside(run: Run, host: str) -> list[str]:
    """Return when somebody else started an LLM that the run had paused."""
    timeline = rows(run.get("llm.json", "hosts", host, "timeline"))
    return [str(row.get("at")) for row in timeline if row.get("event") == "started_inside"]


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


def all_problems(run: Run) -> list[str]:
    """Return everything that keeps the run from being judged, in the order of the phases."""
    problems = [*_run_problems(run), *preflight_problems(run), *window_problems(run)]
    for host in run.hosts["standby"]:
        problems += _install_problems(run, host)
    for host in run.hosts["standby"]:
        problems += _spoken_problems(run, f"bench-{host}.json", host)
    for host in run.hosts["primary"]:
        problems += _spoken_problems(run, f"baseline-{host}.json", host)
    return [*problems, *absence(run, "" if problems else f" Next: {run.again}")]


def absence(run: Run, following: str) -> list[str]:
    """Return the one sentence about the phases that were not reached, if there are any."""
    if not run.absent:
        return []
    are = "are" if len(run.absent) > 1 else "is"
    return [f"{listing(run.absent)} {are} missing: the run did not get that far.{following}"]
