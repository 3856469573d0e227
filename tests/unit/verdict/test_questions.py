"""The six questions, and the runs that do not answer them."""

from __future__ import annotations

from typing import Any

import pytest
from decided import changed, decide, parallel


def test_the_six_answers() -> None:
    answers = [row["answer"] for row in decide(changed())["questions"]]
    for index, parts in enumerate(
        [
            [
                "aarch64, Python 3.12.3",
                "torch 2.11.0 instead of 2.6.0",
                "3 packages, none was built",
            ],
            ["does not occur on NVIDIA GB10"],
            [
                "allocated at its peak 3.72 GB",
                "not known (Not Supported)",
                "resident memory was 5.00",
            ],
            ["resemble-perth 1.0.1 is a hard dependency and installs and works on aarch64"],
            ["titan: mean 0.50, p50 0.50, p95 0.60 (n = 10)", "panda, over HTTP: mean 0.50"],
        ]
    ):
        for part in parts:
            assert part in answers[index]
    assert answers[5] is None


def test_an_x86_host_answers_nothing_about_aarch64() -> None:
    result = decide(changed(("preflight.json", "hosts.titan.arch", "x86_64")))
    for index in (0, 3):
        assert "not aarch64, so nothing is known" in result["questions"][index]["answer"]


@pytest.mark.parametrize(
    ("documents", "start"),
    [
        (parallel(1.1), "titan: Yes: 1.10 x"),
        (parallel(2.1), "titan: It recovers, but is slower meanwhile"),
        (parallel(2.1, 1.5), "titan: No, pause it"),
        (parallel(None), None),
        (changed(), None),
    ],
)
def test_whether_parallel_is_safe(documents: dict[str, Any], start: str | None) -> None:
    row = decide(documents)["questions"][5]
    assert row["answer"] is None if start is None else row["answer"].startswith(start)
    assert row["evidence"]
