"""What the operator provides, and every way in which it can be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from loopback import speechlike

from understudy.audio import pcm
from understudy.bench import inputs

ROOT = Path(__file__).resolve().parents[3]
Rows = list[dict[str, Any]]


def rows() -> Rows:
    return [
        {"id": f"u{number:02}", "seed": 100 + number, "text": f"This is sentence {number}."}
        for number in range(1, 11)
    ]


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    pcm.write_wav(tmp_path / "samantha.wav", speechlike(6.0))
    return tmp_path / "samantha.wav"


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[Any], list[str]]:
    """What is wrong with utterances (or with a text in their place)."""

    def find(content: Any) -> list[str]:
        path = tmp_path / "utterances.yml"
        text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return inputs.read_utterances(path)[1]

    return find


def changed(index: int, **values: Any) -> Rows:
    result = rows()
    result[index] |= values
    return result


def test_the_projects_own_utterances_are_good() -> None:
    found, wrong = inputs.read_utterances(ROOT / "files/utterances.yml")
    assert wrong == []
    assert [row["id"] for row in found] == [f"u{number:02}" for number in range(1, 11)]
    assert list(found[0]) == ["id", "text", "text_sha256", "seed"]
    assert found[0]["text_sha256"] == hashlib.sha256(found[0]["text"].encode()).hexdigest()


def test_ten_good_ones(problems: Callable[[Any], list[str]]) -> None:
    assert problems(rows()) == []


def test_nine_and_eleven_entries(problems: Callable[[Any], list[str]]) -> None:
    assert problems(rows()[:9]) == ["9 entries, 10 are expected"]
    more = [*rows(), {"id": "u11", "seed": 999, "text": "One more."}]
    assert problems(more) == ["11 entries, 10 are expected"]


def test_the_same_text_twice(problems: Callable[[Any], list[str]]) -> None:
    same = changed(4, text="  this is\n SENTENCE   2. ")
    assert problems(same) == ["entry 5: the same text as entry 2"]


def test_the_same_seed_twice(problems: Callable[[Any], list[str]]) -> None:
    assert problems(changed(9, seed=101)) == ["entry 10: the same seed as entry 1"]


def test_3000_characters(problems: Callable[[Any], list[str]]) -> None:
    assert problems(changed(2, text="word " * 600)) == [
        "entry 3: 3000 characters, at most 500 are spoken at once"
    ]
    assert problems(changed(2, text="a" * 500)) == []


def test_wrong_ids(problems: Callable[[Any], list[str]]) -> None:
    assert problems(changed(0, id="u1")) == ["entry 1: its id is 'u1', 'u01' is expected"]
    exchanged = rows()
    exchanged[0]["id"], exchanged[1]["id"] = "u02", "u01"
    assert len(problems(exchanged)) == 2
    assert problems(changed(0, id=1)) == ["entry 1: its id is 1, 'u01' is expected"]


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, None])
def test_seeds_that_are_none(problems: Callable[[Any], list[str]], seed: Any) -> None:
    assert problems(changed(3, seed=seed)) == [
        f"entry 4: its seed is {seed!r}, a whole number from 0 is expected"
    ]


@pytest.mark.parametrize("text", ["", "   ", "1 2 3", "?!", 7, None, ["a"]])
def test_texts_that_are_none(problems: Callable[[Any], list[str]], text: Any) -> None:
    assert problems(changed(3, text=text)) == ["entry 4: its text is not a sentence"]


@pytest.mark.parametrize("row", ["a sentence", {"id": "u04", "text": "No seed."}, None, []])
def test_entries_of_another_shape(problems: Callable[[Any], list[str]], row: Any) -> None:
    wrong = rows()
    wrong[3] = row
    assert problems(wrong) == ["entry 4: exactly id, seed and text are expected"]


def test_a_misspelt_key_is_not_passed_over(problems: Callable[[Any], list[str]]) -> None:
    assert problems(changed(3, sead=1)) == ["entry 4: exactly id, seed and text are expected"]


@pytest.mark.parametrize(
    ("text", "kind"), [("", "NoneType"), ("utterances: []", "dict"), ("just a text", "str")]
)
def test_what_is_no_list(problems: Callable[[Any], list[str]], text: str, kind: str) -> None:
    assert problems(text) == [f"a list of 10 entries is expected, it is a {kind}"]


@pytest.mark.parametrize(
    "text", ["- {id: u01", "- id: u01\n\ttext: x", "a: b: c", "- !!python/object:os.system x"]
)
def test_broken_yaml(problems: Callable[[Any], list[str]], text: str) -> None:
    [problem] = problems(text)
    assert problem.startswith("cannot be read: ")
    assert "line 1" in problem or "line 2" in problem
    assert "\n" not in problem


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "utterances.yml"
    path.write_bytes(b"\xff\xfe\x00")
    assert inputs.read_utterances(path)[1][0].startswith("cannot be read: ")
    assert inputs.read_utterances(tmp_path)[1][0].startswith("cannot be read: ")


def test_all_problems_of_the_file_at_once(problems: Callable[[Any], list[str]]) -> None:
    wrong = rows()[:9]
    wrong[0]["id"], wrong[1]["seed"], wrong[2]["text"] = "x", -1, ""
    assert len(problems(wrong)) == 4


def check(utterances: Path | str, voice: Path | str) -> dict[str, Any]:
    return inputs.check({"utterances": str(utterances), "voice": str(voice)})


def test_good_input(voice: Path) -> None:
    found = check(ROOT / "files/utterances.yml", voice)
    assert found["problems"] == []
    assert len(found["utterances"]) == 10
    assert found["voice"] == {
        "name": "samantha.wav",
        "sha256": hashlib.sha256(voice.read_bytes()).hexdigest(),
        "sample_rate_hz": 24_000,
        "channels": 1,
        "duration_s": 6.0,
    }


def test_a_missing_file_of_utterances(tmp_path: Path, voice: Path) -> None:
    path = tmp_path / "none.yml"
    found = check(path, voice)
    [problem] = found["problems"]
    assert (problem["id"], problem["seen"]) == ("utterances", f"{path}: no such file")
    assert problem["next"].startswith("edit the file: ten entries")
    assert found["utterances"] == []


def test_refused_utterances_are_not_passed_on(tmp_path: Path, voice: Path) -> None:
    path = tmp_path / "utterances.yml"
    path.write_text(yaml.safe_dump(rows()[:9]))
    assert check(path, voice)["utterances"] == []


def stereo(path: Path) -> None:
    samples = speechlike(6.0)
    soundfile.write(path, np.column_stack([samples, samples]), 24_000)


def telephone(path: Path) -> None:
    soundfile.write(path, speechlike(6.0, 8_000), 8_000)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "stereo": (stereo, "has 2 channels; expected 1 (mono)"),
    "8 kHz": (telephone, "is sampled at 8000 Hz (telephone quality)"),
    "not a WAV": (lambda path: path.write_bytes(b"ID3\x04 an MP3"), "is not a WAV"),
    "an HTML page": (lambda path: path.write_text("<html>404</html>"), "an HTML page"),
    "too short": (lambda path: pcm.write_wav(path, speechlike(1.0)), "lasts 1.0 s"),
    "silent": (lambda path: pcm.write_wav(path, np.zeros(144_000)), "is silent"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_voice(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "voice.wav"
    make, seen = FAULTS[fault]
    make(path)
    found = check(ROOT / "files/utterances.yml", path)
    [problem] = found["problems"]
    assert problem["id"] == "voice"
    assert problem["seen"].startswith(str(path))
    assert problem["seen"].count(str(path)) == 1
    assert seen in problem["seen"]
    assert str(path) in problem["next"]
    assert "-e run_voice=PATH" in problem["next"]
    assert found["voice"]["name"] == "voice.wav"
    assert (found["voice"]["sha256"] is None) is (fault == "missing")
    assert (found["voice"]["channels"] is None) is (
        fault not in ("stereo", "8 kHz", "too short", "silent")
    )


def test_both_inputs_are_judged_at_once(tmp_path: Path) -> None:
    found = check(tmp_path / "none.yml", tmp_path / "none.wav")
    assert [problem["id"] for problem in found["problems"]] == ["utterances", "voice"]


def test_a_home_is_expanded(tmp_path: Path, voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check(ROOT / "files/utterances.yml", "~/samantha.wav")["problems"] == []
