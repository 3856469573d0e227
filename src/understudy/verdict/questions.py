"""The six questions that every run answers, as far as it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from understudy.verdict.criteria import packages
from understudy.verdict.problems import started_inside
from understudy.verdict.run_directory import Run, listing, number, pick, rows, show, strings

QUESTIONS = (
    "Does pip install chatterbox-tts resolve on aarch64, Python >= 3.10? Any native builds?",
    "Does S3Gen's STFT path trigger the nvrtc error, and does the patch fix it as a drop-in?",
    "What is the actual memory footprint on the standby?",
    "Is resemble-perth a hard dependency, and does it install on aarch64?",
    "What is the RTF on the standby against the primary?",
    "Is it safe to run in parallel with the LLM (memory, latency drift), or is a pause needed?",
)

GB = 1e9

#: The answer of a host (None while unknown) and the evidence.
Answer = tuple["str | None", str]


def _machine(run: Run, host: str) -> str:
    """Return a standby's architecture and Python; say so where it is not the one asked about."""
    arch = run.get("preflight.json", "hosts", host, "arch")
    python = run.get(f"install-{host}.json", "venv", "python")
    hint = "" if arch == "aarch64" else ": not aarch64, so nothing is known about that"
    return f"{arch or 'unknown architecture'}, Python {python or 'unknown'}{hint}"


def _install(run: Run, host: str) -> Answer:
    name = f"install-{host}.json"
    venv = run.get(name, "venv")
    found = packages(run, host)
    if not found or run.get(name, "import_ok") is not True:
        seen = run.get(name, "error", "seen")
        return None, f"{name}: {seen or 'the install did not get that far'}"
    built = strings(pick(venv, "built_from_source"))
    moved = [
        f"{pin.get('name')} {pin.get('installed')} instead of {pin.get('declared')}"
        for pin in rows(pick(venv, "pins"))
        if pin.get("overridden") is True
    ]
    pins = f"not with the declared pins: {listing(moved)}" if moved else "with the declared pins"
    source = f"built from source: {listing(built)}" if built else "none was built from source"
    return (
        f"Installed on {_machine(run, host)}; {pins}; {len(found)} packages, {source}.",
        f"lock {pick(venv, 'lock')}, {show(pick(venv, 'install_s'), 0)} s to install",
    )


def _stft(run: Run, host: str) -> Answer:
    guard = run.get(f"install-{host}.json", "guard")
    decision = pick(guard, "decision")
    device = pick(guard, "device_name") or pick(guard, "device")
    probe = pick(guard, "probe", "error")
    evidence = f"{device}, NVRTC {pick(guard, 'nvrtc') or 'unknown'}; probe: {probe or 'passed'}"
    if decision == "not_needed":
        return f"No: it does not occur on {device}.", evidence
    if decision in ("patched", "unpatched", "failed"):
        occurs = f"Yes, on {device}: {probe}" if probe else f"No: it does not occur on {device}"
        cured = pick(guard, "patched_probe", "ok") is True and pick(guard, "verify", "ok") is True
        if decision == "unpatched":
            return f"{occurs}. The patch was switched off.", evidence
        return (
            f"{occurs}. The patch {'works as a drop-in' if cured else 'does not cure it'}.",
            evidence,
        )
    if decision == "not_applicable":
        return None, f"{device}: no CUDA device, so nothing to compile"
    return None, "the guard was not reached"


def _beside(run: Run) -> str:
    """Return what marks figures that were measured beside an LLM that was to be paused."""
    starts = [at for host in run.hosts["llm"] for at in started_inside(run, host)]
    return f"; NOT with the LLM paused: somebody started it at {listing(starts)}" if starts else ""


def _memory(run: Run, host: str) -> Answer:
    memory = run.get(f"bench-{host}.json", "memory")
    if not isinstance(memory, dict):
        return None, f"there are no figures in bench-{host}.json"
    parts = []
    for key, text, note in (
        ("torch_peak_allocated_bytes", "torch allocated at its peak", "torch_note"),
        ("torch_peak_reserved_bytes", "torch reserved at its peak", "torch_note"),
        ("process_driver_bytes", "the process held by the driver's count", "process_driver_note"),
        (
            "process_peak_rss_bytes",
            "the process's peak resident memory was",
            "process_peak_rss_note",
        ),
    ):
        if number(memory.get(key)) is not None:
            parts.append(f"{text} {show(memory[key], scale=GB)} GB")
        else:
            parts.append(f"{text}: not known ({memory.get(note) or 'not reported'})")
    low, start = (number(memory.get(f"mem_available_{when}_bytes")) for when in ("low", "start"))
    evidence = f"MemAvailable fell from {show(start, scale=GB)} to {show(low, scale=GB)} GB"
    evidence += _beside(run)
    known = any(number(value) is not None for value in memory.values())
    return (f"{'; '.join(parts)}." if known else None), evidence


