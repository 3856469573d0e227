"""What can be measured of a voice without a model: pitch, length, loudness, spectrum.

One recording becomes a few numbers, its features; `understudy.similarity.measures` compares the
features of two hosts. NumPy and SciPy only, so that it is the same code, and the same
numbers, on the voice hosts and on the control node.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.audio import speech_check
from understudy.audio.resample import resample

Floats = npt.NDArray[np.float64]

F0_HZ = (60.0, 500.0)
"""Where a speaker's fundamental is looked for."""

BANDS_HZ: Floats = 1000.0 * 2.0 ** (np.arange(-9, 11) / 3)
"""Centres of the third-octave bands, 125 Hz to 10 kHz (IEC 61260-1, base two)."""

TELEPHONE_BANDS_HZ: Floats = BANDS_HZ[(BANDS_HZ > 350) & (BANDS_HZ < 3100)]
"""The bands that a telephone line carries whole."""

TILT_HZ = (200.0, 5000.0)

FLOOR_DB = 60.0
"""A band that is this far below the loudest counts as empty: 16 bits and a line's noise."""

_F0_RATE = 8_000
_FRAME_S, _HOP_S = 0.040, 0.010
_YIN_THRESHOLD = 0.15
_ACTIVE_DB = 30.0


def features(samples: npt.NDArray[Any], rate: int, bands_hz: Floats = BANDS_HZ) -> dict[str, Any]:
    """Return the features of one utterance.

    Args:
        samples: finite, in [-1, 1], shape [N].
        rate: in Hz.
        bands_hz: centres of the third-octave bands.

    Returns:
        ``log_duration`` (of what is between the first and the last frame that is not silent;
        natural logarithm of seconds), ``f0_median`` (semitones above 100 Hz), ``f0_range``
        (semitones between the 10th and the 90th percentile), ``loudness`` (LUFS), ``tilt``
        (dB per octave), ``silence`` (share of silent frames), ``clipped`` (share of samples);
        NaN for what the recording has not. ``spectrum``: the long-term average, in dB
        relative to the whole, of each band, shape [bands].
    """
    silent = speech_check.silent_frames(samples, rate)
    loud = np.flatnonzero(~silent)
    spoken = (loud[-1] + 1 - loud[0]) * speech_check.FRAME_S if len(loud) else math.nan
    pitch = 12.0 * np.log2(_without_octaves(f0(samples, rate)) / 100.0)
    low, middle, high = np.percentile(pitch, (10, 50, 90)) if len(pitch) else [math.nan] * 3
    loudness = speech_check.loudness_lufs(samples, rate)
    spectrum = third_octaves(samples, rate, bands_hz)
    fitted = (bands_hz >= TILT_HZ[0]) & (bands_hz <= TILT_HZ[1])
    tilt = np.polyfit(np.log2(bands_hz[fitted]), spectrum[fitted], 1)[0]
    return {
        "log_duration": math.log(spoken) if spoken > 0 else math.nan,
        "f0_median": float(middle),
        "f0_range": float(high - low),
        "loudness": math.nan if loudness is None else loudness,
        "tilt": float(tilt),
        "silence": float(silent.mean()) if len(silent) else math.nan,
        "clipped": speech_check.clipped_samples(samples) / max(1, len(samples)),
        "spectrum": spectrum,
    }


def f0(samples: npt.NDArray[Any], rate: int) -> Floats:
    """Return the fundamental frequency of every voiced frame, in Hz.

    YIN (de Cheveigné and Kawahara, JASA 111, 2002), steps 1 to 5: the first dip of the
    cumulative mean normalised difference below a threshold, refined by a parabola. A frame
    without such a dip, or 30 dB below the loud ones, is not voiced. At 8 kHz, so that both
    bands are judged alike, and three times as fast.

    Args:
        samples: shape [N].
        rate: in Hz.
    """
    samples = resample(samples, Fraction(_F0_RATE, rate))
    rate = _F0_RATE
    longest, shortest = round(rate / F0_HZ[0]), int(rate / F0_HZ[1])
    window = max(round(_FRAME_S * rate), longest)
    frames = _frames(samples, window + longest, round(_HOP_S * rate))
    if not len(frames):
        return np.zeros(0)
    energy = (frames[:, :window] ** 2).sum(axis=1)
    frames = frames[energy > np.percentile(energy, 95) * 10 ** (-_ACTIVE_DB / 10)]
    difference = _difference(frames, window, longest)
    running = np.cumsum(difference[:, 1:], axis=1)
    normal = np.ones_like(difference)
    lags = np.arange(1, longest + 1)
    np.divide(difference[:, 1:] * lags, running, out=normal[:, 1:], where=running > 0)
    found = []
    for row in normal:
        below = np.flatnonzero(row[shortest:longest] < _YIN_THRESHOLD)
        if not len(below):
            continue
        lag = shortest + int(below[0])
        while lag + 1 < longest and row[lag + 1] < row[lag]:
            lag += 1
        found.append(rate / (lag + _vertex(*row[lag - 1 : lag + 2])))
    return np.asarray(found, dtype=np.float64)


