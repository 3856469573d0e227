"""Speaker embeddings: the model's own two, and one that does not condition it.

The model conditions itself on its voice encoder and on an x-vector (CAM++), so these two are
what it tries to imitate: a high similarity from them is the least that can be expected.
Resemblyzer had no part in it. Each is optional: what is not installed is missing, with a
reason. They run on the CPU, a second or so for twenty utterances.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.audio.resample import resample
from understudy.common.errors import brief, describe

NAMES = ("voice_encoder", "x_vector", "resemblyzer")
RATE = 16_000
"""Hz; what all three listen to."""

Embed = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]


class Embedders:
    """What of the three can be had here.

    Args:
        weights_dir: the model's; None for none.
        names: which of `NAMES` to load.
        fast_load: do not import the whole model for the model's own two.

    Attributes:
        names: those that were loaded.
        missing: why the others were not, by name.
        hashes: SHA-256 of the weights that are not the model's, by name.
    """

    def __init__(
        self, weights_dir: Path | None, names: tuple[str, ...] = NAMES, *, fast_load: bool = True
    ) -> None:
        self.missing: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self._embed: dict[str, Embed] = {}
        if names and importlib.util.find_spec("torch") is None:
            self.missing = dict.fromkeys(names, "torch is not installed here")
            return
        if names:
            import torch

            # Small models: more threads only wait for each other, for minutes beside other work.
            torch.set_num_threads(1)
        for name in names:
            try:
                if name == "resemblyzer":
                    self._embed[name] = self._resemblyzer()
                elif weights_dir is None:
                    raise LookupError("no weights_dir is given")
                elif name == "voice_encoder":
                    self._embed[name] = _voice_encoder(weights_dir, fast_load)
                else:
                    self._embed[name] = _x_vector(weights_dir, fast_load)
            except Exception as error:  # whatever is missing, the others can be had
                self.missing[name] = brief(describe(error))

    @property
    def names(self) -> tuple[str, ...]:
        """Those that were loaded, in the order of `NAMES`."""
        return tuple(self._embed)

    def __call__(self, samples: npt.NDArray[Any], rate: int) -> dict[str, npt.NDArray[Any] | None]:
        """Return the unit vector of each embedder; None where it heard nothing to embed.

        Args:
            samples: in [-1, 1], shape [N].
            rate: in Hz.
        """
        at_16k = np.ascontiguousarray(resample(samples, Fraction(RATE, rate)), dtype=np.float32)
        found: dict[str, npt.NDArray[Any] | None] = {}
        for name, embed in self._embed.items():
            vector = np.asarray(embed(at_16k), dtype=np.float64)
            length = float(np.linalg.norm(vector))
            usable = math.isfinite(length) and length > 0
            found[name] = vector / length if usable else None
        return found

    def _resemblyzer(self) -> Embed:
        """Load Resemblyzer, whose weights come inside its wheel."""
        import resemblyzer

        weights = Path(resemblyzer.__file__).with_name("pretrained.pt")
        self.hashes["resemblyzer"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        model = resemblyzer.VoiceEncoder("cpu", verbose=False)

        def embed(samples: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
            # Its voice activity detector may leave nothing of what is no speech.
            speech = resemblyzer.preprocess_wav(samples, RATE)
            if len(speech) < 0.4 * RATE:
                return np.full(1, math.nan)
            return np.asarray(model.embed_utterance(speech))

        return embed


def _upstream(fast_load: bool) -> contextlib.AbstractContextManager[Any]:
    """Return what keeps upstream's packages from importing the whole model, if that is wanted."""
    if not fast_load:
        return contextlib.nullcontext()
    from understudy.model.fastload.lazy_import import Later

    return Later(packages=("chatterbox", "chatterbox.models", "chatterbox.models.s3gen"))


def _voice_encoder(weights_dir: Path, fast_load: bool) -> Embed:
    """Load upstream's voice encoder, by which the model's text half knows the voice."""
    from safetensors.torch import load_file

    with _upstream(fast_load):
        from chatterbox.models.voice_encoder.voice_encoder import VoiceEncoder
    model = VoiceEncoder()
    model.load_state_dict(load_file(weights_dir / "ve.safetensors"))
    model.eval()
    return lambda samples: np.asarray(model.embeds_from_wavs([samples], sample_rate=RATE)[0])


def _x_vector(weights_dir: Path, fast_load: bool) -> Embed:
    """Load the x-vector extractor (CAM++), by which the model's vocoder half knows the voice."""
    import torch
    from safetensors import safe_open

    with _upstream(fast_load):
        from chatterbox.models.s3gen.xvector import CAMPPlus
    model = CAMPPlus(memory_efficient=False)
    prefix = "speaker_encoder."
    with safe_open(weights_dir / "s3gen.safetensors", framework="pt") as file:
        own = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - no mapping
        model.load_state_dict({key.removeprefix(prefix): file.get_tensor(key) for key in own})
    model.eval()

    def embed(samples: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(model.inference([torch.from_numpy(samples)])[0].numpy())

    return embed