def _watermarker(run: Run, host: str) -> Answer:
    mark = run.get(f"install-{host}.json", "watermarker")
    if not isinstance(mark, dict) or not isinstance(mark.get("ok"), bool):
        return None, "the install did not get that far"
    name = mark.get("name") or "resemble-perth"
    package = packages(run, host).get(str(name), {})
    required = "a hard dependency" if mark.get("required") is True else "not needed"
    works = "installs and works" if mark["ok"] else "does not work"
    return (
        f"{name} {mark.get('version')} is {required} and {works} on {_machine(run, host)}.",
        f"installed from a {package.get('kind') or 'package of unknown kind'}",
    )


def _rtf(run: Run, host: str) -> Answer:
    def figures(name: str) -> str | None:
        summary = run.get(name, "aggregate", "rtf")
        if number(pick(summary, "mean")) is None:
            return None
        mean, p50, p95 = (show(pick(summary, key)) for key in ("mean", "p50", "p95"))
        return f"mean {mean}, p50 {p50}, p95 {p95} (n = {pick(summary, 'n')})"

    own = figures(f"bench-{host}.json")
    others = [(primary, figures(f"baseline-{primary}.json")) for primary in run.hosts["primary"]]
    against = "; ".join(f"{primary}, over HTTP: {text}" for primary, text in others if text)
    evidence = f"in process, from bench-{host}.json; wall time over seconds of audio"
    evidence += _beside(run)
    if own is None or not against:
        return None, f"{host}: {own or 'no figures'}; primary: {against or 'no figures'}"
    return f"{own}. Against {against}.", evidence


def _parallel(run: Run, host: str) -> Answer:
    entry = run.get("llm.json", "hosts", host)
    drift, ratio = number(pick(entry, "drift")), number(pick(entry, "during_ratio"))
    low = [
        show(run.get(f"bench-{standby}.json", "memory", "mem_available_low_bytes"), scale=GB)
        for standby in run.hosts["standby"]
    ]
    memory = f"at least {listing(low)} GB of memory stayed available" if low else "memory unknown"
    after = f"p50 after / before {show(drift)}"
    if pick(entry, "mode") != "parallel":
        back = show(pick(entry, "back_after_s"), 0)
        return (
            None,
            f"the LLM was paused: {after}, back after {back} s; -e gemma_mode=parallel answers it",
        )
    if drift is None or ratio is None:
        return None, f"p50 during / before {show(ratio)}, {after}; both are needed"
    during = f"{show(ratio)} x its p50 during the synthesis, {show(drift)} x after it; {memory}"
    if drift > 1.2:
        return f"No, pause it: {during}.", after
    if ratio > 1.2:
        return f"It recovers, but is slower meanwhile; pause it if that matters: {during}.", after
    return f"Yes: {during}.", after


def questions(run: Run) -> list[dict[str, Any]]:
    """Return the six questions with their answers; None where a run does not tell."""
    standbys, llms = run.hosts["standby"], run.hosts["llm"]
    asked: list[tuple[list[str], Callable[[Run, str], Answer]]] = [
        (standbys, _install),
        (standbys, _stft),
        (standbys, _memory),
        (standbys, _watermarker),
        (standbys, _rtf),
        (llms, _parallel),
    ]
    answered = []
    for index, (hosts, ask) in enumerate(asked):
        answers = [(host, *ask(run, host)) for host in hosts]
        known = [f"{host}: {answer}" for host, answer, _ in answers if answer]
        answered.append(
            {
                "id": index + 1,
                "question": QUESTIONS[index],
                "answer": " ".join(known) or None,
                "evidence": "; ".join(f"{host}: {evidence}" for host, _, evidence in answers)
                or "the run names no such host",
            }
        )
    return answered
