"""What the operator provides: the utterances and the voice reference."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from understudy.audio.speech_check import REFERENCE_LIMITS, check_reference

COUNT = 10

#: Upstream's tokenizer raises IndexError over 2048 tokens; a sentence on the phone is far shorter.
MAX_CHARACTERS = 500


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Read the utterances and look at the voice reference, and report every problem.

    Args:
        config: ``utterances`` and ``voice``, two paths on this machine.

    Returns:
        ``utterances`` and ``voice`` as in ``run.json``, and ``problems``, a list of
        ``{id, seen, next}``; `utterances` is empty when the file is refused.
    """
    utterances, wrong = read_utterances(Path(config["utterances"]).expanduser())
    voice_path = Path(config["voice"]).expanduser()
    facts, bad = check_reference(voice_path)
    problems = [
        {
            "id": "utterances",
            "seen": f"{config['utterances']}: {seen}",
            "next": "edit the file: ten entries "
            "{id: u01..u10, seed: whole number, text: a sentence}",
        }
        for seen in wrong
    ] + [
        {
            "id": "voice",
            "seen": seen if str(voice_path) in seen else f"{voice_path}: {seen}",
            "next": f"put {REFERENCE_LIMITS}, at {voice_path}, "
            "or name another one with -e run_voice=PATH",
        }
        for seen in bad
    ]
    voice = {
        "name": voice_path.name,
        "sha256": None,
        "sample_rate_hz": None,
        "channels": None,
        "duration_s": None,
    } | facts
    return {"utterances": [] if wrong else utterances, "voice": voice, "problems": problems}


def read_utterances(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the file of utterances.

    Returns:
        Rows ``{id, text, text_sha256, seed}``, and sentences that say what is wrong.
    """
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], ["no such file"]
    except (OSError, ValueError, yaml.YAMLError) as error:
        return [], [f"cannot be read: {' '.join(str(error).split())}"]
    if not isinstance(rows, list):
        return [], [f"a list of {COUNT} entries is expected, it is a {type(rows).__name__}"]
    problems = [] if len(rows) == COUNT else [f"{len(rows)} entries, {COUNT} are expected"]
    utterances: list[dict[str, Any]] = []
    seen: dict[tuple[str, Any], int] = {}
    for number, row in enumerate(rows, start=1):
        wrong = _wrong_row(row)
        if wrong:
            problems.append(f"entry {number}: {wrong}")
            continue
        expected = f"u{number:02}"
        if row["id"] != expected:
            problems.append(f"entry {number}: its id is {row['id']!r}, {expected!r} is expected")
        for key in ("text", "seed"):
            value = " ".join(row[key].lower().split()) if key == "text" else row[key]
            first = seen.setdefault((key, value), number)
            if first != number:
                problems.append(f"entry {number}: the same {key} as entry {first}")
        digest = hashlib.sha256(row["text"].encode()).hexdigest()
        utterances.append(
            {"id": row["id"], "text": row["text"], "text_sha256": digest, "seed": row["seed"]}
        )
    return utterances, problems


def _wrong_row(row: Any) -> str | None:
    if not isinstance(row, dict) or set(row) != {"id", "seed", "text"}:
        return "exactly id, seed and text are expected"
    if not isinstance(row["text"], str) or not any(c.isalpha() for c in row["text"]):
        return "its text is not a sentence"
    if len(row["text"]) > MAX_CHARACTERS:
        return f"{len(row['text'])} characters, at most {MAX_CHARACTERS} are spoken at once"
    if isinstance(row["seed"], bool) or not isinstance(row["seed"], int) or row["seed"] < 0:
        return f"its seed is {row['seed']!r}, a whole number from 0 is expected"
    return None
