"""Fixtures of the lab's tests, and the table at their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_lab import TIMES, inside, lab, llm_answers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TIMES:
        terminalreporter.section("Gemma answered again after")
        for what, seconds in TIMES.items():
            terminalreporter.write_line(f"{seconds:5.0f} s  {what}")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture
def mended() -> Iterator[None]:
    """Leaves both hosts reachable and everything running, whatever the test did."""
    yield
    for host in ("titan", "panda"):
        lab("mend", host)
    inside("titan", "docker start vllm-gemma4")
    assert llm_answers()
