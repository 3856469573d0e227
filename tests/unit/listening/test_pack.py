"""The hidden order and the pack: nothing that a listener gets tells the hosts apart."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_factory
import soundfile
from listening_run import RATE, make, voiced
from scipy import signal

from understudy.audio import pcm, speech_check
from understudy.listening import pack
from understudy.listening.pack import REPEAT_AFTER, order
from understudy.listening.recordings import recordings
from understudy.listening.session import ListeningError

IDS = run_factory.IDS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its reference, and a pass that was prepared for it."""
    run_dir, reference = make(tmp_path_factory.mktemp("made"))
    pack.prepare(recordings(run_dir), reference, 1, seed="seed")
    return run_dir, reference


@pytest.fixture
def fresh(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same run, to be broken, without the pass."""
    run_dir = tmp_path / made[0].name
    shutil.copytree(made[0], run_dir, ignore=shutil.ignore_patterns("listening"))
    return run_dir, shutil.copy(made[1], tmp_path / "voice.wav")


def document(run_dir: Path, name: str) -> dict[str, Any]:
    return json.loads((run_dir / "listening/pass-1" / name).read_text())


# --- the order -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [str(n) for n in range(50)])
def test_what_every_order_has(seed: str) -> None:
    pairs, calls = order(IDS, "titan", "panda", seed)
    kinds = Counter(pair.kind for pair in pairs)
    assert kinds == {"pair": 10, "repeat": 1, "same_host": 1, "impostor": 1}
    for kind, rows in (("pair", pairs), ("telephone", calls)):
        own = [row for row in rows if row.kind == kind]
        assert sorted(row.utterance for row in own) == IDS
        assert Counter(row.a for row in own) == {"titan": 5, "panda": 5}
        assert all({row.a, row.b} == {"titan", "panda"} for row in own)
    by_kind = {pair.kind: pair for pair in pairs}
    assert (by_kind["same_host"].a, by_kind["same_host"].b) == ("panda", "panda")
    assert {by_kind["impostor"].a, by_kind["impostor"].b} == {"panda", "impostor"}
    assert max(Counter(pair.utterance for pair in pairs).values()) == 2
    again = by_kind["repeat"]
    first = next(
        n for n, p in enumerate(pairs) if (p.kind, p.utterance) == ("pair", again.utterance)
    )
    assert pairs.index(again) - first - 1 >= REPEAT_AFTER


def test_no_place_and_no_side_gives_anything_away() -> None:
    places: dict[str, Counter[int]] = {"same_host": Counter(), "impostor": Counter()}
    sides: Counter[str] = Counter()
    utterances: Counter[str] = Counter()
    n = 2000
    for seed in range(n):
        pairs, _ = order(IDS, "titan", "panda", str(seed))
        for place, pair in enumerate(pairs):
            if pair.kind in places:
                places[pair.kind][place] += 1
                utterances[pair.utterance] += 1
            if pair.kind in ("impostor", "repeat"):
                sides[f"{pair.kind} {pair.a}"] += 1
    for counted in places.values():
        assert set(counted) == set(range(13))
        assert max(counted.values()) < 2.2 * n / 13
    assert all(0.45 * n < count < 0.55 * n for count in sides.values())
    assert min(utterances.values()) > 0.8 * 2 * n / 10


def test_an_order_is_its_seed() -> None:
    assert order(IDS, "titan", "panda", "a") == order(IDS, "titan", "panda", "a")
    assert order(IDS, "titan", "panda", "a") != order(IDS, "titan", "panda", "b")


# --- blindness -------------------------------------------------------------------------------


def sides(run_dir: Path) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Every pair as the plan has it, its entry in the key, and the key's stimuli."""
    plan, key = document(run_dir, "plan.json"), document(run_dir, "key.json")
    return [(row, key["pairs"][row["id"]], key["stimuli"]) for row in plan["pairs"] + plan["calls"]]


def test_names_are_neutral_and_said_once(made: tuple[Path, Path]) -> None:
    plan = document(made[0], "plan.json")
    used = [row[side] for row in plan["pairs"] + plan["calls"] for side in ("a", "b")]
    used += [plan["reference"], plan["whole_reference"]]
    assert len(set(used)) == len(used) == 48
    assert sorted(used) == list(plan["stimuli"])
    assert {path.stem for path in (made[0] / "listening/pass-1/stimuli").iterdir()} == set(used)
    assert all(len(name) == 10 and int(name, 16) >= 0 for name in used)


def test_the_plan_without_its_hashes_says_nothing(made: tuple[Path, Path]) -> None:
    plan = document(made[0], "plan.json")
    del plan["audio"]  # every file of both hosts, in the order of their names
    text = json.dumps(plan)
    for word in ("titan", "panda", "native", "baseline", "impostor", "repeat", "same_host", *IDS):
        assert word not in text


def test_files_of_a_pair_are_of_one_size_and_made_at_one_time(made: tuple[Path, Path]) -> None:
    home = made[0] / "listening/pass-1/stimuli"
    for row, _, _ in sides(made[0]):
        a, b = (home / f"{row[side]}.wav" for side in ("a", "b"))
        assert a.stat().st_size == b.stat().st_size
        assert a.stat().st_mtime == b.stat().st_mtime == 0
        assert a.stat().st_mode == b.stat().st_mode


def test_headers_are_equal_and_carry_nothing_else(made: tuple[Path, Path]) -> None:
    for path in (made[0] / "listening/pass-1/stimuli").iterdir():
        data = path.read_bytes()
        chunks = [data[12:16], data[36:40]]
        assert chunks == [b"fmt ", b"data"]
        assert len(data) == 44 + int.from_bytes(data[40:44], "little")


def test_rate_silence_and_loudness_are_those_of_all(made: tuple[Path, Path]) -> None:
    plan, key = document(made[0], "plan.json"), document(made[0], "key.json")
    onsets: dict[str, list[float]] = {"pairs": [], "calls": []}
    for view in ("pairs", "calls"):
        for row in plan[view]:
            for side in ("a", "b"):
                path = made[0] / f"listening/pass-1/stimuli/{row[side]}.wav"
                samples, rate = pcm.read_wav(path)
                assert rate == (RATE if view == "pairs" else 16_000)
                heard = speech_check.loudness_lufs(samples, rate)
                assert heard == pytest.approx(plan["loudness_lufs"][view], abs=0.1)
                assert speech_check.dbfs(float(np.abs(samples).max())) < -0.9
                onset = np.flatnonzero(np.abs(samples) > 3e-3)[0] / rate
                # The altered voice is another voice; all that is the hosts' begins alike.
                if key["stimuli"][row[side]]["what"].startswith(("titan", "panda")):
                    onsets[view].append(onset)
    for found in onsets.values():
        assert max(found) - min(found) < 0.02


def test_a_repeat_has_another_length_than_its_first(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    differ = 0
    for seed in range(5):
        directory = pack.prepare(recordings(made[0]), made[1], 90 + seed, seed=str(seed))
        plan, key = (json.loads((directory / f"{n}.json").read_text()) for n in ("plan", "key"))
        again = next(p for p in key["pairs"].values() if p["kind"] == "repeat")
        lengths = [
            soundfile.info(directory / f"stimuli/{row['a']}.wav").frames
            for row in plan["pairs"]
            if key["pairs"][row["id"]]["utterance"] == again["utterance"]
        ]
        differ += len(set(lengths)) > 1
        shutil.rmtree(directory)
    assert differ >= 4


def test_the_recordings_did_differ(made: tuple[Path, Path]) -> None:
    """Titan's are quieter and begin earlier, or the tests above would show nothing."""
    key = document(made[0], "key.json")
    raw: dict[str, list[float]] = {"titan": [], "panda": []}
    for entry in key["stimuli"].values():
        host = entry["what"].partition("/")[0]
        if host in raw:
            raw[host].append(entry["loudness_before_lufs"])
    assert np.mean(raw["panda"]) - np.mean(raw["titan"]) > 5  # the run is made so


# --- the key ---------------------------------------------------------------------------------


def test_the_key_is_sealed_and_for_nobody_else(made: tuple[Path, Path]) -> None:
    path = made[0] / "listening/pass-1/key.json"
    assert path.stat().st_mode & 0o777 == 0o600
    sealed = document(made[0], "plan.json")["key_sha256"]
    assert sealed == hashlib.sha256(path.read_bytes()).hexdigest()


def test_behind_every_name_is_what_the_key_says(made: tuple[Path, Path]) -> None:
    """Put back to its old loudness, a stimulus has the very samples of its source."""
    for row, pair, behind in sides(made[0])[:13]:
        for side in ("a", "b"):
            entry = behind[row[side]]
            assert entry["what"] == f"{pair[side]}/{pair['utterance']}"
            if pair[side] == "impostor":
                continue
            directory = "titan_native" if pair[side] == "titan" else "panda_baseline"
            source, _ = pcm.read_wav(made[0] / directory / f"{pair['utterance']}.wav")
            sound, _ = pcm.read_wav(made[0] / f"listening/pass-1/stimuli/{row[side]}.wav")
            piece = source[RATE // 4 : RATE // 2] * np.float32(10 ** (entry["gain_db"] / 20))
            energy = np.convolve(sound**2, np.ones(len(piece)), mode="valid")
            at = int(np.argmin(energy - 2 * signal.correlate(sound, piece, mode="valid")))
            assert np.abs(sound[at : at + len(piece)] - piece).max() < 2e-3


def test_the_impostor_is_somebody_else(made: tuple[Path, Path], tmp_path: Path) -> None:
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for name in IDS:
        pcm.write_wav(strangers / f"{name}.wav", voiced(250, 0.7), RATE)
    run = recordings(made[0])
    directory = pack.prepare(run, made[1], 80, impostor_dir=strangers)
    try:
        key = json.loads((directory / "key.json").read_text())
        name = next(n for n, e in key["stimuli"].items() if e["what"].startswith("impostor"))
        sound, _ = pcm.read_wav(directory / f"stimuli/{name}.wav")
        spectrum = np.abs(np.fft.rfft(sound))
        loudest = np.argmax(spectrum) * RATE / len(sound)
        assert loudest == pytest.approx(250, abs=5)
    finally:
        shutil.rmtree(directory)
    for path in strangers.iterdir():
        path.unlink()
    with pytest.raises(ListeningError, match=r"strangers/u\d\d\.wav.*one WAV per utterance"):
        pack.prepare(run, made[1], 80, impostor_dir=strangers)


def test_a_seed_makes_the_same_pack(made: tuple[Path, Path]) -> None:
    directory = pack.prepare(recordings(made[0]), made[1], 70, seed="seed")
    again = json.loads((directory / "plan.json").read_text())
    shutil.rmtree(directory)
    first = document(made[0], "plan.json")
    assert again["stimuli"] == first["stimuli"]
    assert again["pairs"] == first["pairs"]


# --- bad input -------------------------------------------------------------------------------


def refused(run_dir: Path, reference: Path) -> str:
    """Why a run cannot be listened to; nothing may have been made."""
    before = sorted(str(path) for path in run_dir.rglob("*"))
    with pytest.raises(ListeningError) as raised:
        pack.prepare(recordings(run_dir), reference, 1)
    assert sorted(str(path) for path in run_dir.rglob("*")) == before
    return str(raised.value)


def rewrite(run_dir: Path, wav: str, content: bytes) -> None:
    """Another recording, as if the host had spoken it."""
    (run_dir / wav).write_bytes(content)
    for name in ("bench-titan.json", "baseline-panda.json"):
        found = json.loads((run_dir / name).read_text())
        for row in found["utterances"]:
            if row["wav"] == wav:
                row["wav_sha256"] = run_factory.sha256(content)
        run_factory.put(run_dir, name, found)


def float_wav(path: Path, samples: np.ndarray) -> bytes:
    soundfile.write(path, samples, RATE, format="WAV", subtype="FLOAT")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("sound", "seen"),
    [
        (np.zeros(0), "empty: not one sample"),
        (np.zeros(RATE), "silent: the loudest sample is"),
        (np.full(RATE, np.nan), "NaN or infinite: 24000 of 24000"),
    ],
    ids=["empty", "silent", "nan"],
)
def test_a_recording_that_is_none(
    fresh: tuple[Path, Path], tmp_path: Path, sound: np.ndarray, seen: str
) -> None:
    rewrite(fresh[0], "titan_native/u03.wav", float_wav(tmp_path / "x.wav", sound))
    text = refused(*fresh)
    assert "titan_native/u03.wav is " in text
    assert seen in text
    assert "expected u03 as titan spoke it" in text


def test_a_file_that_is_no_wav(fresh: tuple[Path, Path]) -> None:
    rewrite(fresh[0], "panda_baseline/u10.wav", b"")
    assert "panda_baseline/u10.wav" in refused(*fresh)


def test_all_that_is_missing_is_named(fresh: tuple[Path, Path]) -> None:
    (fresh[0] / "titan_native/u02.wav").unlink()
    (fresh[0] / "panda_baseline/u07.wav").unlink()
    text = refused(*fresh)
    assert "titan_native/u02.wav: No such file" in text
    assert "panda_baseline/u07.wav: No such file" in text


def test_an_utterance_that_failed(fresh: tuple[Path, Path]) -> None:
    found = json.loads((fresh[0] / "bench-titan.json").read_text())
    found["utterances"][4] |= {"wav": None, "error": "the cap was hit"}
    run_factory.put(fresh[0], "bench-titan.json", found)
    text = refused(*fresh)
    assert "titan has no recording of u05 (bench-titan.json: the cap was hit)" in text


def test_a_recording_that_was_changed(fresh: tuple[Path, Path]) -> None:
    shutil.copy(fresh[0] / "titan_native/u01.wav", fresh[0] / "titan_native/u02.wav")
    assert "titan_native/u02.wav is not what titan spoke" in refused(*fresh)


def test_sides_of_different_rates(fresh: tuple[Path, Path]) -> None:
    for name in IDS:
        rewrite(fresh[0], f"panda_baseline/{name}.wav", pcm.to_wav(voiced(120, 0.6), 22_050))
    text = refused(*fresh)
    assert "22050 Hz (panda/u01, panda/u02, …) and 24000 Hz (titan/u01, titan/u02, …)" in text
    assert "resamples" in text


def test_a_reference_of_another_rate_is_resampled(fresh: tuple[Path, Path]) -> None:
    path = fresh[0].parent / "other.wav"
    pcm.write_wav(path, voiced(120, 4.0), 48_000)
    pcm.write_wav(path, np.repeat(voiced(120, 4.0), 2), 48_000)
    run = json.loads((fresh[0] / "run.json").read_text())
    run["voice"]["sha256"] = run_factory.sha256(path.read_bytes())
    run_factory.put(fresh[0], "run.json", run)
    directory = pack.prepare(recordings(fresh[0]), path, 1)
    plan = json.loads((directory / "plan.json").read_text())
    info = soundfile.info(directory / f"stimuli/{plan['whole_reference']}.wav")
    assert info.samplerate == RATE
    assert info.duration == pytest.approx(4.7, abs=0.1)


def test_a_reference_that_is_not_the_runs(fresh: tuple[Path, Path]) -> None:
    pcm.write_wav(fresh[1], voiced(120, 4.0), RATE)
    text = refused(*fresh)
    assert f"{fresh[1]} is not the voice of this run" in text
    assert "--reference" in text


def test_a_reference_that_is_not_there(fresh: tuple[Path, Path]) -> None:
    fresh[1].unlink()
    assert f"{fresh[1]} does not exist" in refused(*fresh)


def test_a_run_of_another_schema(fresh: tuple[Path, Path]) -> None:
    run = json.loads((fresh[0] / "run.json").read_text())
    run_factory.put(fresh[0], "run.json", run | {"schema_version": 0})
    assert "has schema_version 0, expected 1" in refused(*fresh)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("run.json", "hosts", ["titan", "panda"]),
        ("run.json", "utterances", [1] * 10),
        ("run.json", "voice", "samantha"),
        ("bench-titan.json", "utterances", {"u01": {}}),
    ],
)
def test_a_file_of_another_form(fresh: tuple[Path, Path], name: str, key: str, value: Any) -> None:
    found = json.loads((fresh[0] / name).read_text())
    run_factory.put(fresh[0], name, found | {key: value})
    assert f"understudy validate {fresh[0]}" in refused(*fresh)


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    assert "run.json: No such file or directory" in refused(tmp_path, tmp_path / "voice.wav")


