"""Change of the sample rate by a polyphase filter without delay."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt


def resample(samples: npt.NDArray[Any], ratio: Fraction) -> npt.NDArray[np.float64]:
    """Return samples [N] as ceil(N * ratio) of them.

    Args:
        samples: shape [N].
        ratio: the wanted rate divided by the present one.
    """
    from scipy import signal  # two seconds of a server's start, which does not resample

    made = signal.resample_poly(
        np.asarray(samples, dtype=np.float64), ratio.numerator, ratio.denominator
    )
    return cast("npt.NDArray[np.float64]", made)
