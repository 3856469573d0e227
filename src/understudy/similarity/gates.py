"""The gates of a calibration: quantiles of what two runs of the same host differ by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.similarity.measures import (
    EMBEDDERS,
    MEASURES,
    Floats,
    Side,
    feature,
    keys,
    pairs,
    statistics,
)

ALPHA = 0.05
RUNS = 10_000
OTHER_RUNS = 1_000

#: From this share of refused impostors a measure counts as one that tells voices apart.
POWER = 0.8

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


class CalibrationError(ValueError):
    """A calibration that cannot be used or made; the message is one sentence."""


def gates(
    own: Side,
    others: Sequence[tuple[str, str, Side]],
    reference: Mapping[str, Floats],
    *,
    alpha: float = ALPHA,
    runs: int = RUNS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the gates, what they were made of, and what they are worth.

    With few takes the spread of a measure is itself uncertain. A gate is therefore as many
    times further out as Student's t is beyond the normal distribution at the same quantile,
    with the degrees of freedom that the spreads of the single utterances leave (`_freedom`).
    A distance is not zero for the same voice, and where its middle lies is estimated, too: from
    N takes, with 2/N of the variance of a run (Hoeffding's first term: every take is in 2/N of
    the pairs), so that its distance from the middle grows by sqrt(1 + 2/N).

    Args:
        own: several takes of the host.
        others: ``(name, kind, side)`` of the primary or of impostors.
        reference: the reference voice's features.
        alpha: share of runs of the same voice that may be refused, by all measures together.
        runs: how many pairs of runs are drawn.
        seed: of the drawing.

    Returns:
        ``alpha``, ``method``, ``joint``, ``measures``, ``others``, ``notes`` of the document.

    Raises:
        CalibrationError: nothing can be measured.
    """
    from scipy import stats

    chance = np.random.default_rng(seed)
    count, n = next(iter(own.values())).shape[:2]
    wanted = keys(own, reference=reference)
    first, second = _two_takes(chance, runs, count, n)
    null = statistics(wanted, own, own, first, second, reference)
    wanted = [key for key in wanted if np.isfinite(null[key]).all()]
    if not wanted:
        raise CalibrationError("not one measure has a value for these takes: are they speech?")
    sizes = np.array([_size(key, null[key]) for key in wanted])
    each = min(float(np.quantile(_p_values(sizes).min(axis=0), alpha)), alpha)
    measures: dict[str, Any] = {}
    for key, size in zip(wanted, sizes, strict=True):
        measure = MEASURES[key]
        freedom = _freedom(key, own, reference)
        wider = float(stats.t.isf(each / 2, freedom) / stats.norm.isf(each / 2))
        gate = float(np.quantile(size, 1.0 - each))
        if not measure.signed:
            middle = float(np.median(size))
            gate = middle + math.sqrt(1.0 + 2.0 / n) * (gate - middle)
        gate = max(wider * gate, measure.floor)
        spread = float(null[key].std())
        measures[key] = {
            "label": measure.label,
            "unit": measure.unit,
            "signed": measure.signed,
            "gate": gate,
            "degrees_of_freedom": freedom,
            "widened": wider,
            "null": {
                "mean": float(null[key].mean()),
                "sd": spread,
                "quantiles": {str(q): float(np.quantile(null[key], q)) for q in QUANTILES},
            },
            # A shift is found when it carries the value past the gate in 8 of 10 runs.
            "detects": gate + float(stats.norm.ppf(POWER)) * spread if measure.signed else None,
            "auc": None,
            "refused": None,
            "separates": None,
        }
    sets = [
        _set(name, kind, side, own, wanted, measures, sizes, reference, chance)
        for name, kind, side in others
    ]
    joint = {"each": each, "runs": runs}
    impostors = [row for row in sets if row["kind"] == "impostor"]
    for key, row in measures.items():
        if impostors:
            row["auc"] = _average(one["measures"][key]["auc"] for one in impostors)
            row["refused"] = _average(one["measures"][key]["refused"] for one in impostors)
            row["separates"] = row["refused"] is not None and row["refused"] >= POWER
    refused = _average(one["refused"] for one in impostors) if impostors else None
    return {
        "alpha": alpha,
        "method": f"{runs} pairs of runs from {n} takes of {count} utterances; per measure the "
        f"{100 * (1 - each):.2f} % quantile, so that all measures together refuse "
        f"{100 * alpha:.0f} % of runs of the same voice, widened for the number of takes",
        "joint": joint
        | {"refused": refused, "separates": refused is not None and refused >= POWER},
        "measures": measures,
        "others": sets,
        "notes": _notes(measures, refused, impostors),
    }


