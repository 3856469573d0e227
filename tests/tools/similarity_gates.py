"""How good is the similarity check? A table, measured with espeak-ng's voices.

    apt-get install espeak-ng
    PYTHONPATH=src .venv/bin/python tests/tools/similarity_gates.py

With Resemblyzer as well, run it with the Python of a voice host's environment. espeak speaks
a sentence the same way every time, so a take is made by jitter, as a sampler would: of each
utterance's pitch (σ 0.3 semitones and 2 %), speed (σ 3 %) and level (σ 0.5 dB).
The two figures to look at: changed voices must be refused, and fresh takes of the same voice
must pass nearly always (1 - alpha).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from formula_voice import changed, higher, low_passed, stretched
from scipy import signal

from understudy.audio import pcm
from understudy.similarity import calibration, compare, measures

VOICE = "en-us+m3"
IMPOSTORS = ("en-us+m7", "en-us+f2", "en-gb+m1", "en-us+klatt")
TEXTS = Path(__file__).parents[2] / "files" / "utterances.yml"


def speak(text: str, voice: str, path: Path, chance: np.random.Generator) -> None:
    """Write one take of a text at 24 kHz: espeak with its pitch, speed and level jittered."""
    pitch = 40 * 2 ** (0.3 * chance.standard_normal() / 12) * (1 + 0.02 * chance.standard_normal())
    speed = 165 * (1 + 0.03 * chance.standard_normal())
    spoken = path.with_suffix(".espeak.wav")
    subprocess.run(
        [
            "espeak-ng",
            "-v",
            voice,
            "-p",
            str(round(pitch)),
            "-s",
            str(round(speed)),
            "-w",
            str(spoken),
            text,
        ],
        check=True,
    )
    samples, rate = pcm.read_wav(spoken)
    spoken.unlink()
    # espeak's own steps are whole numbers: the rest of the pitch is a change of the rate.
    shift = 2 ** (0.3 * chance.standard_normal() / 12)
    samples = resample(samples, 24_000 / rate / shift)
    level = 0.5 * 10 ** (0.5 * chance.standard_normal() / 20)
    noise = 10 ** (-66 / 20) * chance.standard_normal(len(samples))
    pcm.write_wav(path, level * samples + noise)


def resample(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Return samples stretched to `ratio` of their number."""
    up = round(1000 * ratio)
    return signal.resample_poly(np.asarray(samples, dtype=float), up, 1000)


CHANGES = {
    "itself, re-encoded as 16 bit": lambda x: x,
    "1 semitone higher": higher,
    "8 % slower": lambda x: stretched(x, 1.08),
    "low-passed at 3 kHz": low_passed,
    "2 dB louder": lambda x: x * 10 ** (2 / 20),
}


def take(place: Path, voice: str, texts: list[dict], chance: np.random.Generator) -> Path:
    """Speak every text once."""
    place.mkdir(parents=True)
    for row in texts:
        speak(row["text"], voice, place / f"{row['id']}.wav", chance)
    return place


