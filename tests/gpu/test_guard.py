"""The Blackwell guard, with this GPU's own NVRTC and with one that refuses the GPU."""

from __future__ import annotations

import wave

import numpy as np
import pytest
from conftest import DEVICE, TOKEN_CAP, TUNING

REFUSAL = "invalid value for --gpu-architecture"


@pytest.fixture
def examine(understudy):
    def run(requested, **environment):
        config = {"device": DEVICE, "stft_patch": requested}
        return understudy("guard", config=config, **environment)

    return run


@pytest.fixture
def smoke(stage, understudy, tmp_path):
    def run(*, patched, **environment):
        config = {
            "weights_dir": str(stage.weights),
            "device": DEVICE,
            "stft_patch": patched,
            "token_cap": TOKEN_CAP,
            "threads": None,
            "tuning": TUNING,
            "voice": str(stage.reference),
            "out": str(tmp_path / "smoke.wav"),
        }
        return understudy("smoke", config=config, **environment)

    return run


def test_auto_leaves_a_healthy_gpu_alone(examine, figures):
    found = examine("auto")
    figures["guard"] = {"nvrtc": found["nvrtc"], "healthy_auto": found["decision"]}
    assert found["decision"] == "not_needed"
    assert found["probe"]["ok"]
    assert found["probe"]["cold_cache"]
    assert not found["patched"]
    assert found["error"] is None


def test_force_patches_a_healthy_gpu_and_verifies(examine, figures):
    found = examine("force")
    assert found["decision"] == "patched", found["error"]
    assert found["patched_probe"]["ok"]
    assert found["verify"]["ok"]
    figures["verify_healthy"] = found["verify"]["max_relative_error"]
    assert 0 < found["verify"]["max_relative_error"] <= found["verify"]["tolerance"]


def test_auto_finds_the_hazard_patches_and_verifies(examine, refusing, figures):
    found = examine("auto", **refusing)
    assert not found["probe"]["ok"]
    assert found["probe"]["cold_cache"]
    assert [op["ok"] for op in found["probe"]["ops"]] == [False, False, False]
    assert REFUSAL in found["probe"]["error"]
    assert found["decision"] == "patched", found["error"]
    assert found["patched_probe"]["ok"]
    assert found["verify"]["ok"]
    assert found["error"] is None
    figures["verify_refusing"] = found["verify"]["max_relative_error"]
    figures["refusal"] = found["probe"]["error"].strip("\0\n").rpartition("\n")[2]
    figures["refusal_chars"] = len(found["probe"]["error"])


def test_off_keeps_the_error_and_changes_nothing(examine, refusing):
    found = examine("off", **refusing)
    assert found["decision"] == "unpatched"
    assert not found["patched"]
    assert found["patched_probe"] is None
    assert REFUSAL in found["error"]


def test_a_kept_kernel_would_hide_the_hazard(understudy, refusing, tmp_path, figures):
    """Why the guard's probe has a cold cache."""
    cache = {"USE_PYTORCH_KERNEL_CACHE": "1", "PYTORCH_KERNEL_CACHE_PATH": str(tmp_path)}
    before = understudy("guard-probe", "--device", DEVICE, **cache)
    assert before["probe"]["ok"]
    assert any(tmp_path.iterdir())
    hidden = understudy("guard-probe", "--device", DEVICE, **cache, **refusing)
    figures["warm_cache_hides_it"] = hidden["probe"]["ok"]
    assert hidden["probe"]["ok"]
    assert not hidden["probe"]["cold_cache"]


def test_without_the_patch_the_smoke_utterance_fails_with_the_error(smoke, refusing):
    result = smoke(patched=False, **refusing)
    assert result["import_ok"]
    assert not result["smoke"]["ok"]
    assert REFUSAL in result["error"]


def test_with_the_patch_the_smoke_utterance_is_spoken(smoke, refusing, figures):
    result = smoke(patched=True, **refusing)
    assert result["error"] is None
    assert result["smoke"]["ok"]
    assert result["smoke"]["voice"] == "default"
    assert result["watermarker"]["ok"]
    figures["smoke_patched"] = {
        "wall_s": result["smoke"]["wall_s"],
        "audio": result["smoke"]["audio"],
    }


def test_with_the_patch_the_benchmark_succeeds(bench, healthy_bench, refusing, figures):
    """In a process whose NVRTC still refuses; the audio is the healthy GPU's."""
    result = bench(utterances=3, warmup=2, patched=True, **refusing)
    assert result["status"] == "ok", result["error"]
    assert result["aggregate"]["ok_count"] == 3
    assert result["environment"]["guard_patched"]
    worst = 0
    for row, normal in zip(result["utterances"], healthy_bench["utterances"], strict=False):
        assert (row["seed"], row["tokens"]) == (normal["seed"], normal["tokens"])
        one = pcm(result["dir"] / row["wav"])
        other = pcm(healthy_bench["dir"] / normal["wav"])
        assert one.shape == other.shape
        worst = max(worst, int(np.abs(one - other).max()))
    figures["bench_patched"] = {
        "rtf": result["aggregate"]["rtf"],
        "load": result["load"],
        "memory": result["memory"],
        "max_difference_in_16_bit_steps": worst,
    }


def pcm(path):
    with wave.open(str(path)) as reader:
        return np.frombuffer(reader.readframes(reader.getnframes()), "<i2").astype(int)
