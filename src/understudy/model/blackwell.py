"""Detect and work around an NVRTC that lacks this GPU's architecture.

PyTorch compiles a few kernels of complex numbers with NVRTC when they are first
used; ``abs`` is one. An NVRTC older than the GPU refuses:
``nvrtc: error: invalid value for --gpu-architecture (-arch)`` (12.8 does so for
sm_121; 12.9 and 13.0 do not). Chatterbox takes ``abs`` of a complex tensor on the
GPU twice while it prepares a voice: in the speech tokenizer's log-mel spectrogram
and in the Kaldi filter bank under the speaker embedding. The FFT is innocent.

The patch computes ``sqrt(re^2 + im^2)`` instead, for complex CUDA tensors only.

Everything here runs in a fresh process with a cold kernel cache: PyTorch keeps
compiled kernels on disk, and a warm cache hides the fault.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from understudy.common.errors import brief, describe

#: Largest relative error of the patched magnitude: a few float32 roundings (eps = 1.2e-7).
TOLERANCE = 1e-6

#: How long a probe may take, in seconds (a cold import of torch on a slow disk included).
PROBE_TIMEOUT_S = 300


class GuardError(RuntimeError):
    """The guard could not be carried out at all (not: it found the hazard)."""


def apply_patch() -> None:
    """Compute magnitudes of complex CUDA tensors without a run-time compiled kernel.

    Replaces ``torch.abs``, ``torch.absolute`` and the same methods of ``Tensor`` for
    this process; everything but complex CUDA tensors goes to the original. Idempotent.
    """
    import torch

    if getattr(torch.abs, "understudy_patched", False):
        return
    original = torch.abs

    def magnitude(input: Any, *, out: Any = None) -> Any:
        if out is None and input.is_cuda and input.is_complex():
            parts = torch.view_as_real(input.resolve_conj())
            return torch.sqrt(parts.square().sum(dim=-1))
        return original(input) if out is None else original(input, out=out)

    magnitude.understudy_patched = True  # type: ignore[attr-defined]
    torch.abs = torch.absolute = magnitude
    for name in ("abs", "absolute", "__abs__"):
        setattr(torch.Tensor, name, magnitude)


def probe(device: str, *, patched: bool) -> dict[str, Any]:
    """Take the operations of the hazard on the device, in this process.

    Args:
        device: a torch device, ``cuda`` or ``cpu``.
        patched: apply the patch first.

    Returns:
        ``device_name``, ``compute_capability``, ``nvrtc``, the contract's ``probe`` object,
        and ``verify`` when patched (see ``docs/run-directory.md``).
    """
    import torch

    if patched:
        apply_patch()
    cuda = device.startswith("cuda")
    capability = torch.cuda.get_device_capability(device) if cuda else None
    facts: dict[str, Any] = {
        "device_name": torch.cuda.get_device_name(device) if cuda else "cpu",
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        "nvrtc": _nvrtc_version() if cuda else None,
    }
    texts = {name: _attempt(operation) for name, operation in _operations(device)}
    failed = [text for text in texts.values() if text is not None]
    facts["probe"] = {
        "ok": not failed,
        "cold_cache": os.environ.get("USE_PYTORCH_KERNEL_CACHE") == "0",
        "ops": [
            {"name": name, "ok": text is None, "error": text and brief(text)}
            for name, text in texts.items()
        ],
        "error": failed[0] if failed else None,
    }
    if patched:
        facts["verify"] = _verify(device) if not failed else None
    return facts


def _operations(device: str) -> list[tuple[str, Callable[[], Any]]]:
    """The two places in Chatterbox, and the bare operation under them."""
    import torch

    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(1, 16_000, generator=generator).to(device)  # one second at 16 kHz

    def bare() -> Any:
        return torch.view_as_complex(samples.view(-1, 2)).abs().sum().item()

    def log_mel() -> Any:
        window = torch.hann_window(400, device=device)
        stft = torch.stft(samples, 400, 160, window=window, return_complex=True)
        return (stft[..., :-1].abs() ** 2).sum().item()

    def filter_bank() -> Any:
        from torchaudio.compliance import kaldi

        return kaldi.fbank(samples, num_mel_bins=80, sample_frequency=16_000).sum().item()

    return [
        ("complex abs", bare),
        ("log-mel of the speech tokenizer", log_mel),
        ("Kaldi filter bank of the speaker embedding", filter_bank),
    ]


def _attempt(operation: Callable[[], Any]) -> str | None:
    """Return the exact text of what an operation raised, or None."""
    try:
        operation()
    except Exception as error:  # whatever it is, it is the evidence
        return describe(error)
    return None


def _verify(device: str) -> dict[str, Any]:
    """Compare the patched magnitude with the unpatched one in float64 on the CPU."""
    import torch

    generator = torch.Generator().manual_seed(2)
    samples = torch.randn(48_000, generator=generator)
    errors: list[float] = []
    for n_fft, hop in ((400, 160), (1920, 480), (16, 4)):
        window = torch.hann_window(n_fft)
        stft = torch.stft(samples, n_fft, hop, window=window, return_complex=True)
        expected = torch.view_as_real(stft).double()
        expected = torch.hypot(expected[..., 0], expected[..., 1])
        got = stft.to(device).abs().cpu().double()
        errors.append(((got - expected).abs() / expected.clamp(min=1e-6)).max().item())
    # max() drops NaN, and JSON has none.
    worst = max(errors) if all(map(math.isfinite, errors)) else None
    return {
        "ok": worst is not None and worst <= TOLERANCE,
        "max_relative_error": worst,
        "tolerance": TOLERANCE,
        "detail": "patched magnitudes of three STFTs against float64 on the CPU",
    }


def _nvrtc_version() -> str | None:
    import ctypes

    import torch

    major = str(torch.version.cuda).split(".", maxsplit=1)[0]
    try:
        nvrtc = ctypes.CDLL(f"libnvrtc.so.{major}")
        high, low = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(high), ctypes.byref(low))
    except (OSError, AttributeError):
        return None
    return f"{high.value}.{low.value}"


def examine(config: dict[str, Any]) -> dict[str, Any]:
    """Probe in a fresh process, decide, and prove the patch before it is relied on.

    Args:
        config: ``device`` and ``stft_patch`` (``auto``, ``force`` or ``off``).

    Returns:
        The contract's ``guard`` object, and ``error`` (None or its text): with the hazard
        present and no working patch the error is the exact text that PyTorch gave.

    Raises:
        GuardError: the probe died without an answer; its last output is in the message.
    """
    device, requested = config["device"], config["stft_patch"]
    first = _fresh(device, patched=False)
    if "OutOfMemoryError" in (first["probe"]["error"] or ""):
        # Says nothing about the compiler, so it must not be taken for the hazard.
        raise GuardError(f"no memory for the probe on {device}: {brief(first['probe']['error'])}")
    result: dict[str, Any] = {
        "requested": requested,
        "device": device,
        "device_name": first["device_name"],
        "compute_capability": first["compute_capability"],
        "nvrtc": first["nvrtc"],
        "decision": "not_needed",
        "patched": False,
        "probe": first["probe"],
        "patched_probe": None,
        "verify": None,
        "error": None,
    }
    if not device.startswith("cuda"):
        result["decision"] = "not_applicable"
        return result
    if first["probe"]["ok"] and requested != "force":
        return result
    if requested == "off":
        result.update(decision="unpatched", error=brief(first["probe"]["error"]))
        return result
    second = _fresh(device, patched=True)
    result.update(patched_probe=second["probe"], verify=second["verify"])
    if not second["probe"]["ok"]:
        result.update(decision="failed", error=brief(second["probe"]["error"]))
    elif not second["verify"]["ok"]:
        worst = second["verify"]["max_relative_error"]
        seen = "not finite" if worst is None else f"{worst:.2g}"
        result.update(
            decision="failed",
            error=f"the patched magnitude is wrong: relative error {seen}, allowed {TOLERANCE:.2g}",
        )
    else:
        result.update(decision="patched", patched=True)
    return result


def _fresh(device: str, *, patched: bool) -> dict[str, Any]:
    """Run `probe` in a process of its own with an empty kernel cache."""
    with tempfile.TemporaryDirectory(prefix="understudy-kernels-") as cache:
        environment = os.environ | {
            "USE_PYTORCH_KERNEL_CACHE": "0",
            "PYTORCH_KERNEL_CACHE_PATH": cache,
        }
        arguments = ["--device", device, *(["--patched"] if patched else [])]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "understudy", "guard-probe", *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=PROBE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            message = f"the probe on {device} gave no answer in {PROBE_TIMEOUT_S} s"
            raise GuardError(message) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
        if not isinstance(answer, dict):
            raise ValueError(answer)
    except ValueError:
        tail = (done.stderr or done.stdout).strip()[-2000:]
        raise GuardError(
            f"the probe on {device} died with status {done.returncode}: {tail}"
        ) from None
    return answer
