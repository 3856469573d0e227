"""Sounds that are no speech: what a voice server must never be taken for healthy with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy import signal

RATE, SECONDS = 24_000, 4.0
T = np.arange(int(SECONDS * RATE)) / RATE
CHORD = (261.6, 329.6, 392.0, 523.3)
SCALE = (220, 247, 277, 294, 330, 370, 415, 440)
DTMF = ((697, 1209), (770, 1336), (852, 1477), (941, 1336), (697, 1477), (770, 1209))

Wave = Callable[[np.ndarray], np.ndarray]


def _noise(slope: float = 0.0) -> np.ndarray:
    """Noise whose power falls by 3 dB an octave for each unit of the slope."""
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(0, 1, len(T)))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** (slope / 2), len(T))


def _tones(*hertz: float) -> np.ndarray:
    return sum(np.sin(2 * np.pi * f * T) for f in hertz)


def _saw(phase: np.ndarray) -> np.ndarray:
    return signal.sawtooth(2 * np.pi * phase)


def _sine(phase: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * phase)


def _gated(sound: np.ndarray, hertz: float, share: float = 0.5) -> np.ndarray:
    """On and off, with edges of 10 ms."""
    edge = np.hanning(RATE // 100)
    return sound * np.convolve((T * hertz) % 1 < share, edge / edge.sum(), "same")


def _melody(notes: Iterable[float], seconds: float, wave: Wave, fall: float = 0.0) -> np.ndarray:
    at = np.arange(int(seconds * RATE)) / RATE
    edge = np.minimum(1, np.minimum(at, seconds - at) / 0.005) * np.exp(-fall * at)
    return np.concatenate([wave(f * at) * edge for f in notes])


def _sweep(low: float, high: float, wave: Wave) -> np.ndarray:
    return wave(np.cumsum(np.geomspace(low, high, len(T))) / RATE)


def _siren(low: float, high: float, hertz: float, wave: Wave) -> np.ndarray:
    pitch = low * (high / low) ** (0.5 + 0.5 * np.sin(2 * np.pi * hertz * T))
    return wave(np.cumsum(pitch) / RATE)


def _train(hertz: float) -> np.ndarray:
    return (np.arange(len(T)) % round(RATE / hertz) < 3).astype(float)


def without_speech() -> dict[str, np.ndarray]:
    """Return sounds [N] at 24 kHz by name; their peak is at -6 dBFS."""
    dice = np.random.default_rng(7)
    random_notes = dice.choice(SCALE, 16)
    wandering = np.cumsum(np.interp(T, np.arange(0, 5, 0.2), dice.uniform(90, 250, 25))) / RATE
    hum = sum(np.sin(2 * np.pi * 50 * k * T) / k for k in (1, 2, 3, 5))
    sounds = {
        "white noise": _noise(),
        "pink noise": _noise(1),
        "brown noise": _noise(2),
        "noise of 180 to 220 Hz": signal.sosfilt(
            signal.butter(2, (180, 220), "bandpass", fs=RATE, output="sos"), _noise()
        ),
        "noise, 4 Hz": _noise() * (0.5 + 0.5 * np.sin(8 * np.pi * T)),
        "pink noise, on and off": _gated(_noise(1), 3),
        "tone of 100 Hz": _tones(100),
        "tone of 440 Hz": _tones(440),
        "tone of 1 kHz": _tones(1000),
        "tone of 440 Hz, noise": _tones(440) + 0.05 * _noise(),
        "beeps": _gated(_tones(440), 4),
        "chord": _tones(*CHORD),
        "chord of saws": sum(_saw(f * T) for f in CHORD),
        "sweep": _sweep(100, 4000, _sine),
        "sweep of a saw": _sweep(100, 4000, _saw),
        "siren": _siren(500, 1200, 0.5, _sine),
        "siren of a saw": _siren(500, 1200, 0.5, _saw),
        "warble": _siren(150, 400, 2, _saw),
        "vibrato": _siren(170, 190, 5.5, _saw),
        "keys of a telephone": np.concatenate(
            [_tones(*DTMF[k * k % 6])[: RATE // 10] * (k % 2) for k in range(40)]
        ),
        "dial tone": _tones(350, 440),
        "busy tone": _gated(_tones(480, 620), 2),
        "reorder tone": _gated(_tones(480, 620), 4),
        "ring-back": _tones(440, 480) * (T < 2),
        "ring-back, Europe": _tones(425) * (T % 3 < 1),
        "hum": hum,
        "hum, noise": hum + 0.03 * _noise(),
        "buzzer": _saw(150 * T),
        "buzzer, 4 Hz": _gated(_saw(120 * T), 4),
        "buzzer of a wandering pitch": _gated(_saw(wandering), 4),
        "arpeggio": _melody(CHORD * 8, 0.125, _sine),
        "arpeggio of saws": _melody((*CHORD, *CHORD[::-1]) * 3, 0.2, _saw),
        "melody": _melody(random_notes, 0.25, _sine, 2),
        "melody of saws": _melody(random_notes, 0.25, _saw, 6),
        "clicks, 4 Hz": _train(4),
        "clicks, 100 Hz": _train(100),
        "telegraph": _gated(_tones(700), 8) * (T * 3.3 % 1 < 0.6),
    }
    return {name: 0.5 * sound / np.abs(sound).max() for name, sound in sounds.items()}


def made_of(speech: np.ndarray) -> dict[str, np.ndarray]:
    """Return sounds that are made of speech [N] of 2.5 s or more, and are none."""
    spectrum, dice = np.fft.rfft(speech), np.random.default_rng(3)
    turned = np.abs(spectrum) * np.exp(2j * np.pi * dice.uniform(0, 1, len(spectrum)))
    envelope = np.convolve(np.abs(speech), np.hanning(RATE // 20), "same")
    envelope = envelope / envelope.max()
    at = np.arange(len(speech)) / RATE
    return {
        "noise of its spectrum": np.fft.irfft(turned, len(speech)),
        "noise of its loudness": 0.2 * envelope * dice.normal(0, 1, len(speech)),
        "buzz of its loudness": 0.5 * envelope * _saw(120 * at),
        "half a second, over and over": np.tile(speech[RATE // 2 : RATE], 8),
        "a second, over and over": np.tile(speech[RATE // 2 : 3 * RATE // 2], 4),
        "a tenth of a second, over and over": np.tile(speech[RATE // 2 : 6 * RATE // 10], 40),
        "bytes out of step": np.frombuffer(
            (speech * 32767).astype("<i2").tobytes()[1:-1], "<i2"
        ).astype(float)
        / 32768,
    }
