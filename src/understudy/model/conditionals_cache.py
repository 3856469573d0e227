"""Prepared voices on disk: a server that starts anew need not listen to its reference again.

What upstream computes from a recording depends on the recording, the weights, the code and the
device. All of it is in the name of the file, so one that is found is one that fits; it lies in
``.prepared/`` beside the recording, in the format of upstream's ``conds.pt``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib import metadata
from pathlib import Path
from typing import Any

from understudy.common.files import atomic
from understudy.common.jsonio import JsonError, read_json
from understudy.model.weights import MANIFEST

DIRECTORY = ".prepared"

#: Files kept beside each other; each is about a megabyte.
KEPT = 16

#: The files that make a voice out of a recording (the speech tokens' model is not among them).
WEIGHTS = ("s3gen.safetensors", "ve.safetensors")

#: And the code.
PACKAGES = ("chatterbox-tts", "s3tokenizer", "torch", "torchaudio", "librosa", "soxr", "numpy")

log = logging.getLogger("understudy.prepared")


def place(recording: Path, digest: str, weights_dir: Path, **other: Any) -> Path | None:
    """Return where the prepared voice of a recording is or would be.

    Args:
        recording: the WAV file.
        digest: of its content.
        weights_dir: their digests are taken from the manifest, which tells them by size and
            time from files that came later.
        other: what else the result depends on; has a form in JSON.

    Returns:
        None where the weights are not known by their content.
    """
    try:
        digests = read_json(weights_dir / MANIFEST)
        made = (weights_dir / MANIFEST).stat().st_mtime_ns
        weights = {}
        for name in WEIGHTS:
            status = (weights_dir / name).stat()
            if status.st_mtime_ns > made:
                return None
            weights[name] = [digests[name], status.st_size]
        versions = {name: metadata.version(name) for name in PACKAGES}
    except (OSError, JsonError, KeyError, metadata.PackageNotFoundError):
        return None
    facts = json.dumps([digest, weights, versions, other], sort_keys=True)
    name = f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.pt"
    return recording.parent / DIRECTORY / name


def load(path: Path, device: str) -> Any:
    """Return upstream's ``Conditionals``, or None where there are none that can be read."""
    from chatterbox.tts import Conditionals

    if not path.is_file():
        return None
    try:
        return Conditionals.load(path, map_location=device)
    except Exception as error:  # damaged in whatever way, it is made anew
        log.warning("%s: %s: preparing the voice anew", path, error)
        return None


def save(path: Path, conditionals: Any) -> None:
    """Write ``Conditionals`` as they are before the first utterance: whole or not at all."""
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic(path, mode=0o600) as part:
            conditionals.save(part)
        for old in sorted(path.parent.glob("*.pt"), key=lambda p: -p.stat().st_mtime)[KEPT:]:
            old.unlink()
    except (OSError, RuntimeError) as error:  # the voice speaks all the same
        log.warning("%s cannot be kept: %s", path, error)
