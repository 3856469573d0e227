"""Where the time of a run went."""

from __future__ import annotations

import pytest
from decided import changed, decide

from understudy.verdict import timing


def test_where_the_time_went() -> None:
    assert decide(changed())["timing"] == {
        "total_s": 600.0,
        "busy_s": 190.0,
        "split": {
            "install": 200.0,
            "model_load": 20.0,
            "synthesis": 160.0,
            "llm_probe": 10.0,
            "comparison": 0.0,
            "other": 210.0,
        },
        "ratio": round(600 / 390, 3),
    }


def test_a_run_that_is_not_over_ends_with_its_last_phase() -> None:
    result = decide(changed(("run.json", "finished_at", None)))
    assert result["timing"]["total_s"] == 300.0
    assert decide({})["timing"]["total_s"] is None


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 1), (2, 4)], 3),
        ([(0, 10), (2, 4), (9, 12)], 12),
        ([(2, 4), (0, 3), (0, 1)], 4),
        ([(1, 1)], 0),
    ],
)
def test_union(intervals: list[tuple[float, float]], length: float) -> None:
    assert timing.union(intervals) == length
