"""The benchmark as an operator runs it, on the GPU, with full-size random weights."""

from __future__ import annotations

import json

from conftest import TOKEN_CAP, TUNING

from understudy.documents import validate
from understudy.model.types import Tuning

SPEED = ("n", "mean", "p50", "p95", "max")


def test_ten_of_ten_are_usable_and_everything_is_recorded(healthy_bench, figures):
    document = {name: value for name, value in healthy_bench.items() if name != "dir"}
    memory, environment = document["memory"], document["environment"]
    rows = document["utterances"]
    figures["bench"] = brief(document)
    print(json.dumps(figures["bench"]))

    assert document["status"] == "ok", document["error"]
    assert document["aggregate"]["ok_count"] == len(rows) == len(document["warmup"]) == 10
    assert not any(row["hit_cap"] for row in rows)
    assert all(row["tokens"] < TOKEN_CAP and row["rtf"] > 0 for row in rows)
    assert document["aggregate"]["rtf"]["n"] == 10
    assert document["dtype"] == "float32"

    # 798 M parameters of 4 bytes are on the device, and the three figures are three.
    assert memory["torch_peak_reserved_bytes"] >= memory["torch_peak_allocated_bytes"] > 3.1e9
    if memory["process_driver_bytes"] is None:
        assert memory["process_driver_note"]
    else:
        assert memory["process_driver_bytes"] > memory["torch_peak_allocated_bytes"]
    assert 0 < memory["mem_available_low_bytes"] <= memory["mem_available_start_bytes"]

    for name in ("gpu", "compute_capability", "driver", "cuda", "cudnn"):
        assert environment[name], name
    assert environment["clocks"]["sm_mhz"] or environment["nvml_note"]
    assert "missing" not in environment["versions"].values()
    assert environment["weights"]
    assert not environment["guard_patched"]

    validator = validate.load_schemas()["bench"]
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)] == []


def test_the_same_seed_is_the_same_audio_and_the_patch_changes_only_rounding(
    stage, tmp_path, monkeypatch, figures
):
    """Convolutions in full float32: TF32 would magnify the rounding that is looked for."""
    import numpy as np
    import torch

    from understudy.model import blackwell

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    heard = []
    inner = stage.voice._model.t3.inference

    def listen(**kwargs):
        tokens = inner(**kwargs)
        heard.append(tokens.tolist())
        return tokens

    monkeypatch.setattr(stage.voice._model.t3, "inference", listen)

    def speak(name):
        """Prepare the voice anew (it is kept by path) and speak the first utterance."""
        reference = tmp_path / f"{name}.wav"
        reference.write_bytes(stage.reference.read_bytes())
        tuning, first = Tuning(**TUNING), stage.utterances[0]
        stage.voice.use_reference(reference, tuning.exaggeration)
        return stage.voice.speak(first["text"], seed=first["seed"], tuning=tuning).samples

    normal, again = speak("normal"), speak("again")
    # Preparing a voice and decoding on a GPU may round differently each time; what is said may not.
    assert heard[1] == heard[0], "the same seed gave other speech tokens"
    rounding = float(np.abs(again.astype(float) - normal).max())
    assert rounding < 1 / 32768, "the same seed differs by more than a step of 16-bit audio"

    for owner, names in (
        (torch, ("abs", "absolute")),
        (torch.Tensor, ("abs", "absolute", "__abs__")),
    ):
        for name in names:  # so that they are put back afterwards
            monkeypatch.setattr(owner, name, getattr(owner, name))
    blackwell.apply_patch()
    patched = speak("patched")

    assert heard[2] == heard[0], "the patch changed a speech token"
    difference = patched.astype(float) - normal
    power = max(np.mean(difference**2), 1e-24) / np.mean(normal.astype(float) ** 2)
    down_db = 10 * np.log10(power)
    figures["patched_against_normal"] = {
        "tokens_equal": True,
        "normal_again_max_abs_difference": rounding,
        "max_abs_difference": float(np.abs(difference).max()),
        "peak": float(np.abs(normal).max()),
        "difference_db": round(float(down_db), 1),
    }
    assert down_db < -40


def brief(document):
    """The figures of a benchmark that are worth a line."""
    rows, environment = document["utterances"], document["environment"]
    wall = sum(row["wall_s"] for row in rows)
    return {
        "rtf": {name: document["aggregate"]["rtf"][name] for name in SPEED},
        "rtf_cv": document["aggregate"]["rtf"]["cv"],
        "tokens_per_wall_s": round(sum(row["tokens"] for row in rows) / wall, 2),
        "audio_s": document["aggregate"]["audio_s"]["mean"],
        "retries": sum(len(row["retries"]) for row in rows),
        "load": document["load"],
        "memory": document["memory"],
        **{
            name: environment[name]
            for name in (
                "gpu",
                "compute_capability",
                "driver",
                "cuda",
                "cudnn",
                "clocks",
                "throttling",
                "versions",
                "guard_patched",
            )
        },
    }
