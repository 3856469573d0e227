"""Whether audio is speech as far as can be measured, and a voice reference usable.

`measure` knows samples: level, silence, clipping. `check` knows a text, too: that it is speech, as
long as the text needs, without long pauses. What is said is not known.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.audio.frames import Frames
from understudy.audio.pcm import PCM_SCALE, SAMPLE_RATE, AudioError, opened, reason
from understudy.audio.spoken_length import (
    has_pause,
    longest_plausible_s,
    repeats,
    shortest_plausible_s,
)
from understudy.audio.voice_activity import Activity
from understudy.common.files import WAV_BYTES, read_bytes

FRAME_S = 0.02
SILENT_FRAME_DBFS = -50.0
CLIPPED_RUN = 3

#: Below this there are no peaks that could be flat.
FAINT = 0.01

LOUDNESS_BLOCK_S = 0.4


#: Random weights end by themselves, but know nothing of the text: the shortest time by this.
REHEARSAL_SHORTER = 3.0

#: Frames are measured from this rate on.
MIN_RATE_HZ = 8_000


@dataclass(frozen=True)
class Limits:
    """What `measure` lets pass.

    Attributes:
        min_peak_dbfs: below this loudest sample the audio counts as silent.
        max_silence_ratio: share of silent frames from which it counts as silent too.
        max_clipped_ratio: share of clipped samples from which it counts as clipped.
        rate_hz: the sample rate expected.
    """

    min_peak_dbfs: float = -45.0
    max_silence_ratio: float = 0.95
    max_clipped_ratio: float = 0.001
    rate_hz: int = SAMPLE_RATE


#: What the model uses of a voice reference, in seconds from its start: its text half, its vocoder.
REFERENCE_USED_S = (6.0, 10.0)

#: What a voice reference must be. The model's encoders listen at 16 kHz; one shorter than what is
#: used works, but less well.
REFERENCE_MIN_HZ = 16_000
REFERENCE_MIN_S = 3.0
REFERENCE_MAX_S = 120.0
REFERENCE_LIMITS = (
    f"a mono WAV, {REFERENCE_MIN_HZ // 1000} kHz or more, "
    f"{REFERENCE_MIN_S:.0f} to {REFERENCE_MAX_S:.0f} s"
)


# Measurements


def dbfs(amplitude: float) -> float:
    """Return an amplitude (1.0 is full scale) in dBFS; -inf for zero."""
    return 20.0 * math.log10(amplitude) if amplitude > 0 else -math.inf


def loudness_lufs(samples: npt.NDArray[Any], rate: int) -> float | None:
    """Return the integrated loudness (ITU-R BS.1770-4) in LUFS.

    None when there is less than one 0.4 s block, or nothing above the absolute gate.
    """
    if len(samples) <= LOUDNESS_BLOCK_S * rate:
        return None
    import pyloudnorm  # scipy comes with it

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        value = float(
            pyloudnorm.Meter(rate).integrated_loudness(np.asarray(samples, dtype=np.float64))
        )
    return value if math.isfinite(value) else None


def clipped_samples(samples: npt.NDArray[Any]) -> int:
    """Return how many samples [N] stand at the highest or lowest value in runs of at least three.

    One or two are a peak; three are a flat top, at full scale or below it: the model's vocoder
    clamps at 0.99, and what was clipped may have been turned down later. Two steps of 16-bit PCM
    count as the same value.
    """
    if not len(samples) or np.ptp(samples) < FAINT:
        return 0
    near, found = 2 / PCM_SCALE, 0
    for side in (samples, -samples):
        top = side.max()
        found += _in_runs(side >= top - near) if top >= FAINT else 0
    return found


def _in_runs(where: npt.NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], where, [False])).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= CLIPPED_RUN].sum())


def silent_frames(samples: npt.NDArray[Any], rate: int) -> npt.NDArray[np.bool_]:
    """Return for each 20 ms frame whether its RMS is below -50 dBFS.

    A constant offset is inaudible, so the mean of the whole is taken out first.
    A last frame of less than 20 ms counts like the others.
    """
    size = max(1, round(FRAME_S * rate))
    centred = np.asarray(samples, dtype=np.float64)
    if not len(centred):
        return np.zeros(0, dtype=np.bool_)
    centred = centred - centred.mean()
    starts = np.arange(0, len(centred), size)
    power = np.add.reduceat(centred**2, starts) / np.diff(np.append(starts, len(centred)))
    return np.asarray(np.sqrt(power) < 10 ** (SILENT_FRAME_DBFS / 20), dtype=np.bool_)


def count_words(text: str) -> int:
    """Return the number of words: runs of non-space with a letter or a digit in them."""
    return sum(any(c.isalnum() for c in word) for word in text.split())


def check(
    samples: npt.NDArray[Any],
    rate: int,
    *,
    text: str,
    rehearsal: bool = False,
    loudness: bool = True,
) -> dict[str, Any]:
    """Measure the audio of a text and say what is wrong with it as speech.

    Args:
        samples: in [-1, 1], shape [N] (or [N, channels], which is a problem).
        rate: in Hz.
        text: what was to be said; it bounds the length and the pauses.
        rehearsal: the server says that its weights are a rehearsal's: random ones, which make a
            noise. Then it need not be speech, and its pauses and its shortest time are not judged
            as strictly.
        loudness: measure that too; False spares a server SciPy, two seconds of its start.

    Returns:
        As `measure`. ``problems`` is empty for plausible speech.
    """
    found = measure(samples, rate, loudness=loudness)
    problems: list[str] = found["problems"]
    if rate < MIN_RATE_HZ or any(row.startswith(("empty", "silent")) for row in problems):
        return found
    duration, shortest = found["duration_s"], shortest_plausible_s(text)
    longest = longest_plausible_s(text)
    spoken = duration
    if rehearsal:
        shortest /= REHEARSAL_SHORTER
    else:
        heard = Activity.of(Frames.of(_mono(samples), rate))
        spoken = min(duration, heard.spoken_s)
        if wrong := heard.not_speech(monotonous=repeats(text)):
            problems.append(f"not speech: {wrong}")
        elif pause := heard.dead_air(has_pause(text)):
            problems.append(f"dead air: {pause}")
    if spoken < shortest:
        seen = f"{spoken:.1f} s, expected at least {shortest:.1f} s"
        problems.append(f"too short for the text: {seen}")
    if duration > longest:
        seen = f"{duration:.1f} s, expected at most {longest:.1f} s"
        problems.append(f"absurdly long for the text: {seen}")
    return found


def measure(
    samples: npt.NDArray[Any], rate: int, *, limits: Limits | None = None, loudness: bool = True
) -> dict[str, Any]:
    """Measure audio and say what is wrong with it as audio.

    Args:
        samples: in [-1, 1], shape [N] (or [N, channels], which is a problem).
        rate: in Hz.
        limits: what passes; the defaults of `Limits` when None.
        loudness: measure that too; False spares a server SciPy, two seconds of its start.

    Returns:
        The object "Audio" of docs/run-directory.md. Levels are null for digital silence.
    """
    limits = limits or Limits()
    channels = 1 if samples.ndim == 1 else int(samples.shape[1])
    mono = _mono(samples)
    finite = bool(np.isfinite(samples).all())
    bad = int(np.size(samples) - np.isfinite(samples).sum())
    n = len(mono)
    duration = n / rate if rate > 0 else 0.0

    peak = dbfs(float(np.abs(mono).max()) if n else 0.0)
    rms = dbfs(float(np.sqrt(np.mean(mono**2))) if n else 0.0)
    clipped = clipped_samples(mono)
    silent = silent_frames(mono, rate)
    loud = np.flatnonzero(~silent)
    leading = loud[0] * FRAME_S if len(loud) else duration
    trailing = duration - (loud[-1] + 1) * FRAME_S if len(loud) else duration
    ratio = float(silent.mean()) if n else 1.0

    problems: list[str] = []
    if not n:
        problems.append("empty: not one sample")
    if bad:
        problems.append(f"NaN or infinite: {bad} of {np.size(samples)} samples")
    if rate != limits.rate_hz:
        problems.append(f"wrong rate: {rate} Hz, expected {limits.rate_hz} Hz")
    if channels != 1:
        problems.append(f"wrong number of channels: {channels}, expected 1")
    if n and peak < limits.min_peak_dbfs:
        problems.append(f"silent: the loudest sample is {peak:.1f} dBFS")
    elif n and ratio > limits.max_silence_ratio:
        problems.append(f"silent: {100 * ratio:.0f} % of it is below {SILENT_FRAME_DBFS:.0f} dBFS")
    if n and clipped > limits.max_clipped_ratio * n:
        problems.append(f"clipped: {clipped} of {n} samples in flat tops")

    return {
        "sample_rate_hz": rate,
        "channels": channels,
        "duration_s": round(duration, 4),
        "peak_dbfs": _rounded(peak),
        "rms_dbfs": _rounded(rms),
        "loudness_lufs": _rounded(loudness_lufs(mono, rate) if loudness and rate > 0 else None),
        "clipped_samples": clipped,
        "silence_ratio": round(ratio, 4),
        "leading_silence_s": round(float(leading), 3),
        "trailing_silence_s": round(max(0.0, float(trailing)), 3),
        "finite": finite,
        "problems": problems,
    }


def _mono(samples: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return samples [N] without what is not finite; the mean of more than one channel."""
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    return np.nan_to_num(np.asarray(mono, dtype=np.float64), nan=0.0, posinf=1.0, neginf=-1.0)


