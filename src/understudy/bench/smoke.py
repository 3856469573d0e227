"""One utterance, before anything is measured: does the installed model speak at all?"""

from __future__ import annotations

import contextlib
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from understudy.audio import pcm, speech_check
from understudy.common.errors import brief, describe
from understudy.model.types import Tuning
from understudy.model.voice import Voice

TEXT = "Hello, this is a short test of the voice."
SEED = 1
WATERMARKER = "resemble-perth"


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Speak with the default voice, then prepare the reference voice.

    The second step is part of it because the reference is where the Blackwell hazard bites.

    Args:
        config: ``weights_dir``, ``device``, ``stft_patch`` (bool), ``token_cap``, ``threads``,
            ``fast_load`` (true), ``tuning``, ``voice`` (path of the reference), ``out`` (WAV to
            write).

    Returns:
        ``import_ok``, ``watermarker`` and ``smoke`` of the contract, ``busy``, and ``error``
        (None, or ``type: text`` of what upstream raised).
    """
    result: dict[str, Any] = {
        "import_ok": False,
        "watermarker": None,
        "smoke": {"ok": False, "voice": None, "text": TEXT, "wall_s": None, "audio": None},
        "busy": [],
        "error": None,
    }
    smoke = result["smoke"]
    try:
        voice = Voice.from_config(config, trust_prepared=False)
        result["import_ok"] = True
        result["busy"] += voice.info["busy"]
        tuning, reference = Tuning(**config["tuning"]), Path(config["voice"]).expanduser()
        began = time.time()
        if voice.has_default:
            smoke["voice"] = "default"
        else:
            smoke["voice"] = "reference"
            voice.use_reference(reference, tuning.exaggeration)
        said = voice.speak(TEXT, seed=SEED, tuning=tuning)
        voice.use_reference(reference, tuning.exaggeration)
        result["busy"].append({"what": "synthesis", "start": began, "end": time.time()})
    except Exception as error:  # whatever upstream raises is the finding
        result["import_ok"] = result["import_ok"] or _imports()
        result["watermarker"] = _watermarker()
        result["error"] = brief(describe(error))
        return result
    result["watermarker"] = _watermarker()
    rehearsal = voice.info["rehearsal"] is True
    checked = speech_check.check(said.samples, said.rate, text=TEXT, rehearsal=rehearsal)
    pcm.write_wav(Path(config["out"]).expanduser(), said.samples, said.rate)
    smoke.update(ok=not checked["problems"], wall_s=said.wall_s, audio=checked)
    if checked["problems"]:
        result["error"] = "; ".join(checked["problems"])
    return result


def _imports() -> bool:
    with contextlib.suppress(Exception):
        from chatterbox.tts import ChatterboxTTS

        return ChatterboxTTS is not None
    return False


def _watermarker() -> dict[str, Any]:
    """Say whether upstream's hard dependency is there and can be built (not only imported)."""
    facts: dict[str, Any] = {"required": True, "name": WATERMARKER, "version": None, "ok": False}
    with contextlib.suppress(metadata.PackageNotFoundError):
        facts["version"] = metadata.version(WATERMARKER)
    with contextlib.suppress(Exception):
        import perth

        # Without pkg_resources the import succeeds and the class is None.
        facts["ok"] = perth.PerthImplicitWatermarker is not None
    return facts
