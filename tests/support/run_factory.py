"""A complete, successful run directory to break in tests.

`documents` makes the files as objects, `write` puts them and their WAVs on disk;
`change` sets or removes one value deep inside a document.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
import math
import struct
import wave
from pathlib import Path
from typing import Any

RUN_ID = "20261122-031500Z"
STANDBY, PRIMARY = "titan", "panda"
IDS = [f"u{index:02}" for index in range(1, 11)]
BEGIN = 1795317300.0  # 2026-11-22T03:15:00Z
REMOVED = object()

Documents = dict[str, dict[str, Any]]


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def wav(frequency: float) -> bytes:
    """A tenth of a second of a tone: 24 kHz, mono, 16 bit."""
    samples = [int(8000 * math.sin(2 * math.pi * frequency * i / 24000)) for i in range(2400)]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(24000)
        writer.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return buffer.getvalue()


@functools.cache
def waves() -> dict[str, bytes]:
    """Every WAV of the run by its relative path."""
    return {
        f"{directory}/{name}.wav": wav(base + 10 * index)
        for directory, base in ((f"{STANDBY}_native", 200), (f"{PRIMARY}_baseline", 400))
        for index, name in enumerate(IDS)
    }


def summary(mean: float, n: int = 10) -> dict[str, Any]:
    return {
        "n": n,
        "min": mean - 0.1,
        "mean": mean,
        "p50": mean,
        "p95": mean + 0.1,
        "max": mean + 0.1,
        "cv": 0.05,
    }


def latency(p50: float) -> dict[str, Any]:
    return {
        "n": 20,
        "warmup": 5,
        "failures": 0,
        "min_ms": p50 - 9,
        "mean_ms": p50 + 1,
        "p50_ms": p50,
        "p95_ms": p50 + 20,
        "max_ms": p50 + 30,
        "cv": 0.1,
        "samples_ms": [p50] * 20,
    }


def audio() -> dict[str, Any]:
    return {
        "sample_rate_hz": 24000,
        "channels": 1,
        "duration_s": 0.1,
        "peak_dbfs": -12.2,
        "rms_dbfs": -15.3,
        "loudness_lufs": None,
        "loudness_note": "shorter than the 0.4 s that a loudness needs",
        "clipped_samples": 0,
        "silence_ratio": 0.0,
        "leading_silence_s": 0.0,
        "trailing_silence_s": 0.0,
        "finite": True,
        "problems": [],
    }


def header(phase: str, host: str | None) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "run_id": RUN_ID,
        "phase": phase,
        "host": host,
        "status": "ok",
        "started_at": "2026-11-22T03:15:00Z",
        "finished_at": "2026-11-22T03:20:00Z",
        "error": None,
    }


def error(kind: str, host: str = STANDBY, seen: str = "it broke") -> dict[str, Any]:
    return {
        "kind": kind,
        "host": host,
        "trying": f"the {kind} step",
        "seen": seen,
        "next": f"ssh {host} true",
    }


def spoken(path: str, index: int, wav_bytes: bytes) -> dict[str, Any]:
    return {
        "id": IDS[index],
        "text_sha256": sha256(f"Sentence {IDS[index]}."),
        "ok": True,
        "wall_s": 0.05,
        "audio_s": 0.1,
        "rtf": 0.5,
        "retries": [],
        "wav": path,
        "wav_sha256": sha256(wav_bytes),
        "audio": audio(),
        "error": None,
    }


def documents(files: dict[str, bytes] | None = None) -> Documents:
    """The documents of the run by file name, without ratings and verdict."""
    files = files or waves()
    tuning = {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}
    aggregate = {
        "ok_count": 10,
        "rtf": summary(0.5),
        "wall_s": summary(1.5),
        "audio_s": summary(3.0),
    }
    probe = {
        "ok": True,
        "cold_cache": True,
        "ops": [{"name": "abs", "ok": True, "error": None}],
        "error": None,
    }
    bench_rows, baseline_rows = [], []
    for index in range(10):
        path = f"{STANDBY}_native/{IDS[index]}.wav"
        more = {"seed": 1001 + index, "tokens": 75, "hit_cap": False}
        bench_rows.append({**spoken(path, index, files[path]), **more})
        path = f"{PRIMARY}_baseline/{IDS[index]}.wav"
        baseline_rows.append(
            {**spoken(path, index, files[path]), "ttfb_s": 0.04, "http_status": 200}
        )
    host = {
        "reachable": True,
        "arch": "aarch64",
        "os": "Ubuntu 24.04",
        "kernel": "6.11.0",
        "python": "3.12.3",
        "cpus": 20,
        "mem_total_bytes": 128_000_000_000,
        "mem_available_bytes": 60_000_000_000,
        "disk_path": "/home/me",
        "disk_free_bytes": 900_000_000_000,
        "driver": "580.95.05",
        "cuda": "13.0",
        "gpus": [
            {
                "name": "NVIDIA GB10",
                "compute_capability": "12.1",
                "memory_total_bytes": None,
                "memory_note": "Not Supported",
            }
        ],
        "gpu_note": None,
    }
    return {
        "run.json": {
            "schema_version": 1,
            "run_id": RUN_ID,
            "started_at": "2026-11-22T03:15:00Z",
            "finished_at": "2026-11-22T03:25:00Z",
            "command": "bench.yml",
            "gemma_mode": "pause",
            "stft_patch": "auto",
            "git_commit": "0123abc-dirty",
            "inventory": ["inventory/hosts.yml"],
            "controller": {"ansible": "2.19.14", "python": "3.12.3", "host": "desk"},
            "rehearsal": False,
            "notes": [],
            "hosts": {"standby": [STANDBY], "primary": [PRIMARY], "llm": [STANDBY]},
            "tuning": tuning,
            "limits": {"drift": 1.2},
            "voice": {
                "name": "samantha.wav",
                "sha256": sha256("voice"),
                "sample_rate_hz": 24000,
                "channels": 1,
                "duration_s": 34.7,
            },
            "utterances": [
                {
                    "id": name,
                    "text": f"Sentence {name}.",
                    "text_sha256": sha256(f"Sentence {name}."),
                    "seed": 1001 + index,
                }
                for index, name in enumerate(IDS)
            ],
        },
        "preflight.json": {
            **header("preflight", None),
            "checks": [
                {
                    "id": "disk",
                    "host": STANDBY,
                    "ok": True,
                    "value": 900,
                    "threshold": 12,
                    "unit": "GB",
                    "detail": "free under /home/me",
                    "next": None,
                }
            ],
            "hosts": {STANDBY: host, PRIMARY: copy.deepcopy({**host, "arch": "x86_64"})},
            "llm": {
                STANDBY: {
                    "url": "http://titan:8003",
                    "healthy": True,
                    "state": "running",
                    "model": "gemma",
                    "latency": latency(190),
                }
            },
            "primary": {
                PRIMARY: {
                    "url": "http://panda:8772",
                    "healthy": True,
                    "health": {"status": "ok"},
                    "spoke": True,
                    "wall_s": 0.9,
                    "audio": audio(),
                }
            },
        },
        "llm.json": {
            **header("llm_window", None),
            "hosts": {
                STANDBY: {
                    "mode": "pause",
                    "found_state": "running",
                    "resume_command": "docker start vllm-gemma4",
                    "model": "gemma",
                    "lease": {"id": "0123abcd", "holder": "me@control", "ttl_s": 1800.0},
                    "before": latency(190),
                    "during": None,
                    "after": latency(195),
                    "drift": 1.026,
                    "during_ratio": None,
                    "paused_at": "2026-11-22T03:16:00Z",
                    "restored_at": "2026-11-22T03:19:00Z",
                    "back_after_s": 140.0,
                    "closed": True,
                    "timeline": [{"at": "2026-11-22T03:16:00Z", "event": "paused", "detail": None}],
                }
            },
            "busy": [{"what": "llm_probe", "start": BEGIN, "end": BEGIN + 10}],
        },
        f"install-{STANDBY}.json": {
            **header("chatterbox", STANDBY),
            "budget_s": 3600,
            "spent_s": 240.0,
            "venv": {
                "path": "/home/me/.local/share/understudy/venvs/abc",
                "base": "venv",
                "lock": "titan.txt",
                "lock_sha256": sha256("lock"),
                "torch_requirement": "torch==2.11.0",
                "python": "3.12.3",
                "created": True,
                "installed_at": "2026-11-22T03:16:00Z",
                "install_s": 200.0,
                "packages": [
                    {
                        "name": name,
                        "version": version,
                        "kind": "wheel",
                        "file": f"{name}-{version}.whl",
                    }
                    for name, version in (
                        ("chatterbox-tts", "0.1.7"),
                        ("torch", "2.11.0"),
                        ("resemble-perth", "1.0.1"),
                    )
                ],
                "built_from_source": [],
                "pins": [
                    {
                        "name": "torch",
                        "declared": "2.6.0",
                        "installed": "2.11.0",
                        "overridden": True,
                    }
                ],
            },
            "import_ok": True,
            "watermarker": {
                "required": True,
                "name": "resemble-perth",
                "version": "1.0.1",
                "ok": True,
            },
            "weights": {
                "dir": "/home/me/weights",
                "source": "hub",
                "offline": True,
                "random": False,
                "files": [
                    {
                        "name": "ve.safetensors",
                        "bytes": 5_000_000,
                        "sha256": sha256("ve"),
                        "ok": True,
                        "detail": None,
                    }
                ],
            },
            "guard": {
                "requested": "auto",
                "device": "cuda",
                "device_name": "NVIDIA GB10",
                "compute_capability": "12.1",
                "nvrtc": "13.0",
                "decision": "not_needed",
                "patched": False,
                "probe": probe,
                "patched_probe": None,
                "verify": None,
            },
            "smoke": {
                "ok": True,
                "voice": "default",
                "text": "One sentence.",
                "wall_s": 2.0,
                "audio": audio(),
            },
            "busy": [
                {"what": "install", "start": BEGIN + 10, "end": BEGIN + 210},
                {"what": "model_load", "start": BEGIN + 220, "end": BEGIN + 240},
            ],
        },
        f"bench-{STANDBY}.json": {
            **header("tts_bench", STANDBY),
            "device": "cuda",
            "dtype": "float32",
            "tuning": tuning,
            "token_cap": 1000,
            "load": {"import_s": 9.0, "model_s": 8.6, "voice_s": 1.0},
            "warmup": [
                {**copy.deepcopy(row), "wav": None, "wav_sha256": None} for row in bench_rows
            ],
            "utterances": bench_rows,
            "aggregate": copy.deepcopy(aggregate),
            "memory": {
                "torch_peak_allocated_bytes": 3_720_000_000,
                "torch_peak_reserved_bytes": 4_000_000_000,
                "torch_note": None,
                "process_driver_bytes": None,
                "process_driver_note": "Not Supported",
                "mem_available_start_bytes": 60_000_000_000,
                "mem_available_low_bytes": 50_000_000_000,
                "process_peak_rss_bytes": 5_000_000_000,
            },
            "environment": {
                "versions": {"torch": "2.11.0"},
                "cuda": "13.0",
                "cudnn": "9.12",
                "driver": "580.95.05",
                "gpu": "NVIDIA GB10",
                "compute_capability": "12.1",
                "clocks": None,
                "throttling": None,
                "nvml_note": "Not Supported",
                "lock_sha256": sha256("lock"),
                "weights": {"ve.safetensors": sha256("ve")},
                "voice_sha256": sha256("voice"),
                "guard_patched": False,
                "git_commit": "0123abc",
                "rehearsal": False,
            },
            "busy": [{"what": "synthesis", "start": BEGIN + 240, "end": BEGIN + 400}],
        },
        f"baseline-{PRIMARY}.json": {
            **header("tts_baseline", PRIMARY),
            "url": "http://panda:8772",
            "health": {"status": "ok"},
            "reference_audio": "samantha.wav",
            "during_bench": True,
            "utterances": baseline_rows,
            "aggregate": copy.deepcopy(aggregate),
            "busy": [{"what": "synthesis", "start": BEGIN + 300, "end": BEGIN + 350}],
        },
    }


def ratings(standby: list[int] | int = 5, primary: list[int] | int = 5) -> dict[str, Any]:
    """A ratings.json of schema version 1, a sheet; a single score stands for ten of it."""
    own = [standby] * 10 if isinstance(standby, int) else standby
    other = [primary] * 10 if isinstance(primary, int) else primary
    return {
        "schema_version": 1,
        "run_id": RUN_ID,
        "source": {"name": "ab.csv", "sha256": sha256("ab")},
        "given_before_audio": False,
        "identity_matches": True,
        "scores": [
            {"utterance": name, STANDBY: own[index], PRIMARY: other[index]}
            for index, name in enumerate(IDS)
        ],
    }


def listened(
    standby: list[int], primary: list[int], **listener: list[dict[str, Any]]
) -> dict[str, Any]:
    """A ratings.json of schema version 2 from a page, ten scores of each host for every pass.

    The hidden checks are those of a good listener, but for what is given by name.
    """
    first = {"pass": 1, "utterance": "u01"}
    environment = documents()[f"bench-{STANDBY}.json"]["environment"]
    return {
        "schema_version": 2,
        "run_id": RUN_ID,
        "source": {"kind": "page", "name": "session.json", "sha256": sha256("session")},
        "given_before_audio": False,
        "identity_matches": True,
        "given_for": {
            STANDBY: {
                "weights_sha256": environment["weights"],
                "voice_sha256": environment["voice_sha256"],
                "lock_sha256": environment["lock_sha256"],
                "driver": environment["driver"],
            }
        },
        "audio": {name: sha256(content) for name, content in waves().items()},
        "scores": [
            {
                "utterance": IDS[index % 10],
                "pass": index // 10 + 1,
                STANDBY: standby[index],
                PRIMARY: primary[index],
            }
            for index in range(len(standby))
        ],
        "listener": {
            "started_at": "2026-11-22T03:30:00Z",
            "finished_at": "2026-11-22T03:40:00Z",
            "repeats": [{**first, "host": STANDBY, "first": 4, "second": 4}],
            "same_host": [{**first, "host": PRIMARY, "a": 5, "b": 5}],
            "impostor": [{**first, "score": 1}],
            "telephone": [{**first, "noticed": False}],
            **listener,
        },
    }


def identity(result: str, *reasons: str) -> dict[str, Any]:
    """An identity.json, as far as the verdict reads it."""
    said = {"result": result, "reasons": list(reasons), "calibration": None}
    return {**header("compare", None), **said}


def change(document: Any, path: str, value: Any) -> None:
    """Set what lies at a dotted path (``utterances.2.ok``), or remove it with `REMOVED`."""
    *steps, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in steps:
        document = document[key]
    if value is REMOVED:
        del document[last]
    else:
        document[last] = value


def write(parent: Path, changed: Documents | None = None) -> Path:
    """Write a run directory under ``parent`` and return it."""
    files = waves()
    run_dir = parent / RUN_ID
    run_dir.mkdir()
    for name, content in files.items():
        (run_dir / name).parent.mkdir(exist_ok=True)
        (run_dir / name).write_bytes(content)
    for name, document in (changed or documents(files)).items():
        put(run_dir, name, document)
    return run_dir


def put(run_dir: Path, name: str, document: Any) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (run_dir / name).write_text(text, encoding="utf-8")