def _rounded(value: float | None) -> float | None:
    """Return a level to a hundredth; None for what is not finite."""
    return round(value, 2) if value is not None and math.isfinite(value) else None


# Voice references


def check_reference(path: Path | str) -> tuple[dict[str, Any], list[str]]:
    """Judge a voice reference before anything is cloned from it.

    Args:
        path: the WAV; it must be `REFERENCE_LIMITS`.

    Returns:
        ``({sha256, sample_rate_hz, channels, duration_s}, problems)``: every fact
        that could be read (else None) and every problem, as sentences that say
        what was seen and what is expected.
    """
    facts, problems = _judge_reference(Path(path))
    return facts, [sentence for sentence, _ in problems]


def reference_fault(path: Path) -> str | None:
    """Return why nothing can be cloned from a voice reference, as `check_reference` says it.

    None for one that only is not as it should be.
    """
    return next((sentence for sentence, fatal in _judge_reference(path)[1] if fatal), None)


def _judge_reference(path: Path) -> tuple[dict[str, Any], list[tuple[str, bool]]]:
    """Return the facts, and the problems with whether nothing can be cloned because of them."""
    facts: dict[str, Any] = dict.fromkeys(("sha256", "sample_rate_hz", "channels", "duration_s"))
    try:
        data = read_bytes(path, WAV_BYTES, links=True)
    except FileNotFoundError:
        return facts, [(f"{path} does not exist; expected a WAV of the voice", True)]
    except OSError as error:
        seen = f"{path} cannot be read: {reason(error)}; expected a WAV of the voice"
        return facts, [(seen, True)]
    facts["sha256"] = hashlib.sha256(data).hexdigest()
    if not data:
        return facts, [(f"{path} is empty (0 bytes); expected a WAV of the voice", True)]
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        seen = f"{path} is not a WAV: it starts with {_opening(data)}; expected RIFF…WAVE"
        return facts, [(seen, True)]
    try:
        with opened(data) as file:
            rate = file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except AudioError as error:
        return facts, [(f"{path} is not a readable WAV: {reason(error)}", True)]

    channels, duration = int(samples.shape[1]), len(samples) / rate
    facts.update(sample_rate_hz=int(rate), channels=channels, duration_s=round(duration, 4))
    problems: list[tuple[str, bool]] = []
    announced = int.from_bytes(data[4:8], "little") + 8
    if data[:4] == b"RIFF" and len(data) < announced < 0xFFFFFF00:
        seen = f"{path} is cut short: {len(data)} of the {announced} bytes it announces"
        problems.append((seen, False))
    return facts, problems + _recording_problems(path, samples, rate)