def test_two_standbys_are_for_a_sheet(fresh: tuple[Path, Path]) -> None:
    run = json.loads((fresh[0] / "run.json").read_text())
    changed = copy.deepcopy(run)
    changed["hosts"]["standby"] = ["titan", "atlas"]
    run_factory.put(fresh[0], "run.json", changed)
    assert "ab_scores=FILE" in refused(*fresh)


def test_what_a_killed_process_left_is_removed(fresh: tuple[Path, Path]) -> None:
    stale = fresh[0] / "listening/.pass-1-abc"
    (stale / "stimuli").mkdir(parents=True)
    pack.prepare(recordings(fresh[0]), fresh[1], 1)
    assert sorted(path.name for path in (fresh[0] / "listening").iterdir()) == ["pass-1"]


def test_a_disk_that_is_full_leaves_nothing(
    fresh: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(path: Path, *_: object) -> None:
        written.append(path)
        if len(written) == 20:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"x")

    monkeypatch.setattr(pcm, "write_wav", write)
    with pytest.raises(OSError, match="No space"):
        pack.prepare(recordings(fresh[0]), fresh[1], 1)
    assert list((fresh[0] / "listening").iterdir()) == []


@pytest.mark.parametrize("verdict", ["invalid_run", "deferred_blackwell_port_cost"])
def test_nobody_listens_to_a_run_that_scores_cannot_help(tmp_path: Path, verdict: str) -> None:
    run_dir, reference = make(tmp_path, 0.3)
    (run_dir / "verdict.json").write_text(json.dumps({"verdict": verdict}))
    assert f"is {verdict}, whatever a listener says" in refused(run_dir, reference)
