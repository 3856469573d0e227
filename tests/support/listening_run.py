"""Run directories that can be listened to, and a listener for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import run_factory
from loopback import speechlike

from understudy.audio import pcm
from understudy.listening.session import Session

RATE = 24_000


def voiced(hz: float, seconds: float, level: float = 0.2, seed: int = 1) -> np.ndarray:
    """A vowel of so many Hz with some breath in it; float32 [N]."""
    n = round(seconds * RATE)
    t = np.arange(n) / RATE
    buzz = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 16))
    breath = np.random.default_rng(seed).normal(0, 0.05, n)
    swell = 0.3 + 0.7 * np.sin(np.pi * np.arange(n) / n) ** 2
    signal = (buzz + breath) * swell
    return (level * signal / np.abs(signal).max()).astype(np.float32)


def recorded(hz: float, seconds: float, lead_s: float, tail_s: float, level: float) -> np.ndarray:
    """The same with silence around it."""
    lead, tail = (np.zeros(round(s * RATE), dtype=np.float32) for s in (lead_s, tail_s))
    return np.concatenate((lead, voiced(hz, seconds, level), tail))


def make(parent: Path, seconds: float = 0.5) -> tuple[Path, Path]:
    """A run whose hosts differ in all that a blind listener is not to notice; its reference."""
    waves = {}
    for n, name in enumerate(run_factory.IDS):
        for directory, sound in (
            ("titan_native", recorded(120, seconds + 0.02 * n, 0.02, 0.1, 0.1)),
            ("panda_baseline", recorded(125, seconds + 0.03 * (9 - n), 0.15, 0.4, 0.6)),
        ):
            waves[f"{directory}/{name}.wav"] = pcm.to_wav(sound, RATE)
    reference = parent / "voice.wav"
    pcm.write_wav(reference, speechlike(max(3.0, 2 * seconds)), RATE)
    documents = run_factory.documents(waves)
    voice = run_factory.sha256(reference.read_bytes())
    documents["run.json"]["voice"]["sha256"] = voice
    run_dir = run_factory.write(parent, documents)
    for name, content in waves.items():
        (run_dir / name).write_bytes(content)
    return run_dir, reference


def answer(one: Session, scores: dict[str, dict[str, int]], noticed: bool = False) -> None:
    """Hear and answer a whole pass; `scores` by pair and side, 4 where there is none."""
    for pair in one.plan["pairs"]:
        for side in ("r", "a", "b"):
            one.heard(pair["id"], side)
        for side in ("a", "b"):
            one.score(pair["id"], side, scores.get(pair["id"], {}).get(side, 4))
    for call in one.plan["calls"]:
        for side in ("a", "b"):
            one.heard(call["id"], side)
        one.notice(call["id"], noticed)