def _without_octaves(hertz: Floats) -> Floats:
    """Leave out frames whose pitch is an octave off: what lies beyond 3/4 and 3/2 of the quartiles.

    De Looze and Hirst's range of a speaker (Speech Prosody 2008), for one utterance.
    """
    if not len(hertz):
        return hertz
    low, high = np.percentile(hertz, (25, 75))
    return np.asarray(hertz[(hertz >= 0.75 * low) & (hertz <= 1.5 * high)], dtype=np.float64)


def third_octaves(samples: npt.NDArray[Any], rate: int, bands_hz: Floats) -> Floats:
    """Return the long-term average spectrum in third octaves, dB relative to the whole.

    Silence is left out: frames 30 dB below the loud ones do not count.

    Args:
        samples: shape [N].
        rate: in Hz; bands that are not all below half of it are at the floor.
        bands_hz: centres of the bands.
    """
    size = 2 ** math.ceil(math.log2(0.08 * rate))
    frames = _frames(np.pad(samples, (0, max(0, size - len(samples)))), size, size // 2)
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    energy = power.sum(axis=1)
    mean = power[energy >= np.percentile(energy, 95) * 10 ** (-_ACTIVE_DB / 10)].mean(axis=0)
    hertz = np.fft.rfftfreq(size, 1 / rate)
    cumulative = np.concatenate(([0.0], np.cumsum(mean)))
    edges = np.concatenate((hertz - hertz[1] / 2, [hertz[-1] + hertz[1] / 2]))
    half = 2.0 ** (1 / 6)
    inside = np.interp(bands_hz * half, edges, cumulative) - np.interp(
        bands_hz / half, edges, cumulative
    )
    whole = inside.sum()
    if whole <= 0:
        return np.full(len(bands_hz), -FLOOR_DB)
    level = 10 * np.log10(np.maximum(inside / whole, 1e-12))
    return np.asarray(np.maximum(level, level.max() - FLOOR_DB), dtype=np.float64)


def _frames(samples: npt.NDArray[Any], size: int, hop: int) -> Floats:
    """Return whole frames, shape [frames, size]; none if there are too few samples."""
    signal = np.asarray(samples, dtype=np.float64)
    if len(signal) < size:
        return np.zeros((0, size))
    return np.lib.stride_tricks.sliding_window_view(signal, size)[::hop]


def _difference(frames: Floats, window: int, longest: int) -> Floats:
    """Return YIN's difference function of lags 0 to `longest`, by FFT.

    d(τ) = Σ x_j² + Σ x_{j+τ}² − 2 Σ x_j x_{j+τ}, j over the window.
    """
    size = 2 ** math.ceil(math.log2(frames.shape[1] + window))
    spectrum = np.fft.rfft(frames, size, axis=1)
    head = np.fft.rfft(frames[:, :window], size, axis=1)
    product = np.fft.irfft(spectrum * head.conj(), size, axis=1)[:, : longest + 1]
    squares = np.concatenate((np.zeros((len(frames), 1)), np.cumsum(frames**2, axis=1)), axis=1)
    energy = squares[:, window : window + longest + 1] - squares[:, : longest + 1]
    return np.asarray(np.maximum(energy[:, :1] + energy - 2 * product, 0.0), dtype=np.float64)


def _vertex(left: float, middle: float, right: float) -> float:
    """Return where, in steps from the middle, the parabola through three points has its vertex."""
    curve = left - 2 * middle + right
    return 0.5 * (left - right) / curve if curve > 0 else 0.0
