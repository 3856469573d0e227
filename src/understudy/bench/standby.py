"""The in-process benchmark on a standby: warm-ups, then the same utterances timed."""

from __future__ import annotations

import hashlib
import platform
import tarfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from understudy.audio import pcm
from understudy.audio.attempt import MAX_RETRIES, RETRY_SEED_STEP, Attempt, speak_checked
from understudy.bench import memory
from understudy.common.errors import brief, describe
from understudy.common.files import WAV_BYTES, read_bytes
from understudy.common.jsonio import read_json, write_json
from understudy.common.progress import Progress
from understudy.common.stats import summary
from understudy.common.times import utc_now
from understudy.model.environment import PACKAGES
from understudy.model.types import Synthesis, Tuning
from understudy.model.voice import Voice
from understudy.model.weights import MANIFEST


def run(config: dict[str, Any], result_path: Path, progress: Progress) -> dict[str, Any]:
    """Benchmark one standby.

    The result file is written anew after every utterance, so a run that is killed
    leaves what it measured.

    Args:
        config: ``header`` (run_id, host), ``weights_dir``, ``voice``, ``device``, ``stft_patch``,
            ``token_cap``, ``threads``, ``fast_load`` (true), ``tuning``, ``utterances`` (id,
            text, text_sha256, seed),
            ``warmup`` (how many utterances are spoken untimed first), ``out_dir`` and ``wav_dir``,
            ``lock_sha256``, ``git_commit``.
        result_path: the contract's ``bench-<host>.json``.
        progress: told of every utterance.

    Returns:
        The result, as written.
    """
    out_dir, wav_dir = Path(config["out_dir"]).expanduser(), config["wav_dir"]
    (out_dir / wav_dir).mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "schema_version": 1,
        "run_id": config["run_id"],
        "phase": "tts_bench",
        "host": config["host"],
        "status": "running",
        "started_at": utc_now(),
        "finished_at": None,
        "error": None,
        "device": config["device"],
        "dtype": None,
        "tuning": config["tuning"],
        "token_cap": config["token_cap"],
        "load": None,
        "warmup": [],
        "utterances": [],
        "aggregate": None,
        "memory": None,
        "environment": None,
        "busy": [],
    }
    write_json(result_path, result)
    bench = _Bench(config, result, result_path, progress)
    try:
        with memory.LowWater() as low:
            bench.measure(out_dir)
        result["memory"] = _memory(config["device"], low)
        bench.trying = "noting what it was measured on and packing the samples"
        result["environment"] = _environment(config, low)
        done = result["aggregate"]["ok_count"]
        if done == len(config["utterances"]):
            result["status"] = "ok"
        else:
            first = next(u for u in result["utterances"] if not u["ok"])
            wanted = len(config["utterances"])
            result.update(
                status="failed",
                error=_error(
                    config,
                    f"speaking {wanted} utterances",
                    f"{done} of {wanted} are usable; {first['id']}: {first['error']}",
                ),
            )
    except Exception as error:  # the run must end with what is known
        seen = brief(describe(error))
        result.update(status="failed", error=_error(config, bench.trying, seen))
    tar_samples(out_dir, wav_dir, config["host"])
    result["finished_at"] = utc_now()
    write_json(result_path, result)
    return result


