"""What is no speech, by what gives it away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from formula_voice import Speaker, say
from impostors import RATE, made_of, without_speech
from scipy.signal import butter, resample_poly, sosfilt

from understudy.audio.frames import Frames
from understudy.audio.voice_activity import Activity

SPOKEN = resample_poly(soundfile.read(Path(__file__).with_name("espeak_ng.flac"))[0], 3, 1)
IMPOSTORS = without_speech() | made_of(SPOKEN)


def wrong(samples: np.ndarray) -> str | None:
    activity = Activity.of(Frames.of(samples, RATE))
    return activity.not_speech() or activity.dead_air(marked=True)


def noisy(samples: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(5).normal(0, 1, len(samples))
    return samples + noise * np.sqrt(np.mean(samples**2)) * 10 ** (-25 / 20)


def band(samples: np.ndarray) -> np.ndarray:
    return sosfilt(butter(4, [300, 3400], "bandpass", fs=RATE, output="sos"), samples)


@pytest.mark.parametrize("name", IMPOSTORS)
def test_no_speech(name: str) -> None:
    assert wrong(IMPOSTORS[name])
    assert wrong(noisy(IMPOSTORS[name]))
    assert wrong(0.05 * IMPOSTORS[name])
    if name not in ("hum", "tone of 100 Hz"):  # little is left of them
        assert wrong(band(IMPOSTORS[name]))


def test_speech() -> None:
    assert wrong(SPOKEN) is None
    words = [say(Speaker(), index, np.random.default_rng(index)) for index in range(4)]
    assert wrong(np.concatenate(words)) is None


def test_backwards_it_is_speech_as_well() -> None:
    assert wrong(SPOKEN[::-1]) is None  # only its words are wrong


@pytest.mark.parametrize("hertz", [70, 123.4, 330, 440])
def test_the_pitch_of_a_voice_is_measured(hertz: float) -> None:
    at = np.arange(RATE) / RATE
    buzz = sum(np.cos(2 * np.pi * hertz * k * at) / k for k in range(1, 10))
    found = Frames.of(0.1 * buzz, RATE)
    times = hertz / found.pitch_hz  # two periods are a period, too
    assert np.abs(times / np.round(times) - 1).max() < 0.02
    assert found.periodicity.min() > 0.95


def test_the_level_is_that_of_a_sine() -> None:
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    assert Frames.of(sine, RATE).level_db == pytest.approx(-6.02, abs=0.05)
    assert len(Frames.of(sine, RATE).level_db) == 49
    assert len(Frames.of(sine[:10], RATE).level_db) == 1
