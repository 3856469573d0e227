"""How far apart two runs of the same host are: what any other difference is measured against.

A host says each utterance several times, with other seeds. Two takes of each, drawn at random
and never the same twice, are a pair of runs in which nothing differs but chance; thousands of
such pairs are, for every measure, its distribution under "the same voice". The gates are
quantiles of these, set so that all measures *together* refuse a share `alpha` of such pairs:
every measure gets the same small share, found by the smallest p-value of each resampled pair
(Westfall and Young, Resampling-Based Multiple Testing, 1993). Measures that go together, as
the pitch and the pitch over the telephone, so cost no more than one.

What a gate is worth is told by other voices: how often each measure, and all of them, refuse
an impostor. A measure that lets impostors pass has nothing to say about identity.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy import __version__
from understudy.common.jsonio import JsonError, read_json, utc_now
from understudy.common.progress import Progress
from understudy.model.weights import MANIFEST
from understudy.similarity.measures import (
    EMBEDDERS,
    MEASURES,
    Ear,
    Floats,
    Side,
    feature,
    keys,
    pairs,
    statistics,
)

SCHEMA_VERSION = 1
ALPHA = 0.05
RUNS = 10_000
OTHER_RUNS = 1_000
POWER = 0.8
"""From this share of refused impostors a measure counts as one that tells voices apart."""

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)

CODE = (
    "audio/acoustics.py", "audio/pcm.py", "audio/speech_check.py", "audio/telephone.py",
    "similarity/calibration.py", "similarity/embedders.py", "similarity/measures.py",
)  # fmt: skip
"""The modules that a value or a gate depends on."""

SAME = ("weights", "voice_sha256", "tuning", "code", "embedders")
"""What must be as it was when the calibration was made; see `differences`."""


class CalibrationError(ValueError):
    """A calibration that cannot be used or made; the message is one sentence."""


def code() -> dict[str, str]:
    """Return the version of the package and the SHA-256 of every module that measures."""
    package = Path(__file__).parents[1]
    digests = {name: hashlib.sha256((package / name).read_bytes()).hexdigest() for name in CODE}
    return {"understudy": __version__} | digests


def read(path: Path) -> dict[str, Any]:
    """Return a calibration.

    Raises:
        CalibrationError: it is missing, cut short, of another schema or no calibration.
    """
    again = "make it anew: ansible-playbook calibrate.yml"
    try:
        document = read_json(path)
    except JsonError as error:
        raise CalibrationError(f"the calibration {error}; {again}") from None
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or document.get("phase") != "tts_calibration":
        seen = f"schema_version {version!r}, phase {document.get('phase')!r}"
        raise CalibrationError(
            f"the calibration {path} has {seen}; expected {SCHEMA_VERSION} and "
            f"'tts_calibration'; {again}"
        )
    lacking = [n for n in ("host", "identity", "alpha", "measures", "joint", "takes", "utterances")
               if n not in document]  # fmt: skip
    if lacking:
        raise CalibrationError(f"the calibration {path} has no {', '.join(lacking)}; {again}")
    return document


def differences(
    calibration: Mapping[str, Any], now: Mapping[str, Any], host: str, utterances: Sequence[str]
) -> list[str]:
    """Return in sentences why a calibration is not one for what is judged now.

    Args:
        calibration: the document.
        now: ``weights``, ``voice_sha256``, ``tuning``, ``code``, ``embedders``, as in it.
        host: whose takes are judged.
        utterances: their ids.
    """
    found = []
    if calibration["host"] != host:
        found.append(f"it was made on {calibration['host']}, and this is {host}")
    if list(calibration["utterances"]) != list(utterances):
        found.append("it was made with other utterances")
    for name in SAME:
        was, is_now = calibration["identity"].get(name), now.get(name)
        if name == "embedders":  # a host without one of them is another matter
            is_now = {k: (is_now or {}).get(k, v) for k, v in (was or {}).items()}
        if was == is_now:
            continue
        if isinstance(was, dict) and isinstance(is_now, dict):
            found += [
                f"{name} {key}: {_brief(was.get(key))} when it was made, "
                f"{_brief(is_now.get(key))} now"
                for key in sorted(was.keys() | is_now.keys())
                if was.get(key) != is_now.get(key)
            ]
        else:
            found.append(f"{name}: {_brief(was)} when it was made, {_brief(is_now)} now")
    return found


def _brief(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    return "not known" if value is None else str(value) if not isinstance(value, dict) else "known"


def subject(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose voice it is: ``weights``, ``voice_sha256`` and ``tuning``, null if not known."""
    weights, digest = config.get("weights"), config.get("voice_sha256")
    if weights is None and config.get("weights_dir"):
        manifest = Path(config["weights_dir"]).expanduser() / MANIFEST
        weights = read_json(manifest) if manifest.is_file() else None
    if digest is None and config.get("voice"):
        digest = hashlib.sha256(Path(config["voice"]).expanduser().read_bytes()).hexdigest()
    return {"weights": weights, "voice_sha256": digest, "tuning": config.get("tuning")}


