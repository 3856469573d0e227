"""The similarity check: what it lets pass, what it refuses, and what it will not judge."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import formula_voice as formula
import numpy as np
import pytest
import run_factory as factory
import soundfile

from understudy import cli
from understudy.audio import acoustics
from understudy.documents import validate
from understudy.model import environment as facts
from understudy.model import types
from understudy.model.fastload.lazy_import import Later
from understudy.similarity import calibration, embedders, gates, measures, takes
from understudy.similarity import compare as identity

SPEAKER = formula.Speaker()
RUN = {"run_id": "20261122-031500Z", "host": "titan", "primary": "panda", "embedders": []}
WEIGHTS = {"ve.safetensors": "a" * 64}
TUNING = {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}
VOICE = {"weights": WEIGHTS, "voice_sha256": "b" * 64, "tuning": TUNING}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes, impostors and two hosts' runs, all from the formula."""
    home = tmp_path_factory.mktemp("similarity")
    for seed in range(5):
        formula.take(home / "takes" / str(seed), SPEAKER, seed)
    formula.take(home / "child" / "0", formula.Speaker(170, 1.12), 50)
    formula.take(home / "giant" / "0", formula.Speaker(95, 0.94, 0.9), 51)
    formula.take(home / "panda", SPEAKER, 60)
    return home


@pytest.fixture(scope="module")
def config(home: Path) -> dict[str, Any]:
    others = [{"name": n, "kind": "impostor", "dir": str(home / n)} for n in ("child", "giant")]
    return VOICE | {
        "host": "titan",
        "takes_dir": str(home / "takes"),
        "others": others,
        "embedders": [],
        "runs": 4000,
        "alpha": 0.01,
    }


@pytest.fixture(scope="module")
def calibrated(home: Path, config: dict[str, Any]) -> Path:
    path = home / "calibration-titan.json"
    path.write_text(json.dumps(calibration.run(config)))
    return path


def compare(home: Path, standby: Path, calibrated: Path | None, **other: Any) -> dict[str, Any]:
    return identity.compare(
        RUN
        | VOICE
        | {"standby_wavs": str(standby), "primary_wavs": str(home / "panda")}
        | {"calibration": calibrated and str(calibrated)}
        | other
    )


@pytest.fixture(scope="module")
def passed(home: Path, calibrated: Path) -> dict[str, Any]:
    return compare(home, home / "panda", calibrated)


# What it hears


