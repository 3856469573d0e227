"""A recording in frames of 40 ms, one each 20 ms: level, pitch, periodicity, spectrum.

numpy alone, since a server's start and a failover do not wait for SciPy; 10 s take some 20 ms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FRAME_S, HOP_S = 0.04, 0.02

#: Where a voice's pitch may lie, in Hz, and where its harmonics are compared.
PITCH_HZ = (65.0, 450.0)
HARMONICS_HZ = (70.0, 1500.0)

#: The spectrum's bands, equally wide on the mel scale; what lies in them passes a telephone, too.
BANDS = 20
BANDS_HZ = (150.0, 4000.0)

#: Points of the autocorrelation's period of one frame: 0.08 ms apart.
_POINTS = 512

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """What each of T frames holds.

    Attributes:
        level_db: power in dB [T]; 0 dB is a full-scale sine, half a dB off at most.
        periodicity: the autocorrelation at the pitch's period [T]: about 1 for a steady vowel or
            a tone, below 0.5 for noise.
        pitch_hz: of the period that fits best [T], meaningful where the periodicity is high.
        bands_db: power in each mel band, in dB [T, BANDS].
    """

    level_db: Floats
    periodicity: Floats
    pitch_hz: Floats
    bands_db: Floats

    @classmethod
    def of(cls, samples: npt.NDArray[Any], rate: int) -> Frames:
        """Measure samples [N] of at least 8 kHz; what is shorter than a frame is padded."""
        know = _constants(rate)
        mono = np.asarray(samples, dtype=np.float32)
        if len(mono) < know.size:
            mono = np.pad(mono, (0, know.size - len(mono)))
        mono = mono - mono.mean()
        views = np.lib.stride_tricks.sliding_window_view(mono, know.size)[:: know.hop]
        spectrum = np.fft.rfft(views * know.window)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        periodicity, pitch = _pitch(power, know)
        return cls(
            level_db=_db(power.sum(axis=1) * know.full_scale),
            periodicity=periodicity,
            pitch_hz=pitch,
            bands_db=_db(power @ know.bands),
        )


@dataclass(frozen=True)
class _Constants:
    """What is the same for all recordings of one rate."""

    size: int
    hop: int
    window: Floats
    full_scale: float
    bands: Floats
    harmonics: slice
    lags: slice
    fading: Floats


@functools.cache
def _constants(rate: int) -> _Constants:
    size, hop = round(FRAME_S * rate), round(HOP_S * rate)
    window = np.hanning(size)
    hertz = np.fft.rfftfreq(size, 1 / rate)
    # Triangles between neighbouring edges.
    low, high = (2595 * np.log10(1 + edge / 700) for edge in BANDS_HZ)
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    rising = (hertz[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - hertz[:, None]) / np.diff(edges)[1:]
    bands = np.clip(np.minimum(rising, falling), 0, None)
    # The window's own autocorrelation, by which that of a frame fades with the lag.
    own = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2)[:size]
    lag_s = np.arange(_POINTS // 2) * FRAME_S / _POINTS
    first, last = np.searchsorted(lag_s, (1 / PITCH_HZ[1], 1 / PITCH_HZ[0]))
    lags = slice(int(first) - 1, int(last) + 1)  # with a neighbour on either side
    fading = np.interp(lag_s * rate, np.arange(size), own / own[0])[lags]
    return _Constants(
        size=size,
        hop=hop,
        window=window.astype(np.float32),
        full_scale=float(4 / (size * (window**2).sum())),
        bands=bands.astype(np.float32),
        harmonics=slice(*(int(i) for i in np.searchsorted(hertz, HARMONICS_HZ))),
        lags=lags,
        fading=fading.astype(np.float32),
    )


def _pitch(power: Floats, know: _Constants) -> tuple[Floats, Floats]:
    """Return the periodicity and the pitch in Hz of spectra [T, bins]."""
    harmonics = np.zeros((len(power), _POINTS // 2 + 1), dtype=np.float32)
    harmonics[:, know.harmonics] = power[:, know.harmonics]
    all_lags = np.fft.irfft(harmonics).astype(np.float32)
    by_lag = all_lags[:, know.lags] / np.maximum(all_lags[:, :1], 1e-12) / know.fading
    best = by_lag[:, 1:-1].argmax(axis=1) + 1
    row = np.arange(len(by_lag))
    before, peak, behind = by_lag[row, best - 1], by_lag[row, best], by_lag[row, best + 1]
    # The top of the parabola through three points: the lags are 1 % of a period apart.
    bend = np.minimum(before - 2 * peak + behind, -1e-9)
    top = np.clip(0.5 * (before - behind) / bend, -1, 1)
    period_s = (know.lags.start + best + top) * FRAME_S / _POINTS
    return peak, (1 / period_s).astype(np.float32)


def _db(power: Floats) -> Floats:
    return np.asarray(10 * np.log10(np.maximum(power, 1e-12)), dtype=np.float32)
