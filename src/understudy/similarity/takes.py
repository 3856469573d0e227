"""More takes of the same utterances, for a calibration: other seeds, and other voices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.audio import pcm
from understudy.audio.attempt import RETRY_SEED_STEP, speak_checked
from understudy.common.progress import Progress
from understudy.model.types import Tuning
from understudy.model.voice import Voice

TAKE_SEED_STEP = 10_000_000
"""Distance between the seeds of two takes; keeps them apart from a bench and its retries."""


def make(config: Mapping[str, Any], progress: Progress) -> None:
    """Speak the utterances of a calibration, and add the impostors to its ``others``.

    Args:
        config: of `similarity.calibration.run`; ``takes_dir`` must not exist. ``synthesis`` has
            ``device``, ``stft_patch``, ``token_cap``, ``threads``, ``fast_load`` (true),
            ``utterances`` (id, text, seed), ``takes`` (of the voice itself), ``impostors``: WAVs
            to clone, and null for the model's own default voice, ``impostor_takes`` and
            ``impostors_dir``.
        progress: told of every take.

    Raises:
        ValueError: an utterance was not spoken, or there are takes already.
    """
    work, host = config["synthesis"], config["host"]
    tuning = Tuning(**config["tuning"])
    target = Path(config["takes_dir"]).expanduser()
    if target.exists():
        raise ValueError(f"{target} is there already; takes of two voices must not mix: remove it")
    given = work | {"weights_dir": config["weights_dir"]}
    voice = Voice.from_config(given, trust_prepared=False)

    def speak(name: str, directory: Path, count: int) -> None:
        for take in range(count):
            place = directory / f"{take:02d}"
            place.mkdir(parents=True)
            for row in work["utterances"]:
                samples, rate = _spoken(voice, row, take, tuning)
                pcm.write_wav(place / f"{row['id']}.wav", samples, rate)
            text = f"{host}  {name} take {take + 1}/{count}"
            progress.write(host=host, phase="takes", index=take + 1, n=count, text=text)

    # The default voice first: a reference takes its place.
    for wav in sorted(work["impostors"], key=lambda one: one is not None):
        if wav is not None:
            voice.use_reference(Path(wav).expanduser(), tuning.exaggeration)
        elif not voice.has_default:
            continue
        name = Path(wav).stem if wav else "default"
        place = Path(work["impostors_dir"]).expanduser() / name
        speak(name, place, int(work["impostor_takes"]))
        config["others"].append({"name": name, "kind": "impostor", "dir": str(place)})
    voice.use_reference(Path(config["voice"]).expanduser(), tuning.exaggeration)
    speak("its own", target, int(work["takes"]))


def _spoken(
    voice: Voice, row: Mapping[str, Any], take: int, tuning: Tuning
) -> tuple[pcm.Samples, int]:
    """Return one utterance that is plausible speech, as a bench would accept it.

    Raises:
        ValueError: no attempt was.
    """
    first = row["seed"] + (take + 1) * TAKE_SEED_STEP
    attempt = speak_checked(
        lambda index: voice.speak(row["text"], seed=first + index * RETRY_SEED_STEP, tuning=tuning),
        row["text"],
        cut_off=lambda speech: speech.cut_off,
        rehearsal=lambda _: voice.info["rehearsal"] is True,
    )
    assert attempt.speech is not None
    if attempt.problems:
        seen = attempt.cut_off or "; ".join(attempt.problems)
        raise ValueError(f"{row['id']}, take {take + 1}: {seen}, {attempt.index + 1} times")
    return attempt.speech.samples, attempt.speech.rate
