"""A loaded Chatterbox model that speaks with one voice at a time."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from understudy.audio.spoken_length import longest_plausible_s
from understudy.common import process
from understudy.common.files import WAV_BYTES, read_bytes
from understudy.model import conditionals_cache, small
from understudy.model.fastload import loading
from understudy.model.types import TOKENS_PER_S, UPSTREAM_TOKEN_CAP, Stopped, Synthesis, Tuning

#: What the libraries find in the environment, unless it is set: no network, no progress bars,
#: and on a CPU a small cache of oneDNN's compiled operations. It keeps 1024 of them, one for every
#: operation and length of audio that ever occurred, which is a gigabyte after 30 texts.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}

#: Conditionals kept, one entry per voice file; each is about a megabyte.
KEPT_REFERENCES = 8


_loads: list[float] = []


def _process_start() -> float | None:
    """Return when this process began, in Unix seconds, for its first model; None for others.

    What a process does before it can load a model, importing included, is part of loading it.
    """
    _loads.append(time.time())
    return process.started_at(os.getpid()) if len(_loads) == 1 else None


def _conditions(device: str, stft_patch: bool) -> dict[str, Any]:
    """Return what the last bits of a computation depend on."""
    import torch

    if device.startswith("cuda"):
        return {"device": torch.cuda.get_device_name(device), "stft_patch": stft_patch}
    return {"device": device, "threads": torch.get_num_threads()}


class Voice:
    """One model on one device. Not thread-safe: upstream keeps the voice in shared state."""

    def __init__(self, model: Any, device: str, token_cap: int, info: dict[str, Any]) -> None:
        self.info = info
        self.rate: int = model.sr
        self._model = model
        self._device = device
        self._cap = self._text_cap = token_cap
        self._kept: dict[str, Any] = {}
        self._files: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._sampled: tuple[int, bool] = (0, False)
        self._should_stop: Callable[[], bool] | None = None
        self._weights_dir: Path | None = None
        self._trust_prepared = False
        self._conditions: dict[str, Any] = {}
        self._watch_sampling()

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, trust_prepared: bool = True) -> Voice:
        """Load as the config of a job or of the server says; see `load`.

        Args:
            config: weights_dir, device, stft_patch, token_cap, threads; fast_load may be missing.
            trust_prepared: see `load`.
        """
        return cls.load(
            Path(config["weights_dir"]).expanduser(),
            config["device"],
            stft_patch=config["stft_patch"],
            token_cap=config["token_cap"],
            threads=config["threads"],
            trust_prepared=trust_prepared,
            fast_load=config.get("fast_load", True),
        )

    @classmethod
    def load(
        cls,
        weights_dir: Path,
        device: str,
        *,
        stft_patch: bool = False,
        token_cap: int | None = None,
        threads: int | None = None,
        trust_prepared: bool = True,
        fast_load: bool = True,
    ) -> Voice:
        """Import upstream and load the weights, offline.

        Args:
            weights_dir: what ``ChatterboxTTS.from_local`` wants.
            device: a torch device.
            stft_patch: apply `understudy.model.blackwell.apply_patch` first.
            token_cap: stop any utterance after so many speech tokens; None is upstream's 1000.
            threads: CPU threads of torch; None leaves torch's own choice.
            trust_prepared: take a voice that was prepared earlier from disk; False where the
                preparing is what is tested or measured.
            fast_load: with the shortcuts of `understudy.model.fastload`; False loads as
                upstream does.

        Raises:
            FileNotFoundError, RuntimeError: from upstream, on missing or broken weights.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        began = _process_start() or time.time()
        with loading.Loading(weights_dir, device, fast=fast_load) as load:
            import torch

            if threads:
                torch.set_num_threads(threads)
            if stft_patch:
                from understudy.model.blackwell import apply_patch

                apply_patch()
            load.import_upstream()
            imported = time.time()
            architecture = small.read_marker(weights_dir)
            if architecture:
                small.shrink(architecture)
            model = load.model()
        cap = min(token_cap or UPSTREAM_TOKEN_CAP, UPSTREAM_TOKEN_CAP)
        info = {
            "model": "chatterbox-tts",
            "device": device,
            "dtype": str(next(model.t3.parameters()).dtype).removeprefix("torch."),
            "token_cap": cap,
            "rehearsal": architecture is not None,
            "import_s": imported - began,
            "model_s": time.time() - imported,
            "busy": [{"what": "model_load", "start": began, "end": time.time()}],
        }
        voice = cls(model, device, cap, info)
        voice._weights_dir, voice._trust_prepared = weights_dir, trust_prepared
        voice._conditions = _conditions(device, stft_patch)
        return voice

    @property
    def has_default(self) -> bool:
        """Whether the weights came with a default voice (``conds.pt``)."""
        return self._model.conds is not None

    def use_reference(self, path: Path, exaggeration: float) -> str:
        """Speak with the voice of a recording from now on.

        The conditionals are prepared once per content of a file and kept. A file is read
        again only when its size, its times or its inode have changed.

        Args:
            path: WAV file of the reference voice.
            exaggeration: upstream's emotion setting, 0 to 1.

        Returns:
            The SHA-256 of the file.

        Raises:
            OSError: the file cannot be read or is no regular file, or changed while it was read.
        """
        seen = _signature(path)
        known, digest = self._files.get(path, ((), ""))
        if known != seen:
            content = read_bytes(path, WAV_BYTES, links=True)
            digest = hashlib.sha256(content).hexdigest()
        place = None
        if digest in self._kept:
            conditionals = self._kept.pop(digest)
        else:
            place = self._prepare(path, content, digest, exaggeration)
            conditionals = self._model.conds
        if known != seen and _signature(path) != seen:
            raise OSError(f"{path} changed while it was read")
        if place:
            conditionals_cache.save(place, conditionals)
        self._files[path] = seen, digest
        self._keep(digest, conditionals)
        return digest

    def reuse_reference(self, path: Path) -> bool:
        """Speak as a file sounded when it was last read; False if it never was, or long ago."""
        digest = self._files.get(path, ((), ""))[1]
        if digest not in self._kept:
            return False
        self._keep(digest, self._kept.pop(digest))
        return True

    def _keep(self, digest: str, conditionals: Any) -> None:
        """Speak with these conditionals, and forget the ones not used for longest."""
        self._kept[digest] = self._model.conds = conditionals
        while len(self._kept) > KEPT_REFERENCES:
            self._kept.pop(next(iter(self._kept)))
        self._files = {path: file for path, file in self._files.items() if file[1] in self._kept}

    def _prepare(self, path: Path, content: bytes, digest: str, exaggeration: float) -> Path | None:
        """Have upstream prepare a voice, or take it from disk where that was done before.

        Upstream is given a copy: what lies at the path may be another file by then, or a pipe.

        Returns:
            Where it is to be saved, if it was prepared now.
        """
        kept = None
        if self._weights_dir:
            facts = {"exaggeration": exaggeration, **self._conditions}
            kept = conditionals_cache.place(path, digest, self._weights_dir, **facts)
        found = (
            conditionals_cache.load(kept, self._device) if kept and self._trust_prepared else None
        )
        if found:
            self._model.conds = found
            return None
        try:
            with _copy(content) as copy:
                self._model.prepare_conditionals(copy, exaggeration=exaggeration)
        except Exception:
            self._synchronise()  # as in `speak`
            raise
        return kept

    def speak(
        self, text: str, *, seed: int, tuning: Tuning, should_stop: Callable[[], bool] | None = None
    ) -> Synthesis:
        """Synthesise one utterance with the current voice.

        It is cut off once it is longer than the text can plausibly take, or at the token cap.

        The same text, seed, voice, weights and device give the same speech tokens, and audio
        that is bit-identical on a CPU and differs by float rounding on a GPU.

        Args:
            text: at most about 2,000 characters; upstream adds and changes punctuation.
            seed: of torch's generators.
            tuning: sampler settings; all are passed, since upstream's defaults differ.
            should_stop: asked before every speech token and before the vocoder.

        Raises:
            Stopped: ``should_stop`` returned True.
        """
        import torch

        torch.manual_seed(seed)
        self._synchronise()
        began = time.perf_counter()
        self._should_stop = should_stop
        self._text_cap = min(self._cap, max_tokens(text))
        try:
            wav = self._model.generate(text, **asdict(tuning))
        except Exception:
            self._synchronise()  # raises what the context did not survive, whatever came first
            raise
        finally:
            self._should_stop = None
        self._synchronise()
        wall = time.perf_counter() - began
        tokens, ended = self._sampled
        return Synthesis(wav.squeeze(0).numpy(), self.rate, wall, tokens, not ended)

    def save_default(self, path: Path) -> None:
        """Write the current voice in upstream's ``conds.pt`` format."""
        self._model.conds.save(path)

    def _synchronise(self) -> None:
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._device)

    def _watch_sampling(self) -> None:
        """Bound the sampler and note how it ended; upstream hard-codes 1000 and tells nobody."""
        sampler, stop = self._model.t3.inference, self._model.t3.hp.stop_speech_token

        def inference(**kwargs: Any) -> Any:
            transformer = self._model.t3.tfmr
            # Called once per token: the only place inside upstream's loop.
            watch = self._should_stop and transformer.register_forward_pre_hook(self._stop)
            try:
                tokens = sampler(**(kwargs | {"max_new_tokens": self._text_cap}))
            finally:
                if watch:
                    watch.remove()
            self._stop()
            self._sampled = (tokens.shape[1], int(tokens[0, -1]) == stop)
            return tokens

        self._model.t3.inference = inference

    def _stop(self, *_: Any) -> None:
        """Raise `Stopped` if the utterance is not wanted any more."""
        if self._should_stop and self._should_stop():
            raise Stopped


@contextmanager
def _copy(content: bytes) -> Iterator[str]:
    """Yield the path of a file in memory; every time it is opened it is read from its start."""
    handle = os.memfd_create("reference", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def max_tokens(text: str) -> int:
    """Return the speech tokens after which audio is longer than a text can plausibly take.

    Two more than fit, the end token being one, so that the speech check finds it too long.
    """
    return int(TOKENS_PER_S * longest_plausible_s(text)) + 2


def _signature(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does, without reading it."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
