"""Whether a recording holds speech, and where: what tells it from noise, tones, music and loops.

No model: a few properties that the speech of every language has. The limits lie between what was
measured of voices (espeak-ng, flite, recorded people) and of impostors; ``docs/measurements.md``
has the figures, ``tests/tools/speech_gates.py`` takes them. Speech that is played backwards, or
cut into pieces and shuffled, has these properties, too: only its words are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.audio.frames import BANDS, HOP_S, Floats, Frames

#: A frame this far below the loud ones (their 95th percentile) is no part of the voice.
DEPTH_DB = 25.0

#: A frame of this periodicity is voiced.
VOICED = 0.7

#: Share of the voice's frames that are voiced, and in less than `JUDGED_FROM_S` of them. Noise,
#: clicks and whispering have less.
MIN_VOICED, MIN_VOICED_SHORT = 0.2, 0.1

#: In the middle of the voiced frames so many bands are within 20 dB of the loudest one: a vowel has
#: a few formants. Pure tones have fewer such bands, buzzers and engines nearly all.
NEAR_DB, MIN_BANDS, MIN_BANDS_LONG, MAX_BANDS = 20.0, 3.0, 3.5, 17.0

#: The pitch stands still where it changes by less than 0.3 % in 20 ms: in some voiced frames of
#: speech, in most of music and in all of a tone. The more voice there is, the less of it does.
STILL, MAX_STILL, MAX_STILL_LONG = 0.003, 0.65, 0.5

#: A quarter of the voiced frames change by at least this in 60 ms, as the mouth moves: in dB, over
#: the shape of the spectrum alone, where so many frames can be compared. And a quarter of all
#: frames over shape and level, by the syllables.
STEP, MIN_CHANGE_DB, MIN_CHANGES, MIN_CHANGE_WITH_LEVEL_DB = 3, 2.0, 15, 8.0

#: Likeness to itself some time later, from 0.2 s on; a loop has 1.
REPEATED_FROM_S, MAX_REPEATED = 0.2, 0.9

#: So much voice, in seconds, is needed to judge pitch and spectrum; and level and repetition.
JUDGED_FROM_S, ALL_JUDGED_FROM_S = 0.8, 1.6

#: A voiced frame that changes by this much in 60 ms is speech. Anything else is a pause.
SPEECH_CHANGE_DB = 4.0

#: The longest pause in seconds: before the first and after the last sound of speech; between them
#: in a text without a mark of punctuation to pause at; and with one.
MAX_EDGE_S, MAX_PAUSE_S, MAX_MARKED_PAUSE_S = 2.0, 1.5, 2.5

#: The shape of a spectrum: cosines over the bands, without the level; their norm is in dB.
_COSINES = np.cos(np.pi / BANDS * np.outer(np.arange(BANDS) + 0.5, np.arange(1, 9)))
_SHAPE = (_COSINES * np.sqrt(2 / BANDS / 8)).astype(np.float32)
_SHAPE_DEPTH_DB, _LEVEL_DEPTH_DB, _CORE_DEPTH_DB = 30.0, 30.0, 15.0

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Activity:
    """What was found in the frames of a recording.

    Attributes:
        spoken_s: from the first to the last sound, without the pauses between, in seconds.
        active_s: the voice's frames together, in seconds.
        voiced: share of them that is voiced.
        bands: of the voiced frames' bands, the median of those that are near the loudest one.
        still: share of the voiced frames whose pitch stands still.
        change_db: of the spectrum's shape, third quartile over the voiced frames; None for few.
        change_with_level_db: of shape and level, third quartile over all frames.
        repeated: likeness to itself after `repeated_s`.
        repeated_s: in seconds.
        pauses_s: longest time without speech before, within and after it, in seconds.
    """

    spoken_s: float
    active_s: float
    voiced: float
    bands: float
    still: float
    change_db: float | None
    change_with_level_db: float
    repeated: float
    repeated_s: float
    pauses_s: tuple[float, float, float]

    @classmethod
    def of(cls, frames: Frames) -> Activity:
        """Look at the frames of a recording that is not silent."""
        level = frames.level_db
        loud = float(np.percentile(level, 95))
        active = level > loud - DEPTH_DB
        voiced = active & (frames.periodicity > VOICED)
        near = frames.bands_db > frames.bands_db.max(axis=1, keepdims=True) - NEAR_DB

        octave = np.log(frames.pitch_hz)
        moved = np.abs(np.diff(octave))
        within = voiced[1:] & voiced[:-1] & (moved < 0.2)  # no jump by an octave

        floor = frames.bands_db.max(axis=1, keepdims=True) - _SHAPE_DEPTH_DB
        shape = np.maximum(frames.bands_db, floor) @ _SHAPE
        change = _norm(shape[STEP:] - shape[:-STEP])
        heard = np.maximum(level, loud - _LEVEL_DEPTH_DB)
        with_level = np.hypot(change, heard[STEP:] - heard[:-STEP])
        core = np.flatnonzero(level > loud - _CORE_DEPTH_DB)
        first, last = int(core[0]), int(core[-1]) + 1
        throughout = np.logical_and.reduce([voiced[i : len(change) + i] for i in range(STEP + 1)])

        lively = np.zeros(len(level), dtype=np.bool_)
        enough = with_level > SPEECH_CHANGE_DB
        lively[:-STEP] |= enough
        lively[STEP:] |= enough
        repeated, after = _repetition(frames.bands_db[first:last])
        return cls(
            spoken_s=_spoken_s(active),
            active_s=float(active.sum() * HOP_S),
            voiced=float(voiced.sum() / max(1, active.sum())),
            bands=_percentile(near.sum(axis=1)[voiced], 50),
            still=float((moved[within] < STILL).mean()) if within.any() else 0.0,
            change_db=_percentile(change[throughout], 75)
            if throughout.sum() >= MIN_CHANGES
            else None,
            change_with_level_db=_percentile(with_level[first:last], 75),
            repeated=repeated,
            repeated_s=after * HOP_S,
            pauses_s=_pauses(voiced & lively),
        )

    def not_speech(self, *, monotonous: bool = False) -> str | None:
        """Return why this is no speech, as a sentence; None where it is.

        Args:
            monotonous: the text repeats itself, so that right speech may, too.
        """
        short, long = self.active_s < JUDGED_FROM_S, self.active_s >= ALL_JUDGED_FROM_S
        min_voiced = MIN_VOICED_SHORT if short else MIN_VOICED
        max_still = MAX_STILL_LONG if long else MAX_STILL
        if self.voiced < min_voiced:
            return (
                f"{_percent(self.voiced)} of it is voiced, expected {_percent(min_voiced)} or more"
            )
        if self.bands < (MIN_BANDS_LONG if long else MIN_BANDS):
            return "a pure tone without a vowel's formants"
        if short:
            return None
        if self.bands > MAX_BANDS:
            return "a buzz without a vowel's formants"
        if self.still > max_still:
            return (
                f"the pitch stands still in {_percent(self.still)} of it, expected "
                f"{_percent(max_still)} or less; a tone or music"
            )
        if not monotonous and self.change_db is not None and self.change_db < MIN_CHANGE_DB:
            return f"one sound, changing by {self.change_db:.1f} dB, expected {MIN_CHANGE_DB:g} dB"
        if not long:
            return None
        if not monotonous and self.change_with_level_db < MIN_CHANGE_WITH_LEVEL_DB:
            return (
                f"no syllables, changing by {self.change_with_level_db:.1f} dB, expected "
                f"{MIN_CHANGE_WITH_LEVEL_DB:g} dB"
            )
        if not monotonous and self.repeated > MAX_REPEATED:
            return f"the same again every {self.repeated_s:.1f} s"
        return None

    def dead_air(self, marked: bool) -> str | None:
        """Return where the longest pause is that is too long, as a sentence; None where none is.

        Args:
            marked: the text has a mark of punctuation to pause at.
        """
        within = MAX_MARKED_PAUSE_S if marked else MAX_PAUSE_S
        limits = (MAX_EDGE_S, within, MAX_EDGE_S)
        excess = [pause - limit for pause, limit in zip(self.pauses_s, limits, strict=True)]
        worst = int(np.argmax(excess))
        if excess[worst] <= 0:
            return None
        where = ("before the speech", "within the speech", "after the speech")[worst]
        return f"{self.pauses_s[worst]:.1f} s {where}, expected at most {limits[worst]:g} s"


def _repetition(bands_db: Floats) -> tuple[float, int]:
    """Return the greatest likeness of bands [T, BANDS] to themselves some frames later."""
    least, most = round(REPEATED_FROM_S / HOP_S), 2 * len(bands_db) // 3
    if most <= least:
        return 0.0, 0
    heard = np.maximum(bands_db, bands_db.max() - 40)
    heard = heard - heard.mean(axis=0)
    spectrum = np.fft.rfft(heard, 2 * len(heard), axis=0)
    products = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=1))
    energy = np.concatenate(([0.0], np.cumsum((heard**2).sum(axis=1))))
    lags = np.arange(least, most)
    own, later = energy[-1 - lags], energy[-1] - energy[lags]
    likeness = products[lags] / np.sqrt(np.maximum(own * later, 1e-9))
    first = int(np.argmax(likeness > likeness.max() - 0.02))  # a loop is also like its double
    return float(likeness.max()), int(lags[first])


def _spoken_s(active: Mask) -> float:
    """Return the seconds from the first to the last active frame, without pauses above 0.2 s."""
    at = np.flatnonzero(active)
    pauses = np.maximum(np.diff(at) - 1 - round(0.2 / HOP_S), 0)
    return float((at[-1] - at[0] + 1 - pauses.sum()) * HOP_S)


def _pauses(speech: Mask) -> tuple[float, float, float]:
    """Return the seconds before, the longest ones between, and those behind frames of speech."""
    at = np.flatnonzero(speech)
    if not len(at):
        return len(speech) * HOP_S, 0.0, 0.0
    within = float(np.diff(at).max() * HOP_S) if len(at) > 1 else 0.0
    return float(at[0] * HOP_S), within, float((len(speech) - 1 - at[-1]) * HOP_S)


def _norm(vectors: Floats) -> Floats:
    return np.asarray(np.sqrt((vectors**2).sum(axis=1)), dtype=np.float32)


def _percentile(values: npt.NDArray[Any], share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
