"""The Blackwell guard's decisions, its probe's death, and the patch without a GPU."""

from __future__ import annotations

import copy
import json
import math
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from understudy.common.errors import LONG, brief, describe
from understudy.model import blackwell

HAZARD = "RuntimeError: nvrtc: error: invalid value for --gpu-architecture (-arch)"
OTHER = "RuntimeError: CUDA error: out of memory"


def answer(error: str | None = None, verify: dict[str, Any] | None = None) -> dict[str, Any]:
    ops = [{"name": "complex abs", "ok": error is None, "error": error}]
    return {
        "device_name": "NVIDIA GB10",
        "compute_capability": "12.1",
        "nvrtc": "12.8",
        "probe": {"ok": error is None, "cold_cache": True, "ops": ops, "error": error},
        "verify": verify,
    }


def verified(error: float | None) -> dict[str, Any]:
    ok = error is not None and error <= blackwell.TOLERANCE
    return {"ok": ok, "max_relative_error": error, "tolerance": blackwell.TOLERANCE, "detail": ""}


GOOD = answer(verify=verified(1e-7))


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> dict[bool, Any]:
    """What fresh processes answer, unpatched (False) and patched (True); `asked` counts."""
    answers: dict[bool, Any] = {False: answer(), True: GOOD}
    asked: list[tuple[str, bool]] = []

    def fresh(device: str, *, patched: bool) -> dict[str, Any]:
        asked.append((device, patched))
        if isinstance(answers[patched], Exception):
            raise answers[patched]
        return copy.deepcopy(answers[patched])

    monkeypatch.setattr(blackwell, "_fresh", fresh)
    answers["asked"] = asked  # type: ignore[index]
    return answers


def examine(requested: str, device: str = "cuda") -> dict[str, Any]:
    return blackwell.examine({"device": device, "stft_patch": requested})


@pytest.mark.parametrize("requested", ["auto", "off"])
def test_a_healthy_gpu_is_left_alone(probes: dict[Any, Any], requested: str) -> None:
    found = examine(requested)
    assert (found["decision"], found["patched"], found["error"]) == ("not_needed", False, None)
    assert found["probe"]["ok"] is True
    assert (found["patched_probe"], found["verify"]) == (None, None)
    assert probes["asked"] == [("cuda", False)]
    assert (found["requested"], found["nvrtc"]) == (requested, "12.8")


def test_the_hazard_is_patched_and_the_patch_verified(probes: dict[Any, Any]) -> None:
    probes[False] = answer(HAZARD)
    found = examine("auto")
    assert (found["decision"], found["patched"], found["error"]) == ("patched", True, None)
    assert found["probe"]["error"] == HAZARD
    assert found["patched_probe"]["ok"] is True
    assert found["verify"]["ok"] is True
    assert probes["asked"] == [("cuda", False), ("cuda", True)]


def test_force_patches_a_healthy_gpu(probes: dict[Any, Any]) -> None:
    found = examine("force")
    assert (found["decision"], found["patched"], found["error"]) == ("patched", True, None)
    assert found["probe"]["ok"] is True
    assert found["verify"] == verified(1e-7)


def test_off_leaves_the_hazard_and_says_so(probes: dict[Any, Any]) -> None:
    probes[False] = answer(HAZARD)
    found = examine("off")
    assert (found["decision"], found["patched"], found["error"]) == ("unpatched", False, HAZARD)
    assert found["patched_probe"] is None
    assert probes["asked"] == [("cuda", False)]


@pytest.mark.parametrize("first", [answer(), answer(HAZARD)], ids=["healthy", "hazard"])
@pytest.mark.parametrize(
    ("second", "error"),
    [
        (answer(OTHER), OTHER),
        (
            answer(verify=verified(2e-3)),
            "the patched magnitude is wrong: relative error 0.002, allowed 1e-06",
        ),
        (
            answer(verify=verified(None)),
            "the patched magnitude is wrong: relative error not finite, allowed 1e-06",
        ),
    ],
    ids=["still fails", "wrong", "not finite"],
)
def test_a_patch_that_does_not_work_is_not_relied_on(
    probes: dict[Any, Any], first: dict[str, Any], second: dict[str, Any], error: str
) -> None:
    probes[False], probes[True] = first, second
    for requested in ("auto", "force") if not first["probe"]["ok"] else ("force",):
        found = examine(requested)
        assert (found["decision"], found["patched"]) == ("failed", False)
        assert found["error"] == error
        assert found["probe"] == first["probe"]
        assert found["patched_probe"] == second["probe"]


