"""How two hosts' recordings of the same utterances differ, measure by measure.

A *side* is what one host said: per feature an array of shape [utterances, takes, ...], in the
full band and as the telephone leaves it. A measure turns two sides, one take of each utterance
from either, into one number for the whole run: the mean over the utterances of a paired
difference, or the difference of the two means. Zero is: the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.audio import acoustics, pcm, speech_check, telephone
from understudy.similarity import embedders

Floats = npt.NDArray[np.float64]
Side = dict[str, Floats]

BANDS = ("full", "telephone")

LEAST_SHARE = 0.5
"""Of the utterances that must have a value for a run to have one."""

_CHUNK = 500
_NOTHING = np.zeros(())


@dataclass(frozen=True)
class Measure:
    """One way in which two voices can differ.

    Attributes:
        name: unique among the measures of a band.
        label: for a reader.
        unit: of its values.
        feature: what it is made of.
        kind: ``difference`` (signed, standby minus primary), ``distance`` (pair by pair),
            ``mean_distance`` (of the two sides' means) or ``reference`` (signed: by how much
            the standby is nearer to the reference voice than the primary).
        scale: of the feature's unit to this one's.
        floor: what rounding to 16 bits alone may do; no gate is below it.
    """

    name: str
    label: str
    unit: str
    feature: str
    kind: str
    scale: float
    floor: float

    @property
    def signed(self) -> bool:
        """Whether it can be off to either side."""
        return self.kind in ("difference", "reference")


_ACOUSTIC = (
    Measure("duration", "Spoken length", "%", "log_duration", "difference", 100.0, 0.1),
    Measure("f0_median", "Pitch, median", "semitones", "f0_median", "difference", 1.0, 0.02),
    Measure("f0_range", "Pitch, range", "semitones", "f0_range", "difference", 1.0, 0.05),
    Measure("loudness", "Loudness", "LU", "loudness", "difference", 1.0, 0.05),
    Measure("tilt", "Spectral tilt", "dB/octave", "tilt", "difference", 1.0, 0.02),
    Measure("silence", "Share of silence", "points", "silence", "difference", 100.0, 0.2),
    Measure("spectrum", "Average spectrum, pair by pair", "dB", "spectrum", "distance", 1.0, 0.05),
    Measure(
        "spectrum_mean", "Average spectrum of all", "dB", "spectrum", "mean_distance", 1.0, 0.05
    ),
)

_EMBEDDER_LABELS = {
    "voice_encoder": "Voice encoder (the model's own)",
    "x_vector": "X-vector (the model's own)",
    "resemblyzer": "Resemblyzer",
}

_EMBEDDED = tuple(
    Measure(f"{name}{suffix}", f"{label}, {what}", "cosine distance", name, kind, 1.0, 1e-4)
    for name, label in _EMBEDDER_LABELS.items()
    for suffix, what, kind in (
        ("", "pair by pair", "distance"),
        ("_mean", "voice against voice", "mean_distance"),
        ("_reference", "nearness to the reference", "reference"),
    )
)

MEASURES = {f"{band}.{one.name}": one for band in BANDS for one in (*_ACOUSTIC, *_EMBEDDED)}
"""Every measure by its key, ``full.duration`` to ``telephone.resemblyzer_reference``."""

EMBEDDERS = tuple(_EMBEDDER_LABELS)


class VoiceMeter:
    """Turns recordings into features; keeps the embedders loaded.

    Args:
        weights_dir: the model's; None for none.
        names: of the embedders to use.
        reference: the reference voice; None for none.
        fast_load: see `embedders.Embedders`.

    Raises:
        audio.AudioError: the reference is no recording.
    """

    def __init__(
        self,
        weights_dir: Path | None,
        names: Sequence[str] = embedders.NAMES,
        reference: Path | None = None,
        *,
        fast_load: bool = True,
    ) -> None:
        self.embedders = embedders.Embedders(weights_dir, tuple(names), fast_load=fast_load)
        self.reference: dict[str, Floats] = {}
        if reference is not None and self.embedders.names:
            found = self.listen(*usable(reference))
            self.reference = {k: v for k, v in found.items() if k.split(".")[1] in EMBEDDERS}

    def listen(self, samples: npt.NDArray[Any], rate: int) -> dict[str, Floats]:
        """Return the features of one recording by ``<band>.<feature>``; NaN for what it has not."""
        found: dict[str, Floats] = {}
        for band in BANDS:
            bands_hz = acoustics.BANDS_HZ
            if band == "telephone":
                samples, rate = telephone.render(samples, rate)
                bands_hz = acoustics.TELEPHONE_BANDS_HZ
            heard = acoustics.features(samples, rate, bands_hz)
            heard |= self.embedders(samples, rate)
            for name, value in heard.items():
                known = math.nan if value is None else value
                found[f"{band}.{name}"] = np.asarray(known, dtype=np.float64)
        return found

    def side(self, takes: Sequence[Sequence[Path]]) -> tuple[Side, int]:
        """Return a side and its sample rate in Hz.

        Args:
            takes: the recordings, [takes][utterances].

        Raises:
            audio.AudioError: one of them is not to be used; the message names it.
        """
        rates: dict[int, Path] = {}
        heard = []
        for take in takes:
            row = []
            for path in take:
                samples, rate = usable(path)
                rates.setdefault(rate, path)
                row.append(self.listen(samples, rate))
            heard.append(row)
        if len(rates) > 1:
            (one, here), (other, there) = list(rates.items())[:2]
            raise pcm.AudioError(f"{here} has {one} Hz and {there} {other} Hz: expected one rate")
        return stack(heard), next(iter(rates))


def usable(path: Path) -> tuple[pcm.Samples, int]:
    """Return the samples [N] and the rate in Hz of a recording in which there is something.

    Raises:
        audio.AudioError: it cannot be read, is empty or silent, or holds NaN.
    """
    samples, rate = pcm.read_wav(path)
    if not len(samples):
        raise pcm.AudioError(f"{path}: empty, not one sample; expected speech")
    bad = int(len(samples) - np.isfinite(samples).sum())
    if bad:
        raise pcm.AudioError(f"{path}: {bad} of {len(samples)} samples are NaN or infinite")
    if speech_check.silent_frames(samples, rate).all():
        raise pcm.AudioError(
            f"{path}: silent, no frame reaches {speech_check.SILENT_FRAME_DBFS} dBFS"
        )
    if len(samples) < 0.2 * rate:
        raise pcm.AudioError(f"{path}: {len(samples) / rate:.2f} s; expected at least 0.2 s")
    return samples, rate


def stack(heard: Sequence[Sequence[Mapping[str, Floats]]]) -> Side:
    """Return the features of [takes][utterances] as one side."""
    side: Side = {}
    for key in heard[0][0]:
        shapes = {one[key].shape for take in heard for one in take if one[key].ndim}
        shape = shapes.pop() if shapes else ()
        side[key] = np.array(
            [[np.broadcast_to(take[u][key], shape) for take in heard] for u in range(len(heard[0]))]
        )
    return side


def keys(*sides: Side, reference: Mapping[str, Floats]) -> list[str]:
    """Return the keys of the measures that these sides have, in order."""
    found = []
    for key, measure in MEASURES.items():
        name = feature(key)
        vectors = measure.kind != "difference"
        # An embedder that heard nothing in any of the recordings has left no vectors.
        there = all(name in side and (side[name].ndim == 3) is vectors for side in sides)
        if there and (measure.kind != "reference" or reference.get(name, _NOTHING).ndim):
            found.append(key)
    return found


def pairs(key: str, a: Floats, b: Floats, reference: Mapping[str, Floats]) -> Floats:
    """Return a measure of single pairs.

    Args:
        key: of the measure.
        a: the primary's feature, shape [..., K] for spectra and embeddings, else [...].
        b: the standby's.
        reference: the reference voice's features.

    Returns:
        Shape [...].
    """
    measure = MEASURES[key]
    if measure.kind == "reference":
        voice = reference[feature(key)]
        return np.asarray((b @ voice - a @ voice) * measure.scale)
    if measure.kind == "difference":
        return np.asarray((b - a) * measure.scale)
    if measure.feature in EMBEDDERS:
        return np.asarray(1.0 - (a * b).sum(axis=-1))
    return np.asarray(np.sqrt(((b - a) ** 2).mean(axis=-1)))


def statistics(
    wanted: Iterable[str],
    a: Side,
    b: Side,
    pick_a: npt.NDArray[np.intp],
    pick_b: npt.NDArray[np.intp],
    reference: Mapping[str, Floats],
) -> dict[str, Floats]:
    """Return the run-level values of measures.

    Args:
        wanted: keys of the measures.
        a: the primary's side.
        b: the standby's.
        pick_a: which take of each utterance a run is made of, shape [runs, utterances].
        pick_b: the same for the standby.
        reference: the reference voice's features.

    Returns:
        Shape [runs] for each key; NaN where too few utterances have a value.
    """
    rows = np.arange(pick_a.shape[1])
    result: dict[str, Floats] = {}
    for key in wanted:
        measure = MEASURES[key]
        name = feature(key)
        parts = []
        for start in range(0, len(pick_a), _CHUNK):
            here = slice(start, start + _CHUNK)
            one, other = a[name][rows, pick_a[here]], b[name][rows, pick_b[here]]
            if measure.kind == "mean_distance":
                one, other = _mean(one), _mean(other)
                if measure.feature in EMBEDDERS:
                    one, other = _unit(one), _unit(other)
                parts.append(pairs(key, one, other, reference))
            else:
                parts.append(_mean(pairs(key, one, other, reference)))
        result[key] = np.concatenate(parts)
    return result


def feature(key: str) -> str:
    """Return the feature, ``<band>.<name>``, that the measure of a key is made of."""
    return f"{key.partition('.')[0]}.{MEASURES[key].feature}"


def _mean(values: Floats) -> Floats:
    """Return the mean over the utterances (axis 1) that have a value, if enough have."""
    there = np.isfinite(values)
    count = there.sum(axis=1)
    total = np.where(there, values, 0.0).sum(axis=1)
    enough = count >= LEAST_SHARE * values.shape[1]
    return np.asarray(np.where(enough & (count > 0), total / np.maximum(count, 1), np.nan))


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
