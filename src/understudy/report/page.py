"""``report.html``: one page that shows what a run found and plays what was heard.

The page is made of whatever the run directory holds. A run that died half-way, a file
that was cut short, a value of the wrong type: each is shown as what it is, and the rest
of the page stands. For that, every document is read through `Doc`, which answers any
question and never raises.

The page asks for nothing outside itself: style, script, drawings and audio are inside.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import soundfile
from markupsafe import Markup

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

NAME = "report.html"

#: Files that every run has once it is complete; those of the hosts come on top.
COMMON = ("run.json", "preflight.json", "llm.json", "identity.json", "ratings.json", "verdict.json")

#: A longer recording is named, but not put into the page.
LONGEST_AUDIO_S = 120.0

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
GIVEN = {
    "sheet": "in a sheet",
    "page": "blind, on the page",
    "terminal": "blind, in a terminal",
}

SPLIT = (
    ("install", "Install"),
    ("model_load", "Model loading"),
    ("synthesis", "Synthesis"),
    ("llm_probe", "LLM probing"),
    ("other", "Everything else"),
)


@dataclass(frozen=True)
class Document:
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


@dataclass(frozen=True)
class Voice:
    """A host that speaks, and the file that says how."""

    host: str
    role: str
    doc: Doc


@dataclass(frozen=True)
class Take:
    """One utterance as one host spoke it.

    Attributes:
        host: who spoke.
        entry: its row in the host's file; empty when there is none.
        audio: a ``data:`` URI, or an empty string.
        note: why there is no audio, or an empty string.
        problems: everything a listener should know about this take.
        scores: the ratings it got, one for each pass.
    """

    host: str
    entry: Doc
    audio: str
    note: str
    problems: list[str]
    scores: list[Doc]


@dataclass(frozen=True)
class Listed:
    """A file of the directory; ``note`` says how it differs from what the verdict saw."""

    name: str
    bytes: int | None
    sha256: str
    note: str


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
    _replace(run_dir / NAME, page.encode("utf-8", "replace"))
    return run_dir / NAME


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("understudy.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
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
    environment.tests.update(known=is_known, numeric=is_numeric)
    return environment.get_template("report.html.j2")


# What the template prints with: each takes any value.


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

    voices = [Voice(host, "standby", doc) for host, doc in of("bench", standbys)]
    voices += [Voice(host, "primary", doc) for host, doc in of("baseline", primaries)]
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
        "ear": similarity.view(documents["identity.json"].doc),
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
                [_take(run_dir, name, voice, documents["ratings.json"].doc) for voice in voices],
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
        "files": _files(run_dir, verdict.doc),
    }


def _read(run_dir: Path, name: str) -> Document:
    try:
        value = parse_json((run_dir / name).read_bytes())
    except FileNotFoundError:
        return Document(name, "missing")
    except OSError as error:
        return Document(name, "unreadable", note=error.strerror or str(error))
    except ValueError as error:
        return Document(name, "unreadable", note=str(error))
    if not isinstance(value, dict):
        return Document(name, "unreadable", note=f"holds a {type(value).__name__}, not an object")
    doc = Doc(value)
    status = text_of(doc["status"])
    return Document(name, status if status in ("running", "failed", "skipped") else "ok", doc)


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
    return list(dict.fromkeys(host for host in hosts if host))


def _is_file_name(host: str) -> bool:
    return bool(host) and len(host) < 200 and not set(host) & {"/", "\\", "\0"}


def _words(hosts: list[str], otherwise: str) -> str:
    if len(hosts) < 2:
        return hosts[0] if hosts else otherwise
    return f"{', '.join(hosts[:-1])} and {hosts[-1]}"


def _utterances(run: Doc, voices: list[Voice]) -> list[tuple[str, str]]:
    """Return id and text of every utterance that the run planned or a host spoke."""
    texts = {text_of(one["id"]): text_of(one["text"]) for one in run["utterances"]}
    for voice in voices:
        for one in voice.doc["utterances"]:
            texts.setdefault(text_of(one["id"]), "")
    return [(name, text) for name, text in texts.items() if name]


def _entry(voice: Voice, name: str) -> Doc:
    return next((one for one in voice.doc["utterances"] if text_of(one["id"]) == name), Doc())


def _problems(documents: list[Document]) -> list[Problem]:
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


# The recordings.


def _take(run_dir: Path, name: str, voice: Voice, ratings: Doc) -> Take:
    entry = _entry(voice, name)
    audio, note, digest = _audio(run_dir, entry)
    problems = _remarks(entry)
    measured = text_of(entry["wav_sha256"])
    if digest and measured and digest != measured:
        problems.append("The file is not the one that was measured: its SHA-256 differs.")
    rows = [row for row in ratings["scores"] if text_of(row["utterance"]) == name]
    scores = [row[voice.host] for row in rows if row[voice.host]() is not None]
    return Take(voice.host, entry, audio, note, problems, scores)


def _remarks(entry: Doc) -> list[str]:
    """Return what is to be said about a take: failures, cap, retries, and what was heard."""
    remarks = []
    if entry["error"]:
        remarks.append(show(entry["error"]))
    elif entry["ok"]() is False:
        remarks.append("Not a good take; no reason was recorded.")
    if entry["hit_cap"]() is True:
        remarks.append("Ran into the token cap: the end may be missing.")
    if retries := list(entry["retries"]):
        reasons = "; ".join(show(retry["reason"]) for retry in retries)
        remarks.append(f"{len(retries)} {'retry' if len(retries) == 1 else 'retries'}: {reasons}")
    audio = entry["audio"]
    heard = [show(problem) for problem in audio["problems"]]
    remarks.extend(heard)
    clipped = number_of(audio["clipped_samples"]) or 0
    if clipped > 0 and not heard:
        remarks.append(f"{show(clipped)} clipped samples.")
    if audio["finite"]() is False and not heard:
        remarks.append("Holds values that are not numbers.")
    return remarks


def _audio(run_dir: Path, entry: Doc) -> tuple[str, str, str]:
    """Return a take as a ``data:`` URI, why there is none, and the SHA-256 of its file."""
    if not entry:
        return "", "Not spoken.", ""
    name = text_of(entry["wav"])
    if not name:
        return "", "No recording.", ""
    try:
        path = (run_dir / name).resolve()
        if not path.is_relative_to(run_dir.resolve()):
            return "", f"{name} lies outside the run directory.", ""
        if not path.is_file():
            return "", f"Missing: {name} is not in the run directory.", ""
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        return "", f"Missing: {name} is not in the run directory.", ""
    digest = hashlib.sha256(content).hexdigest()
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as wav:
            rate, frames, short = wav.samplerate, wav.frames, wav.subtype == "PCM_16"
            if frames == 0:
                return "", f"{name} holds no sound.", digest
            if frames > LONGEST_AUDIO_S * rate:
                return "", f"{name} is too long to be put into the page.", digest
            samples = wav.read(dtype="int16" if short else "int32")
        flac = io.BytesIO()
        subtype = "PCM_16" if short else "PCM_24"
        soundfile.write(flac, samples, rate, format="FLAC", subtype=subtype)
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        return "", f"{name} is not a readable recording: {error}", digest
    packed = base64.b64encode(flac.getvalue()).decode("ascii")
    return f"data:audio/flac;base64,{packed}", "", digest


# The drawings.


def _chart(
    voices: list[Voice], utterances: list[tuple[str, str]], key: str, unit: str
) -> Markup | None:
    series = [
        charts.Series(voice.host, [number_of(_entry(voice, name)[key]) for name, _ in utterances])
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


# The files.


def _files(run_dir: Path, verdict: Doc) -> list[Listed]:
    """List the files of the directory, and say which changed since the verdict.

    What a listener hears is left out: the names are blind, and there are fifty to a pass.
    """
    used = {text_of(one["name"]): text_of(one["sha256"]) for one in verdict["files"]}
    rows = []
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if name == NAME or name.startswith("listening/") or path.name.startswith("."):
            continue
        if path.is_symlink() or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            rows.append(Listed(name, None, "", error.strerror or "not readable"))
            continue
        digest = hashlib.sha256(content).hexdigest()
        changed = used.get(name, digest) != digest
        rows.append(Listed(name, len(content), digest, "changed since the verdict" * changed))
    there = {row.name for row in rows}
    rows.extend(
        Listed(name, None, sha256, "gone since the verdict")
        for name, sha256 in used.items()
        if name and name not in there
    )
    return rows


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
