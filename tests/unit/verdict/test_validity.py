"""Whether the scores still stand: other settings, other audio, another result of comparing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from decided import BENCH, NOW, changed, decide

from understudy.verdict import rules


def listened(**changes: Any) -> dict[str, Any]:
    documents = changed()
    documents["ratings.json"] = factory.listened([5] * 10, [5] * 10)
    for name, change in changes.items():
        documents[f"{name}.json".replace("_", "-")] = change
    return documents


def audio() -> dict[str, str]:
    return {name: factory.sha256(content) for name, content in factory.waves().items()}


def test_scores_that_stand() -> None:
    result = decide(listened(), audio=audio())
    assert result["human"] == {"state": "stands", "why": []}


def test_scores_that_do_not_say_what_they_were_given_for() -> None:
    human = decide(changed(rated=True))["human"]
    assert human["state"] == "stands"
    assert "do not say what they were given for" in human["why"][0]


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (
            "driver",
            "590.1",
            "titan: the driver was 580.95.05 when the scores were given, and is 590",
        ),
        ("lock_sha256", "a" * 64, f"the lock was {factory.sha256('lock')[:12]}… when the scores"),
        ("voice_sha256", "a" * 64, "and is aaaaaaaaaaaa…."),
        (
            "weights",
            {"ve.safetensors": "a" * 64, "new.safetensors": "b" * 64},
            "titan: the weights new.safetensors was none when the scores were given, and is bbbbbb",
        ),
        ("weights", {"t3.safetensors": "a" * 64}, "the weights ve.safetensors was"),
    ],
)
@pytest.mark.parametrize("result", [None, "diverged"])
def test_stale(path: str, value: Any, text: str, result: str | None) -> None:
    documents = listened()
    documents[BENCH]["environment"][path] = value
    if result:
        documents["identity.json"] = factory.identity(result, "The xvector is below the gate.")
    found = decide(documents, audio=audio())
    assert (found["verdict"], found["ok"]) == (rules.VALIDATED, True)
    assert found["human"]["state"] == "stale"
    assert text in " ".join(found["human"]["why"])
    assert ("The xvector is below the gate." in found["human"]["why"]) is (result is not None)


@pytest.mark.parametrize("path", ["driver", "lock_sha256", "voice_sha256"])
def test_what_is_not_known_is_not_stale(path: str) -> None:
    for side in ("now", "then"):
        documents = listened()
        place = (
            documents[BENCH]["environment"]
            if side == "now"
            else documents["ratings.json"]["given_for"]["titan"]
        )
        place[path] = None
        assert decide(documents, audio=audio())["human"]["state"] == "stands"


def test_other_audio_than_was_heard(run_dir: Path) -> None:
    factory.put(run_dir, "ratings.json", factory.listened([5] * 10, [5] * 10))
    assert rules.compute(run_dir, NOW)["human"] == {"state": "stands", "why": []}
    (run_dir / "titan_native/u03.wav").write_bytes(factory.wav(999))
    (run_dir / "panda_baseline/u04.wav").unlink()
    result = rules.compute(run_dir, NOW)
    assert result["human"]["state"] == "stale"
    gone, other = result["human"]["why"]
    assert gone == "panda_baseline/u04.wav: heard, and no longer in the directory."
    assert other.startswith("titan_native/u03.wav: not what was heard (sha256 of titan_native/u03")
    assert factory.sha256(factory.wav(999))[:12] in other
    assert result["verdict"] == rules.VALIDATED


def test_a_name_of_audio_leads_nowhere_else(run_dir: Path) -> None:
    (run_dir.parent / "secret.wav").write_bytes(b"secret")
    ratings = factory.listened([5] * 10, [5] * 10)
    ratings["audio"] = {"../secret.wav": factory.sha256(b"secret")}
    factory.put(run_dir, "ratings.json", ratings)
    (why,) = rules.compute(run_dir, NOW)["human"]["why"]
    assert "no longer in the directory" in why


@pytest.mark.parametrize(
    ("score", "result", "state"),
    [
        (5, "diverged", "contradicted"),
        (5, "passed", "stands"),
        (5, "uncalibrated", "stands"),
        (3, "passed", "contradicted"),
        (3, "diverged", "stands"),
        (3, "uncalibrated", "stands"),
    ],
)
def test_the_automatic_ear_contradicts(score: int, result: str, state: str) -> None:
    documents = listened(identity=factory.identity(result, "F0 differs by a semitone."))
    documents["ratings.json"]["scores"] = factory.listened([score] * 10, [5] * 10)["scores"]
    found = decide(documents, audio=audio())
    assert found["verdict"] == (rules.VALIDATED if score == 5 else rules.DIVERGES)
    assert found["ok"] is (score == 5)
    assert found["human"]["state"] == state
    assert ("F0 differs by a semitone." in found["human"]["why"]) is (state == "contradicted")


def test_an_unusable_identity_file_changes_nothing(run_dir: Path) -> None:
    factory.put(run_dir, "ratings.json", factory.listened([5] * 10, [5] * 10))
    (run_dir / "identity.json").write_text("{")
    result = rules.compute(run_dir, NOW)
    assert (result["verdict"], result["ok"]) == (rules.VALIDATED, True)
    assert result["human"]["state"] == "stands"
    assert "identity.json cannot be used" in result["human"]["why"][0]