@pytest.mark.parametrize("requested", ["auto", "force", "off"])
def test_a_cpu_has_no_such_compiler(probes: dict[Any, Any], requested: str) -> None:
    found = examine(requested, device="cpu")
    assert (found["decision"], found["patched"]) == ("not_applicable", False)
    assert probes["asked"] == [("cpu", False)]


def test_46_kb_of_kernel_are_kept_whole_and_told_short(probes: dict[Any, Any]) -> None:
    long = "RuntimeError: default_program(1): " + "template <typename T>\n" * 2000 + HAZARD
    probes[False] = answer(long)
    found = examine("off")
    assert found["probe"]["error"] == long
    assert found["error"] == f"RuntimeError: … {HAZARD}"


def test_a_probe_that_dies_ends_the_examination(probes: dict[Any, Any]) -> None:
    probes[False], probes[True] = answer(HAZARD), blackwell.GuardError("died")
    with pytest.raises(blackwell.GuardError, match="died"):
        examine("auto")


# The fresh process


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the interpreter of the fresh process by a shell script."""

    def replace(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return replace


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("echo 'Segmentation fault' >&2; exit 139", "died with status 139: Segmentation fault"),
        ("kill -9 $$", "died with status -9"),
        ("exit 0", "died with status 0"),
        ("echo 'loading libraries'", "died with status 0: loading libraries"),
        ("echo null", "died with status 0: null"),
        ('echo \'{"device_name": "GB\'; exit 1', "died with status 1: {"),
    ],
)
def test_a_probe_that_dies_or_is_silent(python: Any, script: str, seen: str) -> None:
    python(script)
    with pytest.raises(blackwell.GuardError) as raised:
        blackwell._fresh("cuda:0", patched=False)
    assert str(raised.value).startswith("the probe on cuda:0 ")
    assert seen in str(raised.value)


def test_the_end_of_a_long_last_word_is_told(python: Any) -> None:
    python("yes 'a line of a traceback' | head -c 50000 >&2; echo 'the reason' >&2; exit 1")
    with pytest.raises(blackwell.GuardError) as raised:
        blackwell._fresh("cuda", patched=False)
    assert str(raised.value).endswith("the reason")
    assert len(str(raised.value)) < 2200


def test_a_probe_that_hangs(python: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackwell, "PROBE_TIMEOUT_S", 0.2)
    python("exec sleep 30")
    with pytest.raises(blackwell.GuardError, match=r"on cuda gave no answer in 0\.2 s"):
        blackwell._fresh("cuda", patched=False)


@pytest.mark.parametrize("patched", [False, True])
def test_the_process_is_fresh_and_its_kernel_cache_cold(python: Any, patched: bool) -> None:
    python(
        "echo 'a library says hello'\n"
        'files=$(ls -A "$PYTORCH_KERNEL_CACHE_PATH" | wc -l)\n'
        'printf \'{"args": "%s", "use": "%s", "cache": "%s", "files": %d}\\n\' '
        '"$*" "$USE_PYTORCH_KERNEL_CACHE" "$PYTORCH_KERNEL_CACHE_PATH" "$files"'
    )
    found = blackwell._fresh("cuda", patched=patched)
    flag = " --patched" if patched else ""
    assert found["args"] == f"-m understudy guard-probe --device cuda{flag}"
    assert (found["use"], found["files"]) == ("0", 0)
    assert not Path(found["cache"]).exists()


def test_a_torch_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n")
    package = Path(blackwell.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{package}")
    with pytest.raises(
        blackwell.GuardError, match=r"status 1: (.|\n)*libcudart\.so\.13: cannot open"
    ):
        blackwell._fresh("cuda", patched=False)


# The patch, on a torch made of numpy


class Tensor(np.ndarray):
    is_cuda = True

    def is_complex(self) -> bool:
        return np.iscomplexobj(self)

    def resolve_conj(self) -> Tensor:
        return self

    def square(self) -> Tensor:
        return self**2

    def sum(self, *, dim: int) -> Tensor:
        return np.ndarray.sum(self, axis=dim)

    def double(self) -> Tensor:
        return self.astype(np.float64)

    def to(self, device: str) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def clamp(self, *, min: float) -> Tensor:
        return np.maximum(self, min)


def tensor(values: Any) -> Tensor:
    return np.asarray(values).view(Tensor)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A torch whose `abs` of complex numbers fails as on a GPU that NVRTC does not know."""
    module: Any = ModuleType("torch")

    class OwnTensor(Tensor):
        pass

    def original(input: Any, *, out: Any = None) -> Any:
        if np.iscomplexobj(input) and getattr(input, "is_cuda", False):
            raise RuntimeError(HAZARD)
        module.original_calls += 1
        result = np.abs(np.asarray(input)).view(type(input))
        if out is not None:
            out[...] = result
        return result

    def stft(samples: Any, n_fft: int, hop: int, *, window: Any, return_complex: bool) -> Any:
        frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop][:200] * window
        return np.fft.rfft(frames).view(OwnTensor)

    class Generator:
        def manual_seed(self, seed: int) -> np.random.Generator:
            return np.random.default_rng(seed)

    module.original_calls = 0
    module.Tensor = OwnTensor
    module.abs = module.absolute = original
    for name in ("abs", "absolute", "__abs__"):
        setattr(OwnTensor, name, original)
    module.view_as_real = lambda t: np.stack([t.real, t.imag], axis=-1).view(OwnTensor)
    module.sqrt, module.hypot, module.stft, module.Generator = np.sqrt, np.hypot, stft, Generator
    module.randn = lambda n, generator: generator.normal(size=n)
    module.hann_window = np.hanning
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def values(torch: Any) -> Any:
    return np.array([3 + 4j, -5 + 12j, 0j]).view(torch.Tensor)


