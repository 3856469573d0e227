"""The loaded model's own part, with a model that is made up."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from understudy.audio.spoken_length import longest_plausible_s
from understudy.model.types import Stopped, Tuning
from understudy.model.voice import KEPT_REFERENCES, Voice

TUNING = Tuning(0.3, 0.4, 0.6)


class Transformer:
    """What torch's module does with hooks."""

    def __init__(self):
        self.hooks = []
        self.calls = 0

    def register_forward_pre_hook(self, hook):
        self.hooks.append(hook)
        return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

    def __call__(self):
        for hook in list(self.hooks):
            hook(self, ())
        self.calls += 1


class Tokens:
    shape = (1, 20)

    def __getitem__(self, _):
        return 6562


class Model:
    """Samples twenty tokens; its conditionals are the content of the file."""

    sr = 24_000

    def __init__(self):
        self.conds = None
        self.prepared = []
        self.caps = []
        self.vocoded = 0
        self.t3 = SimpleNamespace(
            inference=self._sample, hp=SimpleNamespace(stop_speech_token=6562), tfmr=Transformer()
        )

    def _sample(self, max_new_tokens, **_):
        self.caps.append(max_new_tokens)
        for _ in range(20):
            self.t3.tfmr()
        return Tokens()

    def prepare_conditionals(self, path, exaggeration):
        with open(path) as file:  # noqa: PTH123
            content = file.read()
        if content == "garbage":
            raise RuntimeError("not a WAV")
        self.prepared.append(content)
        self.conds = content

    def generate(self, text, **_):
        self.t3.inference(max_new_tokens=1000)
        self.vocoded += 1
        return SimpleNamespace(squeeze=lambda _: SimpleNamespace(numpy=lambda: np.zeros(10)))


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(manual_seed=lambda seed: None))
    return Model()


@pytest.fixture
def voice(model):
    return Voice(model, "cpu", 1000, {})


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("first")
    return path


def test_a_voice_is_prepared_once(voice, model, reference):
    digest = voice.use_reference(reference, 0.3)
    assert len(digest) == 64
    assert voice.use_reference(reference, 0.7) == digest
    assert model.prepared == ["first"]


def test_a_file_is_not_read_again_while_it_looks_the_same(voice, reference, monkeypatch):
    voice.use_reference(reference, 0.3)
    monkeypatch.setattr(type(reference), "read_bytes", lambda _: pytest.fail("read again"))
    voice.use_reference(reference, 0.3)


