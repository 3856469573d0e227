"""The scores: which can be used, and what they come to."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from decided import NOW, changed, decide, said, status

from understudy.verdict import rules, scoring


@pytest.mark.parametrize(
    ("difference", "close"),
    [
        (Fraction(4999, 10000), True),
        (Fraction(-4999, 10000), True),
        (Fraction(1, 2), False),
        (Fraction(-1, 2), False),
        (Fraction(0), True),
    ],
)
def test_the_boundary(difference: Fraction, close: bool) -> None:
    assert scoring.matches(difference) is close


@pytest.mark.parametrize(
    ("second", "difference", "validated"),
    [([4] * 10, -0.5, False), ([4] * 9 + [5], -0.45, True), ([5] * 10, 0.0, True)],
)
def test_the_mean_is_over_every_pass(second: list[int], difference: float, validated: bool) -> None:
    ratings = factory.listened([5] * 10 + second, [5] * 20)
    result = decide({**changed(), "ratings.json": ratings})
    assert result["verdict"] == (rules.VALIDATED if validated else rules.DIVERGES)
    assert result["ratings"]["differences"] == {"titan": difference}
    assert (result["ratings"]["n"], result["ratings"]["passes"]) == (20, 2)
    assert "over 20 pairs in 2 passes" in said(result)


@pytest.mark.parametrize(
    ("standby", "primary", "warned"),
    [
        ([2] * 10, [2] * 10, True),
        ([3] * 9 + [2], [3] * 9 + [2], True),
        ([3] * 10, [3] * 9 + [2], False),
        ([2] * 10, [5] * 10, False),
    ],
)
def test_two_bad_voices(standby: list[int], primary: list[int], warned: bool) -> None:
    result = decide({**changed(), "ratings.json": factory.ratings(standby, primary)})
    assert result["verdict"] == (rules.DIVERGES if primary[0] == 5 else rules.VALIDATED)
    assert [("both score below 3" in warning) for warning in result["warnings"]] == [True] * warned


# Scores that cannot be used


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scores.4.titan", 6),
        ("scores.4.titan", 4.0),
        ("scores.4", factory.REMOVED),
        ("scores.4.panda", factory.REMOVED),
        ("scores", None),
        ("run_id", "20260101-000000Z"),
    ],
)
def test_unusable_ratings_are_never_averaged(path: str, value: Any) -> None:
    result = decide(changed(("ratings.json", path, value), rated=True))
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert "ratings.json" in said(result)
    assert result["ratings"] is None
    assert status(result)[4] == "-"


def test_broken_ratings_on_disk(run_dir: Path) -> None:
    (run_dir / "ratings.json").write_text("{")
    result = rules.compute(run_dir, NOW)
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert "ratings.json cannot be used: it is not complete JSON" in said(result)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("scores.12.titan", 4.5, "ratings.json: row 13 (pass 2, u03): titan: saw 4.5"),
        ("scores.12.pass", 7, "ratings.json: pass 7: there is no pass 3"),
        ("identity_matches", "no", 'ratings.json: identity_matches: saw "no"'),
        ("listener.impostor.0.score", 6, "ratings.json: listener: impostor, row 1: score: saw 6"),
    ],
)
def test_edited_ratings_give_no_verdict(path: str, value: Any, text: str) -> None:
    documents = changed()
    documents["ratings.json"] = factory.listened([5] * 20, [5] * 20)
    factory.change(documents["ratings.json"], path, value)
    result = decide(documents)
    assert (result["verdict"], result["ok"]) == (rules.AWAITING, False)
    assert text in said(result)
    for key in ("ratings", "evidence", "human"):
        assert result[key] is None


def test_a_truncated_ratings_file(run_dir: Path) -> None:
    whole = json.dumps(factory.listened([5] * 20, [5] * 20))
    for part in range(1, 10):
        (run_dir / "ratings.json").write_text(whole[: len(whole) * part // 10])
        result = rules.compute(run_dir, NOW)
        assert (result["verdict"], result["ratings"]) == (rules.AWAITING, None)
        assert "ratings.json cannot be used: it is not complete JSON" in said(result)
        assert f"ansible-playbook score.yml -e run={factory.RUN_ID}" in said(result)
