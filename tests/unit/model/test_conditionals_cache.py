"""Prepared voices on disk: found only where everything fits, whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import types

import pytest

from understudy.model import conditionals_cache


class Conditionals:
    """Upstream's, with a text for tensors."""

    def __init__(self, text):
        self.text = text

    def save(self, path):
        path.write_text(self.text)

    @classmethod
    def load(cls, path, map_location):
        if not (text := path.read_text()):
            raise EOFError("ran out of input")
        return cls(f"{text} on {map_location}")


@pytest.fixture(autouse=True)
def upstream(monkeypatch):
    module = types.ModuleType("chatterbox.tts")
    module.Conditionals = Conditionals
    monkeypatch.setitem(sys.modules, "chatterbox", types.ModuleType("chatterbox"))
    monkeypatch.setitem(sys.modules, "chatterbox.tts", module)
    monkeypatch.setattr(conditionals_cache.metadata, "version", lambda name: "1.0")


@pytest.fixture
def weights(tmp_path):
    directory = tmp_path / "weights"
    directory.mkdir()
    for name in conditionals_cache.WEIGHTS:
        (directory / name).write_text(name)
        os.utime(directory / name, (1000, 1000))
    digests = {name: f"digest of {name}" for name in conditionals_cache.WEIGHTS}
    (directory / "manifest.json").write_text(json.dumps(digests))
    return directory


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "voices" / "samantha.wav"
    path.parent.mkdir()
    path.write_text("wav")
    return path


def test_a_saved_voice_is_found_again(recording, weights):
    path = conditionals_cache.place(recording, "abc", weights, exaggeration=0.3)
    assert conditionals_cache.load(path, "cpu") is None
    conditionals_cache.save(path, Conditionals("samantha"))
    again = conditionals_cache.place(recording, "abc", weights, exaggeration=0.3)
    assert conditionals_cache.load(again, "cpu").text == "samantha on cpu"
    assert [p.name for p in recording.parent.glob("[!.]*")] == ["samantha.wav"]


def test_whatever_it_depends_on_is_in_the_name(recording, weights, monkeypatch):
    def place(digest="abc", **other):
        return conditionals_cache.place(
            recording, digest, weights, **({"exaggeration": 0.3} | other)
        )

    places = [place(), place("abd"), place(exaggeration=0.4), place(device="NVIDIA GB10")]
    (weights / "ve.safetensors").write_text("other weights")
    os.utime(weights / "ve.safetensors", (1000, 1000))
    places.append(place())
    manifest = json.loads((weights / "manifest.json").read_text())
    (weights / "manifest.json").write_text(json.dumps(manifest | {"s3gen.safetensors": "other"}))
    places.append(place())
    monkeypatch.setattr(conditionals_cache.metadata, "version", lambda name: "1.1")
    places.append(place())
    assert len(set(places)) == len(places)


def test_weights_that_nobody_knows_are_not_relied_on(recording, weights):
    os.utime(weights / "s3gen.safetensors")
    os.utime(weights / "manifest.json", (2000, 2000))
    assert conditionals_cache.place(recording, "abc", weights) is None, "the file is newer"
    (weights / "manifest.json").unlink()
    assert conditionals_cache.place(recording, "abc", weights) is None


def test_a_damaged_file_is_no_voice(recording, weights, caplog):
    path = conditionals_cache.place(recording, "abc", weights)
    conditionals_cache.save(path, Conditionals("samantha"))
    path.write_text("")
    assert conditionals_cache.load(path, "cpu") is None
    assert "preparing the voice anew" in caplog.text
    conditionals_cache.save(path, Conditionals("samantha"))
    assert conditionals_cache.load(path, "cpu").text == "samantha on cpu"


def test_half_a_file_is_never_left(recording, weights, caplog):
    class Broken(Conditionals):
        def save(self, path):
            path.write_text("half")
            raise OSError("no space left on device")

    path = conditionals_cache.place(recording, "abc", weights)
    conditionals_cache.save(path, Broken("samantha"))
    assert list(path.parent.iterdir()) == []
    assert "no space left" in caplog.text


def test_only_so_many_are_kept(recording, weights):
    for index in range(conditionals_cache.KEPT + 3):
        path = conditionals_cache.place(recording, str(index), weights)
        conditionals_cache.save(path, Conditionals("samantha"))
        os.utime(path, (index, index))
    assert len(list(path.parent.iterdir())) == conditionals_cache.KEPT
    assert path.exists()
    assert not conditionals_cache.place(recording, "0", weights).exists()
