"""The similarity check: do two hosts speak with the same voice, as far as can be measured?

One number is not believed: everything `similarity.measures` measures is compared with what two
runs of the same host differ by, as `similarity.calibration` found it, on the full band and on the
telephone. Without a calibration of just this voice there is no pass. Beside it stand the facts on
which two hosts' voices may differ, so that a divergence can be traced.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from understudy.common import process
from understudy.common.jsonio import JsonError, read_json
from understudy.common.times import utc_now
from understudy.similarity import calibration
from understudy.similarity.facts import side_by_side
from understudy.similarity.measures import (
    EMBEDDERS,
    MEASURES,
    Floats,
    Side,
    VoiceMeter,
    feature,
    keys,
    pairs,
    statistics,
)

PHASE = "tts_identity"

NAMED = 6
"""So many measures past their gates are named in the reasons."""

NEXT = "ansible-playbook calibrate.yml"


class CompareError(ValueError):
    """Two sets of recordings that cannot be compared; the message is one sentence."""


def compare(config: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two hosts' recordings of the same utterances.

    Args:
        config: ``run_id``, ``host`` (the standby), ``primary``; ``run_dir``, with
            ``bench-<host>.json``, ``<host>_native/``, ``baseline-<primary>.json`` and
            ``<primary>_baseline/`` in it, or two directories ``standby_wavs`` and
            ``primary_wavs`` and optionally ``weights``, ``voice_sha256``, ``tuning``;
            ``calibration``: a file, or null; optionally ``weights_dir``, ``voice`` (the
            reference), ``embedders`` (which of them), ``fast_load`` (true), ``device``,
            ``sent_tuning`` (what the primary was asked for), and ``primary_facts``: what
            `model.environment` said on the primary, or null.

    Returns:
        The document ``identity.json``.

    Raises:
        ValueError: recordings are missing or not to be used, or a file cannot be read. The
            message names the file, what was seen and what is expected.
    """
    started, began = utc_now(), process.started_at(os.getpid())  # what it imports is part of it
    host, primary = config["host"], config["primary"]
    run_dir = Path(config["run_dir"]).expanduser() if config.get("run_dir") else None
    bench = _document(run_dir, f"bench-{host}.json")
    baseline = _document(run_dir, f"baseline-{primary}.json")
    standby_wavs = _directory(config, "standby_wavs", run_dir, f"{host}_native")
    primary_wavs = _directory(config, "primary_wavs", run_dir, f"{primary}_baseline")
    utterances = _utterances(standby_wavs, primary_wavs)
    known = calibration.read(_path(config["calibration"])) if config.get("calibration") else None

    meter = VoiceMeter(
        _path(config["weights_dir"]) if config.get("weights_dir") else None,
        config.get("embedders", EMBEDDERS),
        _path(config["voice"]) if config.get("voice") else None,
        fast_load=config.get("fast_load", True),
    )
    theirs, their_rate = meter.side([[primary_wavs / f"{u}.wav" for u in utterances]])
    own, rate = meter.side([[standby_wavs / f"{u}.wav" for u in utterances]])
    if rate != their_rate:
        raise CompareError(
            f"{standby_wavs} has {rate} Hz and {primary_wavs} {their_rate} Hz: expected one rate; "
            f"set the rate of the voice server of {primary}"
        )
    environment = bench.get("environment") or {}
    now = {
        **calibration.subject({"tuning": bench.get("tuning")} | environment if bench else config),
        "code": calibration.code(),
        "embedders": meter.embedders.hashes,
    }
    wrong = calibration.differences(known, now, host, utterances) if known else []
    gates = known["measures"] if known and not wrong else {}
    measures, values = _measures(theirs, own, meter.reference, gates)
    result, reasons = _judge(host, primary, known, wrong, measures)
    return {
        "schema_version": 1,
        "run_id": config["run_id"],
        "phase": PHASE,
        "host": host,
        "status": "ok",
        "started_at": started,
        "finished_at": utc_now(),
        "error": None,
        "busy": [{"what": "comparison", "start": began, "end": time.time()}],
        "primary": primary,
        "result": result,
        "reasons": reasons,
        "calibration": _which(config, known, wrong),
        "measures": measures,
        "utterances": [
            {"id": name, "values": {key: _number(row[u]) for key, row in values.items()}}
            for u, name in enumerate(utterances)
        ],
        "sides": {
            host: _side(own, meter.reference, bench),
            primary: _side(theirs, meter.reference, baseline),
        },
        "missing": [{"measure": n, "why": why} for n, why in meter.embedders.missing.items()],
        "facts": side_by_side(
            config,
            bench,
            baseline,
            (rate, their_rate),
            [
                soundfile.info(place / f"{utterances[0]}.wav").subtype
                for place in (standby_wavs, primary_wavs)
            ],
        ),
    }