def test_the_patch_goes_round_the_compiler(torch: Any) -> None:
    with pytest.raises(RuntimeError, match="nvrtc"):
        torch.abs(values(torch))
    blackwell.apply_patch()
    for magnitude in (
        torch.abs(values(torch)),
        torch.absolute(values(torch)),
        values(torch).abs(),
        values(torch).absolute(),
        abs(values(torch)),
    ):
        assert list(magnitude) == [5.0, 13.0, 0.0]
    assert torch.original_calls == 0


def test_everything_else_goes_to_the_original(torch: Any) -> None:
    blackwell.apply_patch()
    real = np.array([-1.5, 2.0]).view(torch.Tensor)
    assert list(torch.abs(real)) == [1.5, 2.0]
    out = np.zeros(2).view(torch.Tensor)
    torch.abs(real, out=out)
    assert list(out) == [1.5, 2.0]
    on_cpu = values(torch)
    on_cpu.is_cuda = False
    assert list(torch.abs(on_cpu)) == [5.0, 13.0, 0.0]
    assert torch.original_calls == 3


def test_patching_twice_is_patching_once(torch: Any) -> None:
    blackwell.apply_patch()
    patched = torch.abs
    blackwell.apply_patch()
    assert torch.abs is patched


def test_the_right_magnitude_is_verified(torch: Any) -> None:
    blackwell.apply_patch()
    found = blackwell._verify("cuda")
    assert found["ok"] is True
    assert 0 <= found["max_relative_error"] <= blackwell.TOLERANCE == found["tolerance"]


@pytest.mark.parametrize(
    ("fault", "worst"),
    [
        (lambda t: t * 1.001, pytest.approx(1e-3, rel=0.1)),
        (lambda t: t * math.nan, None),
        (lambda t: t * math.inf, None),
    ],
)
def test_a_wrong_magnitude_is_not(torch: Any, fault: Any, worst: Any) -> None:
    torch.Tensor.abs = lambda t: fault(np.abs(np.asarray(t))).view(torch.Tensor)
    with np.errstate(invalid="ignore"):
        found = blackwell._verify("cuda")
    assert found["ok"] is False
    assert found["max_relative_error"] == worst
    json.dumps(found, allow_nan=False)


def test_the_exact_text_of_what_failed() -> None:
    def operation() -> None:
        raise RuntimeError("nvrtc: error: …")

    assert blackwell._attempt(operation) == "RuntimeError: nvrtc: error: …"
    assert blackwell._attempt(lambda: 1) is None


# Errors


def test_short_errors_are_told_as_they_are() -> None:
    assert describe(ValueError("a\nb")) == "ValueError: a\nb"
    assert brief("ValueError: a\nb\n\0") == "ValueError: a\nb"
    assert brief("x" * LONG) == "x" * LONG


def test_long_errors_keep_their_kind_and_their_last_line() -> None:
    assert brief("RuntimeError: " + "line\n" * 9000 + "the reason\0\n") == (
        "RuntimeError: … the reason"
    )


@pytest.mark.parametrize("text", ["x" * 50_000, "Kind: " + "x" * 50_000, "a b " * 9000 + ": c"])
def test_no_error_stays_long(text: str) -> None:
    assert len(brief(text)) <= LONG + 200
    assert brief(text).endswith(text.strip()[-100:])
