"""The few statistics every result carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class Summary(TypedDict):
    """Of RTF, wall or audio seconds; see docs/run-directory.md.

    `p95` and `cv` need two values, all but `n` need one; they are None without.
    """

    n: int
    min: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    max: float | None
    cv: float | None


def percentile(values: Sequence[float], q: float) -> float:
    """Return the q-th percentile, interpolated linearly between order statistics.

    Hyndman and Fan's definition 7 (The American Statistician 50, 1996), NumPy's default.

    Args:
        values: at least one.
        q: 0 to 100.
    """
    return float(np.percentile(np.asarray(values, dtype=np.float64), q))


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1) over the mean.

    None below two values, and where the mean is zero.
    """
    if len(values) < 2:
        return None
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    return float(data.std(ddof=1)) / mean if mean else None


def summary(values: Sequence[float]) -> Summary:
    """Return the summary of finite values, in their own unit."""
    if not values:
        return Summary(n=0, min=None, mean=None, p50=None, p95=None, max=None, cv=None)
    data = np.asarray(values, dtype=np.float64)
    return Summary(
        n=len(values),
        min=float(min(values)),
        mean=float(data.mean()),
        p50=percentile(values, 50),
        p95=percentile(values, 95) if len(values) > 1 else None,
        max=float(max(values)),
        cv=coefficient_of_variation(values),
    )
