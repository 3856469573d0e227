"""Does what a listener said still stand?

A human verdict is never overridden. It may be marked *stale*: the weights, the voice,
the lock or the driver are not those that it was given for, or the recordings are not
those that were heard. Or *contradicted*: the similarity check (``identity.json``) says the
opposite. What is not known on either side marks nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.common.files import WAV_BYTES, read_within
from understudy.verdict.run_directory import Run, first, listing, pick, strings

#: A recording of a run directory.
WAV = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*_(native|baseline)/[A-Za-z0-9._-]+\.wav")

#: What a listener's verdict is given for, beside the weights: its name in ratings.json and in
#: the environment of a bench file are the same.
SETTINGS = {"voice_sha256": "voice reference", "lock_sha256": "lock", "driver": "driver"}


def given_for(environments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a listener of a run hears, for its ``ratings.json``.

    Args:
        environments: the ``environment`` of the bench file, by standby.

    Returns:
        By standby ``weights_sha256`` (by file), ``voice_sha256``, ``lock_sha256`` and ``driver``,
        null where the bench could not tell; only the standbys that have an environment.
    """
    return {
        host: {
            "weights_sha256": _texts(environment.get("weights")),
            **{key: _text(environment.get(key)) for key in SETTINGS},
        }
        for host, environment in environments.items()
        if isinstance(environment, dict)
    }


def hashes(run_dir: Path, names: Any) -> dict[str, str]:
    """Return the sha256 of recordings of a run directory, by relative path.

    Args:
        run_dir: the directory.
        names: an object whose keys are the paths; what is no path of a recording, and what
            cannot be read, is left out.
    """
    found = {}
    for name in names if isinstance(names, dict) else ():
        if WAV.fullmatch(name):
            try:
                found[name] = hashlib.sha256(read_within(run_dir, name, WAV_BYTES)).hexdigest()
            except OSError:
                continue
    return found


def human_validity(run: Run, validated: bool, audio: Mapping[str, str]) -> dict[str, Any]:
    """Tell whether the scores of a run still stand.

    Args:
        run: the run, with a ratings.json that can be used.
        validated: what the listener said: one voice, or two.
        audio: the sha256 of the recordings as they are now, by relative path.

    Returns:
        The ``human`` of the verdict: its state (stale wins over contradicted) and why.
    """
    stale = [*_other_settings(run), *_other_audio(run, audio)]
    contradicted = _contradiction(run, validated)
    state = "stale" if stale else "contradicted" if contradicted else "stands"
    return {"state": state, "why": first([*stale, *contradicted, *_unknown(run)])}


def _other_settings(run: Run) -> Iterator[str]:
    before, now = run.get("ratings.json", "given_for"), given_for(run.environments)
    for host, old in before.items() if isinstance(before, dict) else ():
        if host not in now:
            continue  # the bench file is missing, and the verdict says so
        weights, present = _texts(pick(old, "weights_sha256")), now[host]["weights_sha256"]
        for name in sorted({*weights, *present}) if weights and present else ():
            was, is_now = weights.get(name), present.get(name)
            if was != is_now:
                yield _changed(host, f"the weights {name}", was or "none", is_now or "none")
        for key, label in SETTINGS.items():
            was, is_now = _text(pick(old, key)), now[host][key]
            if was and is_now and was != is_now:
                yield _changed(host, f"the {label}", was, is_now)


def _changed(host: str, what: str, was: str, is_now: str) -> str:
    return f"{host}: {what} was {_short(was)} when the scores were given, and is {_short(is_now)}."


def _other_audio(run: Run, audio: Mapping[str, str]) -> Iterator[str]:
    heard = _texts(run.get("ratings.json", "audio"))
    gone = [name for name in heard if name not in audio]
    other = [name for name in heard if name in audio and audio[name] != heard[name]]
    if gone:
        yield f"{listing(first(gone))}: heard, and no longer in the directory."
    if other:
        one = other[0]
        yield (
            f"{listing(first(other))}: not what was heard (sha256 of {one}: "
            f"{_short(heard[one])} then, {_short(audio[one])} now)."
        )


def _contradiction(run: Run, validated: bool) -> list[str]:
    result = run.get("identity.json", "result")
    if result not in ("passed", "diverged") or (result == "passed") == validated:
        return []
    heard = "the same voice" if validated else "two voices"
    said = "that they diverge" if result == "diverged" else "that they are one"
    reasons = strings(run.get("identity.json", "reasons"))
    return [
        f"The listener heard {heard}, and the similarity check says {said} (identity.json).",
        *reasons,
    ]


def _unknown(run: Run) -> Iterator[str]:
    if "identity.json" in run.faults:
        yield f"{run.unusable('identity.json', run.again)}."
    if not run.get("ratings.json", "given_for"):
        yield "The scores do not say what they were given for, so nobody can tell if they are old."


def _short(text: str) -> str:
    """Return a sha256 with its first digits, and anything else as it is."""
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> dict[str, str]:
    """Return what in an object is text."""
    pairs = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in pairs if isinstance(text, str)}