# What is compared


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _document(run_dir: Path | None, name: str) -> dict[str, Any]:
    """Return a file of the run directory; empty without a directory.

    Raises:
        CompareError: it cannot be read, or is of another schema.
    """
    if run_dir is None:
        return {}
    try:
        document = read_json(run_dir / name)
    except JsonError as error:
        raise CompareError(f"{error}; expected the {name} of a finished bench") from None
    if document.get("schema_version") != 1:
        seen = document.get("schema_version")
        raise CompareError(f"{run_dir / name}: schema_version is {seen!r}, expected 1")
    return document


def _directory(config: Mapping[str, Any], key: str, run_dir: Path | None, name: str) -> Path:
    if config.get(key):
        return _path(config[key])
    if run_dir is None:
        raise CompareError(f"the config has neither 'run_dir' nor {key!r}")
    return run_dir / name


def _utterances(standby: Path, primary: Path) -> list[str]:
    """Return the ids of the utterances that both sides have.

    Raises:
        CompareError: one side lacks what the other one has, or there is none.
    """
    names = {}
    for directory in (standby, primary):
        if not directory.is_dir():
            raise CompareError(f"{directory}: no such directory; expected u01.wav to u10.wav in it")
        names[directory] = {wav.stem for wav in directory.glob("*.wav")}
        if not names[directory]:
            raise CompareError(f"{directory}: no WAV in it; expected u01.wav to u10.wav")
    for here, there in ((standby, primary), (primary, standby)):
        if lacking := sorted(names[there] - names[here]):
            listed = ", ".join(f"{name}.wav" for name in lacking)
            raise CompareError(f"{here} lacks {listed}, which {there} has; run the bench again")
    return sorted(names[standby])


def _measures(
    theirs: Side, own: Side, reference: Mapping[str, Floats], gates: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Floats]]:
    """Return a row for every measure, and the values of the single pairs."""
    here = keys(theirs, own, reference=reference)
    once = np.zeros((1, len(next(iter(own.values())))), dtype=np.intp)
    found = statistics(here, theirs, own, once, once, reference)
    rows = []
    for key in [key for key in MEASURES if key in here or key in gates]:
        measure, gate = MEASURES[key], gates.get(key, {})
        value = _number(found[key][0]) if key in found else None
        size = None if value is None else abs(value) if measure.signed else value
        limit = gate.get("gate")
        rows.append(
            {
                "name": key,
                "label": measure.label,
                "band": key.partition(".")[0],
                "unit": measure.unit,
                "signed": measure.signed,
                "value": value,
                "gate": limit,
                "ok": None if size is None or limit is None else size <= limit,
                "detects": gate.get("detects"),
                "separates": gate.get("separates"),
            }
        )
    values = {}
    for key in here:
        name = feature(key)
        if MEASURES[key].kind != "mean_distance":
            values[key] = pairs(key, theirs[name][:, 0], own[name][:, 0], reference)
    return rows, values


