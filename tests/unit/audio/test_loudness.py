"""Recordings that a blind listener cannot tell apart by what stands around the voice."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from listening_run import RATE, recorded, voiced

from understudy.audio import loudness, speech_check
from understudy.audio.pcm import AudioError


def onset_s(samples: np.ndarray) -> float:
    """Where the sound begins: the first sample 60 dB below full scale."""
    return float(np.flatnonzero(np.abs(samples) > 1e-3)[0]) / RATE


@pytest.mark.parametrize("lead_s", [0.0, 0.02, 0.15, 1.3])
def test_speech_begins_at_the_same_place(lead_s: float) -> None:
    plain = loudness.padded(loudness.trim(recorded(120, 0.6, 0.0, 0.1, 0.2), RATE))
    made = loudness.padded(loudness.trim(recorded(120, 0.6, lead_s, 0.4, 0.2), RATE))
    assert not made[: round(loudness.LEAD_S * RATE)].any()
    assert onset_s(made) == pytest.approx(onset_s(plain), abs=0.011)


def test_what_was_cut_is_told() -> None:
    found = loudness.trim(recorded(120, 0.6, 0.5, 0.8, 0.2), RATE)
    assert found.lead_s == pytest.approx(0.47, abs=0.011)
    assert found.tail_s == pytest.approx(0.77, abs=0.011)
    assert len(found.samples) / RATE == pytest.approx(0.66, abs=0.02)


def test_noise_before_the_speech_is_cut_like_silence() -> None:
    noisy = recorded(120, 0.6, 0.5, 0.2, 0.3)
    noisy = noisy + np.random.default_rng(3).normal(0, 0.0003, len(noisy)).astype(np.float32)
    assert loudness.trim(noisy, RATE).lead_s == pytest.approx(0.47, abs=0.011)


def test_all_are_equally_loud() -> None:
    named = {
        str(level): loudness.padded(loudness.trim(voiced(hz, seconds, level), RATE))
        for level, hz, seconds in ((0.02, 100, 0.5), (0.3, 200, 2.0), (0.9, 150, 1.0))
    }
    made = loudness.level(named, dict.fromkeys(named, RATE))
    for name, samples in made.samples.items():
        assert speech_check.loudness_lufs(samples, RATE) == pytest.approx(
            made.target_lufs, abs=0.02
        )
        gain = speech_check.dbfs(float(np.abs(samples).max() / np.abs(named[name]).max()))
        assert made.gains_db[name] == pytest.approx(gain, abs=1e-3)
    assert made.target_lufs == loudness.TARGET_LUFS


def test_one_that_has_a_peak_makes_all_quieter() -> None:
    click = voiced(120, 1.0, 0.02)
    click[5000] = 0.9
    named = {"plain": voiced(120, 1.0), "peaked": click}
    named = {
        name: np.concatenate((samples, np.zeros(9600, "f"))) for name, samples in named.items()
    }
    made = loudness.level(named, dict.fromkeys(named, RATE))
    assert made.target_lufs < loudness.TARGET_LUFS - 3
    loudest = max(float(np.abs(samples).max()) for samples in made.samples.values())
    assert speech_check.dbfs(loudest) == pytest.approx(loudness.CEILING_DBFS, abs=0.01)
    heard = [speech_check.loudness_lufs(samples, RATE) for samples in made.samples.values()]
    assert heard[0] == pytest.approx(heard[1], abs=0.02)


def test_one_that_cannot_be_measured_is_named() -> None:
    with pytest.raises(AudioError, match="titan/u01: too quiet"):
        loudness.level({"titan/u01": np.full(RATE, 1e-6, "f")}, {"titan/u01": RATE})


@pytest.mark.parametrize(("ratio", "hz"), [(Fraction(63, 50), 158.7), (Fraction(50, 63), 252.0)])
def test_an_altered_voice_is_four_semitones_away(ratio: Fraction, hz: float) -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    made = loudness.stretched(tone, ratio)
    crossings = np.flatnonzero((made[:-1] < 0) & (made[1:] >= 0))
    assert (len(crossings) - 1) / ((crossings[-1] - crossings[0]) / RATE) == pytest.approx(
        hz, abs=1
    )


def test_an_excerpt_ends_in_a_pause() -> None:
    sound = voiced(120, 10.0)
    sound[round(5.5 * RATE) : round(5.7 * RATE)] = 0
    made = loudness.excerpt(sound, RATE, 4.0, 7.0)
    assert 5.5 < len(made) / RATE < 5.7
    short = voiced(120, 6.9)
    assert loudness.excerpt(short, RATE, 4.0, 7.0) is not None
    assert len(loudness.excerpt(short, RATE, 4.0, 7.0)) == len(short)
