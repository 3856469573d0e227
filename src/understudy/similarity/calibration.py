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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.common.files import WAV_BYTES, read_bytes
from understudy.common.jsonio import JsonError, read_json
from understudy.common.progress import Progress
from understudy.common.times import utc_now
from understudy.model.weights import MANIFEST
from understudy.similarity.gates import ALPHA, RUNS, CalibrationError, gates
from understudy.similarity.measures import EMBEDDERS, Side, VoiceMeter

SCHEMA_VERSION = 1
#: The modules that a value or a gate depends on.
CODE = (
    "audio/acoustics.py",
    "audio/pcm.py",
    "audio/resample.py",
    "audio/speech_check.py",
    "audio/telephone.py",
    "similarity/calibration.py",
    "similarity/embedders.py",
    "similarity/gates.py",
    "similarity/measures.py",
)

#: What must be as it was when the calibration was made; see `differences`.
SAME = ("weights", "voice_sha256", "tuning", "code", "embedders")


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
    lacking = [
        n
        for n in ("host", "identity", "alpha", "measures", "joint", "takes", "utterances")
        if n not in document
    ]
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
        voice = Path(config["voice"]).expanduser()
        digest = hashlib.sha256(read_bytes(voice, WAV_BYTES, links=True)).hexdigest()
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
            optionally ``alpha`` (0.05), ``embedders``, ``fast_load`` (true), ``runs`` (10000),
            ``seed`` (0), and ``synthesis``, with which the takes are made
            first: see `understudy.similarity.takes`.
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
    meter = VoiceMeter(
        Path(weights_dir).expanduser() if weights_dir else None,
        config.get("embedders", EMBEDDERS),
        Path(voice).expanduser() if voice else None,
        fast_load=config.get("fast_load", True),
    )

    def hear(name: str, where: Sequence[Path]) -> tuple[Side, int]:
        progress.write(host=host, phase="listen", text=f"{host}  listening to {name}")
        return meter.side([[take / f"{u}.wav" for u in utterances] for take in where])

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
        own,
        others,
        meter.reference,
        alpha=alpha,
        runs=int(config.get("runs", RUNS)),
        seed=int(config.get("seed", 0)),
    )
    missing = [{"measure": n, "why": why} for n, why in meter.embedders.missing.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "phase": "tts_calibration",
        "host": host,
        "made_at": utc_now(),
        "takes": len(directories),
        "utterances": utterances,
        "sample_rate_hz": rate,
        "identity": {**subject(config), "code": code(), "embedders": meter.embedders.hashes},
        **document,
        "missing": missing,
    }