CHANGES: dict[str, tuple[Callable[..., Any], str, str]] = {
    "itself as 16 bit": (lambda x: x, "passed", ""),
    "a semitone higher": (formula.higher, "diverged", "full.f0_median"),
    "8 % slower": (lambda x: formula.stretched(x, 1.08), "diverged", "full.duration"),
    "low-passed": (formula.low_passed, "diverged", "full.spectrum_mean"),
    "louder": (lambda x: 1.4 * x, "diverged", "telephone.loudness"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_voice_is_refused_by_what_was_changed(
    name: str, home: Path, calibrated: Path, tmp_path: Path
) -> None:
    change, result, measure = CHANGES[name]
    found = compare(home, formula.changed(tmp_path / "t", home / "panda", change), calibrated)
    assert found["result"] == result, found["reasons"]
    past = {row["name"] for row in found["measures"] if row["ok"] is False}
    assert measure in past if measure else not past


def test_another_speaker_is_refused_on_the_telephone_too(
    home: Path, calibrated: Path, tmp_path: Path
) -> None:
    other = formula.take(tmp_path / "t", formula.Speaker(110, 1.08), 7)
    found = compare(home, other, calibrated)
    past = [row["band"] for row in found["measures"] if row["ok"] is False]
    assert found["result"] == "diverged"
    assert {"full", "telephone"} == set(past)
    assert "panda to titan" in found["reasons"][0]


def test_a_fresh_take_passes_and_the_files_keep_to_their_schemas(
    home: Path, calibrated: Path, tmp_path: Path
) -> None:
    found = compare(home, formula.take(tmp_path / "t", SPEAKER, 8), calibrated)
    assert (found["result"], found["status"]) == ("passed", "ok"), found["reasons"]
    assert found["calibration"]["matches"] is True
    assert found["calibration"]["refuses_impostors"] == 1.0
    (tmp_path / "identity.json").write_text(json.dumps(found, allow_nan=False))
    assert validate.validate_run(tmp_path / "identity.json") == []
    assert validate.validate_run(calibrated) == []


# When there is no pass


def test_without_a_calibration_there_is_no_pass(home: Path) -> None:
    found = compare(home, home / "panda", None)
    assert (found["result"], found["calibration"]) == ("uncalibrated", None)
    assert "ansible-playbook calibrate.yml" in found["reasons"][0]
    assert all(row["gate"] is None and row["ok"] is None for row in found["measures"])
    assert found["measures"][0]["value"] == 0.0


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"weights": {"ve.safetensors": "c" * 64}}, "weights ve.safetensors: aaaaaaaaaaaa…"),
        ({"voice_sha256": "c" * 64}, "voice_sha256: bbbbbbbbbbbb…"),
        ({"tuning": TUNING | {"temperature": 0.8}}, "tuning temperature: 0.6"),
        ({"weights": None}, "weights: known when it was made, not known now"),
        ({"host": "atlas"}, "made on titan, and this is atlas"),
    ],
)
def test_a_calibration_of_something_else_is_none(
    other: dict[str, Any], named: str, calibrated: Path
) -> None:
    known = calibration.read(calibrated)
    now = VOICE | {"code": calibration.code(), "embedders": {}, "host": "titan"} | other
    [said] = calibration.differences(known, now, now["host"], formula.UTTERANCES)
    assert named in said
    assert calibration.differences(known, now, now["host"], ["u01"]) == [
        *([said] if "host" in other else []),
        "it was made with other utterances",
        *([said] if "host" not in other else []),
    ]