def test_a_changed_file_is_noticed_even_with_the_old_times(voice, model, reference):
    first = voice.use_reference(reference, 0.3)
    times = reference.stat()
    reference.write_text("other")  # as long as before
    os.utime(reference, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert voice.use_reference(reference, 0.3) != first
    assert model.conds == "other"


def test_a_touched_file_is_not_prepared_again(voice, model, reference):
    first = voice.use_reference(reference, 0.3)
    reference.touch()
    assert voice.use_reference(reference, 0.3) == first
    assert model.prepared == ["first"]


def test_the_same_content_under_another_name(voice, model, reference, tmp_path):
    (tmp_path / "b.wav").write_text("first")
    assert voice.use_reference(reference, 0.3) == voice.use_reference(tmp_path / "b.wav", 0.3)
    assert model.prepared == ["first"]


def test_the_one_not_used_for_longest_is_forgotten(voice, model, reference, tmp_path):
    voice.use_reference(reference, 0.3)
    for n in range(KEPT_REFERENCES):
        (tmp_path / f"{n}.wav").write_text(str(n))
        voice.use_reference(tmp_path / f"{n}.wav", 0.3)
        if n < 3:
            voice.use_reference(reference, 0.3)
    assert model.prepared.count("first") == 1
    assert not voice.reuse_reference(tmp_path / "x.wav")
    assert voice.reuse_reference(reference)
    assert not voice.reuse_reference(tmp_path / "0.wav")


def test_a_file_that_changes_while_it_is_read(voice, model, reference, monkeypatch):
    prepare = model.prepare_conditionals

    def slow(path, exaggeration):
        reference.write_text("half of the next")
        prepare(path, exaggeration)

    monkeypatch.setattr(model, "prepare_conditionals", slow)
    with pytest.raises(OSError, match="changed while it was read"):
        voice.use_reference(reference, 0.3)
    monkeypatch.undo()
    voice.use_reference(reference, 0.3)
    assert model.conds == "half of the next"


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(voice, model, reference, monkeypatch):
    """Not while it is read, nor when upstream reads it again."""
    prepare = model.prepare_conditionals

    def swapped(path, exaggeration):
        reference.unlink()
        os.mkfifo(reference)
        prepare(path, exaggeration)
        prepare(path, exaggeration)

    monkeypatch.setattr(model, "prepare_conditionals", swapped)
    with pytest.raises(OSError, match="changed while it was read"):
        voice.use_reference(reference, 0.3)
    assert model.prepared == ["first", "first"]
    with pytest.raises(OSError, match="not a file"):
        voice.use_reference(reference, 0.3)


def test_as_it_was_before(voice, model, reference, tmp_path):
    assert not voice.reuse_reference(reference)
    voice.use_reference(reference, 0.3)
    (tmp_path / "b.wav").write_text("second")
    voice.use_reference(tmp_path / "b.wav", 0.3)
    reference.write_text("garbage")
    with pytest.raises(RuntimeError):
        voice.use_reference(reference, 0.3)
    assert voice.reuse_reference(reference)
    assert model.conds == "first"


def test_a_temperature_under_which_the_sampler_makes_nan():
    for wrong in (1e-39, 0.009):
        with pytest.raises(ValueError, match=r"0\.01 or more"):
            Tuning(0.3, 0.4, wrong)


def test_an_utterance_is_abandoned_at_the_next_token(voice, model):
    asked = []
    with pytest.raises(Stopped):
        voice.speak(
            "Hi", seed=1, tuning=TUNING, should_stop=lambda: asked.append(1) or len(asked) > 5
        )
    assert (model.t3.tfmr.calls, model.vocoded, model.t3.tfmr.hooks) == (5, 0, [])
    assert voice.speak("Hi", seed=1, tuning=TUNING).tokens == 20


def test_and_before_the_vocoder(voice, model):
    asked = []
    with pytest.raises(Stopped):
        voice.speak(
            "Hi", seed=1, tuning=TUNING, should_stop=lambda: asked.append(1) or len(asked) > 20
        )
    assert (model.t3.tfmr.calls, model.vocoded) == (20, 0)


def test_what_the_device_did_not_survive_comes_out(voice, model, reference, monkeypatch):
    """Whatever was raised first: upstream's own words may hide it."""

    def hidden(*_, **__):
        raise ValueError("no tokens")

    def lost():
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(voice, "_synchronise", lost)
    monkeypatch.setattr(model, "prepare_conditionals", hidden)
    with pytest.raises(RuntimeError, match="device-side assert"):
        voice.use_reference(reference, 0.3)
    monkeypatch.setattr(voice, "_synchronise", lambda: None)
    monkeypatch.setattr(model, "generate", hidden)
    with pytest.raises(ValueError, match="no tokens"):
        voice.speak("Hi", seed=1, tuning=TUNING)


@pytest.mark.parametrize(
    ("text", "token_cap", "cap"),
    [
        ("Hi.", 1000, int(25 * longest_plausible_s("Hi.")) + 2),
        ("Hi.", 40, 40),
        ("Good morning, how can I help you today? " * 20, 1000, 1000),
    ],
)
def test_a_runaway_is_cut_off_where_no_voice_is_as_slow(model, text, token_cap, cap):
    assert int(25 * longest_plausible_s("Hi.")) < 200
    Voice(model, "cpu", token_cap, {}).speak(text, seed=1, tuning=TUNING)
    assert model.caps == [cap]


def test_the_libraries_are_bounded_before_they_are_imported(monkeypatch, tmp_path):
    """Offline, quiet, and with a small cache of compiled operations; the operator may differ."""
    seen = {}

    def loading(*_, **__):
        seen.update(os.environ)
        raise FileNotFoundError

    monkeypatch.setattr("understudy.model.fastload.loading.Loading", loading)
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with pytest.raises(FileNotFoundError):
        Voice.load(tmp_path, "cpu")
    assert 0 < int(seen["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) <= 256
    assert (seen["HF_HUB_OFFLINE"], seen["TQDM_DISABLE"]) == ("1", "0")


def test_nobody_asks_and_nothing_is_hooked(voice, model, monkeypatch):
    monkeypatch.setattr(model.t3.tfmr, "register_forward_pre_hook", None)
    assert not voice.speak("Hi", seed=1, tuning=TUNING).hit_cap
