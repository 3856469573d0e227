"""What is left of a voice on a phone call: narrow band, G.711, played at 16 kHz.

Two voices that differ in a studio may be one on the phone, and a codec may make two
of what was one. So everything that compares voices compares them here, too.
"""

from __future__ import annotations

import functools
import io
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import soundfile

from understudy.audio.pcm import Samples
from understudy.audio.resample import resample

RATE = 16_000
"""Hz; what the phone's side plays."""

BAND_HZ = (300.0, 3400.0)
"""The telephone band (ITU-T G.712)."""

LINE_RATE = 8_000
"""Hz; what goes over the line."""


def render(samples: npt.NDArray[Any], rate: int) -> tuple[Samples, int]:
    """Return what the other end of a call hears.

    Resampled to 8 kHz, limited to 300–3400 Hz, coded and decoded as G.711 µ-law by
    libsndfile, and resampled to 16 kHz. The delay of the filters is taken out, so the
    result lines up with what went in.

    Args:
        samples: in [-1, 1], shape [N]; beyond it they saturate.
        rate: in Hz.

    Returns:
        Samples [ceil(N * 16000 / rate)] in [-1, 1], and 16000.
    """
    from scipy import signal

    if not len(samples):
        return np.zeros(0, dtype=np.float32), RATE
    narrow = signal.sosfiltfilt(_band(), resample(samples, Fraction(LINE_RATE, rate)), padlen=0)
    coded = io.BytesIO()
    soundfile.write(coded, np.clip(narrow, -1.0, 1.0), LINE_RATE, format="WAV", subtype="ULAW")
    coded.seek(0)
    decoded, _ = soundfile.read(coded, dtype="float32")
    heard = resample(decoded, Fraction(RATE, LINE_RATE))
    length = -(-len(samples) * RATE // rate)
    heard = np.pad(heard, (0, max(0, length - len(heard))))[:length]
    return cast(Samples, np.clip(heard, -1.0, 1.0).astype(np.float32)), RATE


@functools.cache
def _band() -> npt.NDArray[np.float64]:
    """Return the band-pass: order 4 each way, so 6 dB down at the corners of the band."""
    from scipy import signal

    sections = signal.butter(4, BAND_HZ, btype="bandpass", fs=LINE_RATE, output="sos")
    return cast("npt.NDArray[np.float64]", sections)
