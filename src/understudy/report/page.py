"""``report.html``: one page that shows what a run found and plays its recordings.

The page is made of whatever the run directory holds. A run that died half-way, a file
that was cut short, a value of the wrong type: each is shown as what it is, and the rest
of the page stands. For that, every document is read through `Doc`, which answers any
question and never raises.

The page asks for nothing outside itself: style, script, drawings and audio are inside.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from understudy.common.files import JSON_BYTES, atomic, read_bytes
from understudy.common.html import environment
from understudy.common.jsonio import parse_json
from understudy.report import charts, similarity
from understudy.report.doc import (
    Doc,
    code,
    commit,
    is_known,
    is_numeric,
    ms,
    num,
    number_of,
    numbers_of,
    pairs,
    percent,
    seconds,
    show,
    size,
    text_of,
    when,
)
from understudy.report.files import NAME, files
from understudy.report.takes import HostAudio, entry_of, take
from understudy.verdict.run_directory import MOST_HOSTS, MOST_UTTERANCES

#: Files that every run has once it is complete; those of the hosts come on top.
COMMON = ("run.json", "preflight.json", "llm.json", "identity.json", "ratings.json", "verdict.json")


#: verdict -> headline, tone, plain meaning.
VERDICTS: dict[str, tuple[str, str, str]] = {
    "titan_chatterbox_redundancy_validated": (
        "The standby can take over",
        "good",
        "Chatterbox runs on {standby}, spoke all utterances, and listeners heard the same voice "
        "as on {primary}. If {primary} fails, callers can be answered from {standby}.",
    ),
    "titan_chatterbox_diverges_from_panda_investigate": (
        "The voices differ",
        "stop",
        "Chatterbox runs on {standby}, but it does not sound like {primary}. Claim no redundancy "
        "until the cause is known: compare data type, STFT output and kernel versions between "
        "the hosts.",
    ),
    "deferred_blackwell_port_cost": (
        "Deferred: the port to this GPU costs too much",
        "stop",
        "Chatterbox could not be made to run on {standby} within the time allowed, so production "
        "has no native failover. The alternatives: a second host like {primary}, synthesis on "
        "the CPU of {standby}, or a voice from a cloud service.",
    ),
    "awaiting_ab_scores": (
        "Measured; the listening test is still to come",
        "wait",
        "{standby} and {primary} both spoke, and the figures are in. Whether they sound the same "
        "is decided by the scores of a listener, which this run does not have yet.",
    ),
    "invalid_run": (
        "This run does not count",
        "stop",
        "The run could not be carried out as it must be, so it says nothing about the voices. "
        "What went wrong is listed below; put it right and run again.",
    ),
}

NO_VERDICT = (
    "No verdict yet",
    "wait",
    "The verdict has not been computed, or its file cannot be read. What the run left is below.",
)

ODD_VERDICT = ("A verdict that this page does not know", "wait", "It is shown as it was written.")

GUARD_DECISIONS = {
    "not_applicable": "Not applicable: no GPU kernels are compiled on this device.",
    "not_needed": "Not needed: the probe passed as it is.",
    "patched": "Patched: the probe failed, and passes with the patch.",
    "unpatched": "Left unpatched, as was asked.",
    "failed": "Failed: the problem is there and the patch did not remove it.",
}

#: How scores were given, by the kind of their source; a sheet may come from anywhere.
GIVEN = {"sheet": "in a sheet", "page": "blind, on the page", "terminal": "blind, in a terminal"}

SPLIT = (
    ("install", "Install"),
    ("model_load", "Model loading"),
    ("synthesis", "Synthesis"),
    ("llm_probe", "LLM probing"),
    ("comparison", "Comparing the voices"),
    ("other", "Everything else"),
)


@dataclass(frozen=True)
class RunFile:
    """One file of the run directory.

    Attributes:
        name: of the file.
        state: ``ok``, ``running``, ``failed``, ``skipped``, ``missing`` or ``unreadable``.
        doc: what it holds; empty when missing or unreadable.
        note: why it could not be read, or an empty string.
    """

    name: str
    state: str
    doc: Doc = field(default_factory=Doc)
    note: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that went wrong: where, what was tried, what was seen, what to type next."""

    where: str
    host: str
    trying: str
    seen: str
    next: str


def render(run_dir: Path) -> Path:
    """Write ``report.html`` for a run, in one step: readers see the old page or the new one.

    Args:
        run_dir: the run directory; any of its files may be missing, cut short or malformed.

    Returns:
        The path of the page.

    Raises:
        OSError: the page cannot be written, or ``run_dir`` is not a directory.
    """
    page = _template().render(**_context(run_dir))
    # A lone surrogate in a document is valid JSON, but not valid UTF-8.
    with atomic(run_dir / NAME) as part:
        part.write_bytes(page.encode("utf-8", "replace"))
    return run_dir / NAME


