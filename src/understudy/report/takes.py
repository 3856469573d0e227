"""The recordings of the page: one take for each utterance of each host."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import soundfile

from understudy.audio.pcm import AudioError, opened
from understudy.common.files import WAV_BYTES, read_within
from understudy.report.doc import Doc, number_of, show, text_of

#: A longer recording is named, but not put into the page.
LONGEST_AUDIO_S = 120.0


@dataclass(frozen=True)
class HostAudio:
    """A host with recordings, and its result file."""

    host: str
    role: str
    doc: Doc


@dataclass(frozen=True)
class Take:
    """One utterance as one host spoke it.

    Attributes:
        host: that the recording is of.
        entry: its row in the host's file; empty when there is none.
        audio: a ``data:`` URI, or an empty string.
        note: why there is no audio, or an empty string.
        problems: what is wrong with this take.
        scores: the ratings it got, one for each pass.
    """

    host: str
    entry: Doc
    audio: str
    note: str
    problems: list[str]
    scores: list[Doc]


def entry_of(voice: HostAudio, name: str) -> Doc:
    """Return the row of an utterance in the file of a host; empty if there is none."""
    return next((one for one in voice.doc["utterances"] if text_of(one["id"]) == name), Doc())


def take(run_dir: Path, name: str, voice: HostAudio, ratings: Doc) -> Take:
    """Return the recording of an utterance by a host, with its scores."""
    entry = entry_of(voice, name)
    audio, note, digest = _audio(run_dir, entry)
    problems = _remarks(entry)
    measured = text_of(entry["wav_sha256"])
    if digest and measured and digest != measured:
        problems.append("The file is not the one that was measured: its SHA-256 differs.")
    rows = [row for row in ratings["scores"] if text_of(row["utterance"]) == name]
    scores = [row[voice.host] for row in rows if row[voice.host]() is not None]
    return Take(voice.host, entry, audio, note, problems, scores)


def _remarks(entry: Doc) -> list[str]:
    """Return the remarks on a take: failures, cap, retries, and problems of the audio."""
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
    found = [show(problem) for problem in audio["problems"]]
    remarks.extend(found)
    clipped = number_of(audio["clipped_samples"]) or 0
    if clipped > 0 and not found:
        remarks.append(f"{show(clipped)} clipped samples.")
    if audio["finite"]() is False and not found:
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
        content = read_within(run_dir, name, WAV_BYTES)
    except FileNotFoundError:
        return "", f"Missing: {name} is not in the run directory.", ""
    except OSError as error:
        return "", f"{name} was not read: {error.strerror}.", ""
    digest = hashlib.sha256(content).hexdigest()
    try:
        with opened(content) as wav:
            rate, frames, short = wav.samplerate, wav.frames, wav.subtype == "PCM_16"
            if frames == 0:
                return "", f"{name} holds no sound.", digest
            if frames > LONGEST_AUDIO_S * rate:
                return "", f"{name} is too long to be put into the page.", digest
            samples = wav.read(dtype="int16" if short else "int32")
        flac = io.BytesIO()
        subtype = "PCM_16" if short else "PCM_24"
        soundfile.write(flac, samples, rate, format="FLAC", subtype=subtype)
    except (AudioError, soundfile.SoundFileError) as error:
        return "", f"{name} is not a readable recording: {error}", digest
    packed = base64.b64encode(flac.getvalue()).decode("ascii")
    return f"data:audio/flac;base64,{packed}", "", digest