def main() -> None:
    """Make the recordings, calibrate, compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--takes", type=int, default=8, help="of the calibration")
    parser.add_argument("--fresh", type=int, default=40, help="takes that it never heard")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resemblyzer", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chance = np.random.default_rng(given.seed)
    texts = yaml.safe_load(TEXTS.read_text())
    names = ["resemblyzer"] if given.resemblyzer else []
    result: dict = {"table": []}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        for k in range(given.takes):
            take(home / "takes" / f"{k:02d}", VOICE, texts, chance)
        others = []
        for name in IMPOSTORS:
            for k in range(2):
                take(home / name / f"{k:02d}", name, texts, chance)
            others.append({"name": name, "kind": "impostor", "dir": str(home / name)})
        swapped = take(home / "swapped", "en-us+m5", texts, chance)
        base = {"host": "titan", "embedders": names}
        began = time.monotonic()
        known = calibration.run(base | {"takes_dir": str(home / "takes"), "others": others})
        print(f"calibrated in {time.monotonic() - began:.0f} s: {known['method']}")
        print("\n".join(known["notes"]))
        for key, row in known["measures"].items():
            print(
                f"  {key:32} gate {row['gate']:8.3f} {row['unit']:12} AUC {row['auc']:.2f} "
                f"refuses {100 * row['refused']:3.0f} %"
            )
        file = home / "calibration-titan.json"
        file.write_text(json.dumps(known))
        # The primary is one more take of the same voice; the standby is it, changed, or another.
        primary = take(home / "primary", VOICE, texts, chance)
        cases = {
            name: changed(home / "changed" / str(k), primary, change)
            for k, (name, change) in enumerate(CHANGES.items())
        }
        cases |= {"another take of the voice": take(home / "again", VOICE, texts, chance)}
        cases |= {"another speaker": swapped}
        print(f"\n{'standby':32} {'result':10} past  s    worst")
        for name, place in cases.items():
            began = time.monotonic()
            found = compare.compare(
                base
                | {
                    "run_id": "20261122-000000Z",
                    "primary": "panda",
                    "standby_wavs": str(place),
                    "primary_wavs": str(primary),
                    "calibration": str(file),
                }
            )
            spent = time.monotonic() - began
            past = [row["name"] for row in found["measures"] if row["ok"] is False]
            print(
                f"{name:32} {found['result']:10} {len(past):3} {spent:5.1f}  {found['reasons'][0]}"
            )
            result["table"].append({"case": name, "result": found["result"], "past": past})
        places = [
            take(home / "fresh" / f"{k:03d}", VOICE, texts, chance) for k in range(given.fresh)
        ]
        meter = measures.VoiceMeter(None, names)
        side, _ = meter.side([[place / f"{row['id']}.wav" for row in texts] for place in places])
        print(
            "\nfresh takes of the same voice pass (mean of 40 calibrations; 1 in 10 below, above):"
        )
        for takes in (4, 6, 8, 12):
            shares = passing(side, takes, 40, chance)
            print(
                f"  {takes:2} takes  "
                + "  ".join(
                    f"{band} {mean:.3f} ({low:.3f}, {high:.3f})"
                    for band, (mean, low, high) in shares.items()
                )
            )
            result.setdefault("fresh", {})[takes] = shares
    if given.json:
        given.json.write_text(json.dumps(result, indent=2))


def passing(side: dict, takes: int, calibrations: int, chance: np.random.Generator) -> dict:
    """Return how often runs of the same voice pass, over many calibrations.

    Each calibration hears `takes` takes of every utterance; the runs that it then judges are
    drawn from those it did not hear.

    Args:
        side: many takes of the voice.
        takes: for one calibration.
        calibrations: how many.
        chance: draws them.
    """
    count, n = side["full.loudness"].shape
    rows = np.arange(count)[:, None]
    shares: dict[str, list[float]] = {}
    for seed in range(calibrations):
        order = np.array([chance.permutation(n) for _ in range(count)])
        heard = {key: value[rows, order[:, :takes]] for key, value in side.items()}
        fresh = {key: value[rows, order[:, takes:]] for key, value in side.items()}
        known = calibration.gates(heard, [], {}, runs=4000, seed=seed)["measures"]
        first = chance.integers(0, n - takes, (1000, count))
        second = (first + chance.integers(1, n - takes, first.shape)) % (n - takes)
        values = measures.statistics(known, fresh, fresh, first, second, {})
        past = {
            key: np.abs(values[key]) > row["gate"] if row["signed"] else values[key] > row["gate"]
            for key, row in known.items()
        }
        for band in ("full", "telephone", ""):
            hits = [hit for key, hit in past.items() if key.startswith(band)]
            shares.setdefault(band or "both", []).append(1 - float(np.any(hits, axis=0).mean()))
    return {band: [np.mean(each), *np.quantile(each, (0.1, 0.9))] for band, each in shares.items()}


if __name__ == "__main__":
    main()