def _judge(
    host: str,
    primary: str,
    known: Mapping[str, Any] | None,
    wrong: Sequence[str],
    measures: Sequence[Mapping[str, Any]],
) -> tuple[str, list[str]]:
    """Return the result and why, in sentences."""
    if known is None:
        return "uncalibrated", [
            f"There is no calibration of {host}: how far apart two runs of one and the same host "
            f"are is not known, so nothing follows from the figures. Next: {NEXT}"
        ]
    if wrong:
        return "uncalibrated", [
            f"The calibration of {known['made_at']} is not one of this voice: {one}. Next: {NEXT}"
            for one in wrong
        ]
    past = [row for row in measures if row["ok"] is False]
    share = f"{100 * known['alpha']:.0f} %"
    if past:
        past.sort(key=lambda row: abs(row["value"]) / row["gate"], reverse=True)
        reasons = [_sentence(row, host, primary) for row in past[:NAMED]]
        if len(past) > NAMED:
            reasons.append(f"So do {len(past) - NAMED} more measures.")
        reasons.append(
            f"{len(past)} of {len(measures)} measures are past gates that together refuse {share} "
            f"of runs of the same voice."
        )
        return "diverged", reasons
    lacking = [row["name"] for row in measures if row["gate"] is not None and row["value"] is None]
    if lacking:
        return "uncalibrated", [
            f"What was calibrated could not be measured here: {', '.join(lacking)}. Next: run "
            f"understudy compare in the voice environment of {host}."
        ]
    joint = known["joint"]
    if not joint.get("separates"):
        refused = joint.get("refused")
        seen = (
            "no impostor voice was heard"
            if refused is None
            else (
                f"all measures together refused only {100 * refused:.0f} % of the impostors' runs"
            )
        )
        return "uncalibrated", [
            f"The gates are not shown to tell one voice from another: {seen} when they were made. "
            f"Next: {NEXT}, with an impostor voice"
        ]
    gated = [row for row in measures if row["gate"] is not None]
    reasons = [
        f"{primary} and {host} differ by no more than two runs of {host} do, in all {len(gated)} "
        f"measures, on the full band and on the telephone. The same gates refuse "
        f"{100 * joint['refused']:.0f} % of the impostors' runs, and {share} of the host's own."
    ]
    blind = [
        name
        for name in EMBEDDERS
        if (rows := [r for r in gated if MEASURES[r["name"]].feature == name])
        and not any(row["separates"] for row in rows)
    ]
    if blind:
        reasons.append(
            f"{', '.join(blind)} did not tell the impostors apart when calibrated: that "
            f"{'they agree' if len(blind) > 1 else 'it agrees'} says nothing."
        )
    return "passed", reasons


def _sentence(row: Mapping[str, Any], host: str, primary: str) -> str:
    """Return what a measure past its gate says."""
    where = "on the telephone" if row["band"] == "telephone" else "on the full band"
    sign = "+" if row["signed"] and row["value"] > 0 else ""
    within = f"±{row['gate']:.3g}" if row["signed"] else f"{row['gate']:.3g}"
    return (
        f"{row['label']}, {where}: {sign}{row['value']:.3g} {row['unit']} from {primary} to "
        f"{host}, where two runs of {host} stay within {within}."
    )


def _which(
    config: Mapping[str, Any], known: Mapping[str, Any] | None, wrong: Sequence[str]
) -> dict[str, Any] | None:
    """Return which calibration was used, and whether it is one of this voice."""
    if known is None:
        return None
    path = _path(config["calibration"])
    return {
        "name": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "host": known["host"],
        "made_at": known["made_at"],
        "takes": known["takes"],
        "alpha": known["alpha"],
        "matches": not wrong,
        "differs": list(wrong),
        "refuses_impostors": known["joint"].get("refused"),
        "notes": known.get("notes", []),
    }


def _side(
    side: Side, reference: Mapping[str, Floats], document: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what one host's recordings are like, whatever the other's are."""
    rows = document.get("utterances") or []
    hits = [row["hit_cap"] for row in rows if isinstance(row, dict) and "hit_cap" in row]
    nearness = {}
    for key in (k for k, m in MEASURES.items() if m.kind == "reference"):
        name = feature(key)
        if name in side and reference.get(name, np.zeros(())).ndim and side[name].ndim == 3:
            nearness[name] = _mean(side[name][:, 0] @ reference[name])
    return {
        "f0_median_hz": _hertz(_mean(side["full.f0_median"])),
        "f0_range_semitones": _mean(side["full.f0_range"]),
        "duration_s": _mean(np.exp(side["full.log_duration"])),
        "loudness_lufs": _mean(side["full.loudness"]),
        "tilt_db_per_octave": _mean(side["full.tilt"]),
        "silence_ratio": _mean(side["full.silence"]),
        "clipped_ratio": _mean(side["full.clipped"]),
        "cap_hits": sum(hit is True for hit in hits) if hits else None,
        "reference_cosine": nearness,
    }


def _mean(values: Floats) -> float | None:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else None


def _hertz(semitones: float | None) -> float | None:
    return None if semitones is None else 100.0 * 2.0 ** (semitones / 12.0)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
