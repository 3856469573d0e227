"""Recordings made alike for a blind comparison: rate, silence around them, loudness.

Whatever tells two recordings apart other than the voice is taken out: what stands before
and after the speech becomes digital silence of a fixed length, and all are equally loud
by EBU R128. What is in the speech itself, its noise and its band, is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from understudy.audio import pcm, speech_check
from understudy.audio.pcm import Samples
from understudy.audio.resample import resample

TARGET_LUFS = -23.0
"""EBU R128's programme loudness; lower for all where a peak would not fit."""

CEILING_DBFS = -1.0
"""The highest sample peak that a stimulus may have."""

LEAD_S = 0.3
"""Digital silence before the speech."""

TAIL_S = 0.4
"""And the least after it: one loudness block, so that more of it changes no measurement."""

ONSET_DB = -40.0
"""Speech begins and ends where 10 ms are louder than this, against the loudest 10 ms."""

FRAME_S = 0.01
MARGIN_S = 0.03
FADE_S = 0.005


@dataclass(frozen=True)
class TrimmedSpeech:
    """A recording without the silence around it.

    Attributes:
        samples: the speech, faded in and out over 5 ms, shape [N].
        rate: in Hz.
        lead_s: what was taken away before it, in seconds.
        tail_s: and after it.
    """

    samples: Samples
    rate: int
    lead_s: float
    tail_s: float


def trim(samples: npt.NDArray[Any], rate: int) -> TrimmedSpeech:
    """Cut a recording to its speech and 30 ms around it; silence where there was less.

    Args:
        samples: in [-1, 1], shape [N], with something to hear in them.
        rate: in Hz.
    """
    centred = np.asarray(samples, dtype=np.float64)
    size = max(1, round(FRAME_S * rate))
    starts = np.arange(0, len(centred), size)
    power = np.add.reduceat(centred**2, starts) / np.diff(np.append(starts, len(centred)))
    loud = np.flatnonzero(power > power.max() * 10 ** (ONSET_DB / 10))
    margin = round(MARGIN_S * rate)
    first, last = int(starts[loud[0]]) - margin, int(starts[loud[-1]]) + size + margin
    begin, end = max(0, first), min(len(centred), last)
    speech = centred[begin:end].copy()
    fade = min(round(FADE_S * rate), len(speech) // 2)
    if fade:
        ramp = np.linspace(0.0, 1.0, fade, endpoint=False)
        speech[:fade] *= ramp
        speech[-fade:] *= ramp[::-1]
    speech = np.pad(speech, (begin - first, last - end))
    return TrimmedSpeech(speech.astype(np.float32), rate, begin / rate, (len(centred) - end) / rate)


def resampled(samples: npt.NDArray[Any], rate: int, wanted: int) -> Samples:
    """Return samples [N] at another rate in Hz."""
    if rate == wanted:
        return cast(Samples, np.asarray(samples, dtype=np.float32))
    return stretched(samples, Fraction(wanted, rate))


def stretched(samples: npt.NDArray[Any], ratio: Fraction) -> Samples:
    """Return samples [N] as N * ratio of them.

    Played at the old rate they last that much longer, and pitch and formants are divided by it.
    """
    return resample(samples, ratio).astype(np.float32)


def padded(spoken: TrimmedSpeech) -> Samples:
    """Return speech with the silence that every stimulus has before and after it."""
    lead, tail = (np.zeros(round(s * spoken.rate), dtype=np.float32) for s in (LEAD_S, TAIL_S))
    return np.concatenate((lead, spoken.samples, tail))


@dataclass(frozen=True)
class Levelled:
    """Stimuli of one loudness, and what was done to them.

    Attributes:
        samples: by name, each [N].
        gains_db: by name: the gain that was applied.
        measured_lufs: by name: the loudness before.
        target_lufs: the loudness that all of them have now.
    """

    samples: Mapping[str, Samples]
    gains_db: Mapping[str, float]
    measured_lufs: Mapping[str, float]
    target_lufs: float


def level(named: Mapping[str, Samples], rates: Mapping[str, int]) -> Levelled:
    """Make recordings equally loud, and none of them too loud.

    All get the same loudness: `TARGET_LUFS` or, where the peak of one would go beyond
    `CEILING_DBFS`, the highest at which none does. Nothing is limited or compressed.

    Args:
        named: samples [N] by name, with their silence.
        rates: in Hz, by the same names.

    Raises:
        audio.AudioError: one is too quiet to be measured; the message names it.
    """
    measured: dict[str, float] = {}
    for name, samples in named.items():
        value = speech_check.loudness_lufs(samples, rates[name])
        if value is None:
            raise pcm.AudioError(f"{name}: too quiet to be made as loud as the others")
        measured[name] = value
    room = {
        name: CEILING_DBFS - speech_check.dbfs(float(np.abs(samples).max())) + measured[name]
        for name, samples in named.items()
    }
    target = min([TARGET_LUFS, *room.values()])
    gains = {name: target - measured[name] for name in named}
    made = {
        name: (samples * np.float32(10 ** (gains[name] / 20))).astype(np.float32)
        for name, samples in named.items()
    }
    return Levelled(made, gains, measured, target)


def lengthened(samples: Samples, n: int) -> Samples:
    """Return samples followed by as much digital silence as makes them `n`."""
    return np.concatenate((samples, np.zeros(n - len(samples), dtype=np.float32)))


def excerpt(samples: npt.NDArray[Any], rate: int, shortest_s: float, longest_s: float) -> Samples:
    """Return the beginning of a recording, cut in the quietest place between two lengths.

    Args:
        samples: in [-1, 1], shape [N], from the first sound on.
        rate: in Hz.
        shortest_s: of what is returned, in seconds; what is no longer than `longest_s` is
            returned whole.
        longest_s: and the longest.
    """
    whole = np.asarray(samples, dtype=np.float32)
    if len(whole) <= longest_s * rate:
        return whole
    size = max(1, round(0.1 * rate))
    starts = range(round(shortest_s * rate), round(longest_s * rate) - size, max(1, size // 4))
    return whole[: _quietest(whole, starts, size) + size // 2]


def _quietest(samples: Samples, starts: Sequence[int], size: int) -> int:
    """Return where the quietest stretch of `size` samples begins."""
    return min(starts, key=lambda at: float(np.sum(samples[at : at + size] ** 2)))
