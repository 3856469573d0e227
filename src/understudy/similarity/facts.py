"""The facts on which two hosts' voices may differ, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from understudy.model import environment as facts

STFT_TOLERANCE = 1e-6
"""Difference of mean STFT magnitudes that is float rounding, as a part of the largest of them:
an FFT's rounding errors are as large where nothing sounds. A CPU and an H100 differ by 2.5e-8."""

VERSIONS = (
    "torch",
    "torchaudio",
    "chatterbox-tts",
    "transformers",
    "diffusers",
    "s3tokenizer",
    "librosa",
    "numpy",
    "python",
)


def side_by_side(
    config: Mapping[str, Any],
    bench: Mapping[str, Any],
    baseline: Mapping[str, Any],
    rates: tuple[int, int],
    formats: Sequence[str],
) -> dict[str, Any]:
    """Return what the voices depend on, side by side.

    Returns:
        ``rows`` of ``{name, values: {host: value}, differs, note}`` and ``note``: how the
        primary can be asked where it did not say.
    """
    host, primary = config["host"], config["primary"]
    environment = bench.get("environment") or {}
    device = config.get("device") or bench.get("device")
    own = facts.collect(device) | {k: v for k, v in environment.items() if v is not None}
    own |= {"dtype": bench.get("dtype"), "tuning": bench.get("tuning")}
    health = baseline.get("health")
    told = health.get("environment") if isinstance(health, dict) else None
    asked = config.get("primary_facts")
    theirs: dict[str, Any] = {}
    for source in (told, asked):
        theirs |= source if isinstance(source, dict) else {}
    silent = not theirs
    if isinstance(health, dict) and health.get("default_voice") == baseline.get("reference_audio"):
        theirs.setdefault("voice_sha256", health.get("voice_sha256"))
    sent = config.get("sent_tuning")
    theirs.setdefault("tuning", sent)
    rows: list[dict[str, Any]] = []

    def add(name: str, one: Any, other: Any, note: str | None = None) -> None:
        differs = None if one is None or other is None else one != other
        values = {host: one, primary: other}
        rows.append({"name": name, "values": values, "differs": differs, "note": note})

    for name in (
        "dtype",
        "device",
        "gpu",
        "compute_capability",
        "driver",
        "cuda",
        "cudnn",
        "tf32_matmul",
        "tf32_cudnn",
        "guard_patched",
    ):
        add(name, own.get(name), theirs.get(name))
    for name in VERSIONS:
        add(name, _in(own, "versions", name), _in(theirs, "versions", name))
    for name in ("cfg_weight", "exaggeration", "temperature"):
        note = f"{primary} was sent it with every request" if sent == theirs["tuning"] else None
        add(name, _in(own, "tuning", name), _in(theirs, "tuning", name), note)
    add("voice_sha256", own.get("voice_sha256"), theirs.get("voice_sha256"))
    weights = sorted(_of(own, "weights").keys() | _of(theirs, "weights").keys())
    for name in weights:
        add(f"weights {name}", _in(own, "weights", name), _in(theirs, "weights", name))
    add("sample_rate_hz", *rates)
    way = (
        f"{host} writes its samples in process, {primary} sends raw 16-bit PCM over HTTP: no codec"
    )
    add("sample_format", formats[0], formats[1], way)
    for name, _ in facts.SETTINGS:
        rows.append(
            _stft_row(name, host, primary, _in(own, "stft", name), _in(theirs, "stft", name))
        )
    how = None
    if silent:
        how = (
            f"{primary} did not say (its health has no 'environment'). Read-only: ssh {primary} "
            "/path/to/its/venv/bin/python - cuda < src/understudy/model/environment.py"
        )
    return {"rows": rows, "note": how}


def _of(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _in(document: Mapping[str, Any], key: str, name: str) -> Any:
    return _of(document, key).get(name)


def _stft_row(name: str, host: str, primary: str, one: Any, other: Any) -> dict[str, Any]:
    """Return the row of one transform of the same input: rounding apart, are they one?"""

    def short(value: Any) -> Any:
        return (
            None
            if not isinstance(value, dict)
            else (f"{str(value.get('sha256'))[:12]}…, rms {value.get('rms')}")
        )

    values = {host: short(one), primary: short(other)}
    row: dict[str, Any] = {"name": f"stft {name}", "values": values, "differs": None, "note": None}
    try:
        a, b = np.array(one["blocks"], dtype=float), np.array(other["blocks"], dtype=float)
        worst = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-9))
    except (TypeError, KeyError, ValueError):
        return row
    row["differs"] = not worst <= STFT_TOLERANCE
    if one.get("sha256") == other.get("sha256"):
        row["note"] = "the same to the last bit"
    else:
        row["note"] = f"off by {worst:.1g} of the peak; {STFT_TOLERANCE:.0g} is rounding"
    return row