@functools.cache
def _template() -> jinja2.Template:
    templates = environment("understudy.report")
    templates.filters.update(
        show=show,
        num=num,
        size=size,
        seconds=seconds,
        ms=ms,
        when=when,
        percent=percent,
        pairs=pairs,
        commit=commit,
        code=code,
    )
    templates.tests.update(known=is_known, numeric=is_numeric)
    return templates.get_template("report.html.j2")


# What the page is made of.


def _context(run_dir: Path) -> dict[str, object]:
    found = {path.name for path in run_dir.iterdir()}
    run = _read(run_dir, "run.json")
    verdict = _read(run_dir, "verdict.json")
    standbys = _hosts(run.doc, verdict.doc, "standby", found, ("bench-", "install-"))
    primaries = _hosts(run.doc, verdict.doc, "primary", found, ("baseline-",))

    documents = {name: _read(run_dir, name) for name in COMMON}
    for prefix, hosts in (("install", standbys), ("bench", standbys), ("baseline", primaries)):
        for host in hosts:
            name = f"{prefix}-{host}.json"
            documents[name] = _read(run_dir, name)

    def of(prefix: str, hosts: list[str]) -> list[tuple[str, Doc]]:
        return [(host, documents[f"{prefix}-{host}.json"].doc) for host in hosts]

    voices = [HostAudio(host, "standby", doc) for host, doc in of("bench", standbys)]
    voices += [HostAudio(host, "primary", doc) for host, doc in of("baseline", primaries)]
    utterances = _utterances(run.doc, voices)
    name = text_of(verdict.doc["verdict"])
    title, tone, meaning = VERDICTS.get(name, ODD_VERDICT if name else NO_VERDICT)
    return {
        "run_id": text_of(run.doc["run_id"]) or text_of(verdict.doc["run_id"]) or run_dir.name,
        "run": run.doc,
        "verdict": verdict.doc,
        "ratings": documents["ratings.json"].doc,
        "given": GIVEN.get(
            text_of(documents["ratings.json"].doc["source"]["kind"]), GIVEN["sheet"]
        ),
        "preflight": documents["preflight.json"].doc,
        "llm": documents["llm.json"].doc,
        "similarity": similarity.view(documents["identity.json"].doc),
        "name": name,
        "title": title,
        "tone": tone,
        "meaning": meaning.format(
            standby=_words(standbys, "the standby"), primary=_words(primaries, "the primary")
        ),
        "rehearsal": run.doc["rehearsal"]() is True or verdict.doc["rehearsal"]() is True,
        "notes": verdict.doc["notes"] or run.doc["notes"],
        "standbys": standbys,
        "primaries": primaries,
        "documents": list(documents.values()),
        "problems": _problems(list(documents.values())),
        "installs": of("install", standbys),
        "benches": of("bench", standbys),
        "voices": voices,
        "listening": [
            (
                name,
                text,
                [take(run_dir, name, voice, documents["ratings.json"].doc) for voice in voices],
            )
            for name, text in utterances
        ],
        "difference_chart": _difference_chart(standbys, utterances, verdict.doc["evidence"]),
        "rtf_chart": _chart(voices, utterances, "rtf", "RTF"),
        "audio_chart": _chart(voices, utterances, "audio_s", "seconds of audio"),
        "marker": charts.marker,
        "drift_limit": lambda host: _drift_limit(host, verdict.doc),
        "llm_chart": _latency_chart,
        "split": SPLIT,
        "split_chart": charts.stack(
            "How the time of the run was spent",
            [(name, number_of(verdict.doc["timing"]["split"][key])) for key, name in SPLIT],
        ),
        "guard_decisions": GUARD_DECISIONS,
        "files": files(run_dir, verdict.doc),
    }


def _read(run_dir: Path, name: str) -> RunFile:
    try:
        value = parse_json(read_bytes(run_dir / name, JSON_BYTES))
    except FileNotFoundError:
        return RunFile(name, "missing")
    except OSError as error:
        return RunFile(name, "unreadable", note=error.strerror or str(error))
    except ValueError as error:
        return RunFile(name, "unreadable", note=str(error))
    if not isinstance(value, dict):
        return RunFile(name, "unreadable", note=f"holds a {type(value).__name__}, not an object")
    doc = Doc(value)
    status = text_of(doc["status"])
    return RunFile(name, status if status in ("running", "failed", "skipped") else "ok", doc)


