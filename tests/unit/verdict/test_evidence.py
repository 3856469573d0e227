"""The statistics beside the rule: against hand, against brute force, and at their edges."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import run_factory as factory

from understudy.verdict import evidence, inference

ROWS: dict[str, Any] = {"pass": 1, "utterance": "u01"}
FIRST = [5, 4, 4, 5, 5, 4, 5, 5, 4, 5]
SECOND = [5, 5, 4, 5, 4, 5, 4, 5, 4, 5]


def weigh(ratings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    return evidence.weigh({"listener": None, **ratings}, ["titan"], "panda")


def sheet(standby: list[int], primary: list[int]) -> dict[str, Any]:
    return {**factory.listened(standby, primary), "listener": None}


class TestDifferences:
    def test_the_mean_over_the_passes_by_utterance(self) -> None:
        scores = sheet([5] * 10 + [4] * 10, [5] * 9 + [3] + [5] * 10)["scores"]
        found = inference.differences(scores, "titan", "panda")
        assert found == {**dict.fromkeys(factory.IDS[:9], -0.5), "u10": 0.5}


class TestTost:
    def test_an_example_by_hand(self) -> None:
        """Mean -0.1, sd sqrt(0.1), t(9) = 4 and -6; 0.1 = 0.9/9 from nine zeros and a -1.

        P(t(9) > 4) = 0.00156 and P(t(9) > 6) = 0.000101 from a table of the t distribution.
        """
        found = inference.tost([0.0] * 9 + [-1.0], least_spread=0.0)
        assert found["p_lower"] == pytest.approx(0.00156, abs=5e-6)
        assert found["p_upper"] == pytest.approx(0.000101, abs=5e-7)
        assert found["p"] == found["p_lower"]
        assert (found["within"], found["beyond"], found["note"]) == (True, False, None)

    def test_beyond(self) -> None:
        """Mean -1.5, sd 0.5270: t(9) = 1.0 / 0.16667 = 6."""
        found = inference.tost([-1.0, -2.0] * 5)
        assert found["p_beyond"] == pytest.approx(0.000101, abs=5e-7)
        assert (found["within"], found["beyond"]) == (False, True)
        mirrored = inference.tost([1.0, 2.0] * 5)
        assert mirrored["p_beyond"] == pytest.approx(found["p_beyond"])

    @pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 0.5, -0.5, -4.0])
    def test_no_variance_is_not_certainty(self, value: float) -> None:
        """z = (0.5 - |d|) / (sqrt(1/6) / sqrt(10)); at the limit itself p is one half."""
        found = inference.tost([value] * 10)
        z = (0.5 - abs(value)) / math.sqrt(1 / 60)
        expected = 0.5 * math.erfc(z / math.sqrt(2))
        assert found["p"] == pytest.approx(expected)
        assert found["p_beyond"] == pytest.approx(1 - expected if value else 0.999946, abs=1e-6)
        assert found["within"] is (value == 0)
        assert found["beyond"] is (value == -4)
        assert "normal distribution" in found["note"]

    def test_it_errs_as_seldom_as_it_says(self) -> None:
        """Of listeners to a voice that is 0.5 worse, at most 5 % give scores that show it equal."""
        noise = np.random.default_rng(11)
        samples = np.rint(noise.normal(-0.5, 1.1, (500, 10)))
        assert sum(inference.tost(list(sample))["within"] for sample in samples) <= 25

    def test_less_agreement_is_never_better_evidence(self) -> None:
        p = [inference.tost([-1.0] * k + [0.0] * (10 - k))["p"] for k in range(6)]
        assert p == sorted(p)


class TestBootstrap:
    def test_it_covers(self) -> None:
        """About 174 of 200 intervals of ten differences hold the mean that they came from."""
        noise = np.random.default_rng(11)
        hits = 0
        for _ in range(200):
            sample = np.rint(noise.normal(0, 1.1, 10))
            found = inference.bootstrap([float(value) for value in sample])
            hits += found["low"] <= 0 <= found["high"]
        assert 162 <= hits <= 190

    def test_it_is_the_same_every_time(self) -> None:
        values = [0.0, -1.0, 0.5, 1.0, 0.0, -0.5, 0.0, 1.0, -1.0, 0.0]
        assert inference.bootstrap(values) == inference.bootstrap(values)

    @pytest.mark.parametrize("values", [[0.0] * 10, [-4.0] * 10, [1 / 3] * 10, [0.5]])
    def test_no_variance_has_no_interval(self, values: list[float]) -> None:
        found = inference.bootstrap(values)
        assert (found["low"], found["high"]) == (None, None)
        assert f"{values[0]:.2f}" in found["note"]


class TestOperatingCharacteristic:
    @pytest.mark.parametrize("passes", [1, 2, 3])
    @pytest.mark.parametrize("scatter", [0.5, 0.8, 1.1, 1.5])
    @pytest.mark.parametrize("true", [0.0, -0.5, 1.0])
    def test_the_distribution_has_the_wanted_moments(
        self, true: float, scatter: float, passes: int
    ) -> None:
        shares = inference.distribution(true, scatter, passes)
        places = np.arange(-4 * passes, 4 * passes + 1) / passes
        mean = float(shares @ places)
        assert shares.sum() == pytest.approx(1)
        assert mean == pytest.approx(true, abs=0.02)
        assert math.sqrt(shares @ (places - mean) ** 2) == pytest.approx(scatter, abs=1e-3)

    def test_rounding_alone_scatters_between_two_scores(self) -> None:
        shares = inference.distribution(-0.5, 0.1)
        assert shares[3:5] == pytest.approx([0.5, 0.5])

    @pytest.mark.parametrize(("utterances", "passes"), [(1, 1), (2, 1), (3, 1), (2, 2)])
    @pytest.mark.parametrize("true", [0.0, -0.5])
    def test_brute_force(self, utterances: int, passes: int, true: float) -> None:
        shares = inference.distribution(true, 1.1, passes)
        places = range(-4 * passes, 4 * passes + 1)
        expected = sum(
            math.prod(share for _, share in outcome)
            for outcome in itertools.product(
                list(zip(places, shares, strict=True)), repeat=utterances
            )
            if 2 * abs(sum(place for place, _ in outcome)) < utterances * passes
        )
        assert inference.passing(true, 1.1, utterances, passes) == pytest.approx(expected)

    @pytest.mark.parametrize("worse", [0.0, 0.5, 1.0])
    def test_a_listener_who_is_simulated_score_by_score(self, worse: float) -> None:
        """Two opinions, each rounded to 1..5, instead of one rounded difference."""
        noise = np.random.default_rng(3)
        primary = np.clip(np.rint(noise.normal(3.5, 0.75, (40_000, 10))), 1, 5)
        standby = np.clip(np.rint(noise.normal(3.5 - worse, 0.75, (40_000, 10))), 1, 5)
        gaps = standby - primary
        found = inference.passing(-worse, float(gaps.std()), 10)
        assert found == pytest.approx(np.mean(2 * np.abs(gaps.sum(axis=1)) < 10), abs=0.01)

    @pytest.mark.parametrize("true", [0.0, 0.25, 0.5, 1.0, 2.0])
    def test_symmetry(self, true: float) -> None:
        better, worse = inference.passing(true, 1.1, 10), inference.passing(-true, 1.1, 10)
        assert better == pytest.approx(worse)

    @pytest.mark.parametrize("scatter", [0.6, 1.1, 2.0])
    def test_more_pairs_err_less(self, scatter: float) -> None:
        """Of even numbers, since with an odd one the limit falls between two sums."""
        numbers = range(2, 42, 2)
        same = [inference.passing(0.0, scatter, n) for n in numbers]
        worse = [inference.passing(-1.5, scatter, n) for n in numbers]
        assert same == sorted(same)
        assert worse[2:] == sorted(worse[2:], reverse=True)

    def test_a_worse_voice_passes_less_often(self) -> None:
        found = [inference.passing(-step / 10, 1.1, 10) for step in range(31)]
        assert found == sorted(found, reverse=True)

    def test_the_limit_itself_is_no_pass(self) -> None:
        """Two passes in which every mean difference is exactly -0.5, and those in which it is 0."""
        assert inference.passing(-0.5, 0.0, 10, passes=2) == pytest.approx(0, abs=1e-9)
        assert inference.passing(0.0, 0.0, 10, passes=2) == pytest.approx(1)

    def test_the_prior_stands_in_for_scores_that_do_not_vary(self) -> None:
        found = inference.operating([0.0] * 10, 1)
        assert found["assumed"] is True
        assert found["spread"] == inference.PRIOR_SPREAD
        assert found["sentence"].startswith(
            "10 pairs, one pass: an identical voice passes this rule 4 times in 5, a voice 0.5 "
            "worse still passes 4 to 5 times in 10, one a whole point worse 1 time in 18 "
        )
        twice = inference.operating([0.0] * 10, 2)
        assert twice["spread"] == pytest.approx(inference.PRIOR_SPREAD / math.sqrt(2))
        assert twice["passes"][0]["probability"] > found["passes"][0]["probability"]
        assert twice["sentence"].startswith("20 pairs, 2 passes: ")

    def test_otherwise_the_listener_s_own_spread(self) -> None:
        values = [-1.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 2.0, -2.0]
        found = inference.operating(values, 1)
        assert found["assumed"] is False
        assert found["spread"] == pytest.approx(np.std(values, ddof=1))
        same = inference.passing(0.0, found["spread"], 10)
        assert found["passes"][0] == {"worse_by": 0.0, "probability": same}
        assert inference.odds(same) in found["sentence"]

    @pytest.mark.parametrize(
        ("probability", "words"),
        [
            (1.0, "practically always"),
            (0.9949, "99 times in 100"),
            (0.94, "94 times in 100"),
            (0.9, "9 times in 10"),
            (0.806, "4 times in 5"),
            (0.65, "6 to 7 times in 10"),
            (0.5, "1 time in 2"),
            (0.44, "4 to 5 times in 10"),
            (0.1, "1 time in 10"),
            (0.057, "1 time in 18"),
            (0.00685, "1 time in 150"),
            (0.002, "practically never"),
        ],
    )
    def test_odds(self, probability: float, words: str) -> None:
        assert inference.odds(probability) == words


class TestLevel:
    def test_strong(self) -> None:
        found, warnings = weigh(factory.listened(FIRST * 2, SECOND * 2))
        assert found["level"] == "strong"
        assert "shown to lie within 0.5" in found["reasons"][0]
        assert warnings == []

    def test_a_listener_who_hears_no_difference_but_knows_the_impostor(self) -> None:
        """Nothing varies, so the prior spread decides: one pass is too few, two are enough."""
        assert weigh(factory.listened([5] * 10, [5] * 10))[0]["level"] == "moderate"
        assert weigh(factory.listened([5] * 20, [5] * 20))[0]["level"] == "strong"

    def test_a_sheet_is_never_strong(self) -> None:
        found, _ = weigh(sheet(FIRST * 2, SECOND * 2))
        assert found["level"] == "moderate"
        assert "The listener was not checked" in found["reasons"][-1]
        assert found["listener"] is None

    def test_a_sheet_of_fives(self) -> None:
        found, _ = weigh(sheet([5] * 20, [5] * 20))
        assert found["level"] == "weak"
        assert found["reasons"][0].startswith("Every score is 5, and no impostor was played")

    def test_a_wide_scatter(self) -> None:
        """Mean 0, sd sqrt(10/9), so t(9) = 0.5 / (1/3) = 1.5, and P(t(9) > 1.5) = 0.084."""
        found, _ = weigh(factory.listened([5, 3, 4, 5, 2, 5, 4, 3, 5, 4], [4] * 10))
        assert found["level"] == "weak"
        assert "not shown to lie within 0.5 (TOST, p = 0.084" in found["reasons"][0]

    @pytest.mark.parametrize(("score", "level"), [(4, "strong"), (5, "weak")])
    def test_an_impostor_must_be_told_from_the_reference(self, score: int, level: str) -> None:
        impostor = [{**ROWS, "score": score}]
        found, warnings = weigh(factory.listened([5] * 20, [5] * 20, impostor=impostor))
        assert found["level"] == level
        assert found["listener"]["impostor"] == {
            "n": 1,
            "mean": score,
            "below": 5 - score,
            "told": score == 4,
        }
        assert any("impostor" in warning for warning in warnings) is (level == "weak")

    @pytest.mark.parametrize(("second", "level"), [(4, "strong"), (3, "moderate"), (2, "weak")])
    @pytest.mark.parametrize("kind", ["repeats", "same_host"])
    def test_a_steady_listener(self, kind: str, second: int, level: str) -> None:
        fields = ("first", "second") if kind == "repeats" else ("a", "b")
        rows = [{**ROWS, "host": "panda", fields[0]: 4, fields[1]: second}]
        found, _ = weigh(factory.listened([5] * 20, [5] * 20, **{kind: rows}))
        assert found["level"] == level
        assert found["listener"][kind]["mean_apart"] == 4 - second

    @pytest.mark.parametrize("kind", ["repeats", "same_host", "impostor"])
    def test_what_was_not_asked(self, kind: str) -> None:
        found, _ = weigh(factory.listened(FIRST * 2, SECOND * 2, **{kind: []}))
        assert found["level"] == "moderate"
        assert found["listener"][kind] is None

    def test_scores_older_than_the_audio(self) -> None:
        ratings = factory.listened(FIRST * 2, SECOND * 2)
        assert weigh({**ratings, "given_before_audio": True})[0]["level"] == "weak"

    def test_two_voices(self) -> None:
        found, _ = weigh(factory.listened([2, 3] * 10, [5] * 20))
        assert found["level"] == "strong"
        assert "shown to lie beyond 0.5 (titan p = less than 0.001)" in found["reasons"][0]
        found, _ = weigh(factory.listened([4, 5] * 10, [5] * 20))
        assert found["level"] == "weak"
        assert "No difference is shown to lie beyond 0.5 (titan p = 0.500" in found["reasons"][0]

    def test_the_one_answer_against_the_scores(self) -> None:
        ratings = {**factory.listened(FIRST * 2, SECOND * 2), "identity_matches": False}
        found, _ = weigh(ratings)
        assert found["level"] == "weak"
        assert "No difference is shown" in found["reasons"][0]

    @pytest.mark.parametrize(("noticed", "warned"), [(5, False), (6, True)])
    def test_the_telephone(self, noticed: int, warned: bool) -> None:
        rows = [{**ROWS, "noticed": index < noticed} for index in range(10)]
        found, warnings = weigh(factory.listened(FIRST * 2, SECOND * 2, telephone=rows))
        assert found["listener"]["telephone"] == {"n": 10, "noticed": noticed}
        assert any("telephone" in warning for warning in warnings) is warned

    def test_every_standby_must_be_borne_out(self) -> None:
        ratings = factory.listened(FIRST * 2, SECOND * 2)
        for row, score in zip(ratings["scores"], [5, 2] * 10, strict=True):
            row["spare"] = max(1, min(5, row["panda"] + (1 if score == 5 else -1)))
        found, _ = evidence.weigh(ratings, ["titan", "spare"], "panda")
        assert found["level"] == "weak"
        assert found["reasons"][0].startswith("spare: the difference is not shown")
        assert [reason[:15] for reason in found["reasons"][1:]] == [
            "titan: 20 pairs",
            "spare: 20 pairs",
        ]


def test_any_scores_can_be_weighed() -> None:
    noise = random.Random(5)
    for _ in range(60):
        passes, lowest = noise.choice([1, 1, 2, 3]), noise.choice([1, 3, 4, 5])
        scores = [[noise.randint(lowest, 5) for _ in range(10 * passes)] for _ in range(2)]
        found, _ = weigh(sheet(*scores))
        one = found["hosts"]["titan"]
        json.dumps(found, allow_nan=False)
        assert one["interval"]["low"] is None or one["interval"]["low"] <= one["mean"] + 1e-6
        assert 0 <= one["tost"]["p"] <= 1
        assert one["operating"]["passes"][0]["probability"] > 0
