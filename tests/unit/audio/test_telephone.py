"""What is left of a voice on the phone."""

from __future__ import annotations

import numpy as np
import pytest

from understudy.audio import telephone

RATE = 24_000


def tone(hz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return 0.25 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def level_db(samples: np.ndarray) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return 20 * np.log10(np.sqrt(np.mean(middle**2)) / (0.25 / np.sqrt(2)) + 1e-9)


@pytest.mark.parametrize(("hz", "low", "high"), [(1000, -0.5, 0.5), (2500, -1, 1)])
def test_what_is_in_the_band_passes(hz: float, low: float, high: float) -> None:
    heard, rate = telephone.render(tone(hz), RATE)
    assert rate == 16_000
    assert low < level_db(heard) < high


@pytest.mark.parametrize("hz", [50, 100, 5000, 8000])
def test_what_is_outside_the_band_does_not(hz: float) -> None:
    assert level_db(telephone.render(tone(hz), RATE)[0]) < -30


def test_it_was_coded() -> None:
    heard, _ = telephone.render(tone(1000), RATE)
    expected = tone(1000, rate=16_000)
    noise = (heard - expected)[4000:-4000]
    ratio = 10 * np.log10(np.mean(expected**2) / np.mean(noise**2))
    assert 25 < ratio < 45  # G.711 leaves about 38 dB


def test_nothing_is_delayed() -> None:
    click = np.zeros(RATE)
    click[12_000] = 0.9
    heard, _ = telephone.render(click, RATE)
    assert abs(int(np.argmax(np.abs(heard))) - 8000) <= 2


@pytest.mark.parametrize("n", [0, 1, 2, 479, 24_001])
def test_length_is_kept(n: int) -> None:
    heard, _ = telephone.render(np.zeros(n, dtype=np.float32), RATE)
    assert heard.dtype == np.float32
    assert len(heard) == -(-n * 16_000 // RATE)


def test_overload_saturates() -> None:
    heard, _ = telephone.render(8 * tone(1000), RATE)
    assert np.abs(heard).max() <= 1.0