def _hosts(
    run: Doc, verdict: Doc, group: str, found: set[str], prefixes: tuple[str, ...]
) -> list[str]:
    """Return a group's hosts: as the run says, else the verdict, and those that left a file."""
    said = run["hosts"][group] or verdict["hosts"][group]
    hosts = [text_of(host) for host in said if _is_file_name(text_of(host))]
    hosts.extend(
        name.removeprefix(prefix).removesuffix(".json")
        for name in sorted(found)
        for prefix in prefixes
        if name.startswith(prefix) and name.endswith(".json")
    )
    return list(dict.fromkeys(host for host in hosts if host))[:MOST_HOSTS]


def _is_file_name(host: str) -> bool:
    return bool(host) and len(host) < 200 and not set(host) & {"/", "\\", "\0"}


def _words(hosts: list[str], otherwise: str) -> str:
    if len(hosts) < 2:
        return hosts[0] if hosts else otherwise
    return f"{', '.join(hosts[:-1])} and {hosts[-1]}"


def _utterances(run: Doc, voices: list[HostAudio]) -> list[tuple[str, str]]:
    """Return id and text of every utterance that the run planned or a host spoke."""
    texts = {text_of(one["id"]): text_of(one["text"]) for one in run["utterances"]}
    for voice in voices:
        for one in voice.doc["utterances"]:
            texts.setdefault(text_of(one["id"]), "")
    return [(name, text) for name, text in texts.items() if name][:MOST_UTTERANCES]


def _problems(documents: list[RunFile]) -> list[Problem]:
    problems = []
    for document in documents:
        error = document.doc["error"]
        if document.state == "unreadable":
            problems.append(
                Problem(document.name, "", f"reading {document.name}", document.note, "")
            )
        elif error:
            problems.append(
                Problem(
                    document.name,
                    text_of(error["host"]) or text_of(document.doc["host"]),
                    text_of(error["trying"]),
                    text_of(error["seen"]) or ("" if len(error) else show(error)),
                    text_of(error["next"]),
                )
            )
        elif document.state == "failed":
            host = text_of(document.doc["host"])
            problems.append(
                Problem(document.name, host, "", "It says that it failed, not why.", "")
            )
        if document.name == "preflight.json":
            seen = {problem.seen for problem in problems}
            problems.extend(
                Problem(
                    document.name,
                    text_of(check["host"]),
                    text_of(check["id"]),
                    text_of(check["detail"]),
                    text_of(check["next"]),
                )
                for check in document.doc["checks"]
                if check["ok"]() is False and text_of(check["detail"]) not in seen
            )
    return problems


# The drawings.


def _chart(
    voices: list[HostAudio], utterances: list[tuple[str, str]], key: str, unit: str
) -> Markup | None:
    series = [
        charts.Series(voice.host, [number_of(entry_of(voice, name)[key]) for name, _ in utterances])
        for voice in voices
    ]
    hosts = _words([voice.host for voice in voices], "no host")
    return charts.dots(
        f"{unit} of every utterance, {hosts}; the same numbers are in the listening table",
        [name for name, _ in utterances],
        series,
        unit,
        (1.0, "As long as the audio itself") if key == "rtf" else None,
    )


def _difference_chart(
    standbys: list[str], utterances: list[tuple[str, str]], evidence: Doc
) -> Markup | None:
    hosts = [evidence["hosts"][host] for host in standbys]
    return charts.signed(
        f"Score of {_words(standbys, 'the standby')} minus that of the primary for every "
        "utterance, and the mean with its interval",
        [name for name, _ in utterances],
        [
            charts.Series(host, [number_of(one["differences"][name]) for name, _ in utterances])
            for host, one in zip(standbys, hosts, strict=True)
        ],
        "points, standby minus primary",
        (number_of(evidence["margin"]) or 0.5, "The limit of the rule"),
        [
            (
                number_of(one["interval"]["low"]),
                number_of(one["mean"]),
                number_of(one["interval"]["high"]),
            )
            for one in hosts
        ],
    )


def _drift_limit(host: str, verdict: Doc) -> float | None:
    """Return how much slower the LLM may be afterwards, from the checks of the verdict."""
    names = ("drift", f"drift.{host}")
    found = (check for check in verdict["checks"] if text_of(check["name"]) in names)
    return next((number_of(check["threshold"]) for check in found), None)


def _latency_chart(host: str, llm: Doc, limit: float | None) -> Markup | None:
    before = number_of(llm["before"]["p50_ms"])
    return charts.strips(
        f"Latency of every request to the LLM on {host}, before, during and after the benchmark",
        [
            (name, numbers_of(llm[name]["samples_ms"]), number_of(llm[name]["p50_ms"]))
            for name in ("before", "during", "after")
        ],
        "milliseconds",
        (limit * before, "The most that is allowed afterwards") if limit and before else None,
    )