def test_code_that_measures_otherwise_needs_a_new_calibration(
    home: Path, calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = calibration.code() | {"audio/acoustics.py": "d" * 64}
    monkeypatch.setattr(calibration, "code", lambda: now)
    found = compare(home, home / "panda", calibrated)
    assert found["result"] == "uncalibrated"
    assert "code audio/acoustics.py" in found["reasons"][0]


def test_what_was_calibrated_must_be_measured(home: Path, calibrated: Path, tmp_path: Path) -> None:
    document = json.loads(calibrated.read_text())
    document["measures"]["full.x_vector"] = document["measures"]["full.spectrum"]
    path = tmp_path / "calibration-titan.json"
    path.write_text(json.dumps(document))
    found = compare(home, home / "panda", path)
    assert found["result"] == "uncalibrated"
    assert "full.x_vector" in found["reasons"][0]


@pytest.mark.parametrize(
    ("refused", "seen"), [(None, "no impostor voice was heard"), (0.3, "refused only 30 %")]
)
def test_gates_that_let_impostors_pass_are_worth_nothing(
    refused: float | None, seen: str, home: Path, calibrated: Path, tmp_path: Path
) -> None:
    document = json.loads(calibrated.read_text())
    document["joint"] |= {"refused": refused, "separates": False}
    path = tmp_path / "calibration-titan.json"
    path.write_text(json.dumps(document))
    found = compare(home, home / "panda", path)
    assert found["result"] == "uncalibrated"
    assert seen in found["reasons"][0]


def test_an_embedder_that_hears_no_difference_is_called_one() -> None:
    chance = np.random.default_rng(0)

    def side(n: int, f0: float) -> measures.Side:
        vectors = chance.standard_normal((10, n, 32))
        return {
            "full.f0_median": f0 + chance.standard_normal((10, n)),
            "full.resemblyzer": vectors / np.linalg.norm(vectors, axis=-1, keepdims=True),
        }

    found = calibration.gates(side(6, 0), [("twin", "impostor", side(3, 5))], {}, runs=2000)
    assert found["joint"]["separates"] is True
    twin = calibration.gates(side(6, 0), [("twin", "impostor", side(3, 0))], {}, runs=2000)
    assert twin["joint"]["separates"] is False
    alone = calibration.gates(side(6, 0), [], {}, runs=2000)
    assert (alone["joint"]["refused"], alone["joint"]["separates"]) == (None, False)
    assert found["measures"]["full.f0_median"]["separates"] is True
    assert found["measures"]["full.resemblyzer"]["separates"] is False
    assert found["measures"]["full.resemblyzer"]["auc"] == pytest.approx(0.5, abs=0.2)
    assert any("resemblyzer does not tell the impostors apart" in note for note in found["notes"])


# The gates


def test_all_gates_together_refuse_alpha_of_the_same_voice() -> None:
    chance = np.random.default_rng(1)
    names = [f"{band}.{name}" for band in measures.BANDS for name in ("f0_median", "loudness")]

    def side(n: int) -> measures.Side:
        return {name: chance.standard_normal((10, n)) for name in names}

    passed = []
    for seed in range(30):
        known = calibration.gates(side(6), [], {}, alpha=0.1, runs=2000, seed=seed)["measures"]
        fresh = side(400)
        first, second = gates._two_takes(chance, 1000, 10, 400)
        values = measures.statistics(known, fresh, fresh, first, second, {})
        past = [np.abs(values[key]) > row["gate"] for key, row in known.items()]
        passed.append(1 - np.any(past, axis=0).mean())
    assert 0.87 < np.mean(passed) < 0.93


def test_a_host_without_any_variation_still_allows_for_rounding() -> None:
    side = {"full.loudness": np.full((10, 3), -20.0)}
    found = calibration.gates(side, [], {}, runs=500)["measures"]["full.loudness"]
    assert found["gate"] == measures.MEASURES["full.loudness"].floor


# What it measures


def test_features_of_known_signals() -> None:
    rate, chance = 24_000, np.random.default_rng(2)
    phase = np.cumsum(np.full(2 * rate, 140.0 / rate))
    pulses = np.diff(np.floor(phase), prepend=0.0)
    assert np.median(acoustics.f0(pulses, rate)) == pytest.approx(140.0, rel=0.003)
    noise = 0.1 * chance.standard_normal(4 * rate)
    assert len(acoustics.f0(noise, rate)) < 5
    # White noise has the same power in every hertz, so 3 dB more in every octave.
    heard = acoustics.features(noise, rate)
    assert heard["tilt"] == pytest.approx(10 * np.log10(2), abs=0.15)
    louder = acoustics.features(2 * noise, rate)
    assert louder["loudness"] - heard["loudness"] == pytest.approx(6.02, abs=0.05)
    assert np.abs(louder["spectrum"] - heard["spectrum"]).max() < 0.01


# Bad input


def spoil(path: Path, how: str) -> None:
    samples = formula.say(SPEAKER, 0, np.random.default_rng(0)).astype(np.float32)
    if how == "missing":
        path.unlink()
    elif how == "empty":
        soundfile.write(path, samples[:0], 24_000)
    elif how == "silent":
        soundfile.write(path, 0 * samples, 24_000)
    elif how == "nan":
        samples[5] = np.nan
        soundfile.write(path, samples, 24_000, subtype="FLOAT")
    elif how == "rate":
        soundfile.write(path, samples, 16_000)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:30])


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("missing", "lacks u03.wav, which"),
        ("empty", "u03.wav: empty, not one sample"),
        ("silent", "u03.wav: silent"),
        ("nan", "u03.wav: 1 of"),
        ("rate", "expected one rate"),
        ("cut", "u03.wav: "),
    ],
)
def test_bad_recordings_give_one_sentence_and_no_result(
    how: str, seen: str, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = formula.changed(tmp_path / "t", home / "panda", lambda x: x)
    spoil(place / "u03.wav", how)
    config = RUN | {"standby_wavs": str(place), "primary_wavs": str(home / "panda")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = tmp_path / "identity.json"
    result.write_text("what was there")
    arguments = ["compare", "--config", str(tmp_path / "config.json"), "--result", str(result)]
    assert cli.main(arguments) == 1
    said = capfd.readouterr().err
    assert seen in said
    assert len(said.strip().splitlines()) == 1
    assert result.read_text() == "what was there"


@pytest.mark.parametrize(
    ("spoilt", "seen"),
    [
        (lambda text: text[: len(text) // 2], "line"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 0'), "expected 1"),
        (lambda text: text.replace('"joint"', '"jount"'), "has no joint"),
        (lambda _: "[]", "expected an object"),
    ],
)
def test_a_spoilt_calibration_is_refused(
    spoilt: Callable[[str], str], seen: str, home: Path, calibrated: Path, tmp_path: Path
) -> None:
    path = tmp_path / "calibration-titan.json"
    path.write_text(spoilt(calibrated.read_text()))
    with pytest.raises(ValueError, match=seen) as caught:
        compare(home, home / "panda", path)
    assert str(path) in str(caught.value)
    assert "calibrate.yml" in str(caught.value)


def test_takes_that_cannot_calibrate_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such directory"):
        calibration.run(config | {"takes_dir": str(tmp_path / "none")})
    formula.take(tmp_path / "takes" / "0", SPEAKER, 1)
    with pytest.raises(ValueError, match="at least 2"):
        calibration.run(config | {"takes_dir": str(tmp_path / "takes")})
    (formula.take(tmp_path / "takes" / "1", SPEAKER, 2) / "u04.wav").unlink()
    with pytest.raises(ValueError, match=r"1: no u04\.wav"):
        calibration.run(config | {"takes_dir": str(tmp_path / "takes")})


# Why they differ


def test_facts_can_be_asked_of_a_host_that_has_nothing_installed() -> None:
    source = Path(facts.__file__).read_bytes()
    done = subprocess.run(
        [sys.executable, "-I", "-"], input=source, capture_output=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["versions"]["python"].startswith("3.")
    assert told["stft"] or "torch" in told["note"]


def test_facts_stand_side_by_side(home: Path, tmp_path: Path) -> None:
    def stft(scale: float, digest: str) -> dict[str, Any]:
        one = {"sha256": digest * 64, "rms": 1.0, "blocks": [scale * k for k in (1.0, 2.0)]}
        return {name: one for name, _ in facts.SETTINGS}

    run_dir = tmp_path / RUN["run_id"]
    for name in ("titan_native", "panda_baseline"):
        (run_dir / name).mkdir(parents=True)
        (run_dir / name / "u01.wav").write_bytes((home / "panda" / "u01.wav").read_bytes())
    environment = {
        "cuda": "13.0",
        "driver": None,
        "voice_sha256": "b" * 64,
        "weights": WEIGHTS,
        "stft": stft(1.0, "1"),
    }
    rows = [{"id": "u01", "hit_cap": True}, {"id": "u02", "hit_cap": False}]
    bench = {
        "schema_version": 1,
        "dtype": "float32",
        "tuning": TUNING,
        "environment": environment,
        "utterances": rows,
    }
    (run_dir / "bench-titan.json").write_text(json.dumps(bench))
    told = {"cuda": "12.8", "weights": WEIGHTS, "dtype": "float32", "stft": stft(1 + 1e-7, "2")}
    for health, wanted in (
        (
            {"environment": told},
            {
                "cuda": True,
                "dtype": False,
                "stft 400/160": False,
                "weights ve.safetensors": False,
                "voice_sha256": None,
            },
        ),
        ({"environment": told | {"stft": stft(1.01, "2")}}, {"stft 400/160": True}),
        ({}, {"cuda": None, "stft 400/160": None, "sample_rate_hz": False}),
    ):
        baseline = {"schema_version": 1, "health": health, "utterances": []}
        (run_dir / "baseline-panda.json").write_text(json.dumps(baseline))
        found = identity.compare(RUN | {"run_dir": str(run_dir), "calibration": None})
        differs = {row["name"]: row["differs"] for row in found["facts"]["rows"]}
        assert {name: differs[name] for name in wanted} == wanted
        assert (found["facts"]["note"] is None) is bool(health)
        assert found["sides"]["titan"]["cap_hits"] == 1
        assert found["sides"]["panda"]["cap_hits"] is None
    (run_dir / "baseline-panda.json").write_text('{"schema_version": 1, ')
    with pytest.raises(ValueError, match=r"baseline-panda\.json: line 1"):
        identity.compare(RUN | {"run_dir": str(run_dir), "calibration": None})


# Takes


class FakeVoice:
    """Speaks by the formula, a take per seed; the first attempt at u02 is cut off."""

    has_default = True
    info: ClassVar = {"rehearsal": False}

    def __init__(self) -> None:
        self.speaker, self.seeds = formula.Speaker(170, 1.1), []

    def use_reference(self, path: Path, exaggeration: float) -> str:
        self.speaker = SPEAKER
        return "b" * 64

    def speak(self, text: str, *, seed: int, tuning: types.Tuning) -> types.Synthesis:
        self.seeds.append(seed)
        samples = formula.say(self.speaker, len(text), np.random.default_rng(seed))
        cut_off = seed // 100_000 % 10 == 0 and text == "two words"
        return types.Synthesis(samples.astype(np.float32), 24_000, 0.1, 40, cut_off)


def test_takes_are_spoken_with_seeds_of_their_own_and_heard(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeVoice()
    loads: list[dict[str, Any]] = []

    def load(*_: Any, **options: Any) -> FakeVoice:
        loads.append(options)
        return fake

    monkeypatch.setattr(takes.Voice, "load", load)
    texts = [{"id": "u01", "text": "one", "seed": 1}, {"id": "u02", "text": "two words", "seed": 2}]
    work = {
        "device": "cpu",
        "stft_patch": False,
        "token_cap": 100,
        "threads": 1,
        "fast_load": False,
        "takes": 3,
        "utterances": texts,
        "impostors": [None],
        "impostor_takes": 2,
        "impostors_dir": str(tmp_path / "impostors"),
    }
    wav = tmp_path / "voice.wav"
    wav.write_bytes(b"a voice")
    own = config | {
        "takes_dir": str(tmp_path / "takes"),
        "weights_dir": str(tmp_path),
        "others": [],
        "voice": str(wav),
        "synthesis": work,
    }
    found = calibration.run(own)
    assert loads[0]["fast_load"] is False
    assert (found["takes"], found["utterances"]) == (3, ["u01", "u02"])
    assert [(row["name"], row["takes"]) for row in found["others"]] == [("default", 2)]
    assert found["joint"]["separates"] is True
    # Five takes of two utterances, and every u02 was cut off once.
    assert len(fake.seeds) == 15
    its_own = fake.seeds[6:]
    assert len(set(its_own)) == len(its_own)
    with pytest.raises(ValueError, match="is there already"):
        calibration.run(own)


@pytest.mark.parametrize("document", [{"fast_load": False}, {"fast_load": True}, {}])
def test_calibration_and_comparison_honour_fast_load(
    document: dict[str, Any], config: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    class Enough(Exception):
        pass

    def made(*_: Any, fast_load: bool) -> None:
        asked.append(fast_load)
        raise Enough

    monkeypatch.setattr(embedders, "Embedders", made)
    with pytest.raises(Enough):
        calibration.run(config | document)
    with pytest.raises(Enough):
        compare(home, home / "panda", None, **document)
    assert asked == [document.get("fast_load", True)] * 2


@pytest.mark.parametrize("fast_load", [False, True])
def test_embedders_put_imports_off_only_with_fast_load(fast_load: bool) -> None:
    assert isinstance(embedders._upstream(fast_load), Later) is fast_load


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("result", "fine"),
        ("calibration", None),  # nothing passes without one
        ("calibration.matches", False),
        ("measures.0.ok", "yes"),
        ("facts", factory.REMOVED),
        ("reasons", []),
        ("status", "failed"),
    ],
)
def test_the_schema_of_identity_refuses(
    path: str, value: Any, passed: dict[str, Any], tmp_path: Path
) -> None:
    document = json.loads(json.dumps(passed))
    factory.change(document, path, value)
    (tmp_path / "identity.json").write_text(json.dumps(document))
    assert validate.validate_run(tmp_path / "identity.json")


def test_a_failure_that_the_play_records_keeps_to_the_schema(tmp_path: Path) -> None:
    document = factory.header("tts_identity", "titan")
    document |= {"status": "failed", "error": factory.error("other")}
    (tmp_path / "identity-titan.json").write_text(json.dumps(document))
    assert validate.validate_run(tmp_path / "identity-titan.json") == []
