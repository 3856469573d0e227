"""Three small functions of librosa and SciPy, to the last bit, without their imports.

Upstream calls them once while the model is built and twice per utterance, always alike; the
two libraries take longer to import than the model takes to load. Each returns
``NotImplemented`` for any other call, which `lazy_import` then passes on.
"""

from __future__ import annotations

import math
from typing import Any


def resample(y: Any, *, orig_sr: float, target_sr: float, **other: Any) -> Any:
    """Do as ``librosa.resample`` does by default: SoX's resampler, and the exact length.

    Args:
        y: float32 [N], finite.
        orig_sr: samples per second.
        target_sr: and wanted.
        other: none that upstream passes.
    """
    import numpy as np
    import soxr

    plain = isinstance(y, np.ndarray) and y.dtype == np.float32 and y.ndim == 1 and y.size > 0
    if other or not plain or orig_sr == target_sr or not np.isfinite(y).all():
        return NotImplemented
    length = math.ceil(y.size * (target_sr / orig_sr))
    made = soxr.resample(y, orig_sr, target_sr, quality="soxr_hq")[:length]
    return np.pad(made, (0, length - made.size))


def get_window(window: str, count: int, fftbins: bool = False) -> Any:
    """Do as ``scipy.signal.get_window`` does for a periodic Hann window.

    Returns:
        float64 [count].
    """
    import numpy as np

    if window != "hann" or not fftbins or count < 2:
        return NotImplemented
    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, count + 1))[:-1]


def mel(*, sr: float, n_fft: int, n_mels: int, **other: Any) -> Any:
    """Do as ``librosa.filters.mel`` does by default.

    Triangles of equal area, evenly spaced on Slaney's scale: linear below 1 kHz, 3 mel per
    200 Hz, and logarithmic above, a factor of 6.4 in 27 mel (Auditory Toolbox, 1998).

    Returns:
        float32 [n_mels, n_fft // 2 + 1].
    """
    import numpy as np

    if other or sr < 2_000:
        return NotImplemented
    linear, corner, step = 200 / 3, 1000.0, math.log(6.4) / 27
    kink = corner / linear
    edges = np.linspace(0.0, kink + math.log(sr / 2 / corner) / step, n_mels + 2)
    curved = edges >= kink
    hertz = linear * edges
    hertz[curved] = corner * np.exp(step * (edges[curved] - kink))
    bins, widths = np.fft.rfftfreq(n_fft, 1 / sr), np.diff(hertz)
    rising = -(hertz[:-2, None] - bins) / widths[:-1, None]  # where both are zero: minus zero
    falling = (hertz[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    triangles *= (2.0 / (hertz[2:] - hertz[:-2]))[:, None]
    return triangles
