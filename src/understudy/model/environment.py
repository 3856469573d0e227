"""What a voice depends on besides its weights: versions, precision, and this host's own STFT.

Reads and changes nothing. Needs Python and, for most of it, torch, but nothing of understudy,
so that it can be asked of a host on which nothing is to be installed:

    ssh panda /path/to/venv/bin/python - cuda < src/understudy/model/environment.py
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib import metadata
from typing import Any

PACKAGES = (
    "chatterbox-tts",
    "torch",
    "torchaudio",
    "transformers",
    "diffusers",
    "numpy",
    "librosa",
    "s3tokenizer",
    "resemble-perth",
    "safetensors",
)

SETTINGS = (("400/160", 16_000), ("1920/480", 24_000), ("16/4", 24_000))
"""n_fft/hop of the model's three transforms, and the rate of what they are given."""

BLOCKS = 16
"""Parts of the frequency axis whose mean magnitude is told."""


def collect(device: str | None = None) -> dict[str, Any]:
    """Return the facts of this host, as JSON can hold them.

    Args:
        device: a torch device; None for a GPU where there is one.

    Returns:
        ``versions``, ``device``, ``dtype``, ``cuda``, ``cudnn``, ``gpu``,
        ``compute_capability``, ``tf32_matmul``, ``tf32_cudnn``, ``guard_patched`` and ``stft``;
        null for what is not known, with ``note`` where that has a reason.
    """
    facts: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in PACKAGES},
        **dict.fromkeys(("device", "dtype", "cuda", "cudnn", "gpu", "compute_capability")),
        **dict.fromkeys(("tf32_matmul", "tf32_cudnn", "guard_patched", "stft", "note")),
    }
    try:
        import torch
    except ImportError as error:
        return facts | {"note": f"torch: {error}"}
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    facts |= {
        "device": device,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "cuda": torch.version.cuda,
        "guard_patched": bool(getattr(torch.abs, "understudy_patched", False)),
    }
    try:
        if device.startswith("cuda"):
            high, low = torch.cuda.get_device_capability(device)
            facts |= {
                "cudnn": str(torch.backends.cudnn.version()),
                "gpu": torch.cuda.get_device_name(device),
                "compute_capability": f"{high}.{low}",
                "tf32_matmul": bool(torch.backends.cuda.matmul.allow_tf32),
                "tf32_cudnn": bool(torch.backends.cudnn.allow_tf32),
            }
        facts["stft"] = {name: _stft(name, rate, device) for name, rate in SETTINGS}
    except (RuntimeError, AssertionError) as error:
        facts["note"] = f"{device}: {str(error).strip().splitlines()[0]}"
    return facts


def _stft(name: str, rate: int, device: str) -> dict[str, Any]:
    """Return a digest and figures of the magnitudes of one transform of the fixed input.

    Magnitudes are taken without ``abs`` of a complex tensor, which is what a GPU unknown to
    NVRTC cannot do: the transform is compared, not the hazard.
    """
    import torch

    n_fft, hop = map(int, name.split("/"))
    samples = _input(rate)
    window = torch.hann_window(n_fft).to(device)
    stft = torch.stft(samples.to(device), n_fft, hop, window=window, return_complex=True)
    magnitude = torch.view_as_real(stft).square().sum(dim=-1).sqrt().float().cpu()
    rows = magnitude.double().mean(dim=-1)
    blocks = [float(part.mean()) for part in rows.tensor_split(min(BLOCKS, len(rows)))]
    return {
        "input_sha256": hashlib.sha256(samples.numpy().tobytes()).hexdigest(),
        "sha256": hashlib.sha256(magnitude.numpy().tobytes()).hexdigest(),
        "rms": float(magnitude.double().square().mean().sqrt()),
        "max": float(magnitude.max()),
        "blocks": blocks,
    }


def _input(rate: int) -> Any:
    """Return one second made from a formula: a chirp over the whole band, and a voice's harmonics.

    x(t) = 0.4 sin(2π (50 t + 0.2 rate t²)) + Σ_{k=1..20} 0.3/k sin(2π 120 k t)
    """
    import torch

    t = torch.arange(rate, dtype=torch.float64) / rate
    samples = 0.4 * torch.sin(2 * torch.pi * (50 * t + 0.2 * rate * t**2))
    for k in range(1, 21):
        samples += 0.3 / k * torch.sin(2 * torch.pi * 120 * k * t)
    return samples.float()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    print(json.dumps(collect(*sys.argv[1:2])))
