"""A voice made from a formula: pulses through resonators, syllable by syllable.

Nobody's voice is in it, and it needs no program: the tests of the similarity check use it. The
speech check takes it for speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import signal

from understudy.audio import pcm

RATE = 24_000
UTTERANCES = [f"u{index:02d}" for index in range(1, 11)]
VOWELS = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840))


@dataclass(frozen=True)
class Speaker:
    """A larynx and a vocal tract.

    Attributes:
        f0_hz: median pitch.
        tract: formants relative to the table's.
        slope: of the glottal source, pole of a one-pole low-pass.
    """

    f0_hz: float = 110.0
    tract: float = 1.0
    slope: float = 0.95


def say(speaker: Speaker, index: int, chance: np.random.Generator) -> np.ndarray:
    """Return one take of utterance `index`: its vowels are fixed, all else varies a little."""
    text = np.random.default_rng(index)
    pitch = speaker.f0_hz * 2 ** (0.25 * chance.standard_normal() / 12)
    pace = 1 + 0.03 * chance.standard_normal()
    parts = [np.zeros(2400)]
    vowels = text.integers(0, len(VOWELS), 6)
    for vowel, then in pairwise(vowels):
        n = int(RATE * 0.2 * pace * (1 + 0.05 * chance.standard_normal()))
        curve = np.linspace(2.0, -2.0, n) * (1 + 0.05 * chance.standard_normal())
        phase = np.cumsum(pitch * 2 ** (curve / 12) / RATE)
        source = np.diff(np.floor(phase), prepend=0.0) + 0.003 * chance.standard_normal(n)
        sound = signal.lfilter([1], [1, -speaker.slope], source)
        tract = speaker.tract * (1 + 0.01 * chance.standard_normal())
        fade = np.linspace(0, 1, n)  # from one vowel to the next
        sound = (1 - fade) * _vowel(sound, vowel, tract) + fade * _vowel(sound, then, tract)
        sound /= np.sqrt((sound**2).mean())
        parts += [sound * np.hanning(n) ** 0.3, np.zeros(720)]
    samples = 0.08 * 10 ** (0.3 * chance.standard_normal() / 20) * np.concatenate(parts)
    return samples + 1e-4 * chance.standard_normal(len(samples))


def _vowel(sound: np.ndarray, vowel: int, tract: float) -> np.ndarray:
    """Return a source's sound behind the resonators of a vowel, at one loudness."""
    radius = np.exp(-np.pi * 90 / RATE)
    for formant in (*VOWELS[vowel], 2700, 3600):
        turn = 2 * np.pi * formant * tract / RATE
        sound = signal.lfilter([1 - radius], [1, -2 * radius * np.cos(turn), radius**2], sound)
    return sound / np.sqrt((sound**2).mean())


def take(place: Path, speaker: Speaker, seed: int) -> Path:
    """Write one take of every utterance."""
    place.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    for index, name in enumerate(UTTERANCES):
        pcm.write_wav(place / f"{name}.wav", say(speaker, index, chance), RATE)
    return place


def changed(place: Path, source: Path, change) -> Path:
    """Write the recordings of one directory, changed, into another."""
    place.mkdir(parents=True)
    for wav in sorted(source.glob("*.wav")):
        samples, rate = pcm.read_wav(wav)
        pcm.write_wav(place / wav.name, change(samples.astype(float)), rate)
    return place


def faster(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Return samples played faster: shorter and higher."""
    return signal.resample_poly(samples, 1000, round(1000 * ratio))


def stretched(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Return samples that last `ratio` times as long at the same pitch (WSOLA)."""
    size, hop = 960, 240
    window = np.hanning(size)
    count = int((len(samples) * ratio - size) / hop)
    out, weight = np.zeros(count * hop + size), np.zeros(count * hop + size)
    at = 0
    for k in range(count):
        wanted = int(k * hop / ratio)
        if k:
            natural = samples[at + hop : at + hop + size]
            reach = samples[max(0, wanted - hop) : wanted + hop + size]
            if len(natural) == size and len(reach) > size:
                best = int(np.argmax(signal.correlate(reach, natural, "valid")))
                wanted = max(0, wanted - hop) + best
        at = min(wanted, len(samples) - size)
        out[k * hop : k * hop + size] += window * samples[at : at + size]
        weight[k * hop : k * hop + size] += window
    return out / np.maximum(weight, 0.1)


def higher(samples: np.ndarray, semitones: float = 1.0) -> np.ndarray:
    """Return samples at a higher pitch, as long as before."""
    ratio = 2 ** (semitones / 12)
    return faster(stretched(samples, ratio), ratio)


def low_passed(samples: np.ndarray, hertz: float = 3000.0) -> np.ndarray:
    """Return samples without what is above a frequency."""
    return signal.sosfiltfilt(signal.butter(4, hertz, fs=RATE, output="sos"), samples)
