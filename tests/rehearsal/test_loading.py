"""The fast way of loading gives the very bits that upstream's gives, and the same speech."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_rehearsal import REHEARSAL

from understudy.model import conditionals_cache, weights

SCRIPT = Path(__file__).with_name("loads_alike.py")
PYTHON = REHEARSAL / "panda/current/bin/python"

#: Each of them takes longer to import than the small model to load.
PUT_OFF = {"librosa", "numba", "scipy", "sklearn", "onnx", "accelerate", "requests"}


def script(*arguments: object) -> str:
    command = [str(PYTHON), str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, text=True, check=False, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording nobody prepared before, and weights of which a manifest is written."""
    directory = tmp_path_factory.mktemp("stage")
    (directory / "voices").mkdir()
    shutil.copy(REHEARSAL / "made/voices/rehearsal.wav", directory / "voices")
    (directory / "weights").mkdir()
    for file in (REHEARSAL / "made/weights").iterdir():
        if file.name != weights.MANIFEST:
            (directory / "weights" / file.name).symlink_to(file)
    weights.ensure({"weights_dir": str(directory / "weights"), "source": "local"})
    return directory


@pytest.fixture(scope="module")
def load(stage: Path) -> Callable[..., dict[str, Any]]:
    def load(way: str, of: str = "weights") -> dict[str, Any]:
        out = stage / "found.json"
        log = script(way, stage / of, stage / "voices/rehearsal.wav", out)
        return json.loads(out.read_text()) | {"log": log}

    return load


@pytest.fixture(scope="module")
def upstream(load: Callable[..., dict[str, Any]]) -> dict[str, str]:
    tensors: dict[str, str] = load("upstream")["tensors"]
    assert len(tensors) > 2000
    return tensors


def differing(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    return sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))


def test_every_tensor_and_the_speech_are_the_same(
    stage: Path, load: Callable[..., dict[str, Any]], upstream: dict[str, str]
) -> None:
    kept = stage / "voices" / conditionals_cache.DIRECTORY
    ours = load("ours")
    assert differing(ours["tensors"], upstream) == []
    assert len(list(kept.iterdir())) == 1

    # This time the voice comes from disk, and nothing that it takes to prepare one is imported.
    again = load("ours")
    assert differing(again["tensors"], upstream) == []
    assert set(ours["imported"]) >= {"librosa", "numba", "scipy"}
    assert not PUT_OFF & set(again["imported"])


def test_what_is_not_known_is_loaded_as_upstream_does(
    load: Callable[..., dict[str, Any]], upstream: dict[str, str]
) -> None:
    found = load("unknown")
    assert differing(found["tensors"], upstream) == []
    assert "transformers is 5.2.0" in found["log"]
    assert set(found["imported"]) >= PUT_OFF


def test_buffers_that_no_file_has_are_computed_alike(
    stage: Path, load: Callable[..., dict[str, Any]]
) -> None:
    script("bare", stage / "weights", stage / "bare")
    ours, theirs = load("ours", "bare"), load("upstream", "bare")
    assert differing(ours["tensors"], theirs["tensors"]) == []