def _two_takes(
    chance: np.random.Generator, runs: int, count: int, n: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return two different takes of every utterance, [runs, utterances] each."""
    first = chance.integers(0, n, (runs, count))
    second = (first + chance.integers(1, n, (runs, count))) % n
    return first, second


def _freedom(key: str, own: Side, reference: Mapping[str, Floats]) -> float:
    """Return the effective degrees of freedom of a measure's spread.

    Welch's and Satterthwaite's (Biometrics Bulletin 2, 1946): (Σ v)² / Σ v²/(N - 1), v the
    mean square of a pair's value over all pairs of an utterance's N takes. One utterance
    that varies more than the others so counts for what it is.
    """
    values = own[feature(key)]
    n = values.shape[1]
    first, second = np.nonzero(~np.eye(n, dtype=bool))
    squares = pairs(key, values[:, first], values[:, second], reference) ** 2
    there = np.isfinite(squares)
    count = np.maximum(there.sum(axis=1), 1)
    spread: Floats = np.where(there, squares, 0.0).sum(axis=1) / count
    if not spread.any():
        return float(len(spread) * (n - 1))
    return float(spread.sum() ** 2 / (spread**2 / (n - 1)).sum())


def _size(key: str, values: Floats) -> Floats:
    """Return how far from "the same" values are: the sign goes where there is one."""
    return np.abs(values) if MEASURES[key].signed else values


def _p_values(sizes: Floats) -> Floats:
    """Return for each value the share of its row, [measures, runs], that is as large."""
    ordered = np.sort(sizes, axis=1)
    smaller = np.array(
        [np.searchsorted(row, values) for row, values in zip(ordered, sizes, strict=True)]
    )
    return np.asarray((sizes.shape[1] - smaller) / sizes.shape[1])


def _set(
    name: str,
    kind: str,
    side: Side,
    own: Side,
    wanted: Sequence[str],
    measures: Mapping[str, Any],
    null_sizes: Floats,
    reference: Mapping[str, Floats],
    chance: np.random.Generator,
) -> dict[str, Any]:
    """Return how runs of this voice against the host's own would be judged."""
    count, n = next(iter(own.values())).shape[:2]
    there = next(iter(side.values())).shape[1]
    mine = chance.integers(0, n, (OTHER_RUNS, count))
    theirs = chance.integers(0, there, (OTHER_RUNS, count))
    have = [key for key in wanted if key in keys(side, reference=reference)]
    values = statistics(have, side, own, theirs, mine, reference)
    past = np.zeros(OTHER_RUNS, dtype=bool)
    rows: dict[str, Any] = {}
    for key, same in zip(wanted, null_sizes, strict=True):
        rows[key] = {"median": None, "auc": None, "refused": None}
        if key not in have or not np.isfinite(values[key]).all():
            continue
        size = _size(key, values[key])
        beyond = size > measures[key]["gate"]
        past |= beyond
        rows[key] = {
            "median": float(np.median(values[key])),
            "auc": _auc(same, size),
            "refused": float(beyond.mean()),
        }
    return {
        "name": name,
        "kind": kind,
        "takes": there,
        "refused": float(past.mean()),
        "measures": rows,
    }


def _auc(same: Floats, other: Floats) -> float:
    """Return how often a value of `other` is larger than one of `same`; half for a draw."""
    ordered = np.sort(same)
    below = np.searchsorted(ordered, other, "left") + np.searchsorted(ordered, other, "right")
    return float(below.mean() / 2 / len(same))


def _average(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _notes(
    measures: Mapping[str, Any], refused: float | None, impostors: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return in sentences what the gates are worth."""
    if refused is None:
        return ["No impostor voice was heard, so nothing is known of what these gates let pass."]
    voices = f"{len(impostors)} impostor voice" + ("" if len(impostors) == 1 else "s")
    notes = [f"All measures together refuse {100 * refused:.0f} % of the runs of {voices}."]
    for name in EMBEDDERS:
        rows = {k: r for k, r in measures.items() if MEASURES[k].feature == name}
        if not rows:
            continue
        best = max(rows, key=lambda key: rows[key]["refused"] or 0.0)
        row = rows[best]
        seen = f"refuses {100 * (row['refused'] or 0.0):.0f} % of their runs"
        if row["auc"] is not None:
            seen += f" (AUC {row['auc']:.2f})"
        if row["separates"]:
            notes.append(f"{name} tells the impostors apart: {best} {seen}.")
        else:
            notes.append(
                f"{name} does not tell the impostors apart: its best measure, {best}, {seen}. "
                "That it agrees says nothing about who speaks."
            )
    return notes