def takes_in(directory: Path) -> tuple[list[Path], list[str]]:
    """Return the directories of the takes and the names of the utterances that all have.

    Args:
        directory: ``<take>/u01.wav``, or the WAVs of one take.

    Raises:
        CalibrationError: there is none, or a take lacks an utterance that another one has.
    """
    if not directory.is_dir():
        raise CalibrationError(f"{directory}: no such directory; expected <take>/u01.wav in it")
    takes = sorted(p for p in directory.iterdir() if p.is_dir()) or [directory]
    names = [{wav.name for wav in take.glob("*.wav")} for take in takes]
    every = sorted(set().union(*names))
    if not every:
        raise CalibrationError(f"{directory}: no WAV; expected <take>/u01.wav in it")
    for take, there in zip(takes, names, strict=True):
        if lacking := [name for name in every if name not in there]:
            raise CalibrationError(f"{take}: no {', '.join(lacking)}, which other takes have")
    return takes, [name.removesuffix(".wav") for name in every]


def run(config: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Calibrate a host.

    Args:
        config: ``host``; ``takes_dir``: ``<take>/u01.wav`` of the host itself, at least two;
            ``others``: a list of ``{name, kind, dir}`` (``kind`` is ``impostor`` or ``primary``);
            ``weights_dir`` and ``voice`` (or null); ``tuning`` (or null); ``weights`` (SHA-256 by
            file) and ``voice_sha256`` where they are not to be had from the former two;
            optionally ``alpha`` (0.05), ``embedders``, ``runs`` (10000), ``seed`` (0), and
            ``synthesis``, with which the takes are made first: see `understudy.similarity.takes`.
        progress: told of every step.

    Returns:
        The document ``calibration-<host>.json``.

    Raises:
        CalibrationError, audio.AudioError: the recordings are not what is needed.
    """
    progress = progress or Progress(None)
    host, alpha = config["host"], float(config.get("alpha", ALPHA))
    if not 0.0 < alpha < 0.5:
        raise CalibrationError(f"alpha is {alpha}; expected a share of runs, above 0 and below 0.5")
    for row in config.get("others") or []:  # before hours of speaking
        takes_in(Path(row["dir"]).expanduser())
    if config.get("synthesis"):
        from understudy.similarity import takes

        takes.make(config, progress)
    directories, utterances = takes_in(Path(config["takes_dir"]).expanduser())
    if len(directories) < 2:
        raise CalibrationError(
            f"{config['takes_dir']}: one take; at least 2 are needed, and 6 are better"
        )
    weights_dir, voice = config.get("weights_dir"), config.get("voice")
    ear = Ear(
        Path(weights_dir).expanduser() if weights_dir else None,
        config.get("embedders", EMBEDDERS),
        Path(voice).expanduser() if voice else None,
    )

    def hear(name: str, where: Sequence[Path]) -> tuple[Side, int]:
        progress.write(host=host, phase="listen", text=f"{host}  listening to {name}")
        return ear.side([[take / f"{u}.wav" for u in utterances] for take in where])

    own, rate = hear(f"{len(directories)} takes of its own", directories)
    others = []
    for row in config.get("others") or []:
        where, there = takes_in(Path(row["dir"]).expanduser())
        if lacking := [name for name in utterances if name not in there]:
            raise CalibrationError(f"{row['dir']}: no {', '.join(lacking)}, which {host} spoke")
        side, other_rate = hear(row["name"], where)
        if other_rate != rate:
            raise CalibrationError(f"{row['dir']}: {other_rate} Hz, and {host} speaks at {rate} Hz")
        others.append((row["name"], row["kind"], side))
    document = gates(
        own, others, ear.reference, alpha=alpha,
        runs=int(config.get("runs", RUNS)), seed=int(config.get("seed", 0)),
    )  # fmt: skip
    missing = [{"measure": n, "why": why} for n, why in ear.embedders.missing.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "phase": "tts_calibration",
        "host": host,
        "made_at": utc_now(),
        "takes": len(directories),
        "utterances": utterances,
        "sample_rate_hz": rate,
        "identity": {
            **subject(config),
            "code": code(),
            "embedders": ear.embedders.hashes,
        },
        **document,
        "missing": missing,
    }


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
        "joint": joint | {
            "refused": refused, "separates": refused is not None and refused >= POWER,
        },
        "measures": measures,
        "others": sets,
        "notes": _notes(measures, refused, impostors),
    }  # fmt: skip


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
    return {"name": name, "kind": kind, "takes": there, "refused": float(past.mean()),
            "measures": rows}  # fmt: skip


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
