"""One recording is known again, whatever was done to it; two sentences are two."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from loopback import RATE, speechlike
from scipy.signal import butter, resample_poly, sosfilt

from understudy.audio.same_recording import likeness, same_recording

SPOKEN = speechlike(3.0, seed=5).astype(float)
DICE = np.random.default_rng(0)


def through_a_telephone(samples: np.ndarray) -> np.ndarray:
    """8 kHz, and 8 bits by the mu-law."""
    low = resample_poly(samples, 1, 3)
    code = np.round(127 * np.sign(low) * np.log1p(255 * np.abs(low)) / np.log(256)) / 127
    return resample_poly(np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255, 3, 1)


def noisy(samples: np.ndarray, ratio_db: float) -> np.ndarray:
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-ratio_db / 20)
    return samples + level * DICE.normal(0, 1, len(samples))


@pytest.mark.parametrize(
    "change",
    [
        np.array,
        lambda x: 0.2 * x,
        lambda x: x[RATE // 100 :],
        lambda x: np.concatenate([np.zeros(9111), x, np.zeros(4000)]),
        lambda x: x[: int(0.55 * len(x))],
        lambda x: x[int(0.45 * len(x)) :],
        lambda x: x + DICE.uniform(-1, 1, len(x)) / 32768,
        lambda x: noisy(x, 15)[77:],
        lambda x: sosfilt(butter(4, [300, 3400], "bandpass", fs=RATE, output="sos"), x),
        through_a_telephone,
        lambda x: np.clip(x, -0.1, 0.1),
    ],
)
def test_one_recording(change) -> None:
    assert same_recording(SPOKEN, change(SPOKEN), RATE)
    assert same_recording(change(SPOKEN), SPOKEN, RATE)


def test_two_sentences_of_one_voice() -> None:
    said = [speechlike(2.0 + 0.2 * seed, seed=seed) for seed in range(1, 9)]
    found = [likeness(one, other, RATE) for one, other in combinations(said, 2)]
    assert max(found) < 0.5


def test_scraps_and_steady_sounds_are_compared_without_a_fault() -> None:
    tone = np.sin(np.arange(RATE) / 9)
    assert same_recording(tone, tone, RATE)
    assert not same_recording(tone[:100], SPOKEN, RATE)
