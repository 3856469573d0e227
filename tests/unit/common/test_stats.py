import pytest

from understudy.common import stats


def test_a_summary_has_the_contracts_keys_in_order():
    expected = ["n", "min", "mean", "p50", "p95", "max", "cv"]
    assert list(stats.summary([1.0, 2.0])) == expected


def test_percentiles_are_interpolated_linearly():
    found = stats.summary([4.0, 1.0, 3.0, 2.0])
    assert found["p50"] == 2.5
    assert found["p95"] == pytest.approx(3.85)
    assert (found["min"], found["mean"], found["max"]) == (1.0, 2.5, 4.0)


def test_the_spread_is_that_of_a_sample():
    # variance of 1, 3 with n - 1 is 2
    assert stats.summary([1.0, 3.0])["cv"] == pytest.approx(2**0.5 / 2)
    assert stats.summary([2.0, 2.0])["cv"] == 0.0


def test_one_value_has_no_spread_and_no_p95():
    found = stats.summary([0.5])
    assert found == {
        "n": 1,
        "min": 0.5,
        "mean": 0.5,
        "p50": 0.5,
        "p95": None,
        "max": 0.5,
        "cv": None,
    }


def test_no_values_are_no_zeros():
    found = stats.summary([])
    assert found.pop("n") == 0
    assert set(found.values()) == {None}


def test_a_mean_of_zero_has_no_variation():
    assert stats.coefficient_of_variation([-1.0, 1.0]) is None