class _Bench:
    """The steps of one benchmark, and what is being tried at the moment."""

    def __init__(
        self, config: dict[str, Any], result: dict[str, Any], path: Path, progress: Progress
    ) -> None:
        self.trying = "loading the model"
        self._config, self._result, self._path, self._progress = config, result, path, progress
        self._tuning = Tuning(**config["tuning"])

    def measure(self, out_dir: Path) -> None:
        config, result = self._config, self._result
        self._say("load", 0, 0, "loading the model")
        voice = Voice.from_config(config, trust_prepared=False)
        began = time.time()
        self.trying = "preparing the reference voice"
        voice.use_reference(Path(config["voice"]).expanduser(), self._tuning.exaggeration)
        info = voice.info
        result["load"] = {
            "import_s": info["import_s"],
            "model_s": info["model_s"],
            "voice_s": time.time() - began,
        }
        result["busy"] += [
            *info["busy"],
            {"what": "model_load", "start": began, "end": time.time()},
        ]
        result["dtype"], result["token_cap"] = info["dtype"], info["token_cap"]
        utterances = config["utterances"]
        self._say("speaking", 0, 0, "the voice is ready")
        for index in range(config["warmup"]):
            utterance = utterances[index % len(utterances)]
            self.trying = f"warming up with {utterance['id']}"
            row = self._speak(voice, utterance, None)
            result["warmup"].append(row)
            self._say("warm-up", index + 1, config["warmup"], _figure(row))
        for index, utterance in enumerate(utterances):
            self.trying = f"speaking {utterance['id']}"
            row = self._speak(voice, utterance, out_dir)
            result["utterances"].append(row)
            self._aggregate()
            write_json(self._path, result)
            self._say("timed", index + 1, len(utterances), _figure(row))

    def _speak(
        self, voice: Voice, utterance: dict[str, Any], out_dir: Path | None
    ) -> dict[str, Any]:
        """Speak one utterance, again with another seed where the audio is unusable.

        Args:
            voice: the loaded voice.
            utterance: a row of the config.
            out_dir: receives the WAV; None for a warm-up, which is neither checked nor kept.
        """
        row: dict[str, Any] = {
            "id": utterance["id"],
            "text_sha256": utterance["text_sha256"],
            "seed": utterance["seed"],
            "ok": False,
            "wall_s": None,
            "audio_s": None,
            "rtf": None,
            "tokens": None,
            "hit_cap": None,
            "retries": [],
            "wav": None,
            "wav_sha256": None,
            "audio": None,
            "error": None,
        }
        began = time.time()

        def seed(index: int) -> int:
            return int(utterance["seed"]) + index * RETRY_SEED_STEP

        attempt = speak_checked(
            lambda index: voice.speak(utterance["text"], seed=seed(index), tuning=self._tuning),
            utterance["text"],
            retries=MAX_RETRIES if out_dir else 0,
            catch=(Exception,),  # recorded with the utterance, the others go on
            cut_off=lambda speech: speech.cut_off,
            rehearsal=lambda _: voice.info["rehearsal"] is True,
            on_retry=lambda failed: row["retries"].append(
                {"seed": seed(failed.index), "reason": _reason(failed)}
            ),
        )
        row.update(seed=seed(attempt.index), error=_reason(attempt))
        row["ok"] = row["error"] is None
        if speech := attempt.speech:
            seconds = speech.samples.size / speech.rate
            row.update(
                wall_s=speech.wall_s,
                audio_s=seconds,
                rtf=speech.wall_s / seconds if seconds else None,
                tokens=speech.tokens,
                hit_cap=speech.hit_cap,
                audio=attempt.audio,
            )
            if out_dir and seconds:
                self._keep(speech, out_dir, row)
        self._result["busy"].append({"what": "synthesis", "start": began, "end": time.time()})
        return row

    def _keep(self, speech: Synthesis, out_dir: Path, row: dict[str, Any]) -> None:
        row["wav"] = f"{self._config['wav_dir']}/{row['id']}.wav"
        pcm.write_wav(out_dir / row["wav"], speech.samples, speech.rate)
        row["wav_sha256"] = hashlib.sha256((out_dir / row["wav"]).read_bytes()).hexdigest()

    def _aggregate(self) -> None:
        good = [row for row in self._result["utterances"] if row["ok"]]
        self._result["aggregate"] = {
            "ok_count": len(good),
            **{name: summary([row[name] for row in good]) for name in ("rtf", "wall_s", "audio_s")},
        }

    def _say(self, phase: str, index: int, n: int, text: str) -> None:
        host = self._config["host"]
        count = f" {index}/{n}" if n else ""
        self._progress.write(
            host=host, phase=phase, index=index, n=n, text=f"{host}  {phase}{count}  {text}"
        )


def _reason(attempt: Attempt[Synthesis]) -> str | None:
    """Return why an attempt is unusable, or None."""
    if attempt.error:
        return brief(describe(attempt.error))
    return "; ".join(attempt.problems) or None


def _figure(row: dict[str, Any]) -> str:
    if row["rtf"] is None:
        return row["error"] or "no audio"
    again = f"  ({len(row['retries'])} retries)" if row["retries"] else ""
    return f"RTF {row['rtf']:.2f}{again}" + (
        f"  {row['error']}" if row["wav"] and row["error"] else ""
    )


def _error(config: dict[str, Any], trying: str, seen: str) -> dict[str, Any]:
    return {
        "kind": "bench",
        "host": config["host"],
        "trying": trying,
        "seen": seen,
        "next": f"on {config['host']}: understudy bench --config {config['out_dir']}/config.json",
    }


def tar_samples(out_dir: Path, wav_dir: str, host: str) -> Path:
    """Pack the WAVs into ``samples-<host>.tar``, so that they travel as one file."""
    path = out_dir / f"samples-{host}.tar"
    with tarfile.open(path, "w") as tar:
        for wav in sorted((out_dir / wav_dir).glob("*.wav")):
            tar.add(wav, arcname=f"{wav_dir}/{wav.name}")
    return path


def _memory(device: str, low: memory.LowWater) -> dict[str, Any]:
    allocated = reserved = None
    note = f"torch keeps no such count for {device}"
    if device.startswith("cuda"):
        import torch

        allocated = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
        note = ""
    return {
        "torch_peak_allocated_bytes": allocated,
        "torch_peak_reserved_bytes": reserved,
        "torch_note": note,
        "process_driver_bytes": low.driver_bytes,
        "process_driver_note": low.driver_note if low.driver_bytes is None else "",
        "mem_available_start_bytes": low.start_bytes,
        "mem_available_low_bytes": low.low_bytes,
        "process_peak_rss_bytes": memory.peak_rss_bytes(),
    }


def _environment(config: dict[str, Any], low: memory.LowWater) -> dict[str, Any]:
    import torch

    from understudy.model.small import read_marker

    cuda = config["device"].startswith("cuda")
    capability = torch.cuda.get_device_capability(config["device"]) if cuda else None
    weights_dir = Path(config["weights_dir"]).expanduser()
    manifest = weights_dir / MANIFEST
    voice = Path(config["voice"]).expanduser()
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if cuda else None,
        "gpu": torch.cuda.get_device_name(config["device"]) if cuda else None,
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        **low.gpu(),
        "lock_sha256": config["lock_sha256"],
        "weights": read_json(manifest) if manifest.is_file() else {},
        "voice_sha256": hashlib.sha256(read_bytes(voice, WAV_BYTES, links=True)).hexdigest(),
        "guard_patched": config["stft_patch"],
        "git_commit": config["git_commit"],
        "rehearsal": read_marker(weights_dir) is not None,
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions
