"""The times that people read."""

from __future__ import annotations

import pytest
from ansible.module_utils.understudy import clock


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (45, "45 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (12 * 60 + 20, "12 min"),
        (119 * 60, "119 min"),
        (2 * 3600, "2 h 0 min"),
        (3 * 3600 + 300, "3 h 5 min"),
        (26 * 3600, "26 h 0 min"),
    ],
)
def test_a_duration_for_a_person(seconds: float, said: str) -> None:
    assert clock.lasting(seconds) == said
