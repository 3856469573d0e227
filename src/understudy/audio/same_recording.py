"""Whether two recordings are one: what was recorded once is not what was asked for now."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.audio.frames import HOP_S, Floats, Frames

#: Likeness from which on two recordings are one. Measured (``tests/tools/speech_gates.py same``):
#: two sentences by one voice have at most 0.43; one sentence shifted, cut by half, turned down,
#: filtered, with noise at 15 dB, or through a telephone's codec has at least 0.74.
SAME = 0.6

#: The same for a rehearsal's random weights: the noises that they make are more alike.
SAME_REHEARSAL = 0.85

#: What overlaps: at least half of the shorter one, and this, in seconds.
MIN_OVERLAP, MIN_OVERLAP_S = 0.5, 0.3

_DEPTH_DB = 35.0


def same_recording(
    one: npt.NDArray[Any], other: npt.NDArray[Any], rate: int, *, rehearsal: bool = False
) -> bool:
    """Return whether two recordings [N] and [M] of one rate in Hz are the same one.

    Even if one is shifted, cut, louder, encoded anew or noisier. The samples are to be neither
    empty nor silent.
    """
    limit = SAME_REHEARSAL if rehearsal else SAME
    return np.array_equal(one, other) or likeness(one, other, rate) >= limit


def likeness(one: npt.NDArray[Any], other: npt.NDArray[Any], rate: int) -> float:
    """Return the correlation of two recordings' spectra over time, shifted for the best fit."""
    first, second = _course(one, rate), _course(other, rate)
    n, m = len(first), len(second)
    size = 1 << (n + m - 1).bit_length()
    spectrum = np.fft.rfft(first, size, axis=0) * np.conj(np.fft.rfft(second, size, axis=0))
    products = np.fft.irfft(spectrum.sum(axis=1))
    lags = np.arange(1 - m, n)
    begin, end = np.maximum(0, lags), np.minimum(n, m + lags)
    enough = end - begin >= max(MIN_OVERLAP_S / HOP_S, MIN_OVERLAP * min(n, m))
    if not enough.any():
        return 0.0
    lags, begin, end = lags[enough], begin[enough], end[enough]
    energies = _energy(first, begin, end) * _energy(second, begin - lags, end - lags)
    return float((products[lags] / np.sqrt(np.maximum(energies, 1e-9))).max())


def _course(samples: npt.NDArray[Any], rate: int) -> Floats:
    """Return the bands [T, bands] of what is heard, each about its mean."""
    bands = Frames.of(samples, rate).bands_db
    loudest = bands.max(axis=1)
    heard = np.flatnonzero(loudest > np.percentile(loudest, 95) - _DEPTH_DB)
    bands = bands[heard[0] : heard[-1] + 1]
    bands = np.maximum(bands, bands.max() - _DEPTH_DB)
    return np.asarray(bands - bands.mean(axis=0), dtype=np.float32)


def _energy(
    course: Floats, begin: npt.NDArray[np.int_], end: npt.NDArray[np.int_]
) -> npt.NDArray[np.float64]:
    """Return the energy between frames."""
    total = np.concatenate(([0.0], np.cumsum((course.astype(np.float64) ** 2).sum(axis=1))))
    return np.asarray(total[end] - total[begin], dtype=np.float64)