def _recording_problems(path: Path, samples: npt.NDArray[Any], rate: int) -> list[tuple[str, bool]]:
    """Return what is wrong with a reference's samples [N, channels], as `_judge_reference`."""
    channels, duration = int(samples.shape[1]), len(samples) / rate
    loudest = samples[:, int(np.argmax(np.abs(samples).sum(axis=0)))]
    worse: list[str] = []
    if channels != 1:
        worse.append(f"{path} has {channels} channels; expected 1 (mono)")
    if rate < REFERENCE_MIN_HZ:
        quality = " (telephone quality)" if rate <= 8_000 else ""
        worse.append(
            f"{path} is sampled at {rate} Hz{quality}; expected {REFERENCE_MIN_HZ} Hz or more"
        )
    if duration < REFERENCE_MIN_S:
        worse.append(f"{path} lasts {duration:.1f} s; expected at least {REFERENCE_MIN_S:.0f} s")
    if duration > REFERENCE_MAX_S:
        worse.append(f"{path} lasts {duration:.1f} s; expected at most {REFERENCE_MAX_S:.0f} s")
    clipped = max(clipped_samples(channel) for channel in samples.T)
    if clipped > Limits().max_clipped_ratio * max(1, len(samples)):
        worse.append(
            f"{path} is clipped: {clipped} of {len(samples)} samples in flat tops; "
            "expected a recording with headroom"
        )
    unusable = []
    if not np.isfinite(samples).all():
        unusable.append(f"{path} holds NaN or infinite samples; expected a recording")
    if not len(samples):
        unusable.append(f"{path} holds not one sample; expected speech")
    elif silent := _silent(loudest, rate):
        unusable.append(f"{path} is {silent}; expected speech")
    else:
        used = [(seconds, loudest[: round(seconds * rate)]) for seconds in REFERENCE_USED_S]
        unusable += [
            f"{path} is {silent} in the first {seconds:.0f} s, which the model uses; "
            "expected speech from the start"
            for seconds, part in used
            if (silent := _silent(part, rate))
        ]
    return [(sentence, False) for sentence in worse] + [(sentence, True) for sentence in unusable]


def _silent(samples: npt.NDArray[Any], rate: int) -> str | None:
    """Return the sentence of `measure` about samples [N] that are silent."""
    problems = measure(samples, rate, limits=Limits(rate_hz=rate), loudness=False)["problems"]
    return next((problem for problem in problems if problem.startswith("silent")), None)


def _opening(data: bytes) -> str:
    """Return how a file that is no WAV begins, in words where it is recognised."""
    head = data[:200].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return f"{data[:40].strip()!r}, an HTML page"
    names = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"\xff\xfb": "MP3"}
    for magic, name in names.items():
        if data.startswith(magic):
            return f"{data[:4]!r}, {name}"
    return repr(data[:12])
